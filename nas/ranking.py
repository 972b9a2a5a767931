"""Ordering architectures by several metrics: normalisation, sums of ranks, and precision at the top."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from nas.errors import ConfigurationError

Values = NDArray[np.float64]
Transform = Literal["rank", "minmax", "log"]


def normalised(values: Values, transform: Transform) -> Values:
    """Columns (rows, metrics) brought to [0, 1]; a missing value is 0, a constant column 0 throughout.

    `minmax`: (x - min) / (max - min). `rank`: the same of the ranks, equal values sharing their mean
    rank. `log`: the same of sign(x) log(1 + |x| / s), s the smallest |x| above 0 of the column.
    """
    return np.stack([_normalised(column, transform) for column in values.T], axis=1)


def _normalised(column: Values, transform: Transform) -> Values:
    found = np.zeros(len(column))
    known = np.isfinite(column)
    x = column[known]
    if len(x) == 0:
        return found
    if transform == "rank":
        x = rankdata(x)
    elif transform == "log" and x.any():
        x = np.sign(x) * np.log1p(np.abs(x) / np.abs(x[x != 0]).min())
    low, high = x.min(), x.max()
    if high > low:
        found[known] = (x - low) / (high - low)
    return found


def log_rank_sum(values: Values) -> Values:
    """Scores (rows,) of columns (rows, metrics) in which more is better: sum over metrics of
    log(rank / m), with rank 1 for the worst of m and equal values sharing their mean rank. A missing
    value shares the ranks of the worst.

    Reference: Lee and Ham, AZ-NAS, CVPR 2024 (the combination alone).
    """
    worst = np.where(np.isfinite(values), values, -np.inf)
    ranks = np.stack([rankdata(column) for column in worst.T], axis=1)
    scores: Values = np.log(ranks / len(values)).sum(axis=1)
    return scores


def descending(scores: Values) -> NDArray[np.intp]:
    """The rows from the highest score to the lowest; of equals the earlier row first."""
    return np.argsort(-scores, kind="stable")


def precision_at(scores: Values, objective: Values, count: int) -> float:
    """rho_T: the share of the `count` best by the scores that are among the `count` best by the
    objective, (rows,) both, more being better.

    Reference: He et al., RoBoT, ICLR 2024.
    """
    if not 1 <= count <= len(scores):
        raise ConfigurationError(f"precision at {count} of {len(scores)} architectures is not defined.")
    chosen, best = descending(scores)[:count], descending(objective)[:count]
    return len(np.intersect1d(chosen, best)) / count
