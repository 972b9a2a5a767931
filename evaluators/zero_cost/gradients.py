"""Derivatives as observations: of the loss in the weights, of the outputs in the inputs.

B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evaluators.zero_cost.observation import Derivative, Observation, Pass, Step
from evaluators.zero_cost.passes import Batch
from evaluators.zero_cost.subject import Inapplicable, Subject

Gradient = tuple[Tensor | None, ...]  # one for each of the subject's weights


@final
@dataclass(frozen=True)
class LossGradient(Observation[Gradient]):
    """g = dL/dw for each of the subject's weights, None where the loss does not depend on it."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.LOSS})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Gradient]]:
        yield lambda: step.gradients


@final
@dataclass(frozen=True)
class WeightCurvature(Observation[tuple[float, ...]]):
    """W . (H g) for each of the subject's weights, H the Hessian of the loss and g its gradient."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.CURVATURE})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], tuple[float, ...]]]:
        def seen() -> tuple[float, ...]:
            if isinstance(step.curvature, Inapplicable):
                raise step.curvature
            return step.curvature

        yield seen


@final
@dataclass(frozen=True)
class InputGradient(Observation[Tensor]):
    """J = d(sum of all outputs)/dx: a row for every example, (B, numbers of an input)."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.INPUTS})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Tensor]]:
        if not step.inputs.is_floating_point():
            raise Inapplicable("inputs are tokens, which have no gradient")
        yield lambda: _rows(step)


def _rows(step: Step) -> Tensor:
    assert step.input_gradient is not None
    return step.input_gradient.flatten(1)


def correlations(rows: Tensor) -> Tensor:
    """Correlation coefficients of rows (n, d) with each other: (n, n), in double precision."""
    if rows.shape[1] < 2:
        raise Inapplicable("an input is a single number: its gradients have no correlation")
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()):
        raise Inapplicable("the gradients in the inputs are not finite")
    if not bool((norms > 0).all()):
        raise Inapplicable("an example's gradient in the input is constant")
    scaled = centred / norms
    found: Tensor = scaled @ scaled.T
    return found
