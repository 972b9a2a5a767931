"""Sums over weights of first-order products, shared by proxies that differ in how they are summed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from evaluators.zero_cost.gradients import Gradient
from evaluators.zero_cost.subject import Inapplicable, Subject


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


def terms(
    subject: Subject,
    gradients: Gradient,
    chosen: Iterable[nn.Parameter],
    of: Callable[[Tensor, Tensor], Tensor],
) -> list[float]:
    """`of(w, g)` for each chosen weight w of the subject, each once; 0 where it has no gradient g.

    Inapplicable where none is chosen, or none has a gradient.
    """
    wanted = set(chosen)
    pairs = [(w.detach(), g) for w, g in zip(subject.weights, gradients, strict=True) if w in wanted]
    if not any(g is not None for _, g in pairs):
        raise Inapplicable("no output depends on the weights that are looked at")
    return [0.0 if g is None else float(of(w, g)) for w, g in pairs]


def weight_saliency(weight: Tensor, gradient: Tensor) -> Tensor:
    """Sum of |w g|, in double precision."""
    return (weight * gradient).abs().double().sum()


def total(found: Sequence[float], *, normalized: bool) -> float:
    """The sum of terms, or their mean."""
    return sum(found) / (len(found) if normalized else 1)
