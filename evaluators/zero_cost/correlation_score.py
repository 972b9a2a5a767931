"""How far the correlations of a batch's rows are from those of rows that all say the same."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5


def correlation_score(correlations: Tensor, num_columns: int) -> float:
    """-sum_i (log(v_i + k) + 1 / (v_i + k)), v the eigenvalues of correlations (n, n), k = 1e-5.

    Rows of d columns have at most d - 1 eigenvalues above 0: no others are summed. Highest, for n
    uncorrelated rows: -n (log(1 + k) + 1 / (1 + k)); rows that are equal cost 1e5 each.
    """
    largest = torch.linalg.eigvalsh(correlations).clamp(min=0)[1 - num_columns :]
    v = largest + EPSILON
    return -float((v.log() + 1 / v).sum())
