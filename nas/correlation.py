"""Rank correlations of columns with one, with bootstrap intervals, quickly for thousands of rows.

Spearman's are exact: ranks are counted anew in every resample. Kendall's tau of a resample is taken to
first order: tau is a ratio of U-statistics, which a resample moves by twice the mean of what each row
adds to them; what each row adds is exact, and costs O(rows^2) once a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.statistics import LEVEL, Estimate

RESAMPLES = 1000
FEWEST = 3  # rows for a correlation
BLOCK = 4_000_000  # pairs of rows at a time
Values = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Correlation:
    """Rank correlations of a metric with the truth, over the `n` rows that have both.

    `partial` is Spearman's given the control (parameters): of what is left when ranks are regressed on
    the control's. `missing` rows have the truth and lack the metric.
    """

    metric: str
    n: int
    missing: int
    spearman: Estimate
    kendall: Estimate
    partial: Estimate


def correlations(
    columns: Mapping[str, Values],
    truth: Values,
    control: Values,
    *,
    resamples: int = RESAMPLES,
) -> list[Correlation]:
    """Of every column (rows,) with the truth (rows,), given the control (rows,); NaN is missing.

    Intervals are percentiles of the same resamples of rows for all columns that lack the same rows.
    """
    told = np.isfinite(truth) & np.isfinite(control)
    found = {}
    for names, rows in _groups(columns, told):
        group = np.stack([columns[name][rows] for name in names], axis=1)
        estimates = _estimated(group, truth[rows], control[rows], resamples)
        for name, (spearman, kendall, partial) in zip(names, estimates, strict=True):
            missing = int(told.sum() - rows.sum())
            found[name] = Correlation(name, int(rows.sum()), missing, spearman, kendall, partial)
    return [found[name] for name in columns]


def _groups(
    columns: Mapping[str, Values], told: NDArray[np.bool_]
) -> Iterator[tuple[list[str], NDArray[np.bool_]]]:
    """The columns that have values in the same rows, and these."""
    groups: dict[bytes, list[str]] = {}
    for name, column in columns.items():
        groups.setdefault((told & np.isfinite(column)).tobytes(), []).append(name)
    for mask, names in groups.items():
        yield names, np.frombuffer(mask, bool)


def _estimated(
    columns: Values, truth: Values, control: Values, resamples: int
) -> list[tuple[Estimate, Estimate, Estimate]]:
    """Spearman's, Kendall's and the partial correlation of each column (n, columns)."""
    n = len(truth)
    if n < FEWEST:
        nothing = Estimate(np.nan, np.nan, np.nan, n)
        return [(nothing,) * 3] * columns.shape[1]
    counts = _counts(n, resamples)
    frames = [_Frame.of(truth, control, part) for part in (np.ones((n, 1), np.float32), counts)]
    added = _added(columns, truth)
    found = []
    for column, concordance in zip(columns.T, added.T, strict=True):
        (spearman, partial), (spearmans, partials) = (frame.correlations(column) for frame in frames)
        tau, taus = _taus(column, truth, concordance, counts)
        pairs = ((spearman[0], spearmans), (tau, taus), (partial[0], partials))
        found.append(tuple(_estimate(value, drawn, n) for value, drawn in pairs))
    return found  # type: ignore[return-value]  # three of each


def _counts(n: int, resamples: int) -> Singles:
    """How often each row is in each resample: (n, resamples)."""
    drawn = np.random.default_rng(0).integers(0, n, (n, resamples))
    drawn = drawn * resamples + np.arange(resamples)
    counted = np.bincount(drawn.ravel(), minlength=n * resamples).astype(np.float32)
    return counted.reshape(n, resamples)


def _ranks(x: Values, counts: Singles) -> Singles:
    """The mean ranks of the rows in each resample, from their mean, over its size: (n, resamples)."""
    _, group = np.unique(x, return_inverse=True)
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sorted_counts = counts[order]
    if len(starts) < len(x):
        sorted_counts = np.add.reduceat(sorted_counts, starts, axis=0).astype(np.float32)
    middles = np.cumsum(sorted_counts, axis=0) / len(x) - sorted_counts / (2 * len(x))
    ranks: Singles = (middles - 0.5).astype(np.float32)[group]
    return ranks


@dataclass(frozen=True, eq=False)
class _Frame:
    """Resamples, the ranks of truth and control in them by their counts, and what these come to."""

    counts: Singles
    truth: Singles
    control: Singles
    truth_squared: Values
    control_squared: Values
    truth_by_control: Values

    @classmethod
    def of(cls, truth: Values, control: Values, counts: Singles) -> _Frame:
        y, z = _ranks(truth, counts), _ranks(control, counts)
        weighted_y, weighted_z = counts * y, counts * z
        yy, zz = _summed(weighted_y, y), _summed(weighted_z, z)
        return cls(counts, weighted_y, weighted_z, yy, zz, _ratio(_summed(weighted_y, z), yy * zz))

    def correlations(self, column: Values) -> tuple[Values, Values]:
        """Spearman's, and the partial one, of a column in each resample."""
        x = _ranks(column, self.counts)
        xx = _summed(self.counts * x, x)
        with_truth = _ratio(_summed(self.truth, x), xx * self.truth_squared)
        with_control = _ratio(_summed(self.control, x), xx * self.control_squared)
        rest = (1 - with_control**2) * (1 - self.truth_by_control**2)
        rest[rest < 1e-6] = np.nan  # the column ranks as the control does
        partial = (with_truth - with_control * self.truth_by_control) / np.sqrt(rest)
        return with_truth, partial


def _summed(x: Singles, y: Singles) -> Values:
    """The sum of x y over the rows, in each resample: (resamples,)."""
    total: Values = np.einsum("nb,nb->b", x, y).astype(np.float64)
    return total


def _ratio(value: Values, squared: Values) -> Values:
    """The quotient value / sqrt(squared); NaN where that is none."""
    quotient: Values = np.full(len(value), np.nan)
    return np.divide(value, np.sqrt(squared), out=quotient, where=squared > 1e-12)


def _added(columns: Values, truth: Values) -> Values:
    """For each row the concordant pairs with it less the discordant ones, over n - 1: (n, columns)."""
    n = len(truth)
    found = np.zeros(columns.shape)
    y = np.unique(truth, return_inverse=True)[1].astype(np.float32)  # exact, as values are not
    ranked = [np.unique(column, return_inverse=True)[1].astype(np.float32) for column in columns.T]
    for block in _blocks(n):
        signs = np.sign(y[block, None] - y)
        for i, x in enumerate(ranked):
            found[block, i] = np.einsum("bn,bn->b", np.sign(x[block, None] - x), signs)
    return found / (n - 1)


def _blocks(n: int) -> Sequence[slice]:
    size = max(1, BLOCK // n)
    return [slice(start, start + size) for start in range(0, n, size)]


def _untied(x: Values) -> Values:
    """For each row the share of the other rows whose value is another: (n,)."""
    _, group, sizes = np.unique(x, return_inverse=True, return_counts=True)
    untied: Values = (len(x) - sizes[group]) / (len(x) - 1)
    return untied


def _taus(column: Values, truth: Values, concordance: Values, counts: Singles) -> tuple[float, Values]:
    """Kendall's tau-b, and to first order that of each resample."""
    added = np.stack([concordance, _untied(column), _untied(truth)], axis=1)
    means = added.mean(axis=0)
    drawn = means + 2 * (counts.T @ added.astype(np.float32) / len(truth) - means)
    tau = _ratio(means[None, 0], means[None, 1] * means[None, 2])[0]
    taus = _ratio(drawn[:, 0], drawn[:, 1] * drawn[:, 2])
    return float(tau), np.clip(taus, -1, 1)


def _estimate(value: float, drawn: Values, n: int) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(known) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), n)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), n)
