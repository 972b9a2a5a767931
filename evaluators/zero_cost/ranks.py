"""Several scores of a pool as one, by ranks within it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from nas.errors import ConfigurationError


def rank_combination(columns: Mapping[str, Sequence[float | None]]) -> list[float]:
    """Sum over columns of log(rank / m) for each of a pool's m members: 0 is best in all of them.

    Rank 1 is the worst; more is better in every column (negate those to be minimized); equals share the
    mean of their ranks; None, NaN and what is not finite is worse than all else. A member's score is a
    property of the pool.

    Reference: Lee and Ham, AZ-NAS, CVPR 2024, Equation 8.
    """
    sizes = {name: len(column) for name, column in columns.items()}
    if not sizes or len(set(sizes.values())) > 1:
        raise ConfigurationError(f"columns have the lengths {sizes}; give one or more of one length.")
    total = np.zeros(next(iter(sizes.values())))
    for column in columns.values():
        values = [-math.inf if v is None or not math.isfinite(v) else v for v in column]
        total += np.log(rankdata(values) / len(values))
    return [float(value) for value in total]
