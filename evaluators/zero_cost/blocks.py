"""The blocks of a network: what stands one after the other between input and output, and its features.

B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.observation import Derivative, Observation, Pass, Step, Watched
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas.grammar import Stages
from nas.training import seeded

OVER_FEATURES = (nn.Linear, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention)
CHAINS = (nn.Sequential, nn.ModuleList, Stages)


class Feature(NamedTuple):
    """What a block gives, (B, ...) in the graph, and which of its axes are the channels."""

    tensor: Tensor
    axis: int


def blocks(subject: Subject) -> list[nn.Module]:
    """What the network's outermost chain consists of on a path to the output, but the last, in order.

    Its children are opened where they are chains or lists of modules that have parts themselves; a
    chain of one is that one. Single layers without parameters are no blocks.
    """
    live = set(subject.live(nn.Module))
    found = [m for m in _opened(subject.network, outermost=True) if m in live][:-1]
    if len(found) < 2:
        raise Inapplicable("it is no chain of blocks with features between them")
    return found


def _opened(module: nn.Module, *, outermost: bool = False) -> list[nn.Module]:
    children = list(module.children())
    if not children:
        return [module] if list(module.parameters()) else []
    chain = isinstance(module, CHAINS)
    if len(children) == 1 and (outermost or chain):
        return _opened(children[0], outermost=outermost)
    whole = chain and all(list(child.children()) for child in children)
    if not (outermost or whole):
        return [module]
    return [part for child in children for part in _opened(child)]


@final
@dataclass(frozen=True)
class Graph(Pass):
    """A forward pass on random inputs (batch_size, *input) in training mode, with its graph."""

    batch_size: int = 16

    def run(self, subject: Subject, watched: Watched) -> None:
        step = Step(subject.noise(self.batch_size, "noise 0"))
        random = seeded(subject.seeds("pass"), str(step.inputs.device))
        with random, subject.prepared(), watched.step(step), torch.enable_grad():
            step.outputs = subject.network(step.inputs)


@final
@dataclass(frozen=True)
class BlockFeatures(Observation[list[Feature]]):
    """What each block gives, still in the graph.

    The channels are axis 1, but the last of three where linear maps, layer norms, recurrent layers or
    attention work on three axes anywhere in the network.
    """

    seen_in: Pass = Graph()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], list[Feature]]]:
        given: list[Tensor] = []
        sequences: list[nn.Module] = []

        def hear(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.requires_grad and len(output) == len(step.inputs):
                given.append(output)

        def over_features(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            if inputs and inputs[0].dim() == 3:
                sequences.append(module)

        def seen() -> list[Feature]:
            if len(given) < 2:
                raise Inapplicable("fewer than two of its blocks give features that depend on weights")
            return [Feature(t, 2 if sequences and t.dim() == 3 else 1) for t in given]

        maps = [m for m in subject.network.modules() if isinstance(m, OVER_FEATURES)]
        handles = [m.register_forward_hook(hear) for m in blocks(subject)]
        handles += [m.register_forward_hook(over_features) for m in maps]
        with hooked(handles):
            yield seen
