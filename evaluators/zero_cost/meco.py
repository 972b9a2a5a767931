"""MeCo: how independent the channels of feature maps are, from one random input.

C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.batch_norm import BATCH_NORMS
from evaluators.zero_cost.codes import RECTIFIERS
from evaluators.zero_cost.convolution import CONVOLUTIONS
from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step
from evaluators.zero_cost.passes import Noise
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas import registry
from nas.task import Metric

MAPS = (*CONVOLUTIONS, *BATCH_NORMS, *RECTIFIERS)


@registry.proxy("meco")
@final
@dataclass(frozen=True)
class Meco(Proxy):
    """Sum over maps of the smallest eigenvalue of the correlations of its channels.

    A map is the output (C, places) of a convolution, batch norm or ReLU on a path to the output, for
    one random input of the task's shape, or an image of a `side` (0: the task's); P are the
    correlations of its C rows, 0 where a row is constant. More is better; each map gives at most 1.
    Published code hooks every module, so that a map counts once for every container that ends with it;
    here those three kinds of modules count, once. Misleads where a map has no more places than
    channels, as on small images: its eigenvalue is 0 by its size. And as a sum it favours deep
    networks. It needs maps: one of those kinds with places.

    Reference: Jiang et al., MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum
    Eigenvalue of Correlation, NeurIPS 2023 (there 3x64x64 inputs).
    """

    side: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("meco", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (ChannelIndependence(Noise(1, side=self.side)),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (total,) = observed[ChannelIndependence(Noise(1, side=self.side))]
        return (total,)


@final
@dataclass(frozen=True)
class ChannelIndependence(Observation[float]):
    """Sum over maps of the smallest eigenvalue of the correlations of its channels (first example)."""

    seen_in: Pass = Noise(1)

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], float]]:
        maps: list[Tensor] = []

        def hear(module: nn.Module, inputs: object, output: Tensor) -> None:
            if output.dim() > 2 and output.shape[1] < output[0, 0].numel():
                maps.append(_correlations(output[0].flatten(1)))

        def seen() -> float:
            if not maps:
                raise Inapplicable("no convolution, batch norm or ReLU gives more places than channels")
            return _smallest(maps)

        with hooked([m.register_forward_hook(hear) for m in subject.live(*MAPS)]):
            yield seen


def _correlations(rows: Tensor) -> Tensor:
    """Of rows (C, places): (C, C), 0 where a row is constant."""
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    scaled = torch.where(norms > 0, centred / norms, 0.0)
    return scaled @ scaled.T


def _smallest(maps: list[Tensor]) -> float:
    """The sum of the matrices' smallest eigenvalues, those of one size at once."""
    total = 0.0
    for size in sorted({len(m) for m in maps}):
        stacked = torch.stack([m for m in maps if len(m) == size])
        total += float(torch.linalg.eigvalsh(stacked)[:, 0].clamp(min=0).sum())
    return total
