"""Means with bootstrap intervals, paired differences, and relative improvement over random sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 9999
LEVEL = 0.95
FEWEST_FOR_INTERVAL = 2


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% percentile bootstrap interval, from n numbers (nan: too few for one)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n < FEWEST_FOR_INTERVAL:
            return f"{self.value:.4g} (n = {self.n}: no interval)"
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]"


def mean(values: Sequence[float]) -> Estimate:
    """The mean."""
    return _estimate((values,), np.mean)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean of first minus second, pair by pair (the same seed)."""
    return mean([a - b for a, b in zip(first, second, strict=True)])


def relative_improvement(
    method: Sequence[float], random: Sequence[float], *, sign: int = 1
) -> Estimate:
    """RI = 100 (mean(method) - mean(random)) / |mean(random)| in percent, for sign 1 (more is better).

    `random` are unselected random architectures of the same space under the same protocol; with
    sign -1 (less is better) the change is negated. Both samples are resampled.

    Reference: Yang, Esperança, Carlucci, NAS Evaluation Is Frustratingly Hard, ICLR 2020.
    """

    def improvement(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        base = y.mean(axis)
        found: np.ndarray = sign * 100 * (x.mean(axis) - base) / abs(base)
        return found

    return _estimate((method, random), improvement)


def _estimate(samples: tuple[Sequence[float], ...], statistic: Callable[..., np.ndarray]) -> Estimate:
    """The statistic, which takes the axis to reduce as `axis`, of the samples, with its interval."""
    arrays = tuple(np.asarray(s, dtype=float) for s in samples)
    n = min(len(a) for a in arrays)
    value = float(statistic(*arrays)) if n else float("nan")
    if n < FEWEST_FOR_INTERVAL:
        return Estimate(value, float("nan"), float("nan"), n)
    result = bootstrap(
        arrays,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Estimate(value, float(low), float(high), n)


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 1 else f"{value:.4g}"
