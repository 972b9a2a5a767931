"""Hidden saliency: hidden states times the outputs' derivatives in them.

B batch, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step
from evaluators.zero_cost.passes import Batch
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.sequences import recurrent_layers
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas import registry
from nas.sequence_parts import Recurrence, View
from nas.task import Metric


@registry.proxy("hidden_saliency")
@final
@dataclass(frozen=True)
class HiddenSaliency(Proxy):
    """Sum over recurrent layers, steps and features of |h dR/dh|, R half the sum of squared outputs.

    h is a layer's first state after a step; its derivative is the whole one, through later steps too.
    The last state counts where outputs depend on it. More is better by convention; on NAS-Bench-NLP it
    was found to correlate negatively. In units of the outputs squared; grows with the batch, the length
    and the width. Misleads on cells whose states grow without bound. Needs layers that are a
    `Recurrence`: the steps of torch's own are not seen one by one.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code); after Tanaka et al., NeurIPS 2020.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("hidden_saliency", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (StateSaliency(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (total,) = observed[StateSaliency()]
        return (total,)


@final
@dataclass(frozen=True)
class StateSaliency(Observation[float]):
    """The sum of |h dR/dh| over all first states h of all recurrent layers."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.SQUARES})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], float]]:
        views = [_steps(layer) for layer in recurrent_layers(subject)]
        sums: list[Tensor] = []

        def hearing(view: View) -> Callable[[nn.Module, object, Any], None]:  # Any: of any module
            def hear(module: nn.Module, inputs: object, output: Any) -> None:
                state = view.read(output)
                if not state.requires_grad:
                    return
                value = state.detach()

                def backward(gradient: Tensor) -> None:
                    if step.backward is Derivative.SQUARES:
                        sums.append((value * gradient.detach()).abs().sum())

                state.register_hook(backward)  # type: ignore[no-untyped-call]

            return hear

        def seen() -> float:
            if not sums:
                raise Inapplicable("no output depends on a hidden state")
            return float(torch.stack(sums).double().sum())

        with hooked([view.module.register_forward_hook(hearing(view)) for view in views]):
            yield seen


def _steps(layer: nn.Module) -> View:
    if not isinstance(layer, Recurrence):
        raise Inapplicable("the steps of torch's recurrent layers are not seen one by one")
    return layer.steps()
