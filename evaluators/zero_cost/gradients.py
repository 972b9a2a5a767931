"""Derivatives as observations: of the loss and the outputs in the weights, and in the inputs.

B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.observation import Derivative, Observation, Pass, Step
from evaluators.zero_cost.passes import Batch
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked

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
class OutputGradient(Observation[Gradient]):
    """d(sum of all outputs)/dw for each of the subject's weights."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.OUTPUTS})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Gradient]]:
        yield lambda: step.output_gradients


@final
@dataclass(frozen=True)
class SquareGradient(Observation[Gradient]):
    """d(sum of all outputs' squares / 2)/dw for each of the subject's weights."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.SQUARES})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Gradient]]:
        yield lambda: step.square_gradients


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
    """J = d(sum of all outputs)/dx: a row for every example, (B, numbers of an input).

    Tokens are whole numbers and have no gradient: there x is what every `nn.Embedding` that takes them
    puts out, (B, L F).
    """

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.INPUTS})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Tensor]]:
        tokens = not step.inputs.is_floating_point()

        def hear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if torch.equal(inputs[0], step.inputs):
                step.embedded.append(output)

        def seen() -> Tensor:
            if step.input_gradient is None:
                raise Inapplicable("inputs are tokens, and no trained nn.Embedding takes them")
            return step.input_gradient

        embeddings = subject.live(nn.Embedding) if tokens else ()
        with hooked([m.register_forward_hook(hear) for m in embeddings]):
            yield seen


def correlations(rows: Tensor, of: str = "gradient in the input") -> Tensor:
    """Correlation coefficients of rows (n, d), what `of` says of each example: (n, n), in double."""
    if rows.shape[1] < 2:
        raise Inapplicable(f"an example's {of} is a single number, which correlates with nothing")
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()):
        raise Inapplicable(f"an example's {of} is not finite")
    if not bool((norms > 0).all()):
        raise Inapplicable(f"an example's {of} is constant")
    scaled = centred / norms
    found: Tensor = scaled @ scaled.T
    return found
