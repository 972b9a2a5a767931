"""The grammar of networks that repeat two cells, each taking the outputs of the two cells before it.

Network -> network(normal, reduction): both are chosen once and stand wherever the skeleton has a cell
of their kind. Cell -> cell(2, 3, ...): every node, named by the number of its tensor, picks two of the
tensors before it (0 and 1 are the cell's inputs) with an operation on each.

Reference: Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, CVPR 2018;
Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 2.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, final

from torch import nn

from nas.complexity import Complexity
from nas.errors import ConfigurationError
from nas.grammar import Misfit, Pick, Rule, Symbol
from nas.space import SearchSpace, Signature
from search_spaces.genotype import notation, renumbered
from search_spaces.operations.cell import (
    AuxiliaryHead,
    Cell,
    CellNetwork,
    auxiliary_cost,
    mean_head,
    mean_head_cost,
)
from search_spaces.operations.layers import (
    Convolution,
    FactorizedReduce,
    Layers,
    Norm,
    ReLU,
    Shape,
    build,
    cost,
    strided,
)
from search_spaces.operations.separable import Edge, Form, Kind, Names, operation_rules, written

Child = Callable[..., Any]  # Any: a spec out, or a product and its spec out

STEM_MULTIPLE = 3  # of the first cells' channels
TAKES = {1: "a sequence; give (channels, length)", 2: "an image; give (channels, height, width)"}


class CellSpec(NamedTuple):
    """What flows into a cell: the shapes of its two inputs, its nodes' channels, and its stride."""

    inputs: tuple[Shape, Shape]
    channels: int
    stride: int

    @property
    def inside(self) -> Shape:
        """The shape that both inputs are brought to."""
        return self.channels, *self.inputs[1][1:]

    def preprocess(self, norm: Norm) -> tuple[Layers, Layers]:
        """What brings the inputs there: ReLU, 1x1 convolution and batch norm.

        An input from before a reduction is reduced instead.
        """
        plain = (ReLU(), Convolution(self.channels), norm)
        before, last = self.inputs
        return (plain if before[1:] == last[1:] else (FactorizedReduce(self.channels, norm),)), plain


@final
@dataclass(frozen=True)
class Skeleton:
    """What cells stand in: the first cells' channels, how many cells, and nodes in each."""

    channels: int
    cells: int
    nodes: int
    form: Form

    def __post_init__(self) -> None:
        if self.channels < 2 or self.cells < 3 or self.nodes < 1:
            raise ConfigurationError(
                f"the cells' network was given channels={self.channels}, cells={self.cells} and "
                f"nodes={self.nodes}; it takes channels from 2, cells from 3 (two of them reductions) "
                "and nodes from 1."
            )

    @property
    def reductions(self) -> tuple[int, int]:
        """The numbers of the reduction cells, counted from 0."""
        return self.cells // 3, 2 * self.cells // 3

    def stem(self) -> Layers:
        """A 3x3 convolution and batch norm."""
        return Convolution(STEM_MULTIPLE * self.channels, 3), self.form.norm

    def plan(self, signature: Signature) -> list[CellSpec]:
        """What flows into every cell."""
        shape: Shape = (STEM_MULTIPLE * self.channels, *signature.input[1:])
        inputs, channels, planned = (shape, shape), self.channels, []
        for number in range(self.cells):
            stride = 2 if number in self.reductions else 1
            channels *= stride
            planned.append(CellSpec(inputs, channels, stride))
            inputs = inputs[1], self.out(planned[-1])
        return planned

    def out(self, spec: CellSpec) -> Shape:
        """The shape out of a cell."""
        return self.nodes * spec.channels, *strided(spec.inputs[1], spec.stride)[1:]

    def ends(self, signature: Signature) -> tuple[Shape, Shape]:
        """The shapes that flow into the auxiliary head and into the head."""
        planned = self.plan(signature)
        return self.out(planned[self.reductions[1]]), self.out(planned[-1])


@final
@dataclass(frozen=True)
class Operations:
    """The operations of cells: all that there are, and edges that may have some of them alone.

    `normal` and `reduction` give, for every edge in the order of nodes and their inputs, the names of
    what it may have; empty where every edge may have all.
    """

    names: Names
    normal: tuple[Names, ...] = ()
    reduction: tuple[Names, ...] = ()

    def of(self, spec: CellSpec, axes: int) -> Iterator[tuple[str, ...]]:
        """What each edge of a cell may have, by the rules' names; nothing where it may have all."""
        for names in self.normal if spec.stride == 1 else self.reduction:
            yield tuple(written(kind, size, axes) for kind, size in names)
        yield from repeat(())


def cell_space(
    skeleton: Skeleton, kinds: Mapping[str, Kind], operations: Operations, signature: Signature
) -> SearchSpace:
    """The space of a skeleton's cells with these operations, for inputs of the signature's rank."""
    axes = len(signature.input) - 1
    edges = len(operations.normal)
    if edges and edges != sum(range(2, 2 + skeleton.nodes)):
        raise ConfigurationError(
            f"operations for {edges} edges were given, and cells of {skeleton.nodes} nodes have "
            f"{sum(range(2, 2 + skeleton.nodes))}; take 4 nodes, or a set that is one for all edges."
        )
    return SearchSpace(
        start="Network",
        rules={
            "Network": (_network_rule(skeleton, axes),),
            "Cell": (_cell_rule(skeleton, lambda spec: operations.of(spec, axes)),),
            "Edge": operation_rules(kinds, operations.names, axes, skeleton.form),
        },
        spec=signature,
        canonical=renumbered,
        notation=notation(),
    )


def _check(signature: Signature, skeleton: Skeleton, axes: int) -> None:
    """Misfit where a signature is none that the network takes."""
    shape = signature.input
    if signature.vocabulary is not None:
        raise Misfit(f"the input is tokens, not {TAKES[axes]}")
    if len(shape) != axes + 1 or min(shape) < 1:
        raise Misfit(f"the input {shape} is not {TAKES[axes]}")
    if len(signature.output) != 1:
        raise Misfit(f"the output {signature.output} is not one vector; give (features,)")
    middle, _ = skeleton.ends(signature)
    if skeleton.form.auxiliary_weight and min(middle[1:]) < 2:
        raise Misfit(
            f"the map {middle} that the auxiliary head takes has one place along an axis, and it takes "
            "two; set auxiliary_weight to 0"
        )


def _network_rule(skeleton: Skeleton, axes: int) -> Rule:
    def infer(signature: Signature, normal: Child, reduction: Child) -> Shape:
        _check(signature, skeleton, axes)
        for spec, times in Counter(skeleton.plan(signature)).items():
            (normal if spec.stride == 1 else reduction)(spec, times=times)
        return signature.output

    def make(signature: Signature, normal: Child, reduction: Child) -> nn.Module:
        specs = skeleton.plan(signature)
        cells = [(normal if spec.stride == 1 else reduction)(spec)[0] for spec in specs]
        return _network(signature, skeleton, cells)

    def priced(signature: Signature, normal: Child, reduction: Child) -> Complexity:
        return _network_cost(signature, skeleton)

    return Rule("network", {"normal": "Cell", "reduction": "Cell"}, infer, make, cost=priced)


def _network(signature: Signature, skeleton: Skeleton, cells: list[nn.Module]) -> CellNetwork:
    outputs = signature.output[0]
    middle, last = skeleton.ends(signature)
    weight = skeleton.form.auxiliary_weight
    return CellNetwork(
        build(skeleton.stem(), signature.input),
        cells,
        mean_head(last, outputs),
        AuxiliaryHead(middle, outputs, weight) if weight else None,
        skeleton.reductions[1],
    )


def _network_cost(signature: Signature, skeleton: Skeleton) -> Complexity:
    outputs = signature.output[0]
    middle, last = skeleton.ends(signature)
    total = cost(skeleton.stem(), signature.input) + mean_head_cost(last, outputs)
    return total + auxiliary_cost(middle, outputs) if skeleton.form.auxiliary_weight else total


def _cell_rule(skeleton: Skeleton, allowed: Callable[[CellSpec], Iterator[tuple[str, ...]]]) -> Rule:
    norm = skeleton.form.norm

    def infer(spec: CellSpec, *nodes: Child) -> Shape:
        edges, names = [Edge(spec.inside, spec.stride)] * 2, allowed(spec)
        for node in nodes:
            picked = node(_named(edges, names))
            edges.append(Edge(picked[0][1]))
        return len(nodes) * spec.channels, *edges[-1].shape[1:]

    def make(spec: CellSpec, *nodes: Child) -> nn.Module:
        edges, names = [Edge(spec.inside, spec.stride)] * 2, allowed(spec)
        made = []
        for node in nodes:
            operations, picked = node(_named(edges, names))
            made.append(operations)
            edges.append(Edge(picked[0][1]))
        before, last = spec.preprocess(norm)
        return Cell((build(before, spec.inputs[0]), build(last, spec.inputs[1])), made)

    def priced(spec: CellSpec, *nodes: Child) -> Complexity:
        before, last = spec.preprocess(norm)
        return cost(before, spec.inputs[0]) + cost(last, spec.inputs[1])

    children: dict[str, Symbol] = {str(2 + j): Pick(2, "Edge") for j in range(skeleton.nodes)}
    return Rule("cell", children, infer, make, cost=priced)


def _named(edges: Sequence[Edge], names: Iterator[tuple[str, ...]]) -> tuple[Edge, ...]:
    """Edges from all tensors so far, each with the next names of what it may have."""
    return tuple(edge._replace(allowed=next(names)) for edge in edges)
