"""Fisher: how much the loss changes when channels are taken away, to second order.

B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.convolution import CONVOLUTIONS
from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step
from evaluators.zero_cost.passes import Batch
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas import registry
from nas.task import Metric


@registry.proxy("fisher")
@final
@dataclass(frozen=True)
class Fisher(Proxy):
    """Sum over output channels c of (fan-in of c) (1/2) mean_n (sum_places a_nc dL/da_nc)^2.

    a are the outputs of convolutions (summed over the map) and of linear maps (summed over positions);
    a channel counts for each of its weights, hence the fan-in. More is better. In units of the loss
    squared. Misleads on small initial losses: it was found to correlate negatively on noise and
    between shallow networks. Weights of other layers do not count; without convolutions and linear maps
    it does not apply.

    Reference: Turner et al., BlockSwap, ICLR 2020, after Theis et al., Faster Gaze Prediction with
    Dense Networks and Fisher Pruning, 2018; summed over the network by Abdelfattah et al., ICLR 2021.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("fisher", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (ChannelSaliency(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (channels,) = observed[ChannelSaliency()]
        return (float(channels),)


@final
@dataclass(frozen=True)
class ChannelSaliency(Observation[Tensor]):
    """The sum over channels of convolutions and linear maps on a path to the output: a scalar."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset({Derivative.LOSS})

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Tensor]]:
        layers = subject.live(*CONVOLUTIONS, nn.Linear)
        if not layers:
            raise Inapplicable("no convolution or linear map is on a path to the output")
        sums: list[Tensor] = []
        overwritten: list[nn.Module] = []

        def hear(module: nn.Module, inputs: object, output: Tensor) -> None:
            if not output.requires_grad:
                return
            a, version = output.detach(), output._version

            def backward(gradient: Tensor) -> None:
                if step.backward is not Derivative.LOSS:
                    return
                if a._version != version:
                    overwritten.append(module)
                else:
                    sums.append(_saliency(module, a, gradient.detach()))

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        def seen() -> Tensor:
            if overwritten:
                raise Inapplicable("an operation in place overwrites a layer's outputs")
            return torch.stack(sums).sum() if sums else torch.zeros(())

        with hooked([m.register_forward_hook(hear) for m in layers]):
            yield seen


def _saliency(module: nn.Module, a: Tensor, gradient: Tensor) -> Tensor:
    """Sum over channels of fan-in / 2 mean_n (sum of a g over places)^2; of a linear map c is last."""
    assert isinstance(module.weight, Tensor)
    fan_in = module.weight.numel() // module.weight.shape[0]
    channel = 1 if isinstance(module, CONVOLUTIONS) else a.dim() - 1
    places = [axis for axis in range(1, a.dim()) if axis != channel]
    products = a * gradient
    if places:
        products = products.sum(places)
    return fan_in / 2 * products.double().square().mean(0).sum()
