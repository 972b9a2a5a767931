"""Zen-NAS: how expressive a network is, by how noise changes its features.

B batch, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.batch_norm import BATCH_NORMS
from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step
from evaluators.zero_cost.passes import Noise
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas import registry
from nas.task import Metric

POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
PERTURBATION = 0.01


@registry.proxy("zen")
@final
@dataclass(frozen=True)
class Zen(Proxy):
    """log mean_n sum |f(x) - f(x + 0.01 z)| + sum over batch norms of log sqrt(mean variance).

    Weights, x and z are drawn from N(0, 1), biases are 0; f are the features before the last adaptive
    pool on a path to the output; the variances are those that batch norm divides by (unbiased, of x).
    The mean over `repeats`. More is better; a logarithm, it grows with depth. Published code reads
    running variances, which after few passes are mixed with their initial 1 by momentum; here they are
    exact. Misleads where skip connections go round batch norm, between deep networks (NAS-Bench-201
    with five cells a stage; with one it ranks well), and on anything but convolutional networks:
    without batch norm or such a pool it does not apply.

    Reference: Lin et al., Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition, ICCV 2021,
    Algorithm 1 (there 32 repeats).
    """

    repeats: int = 4
    batch_size: int = 16

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("zen", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (self._features(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        seen = observed[self._features()]
        pairs = zip(seen[::2], seen[1::2], strict=True)
        scores = [_score(plain, perturbed) for plain, perturbed in pairs]
        return (sum(scores) / len(scores),)

    def _features(self) -> Features:
        return Features(Noise(self.batch_size, self.repeats, "normal", PERTURBATION))


class Normed(NamedTuple):
    """Features (B, C, *places), and over batch norms the sum of the log of the standard deviation."""

    features: Tensor
    log_deviation: float


def _score(plain: Normed, perturbed: Normed) -> float:
    change = (plain.features - perturbed.features).double().abs().flatten(1).sum(1).mean()
    if change == 0:
        raise Inapplicable("the features do not change with the input")
    return math.log(change) + plain.log_deviation


@final
@dataclass(frozen=True)
class Features(Observation[Normed]):
    """What goes into the last adaptive pool, and batch norms' deviations, exact to the batch."""

    seen_in: Pass = Noise(16, 1, "normal", PERTURBATION)

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Normed]]:
        norms, pools = subject.live(*BATCH_NORMS), subject.live(*POOLS)
        if not norms:
            raise Inapplicable("no batch norm is on a path to the output")
        if not pools:
            raise Inapplicable("no adaptive pool tells where its features end")
        features: list[Tensor] = []
        variances: list[Tensor] = []

        def pooled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            features.append(inputs[0])

        def normed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            variances.append(_variance(module, inputs[0]))

        def seen() -> Normed:
            deviations = torch.stack(variances).double().sqrt().log()
            return Normed(features[-1], float(deviations.sum()))

        handles = [m.register_forward_hook(normed) for m in norms]
        handles += [m.register_forward_hook(pooled) for m in pools]
        with hooked(handles), _whole_momentum(norms):
            yield seen


def _variance(norm: nn.Module, x: Tensor) -> Tensor:
    """The mean over channels of the batch's variance: a scalar."""
    if isinstance(norm.running_var, Tensor):
        return norm.running_var.mean()
    return x.var([axis for axis in range(x.dim()) if axis != 1]).mean()


@contextmanager
def _whole_momentum(norms: tuple[nn.Module, ...]) -> Iterator[None]:
    """Running statistics are those of the last batch, within the block."""
    batch_norms = [m for m in norms if isinstance(m, BATCH_NORMS)]
    before = [m.momentum for m in batch_norms]
    try:
        for module in batch_norms:
            module.momentum = 1.0
        yield
    finally:
        for module, momentum in zip(batch_norms, before, strict=True):
            module.momentum = momentum
