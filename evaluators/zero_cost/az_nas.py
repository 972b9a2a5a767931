"""AZ-NAS: expressivity, progressivity, trainability and complexity of a network's blocks.

B batch, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional

from evaluators.zero_cost.blocks import BlockFeatures, Feature, Graph
from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.complexity import measure
from nas.task import Metric

EPSILON = 1e-6


@registry.proxy("az_nas")
@final
@dataclass(frozen=True)
class AzNas(Proxy):
    """Four terms of a network's blocks on random inputs; `nas.ranking.log_rank_sum` makes one of them.

    With e_l the entropy of the normalized eigenvalues of the covariance of block l's features (a row
    for every example and place): expressivity sum_l e_l; progressivity min_l (e_l - e_{l-1});
    trainability mean_l (2 - s_l - 1 / (s_l + 1e-6)), s_l the largest singular value of g_in^T g_out /
    rows for g_out of random signs and g_in its gradient in the block's input; complexity, the
    multiply-adds of one example. More of each is better. Blocks are what the network's outermost chain
    consists of, but its head. Trainability of a block that changes nothing is taken as in the paper's
    code, -inf: missing. Misleads where blocks differ in kind; complexity is size. Its first term is the
    objective by default: terms are to be combined by their ranks in a pool.

    Reference: Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR
    2024, Section 3 (there with another initialisation).
    """

    batch_size: int = 16

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("az_expressivity", "nats", "maximize"),
            Metric("az_progressivity", "nats", "maximize"),
            Metric("az_trainability", "", "maximize"),
            Metric("az_complexity", "", "maximize"),
        )

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Terms(Graph(self.batch_size)),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (terms,) = observed[Terms(Graph(self.batch_size))]
        entropies, x = terms.entropies, subject.inputs
        return (
            sum(entropies),
            min(after - before for before, after in pairwise(entropies)),
            sum(terms.trainabilities) / len(terms.trainabilities),
            float(measure(subject.network, x.shape[1:], x.device, dtype=x.dtype).macs),
        )


class BlockTerms(NamedTuple):
    """The entropy of every block's features, and of every block but the first its trainability."""

    entropies: list[float]
    trainabilities: list[float]


@final
@dataclass(frozen=True)
class Terms(Observation[BlockTerms]):
    """What the features of blocks, and their gradients from each to the one before it, come to."""

    seen_in: Pass = Graph()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], BlockTerms]]:
        with BlockFeatures(self.seen_in).watch(subject, step) as features:
            yield lambda: _terms(features(), torch.Generator().manual_seed(subject.seeds("signs")))


def _terms(features: list[Feature], generator: torch.Generator) -> BlockTerms:
    found = [_trainability(x, y, generator) for x, y in pairwise(features)]
    trainabilities = [t for t in found if t is not None]
    if not trainabilities:
        raise Inapplicable("no block follows another with features of the same kind")
    return BlockTerms([_entropy(f) for f in features], trainabilities)


def _entropy(feature: Feature) -> float:
    """-sum p log(p + 1e-8), p the eigenvalues of the covariance of channels, made to sum to 1."""
    rows = _rows(feature.tensor.detach().movedim(feature.axis, 1)).double()
    centred = rows - rows.mean(0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(rows)).clamp(min=0)
    shares = eigenvalues / eigenvalues.sum()
    return -float((shares * (shares + 1e-8).log()).sum())


def _trainability(x: Feature, y: Feature, generator: torch.Generator) -> float | None:
    """2 - s - 1 / (s + 1e-6) of the block from x to y; None where y is not of x, or of other places."""
    signs = torch.randint(2, y.tensor.shape, generator=generator).to(y.tensor) * 2 - 1
    gradients = torch.autograd.grad(y.tensor, [x.tensor], signs, retain_graph=True, allow_unused=True)
    back: Tensor | None = gradients[0]
    if back is None or back.dim() != signs.dim():
        return None
    if back.shape == signs.shape and torch.equal(back, signs):
        return -math.inf
    signs = signs.movedim(y.axis, 1)
    into, out = _rows(_stacked(back.movedim(x.axis, 1), signs.shape[2:])), _rows(signs)
    if len(into) != len(out):
        return None
    s = float(torch.linalg.matrix_norm(into.T @ out / len(out), 2))
    return 2 - s - 1 / (s + EPSILON)


def _rows(features: Tensor) -> Tensor:
    """(B, C, *places) -> (B * places, C)."""
    return features.movedim(1, -1).flatten(0, -2)


def _stacked(features: Tensor, places: tuple[int, ...]) -> Tensor:
    """Fewer places, those of a window side by side as channels: -> (B, C * window, *places).

    Sizes that are no multiple are filled up with zeros.
    """
    for axis, size in enumerate(places, start=2):
        step = -(-features.shape[axis] // size)
        if step > 1:
            filled = [0, 0] * (features.dim() - 1 - axis) + [0, step * size - features.shape[axis]]
            split = torch.unflatten(functional.pad(features, filled), axis, (size, step))
            features = split.movedim(axis + 1, 2).flatten(1, 2)
    return features
