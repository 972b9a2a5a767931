"""Sums over weights of first-order products, shared by proxies that differ in how they are summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def summed(
    first: Sequence[Tensor],
    second: Sequence[Tensor | None],
    of: Callable[[Tensor], Tensor] = torch.Tensor.sum,
) -> float:
    """Sum over pairs of `of(a * b)`, a scalar each; pairs without a second tensor count 0."""
    terms = [of(a.detach() * b) for a, b in zip(first, second, strict=True) if b is not None]
    return float(torch.stack(terms).double().sum()) if terms else 0.0


def absolute(product: Tensor) -> Tensor:
    """Sum of the absolute values."""
    return product.abs().sum()
