"""Recurrent cells of the NAS-Bench-NLP kind, in stacked layers over a sequence.

A cell is derived from its new states down: each is an expression whose parts are new nodes, earlier
nodes, states of the step before and, in linear maps, the layer's input. So no node is without use.

Reference: Klyuchnikov et al., NAS-Bench-NLP: Neural Architecture Search Benchmark for Natural Language
Processing, IEEE Access 2022.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from torch import nn

from nas import registry
from nas.complexity import Complexity, linear
from nas.derivation import Choice, Limits
from nas.errors import ConfigurationError
from nas.grammar import Misfit, Rule, terminal
from nas.space import SearchSpace, Signature
from search_spaces.operations.recurrent import (
    INPUT,
    Node,
    Program,
    RecurrentLayer,
    Size,
    embedding,
    node_cost,
    tied_decoder,
)
from search_spaces.operations.sequence import Flow, LinearLift, MeanHead, everywhere
from search_spaces.recurrent_recipe import EXAMPLES, MAX_STATES, canonical, notation

NUM_REFERENCES = 24  # earlier nodes that can be named; the longest published recipe has 15 nodes
SMALLEST = 6  # nodes of the tree of the smallest cell
KINDS = {  # weights near the shares in the published recipes; 0: read, never drawn
    "Unary": {"tanh": 3.0, "sigmoid": 4.0, "leaky_relu": 3.0, "linear": 0.0},
    "Binary": {"linear": 6.0, "sum": 1.0, "prod": 1.0},
    "Ternary": {"linear": 4.0, "blend": 1.0, "sum": 0.0, "prod": 0.0},
}
OPENING = {"unary": 0.4, "binary": 0.45, "ternary": 0.15}
STATE_WEIGHTS = (3.0, 3.0, 1.0)  # of cells with one, two, three states
GROWTH = 0.9  # new nodes become rarer by this factor with every rule above

Call = Callable[..., Any]  # Any: a spec out
Make = Callable[..., tuple[Any, Any]]  # Any: a product and its spec out


class Point(NamedTuple):
    """Where a derivation of a cell stands: what there is to take.

    `done` nodes are complete; `read` are the input and the states that were taken so far; `beside` are
    the values that were taken at this place already, in their order; the input can be taken where
    `mapped`.
    """

    size: Size
    num_states: int
    done: int = 0
    read: frozenset[str] = frozenset()
    beside: tuple[str, ...] = ()
    mapped: bool = False

    def take(self, name: str) -> Point:
        """The point after a value was taken; Misfit where it was taken at this place already."""
        if name in self.beside:
            raise Misfit(f"{name} is taken twice in one place")
        return self._replace(beside=(*self.beside, name))

    def within(self, kind: str) -> Point:
        """The point at the inputs of a new node."""
        return self._replace(beside=(), mapped=kind == "linear")

    def complete(self, inner: Point) -> Point:
        """The point after a new node, `inner` after its inputs."""
        grown = self._replace(done=inner.done + 1, read=inner.read)
        return grown.take(f"n{inner.done}")


@registry.space("recurrent_cell")
def recurrent_cell(
    features: int = 64,
    hidden: int = 64,
    num_layers: int = 2,
    tied: bool = False,
    max_nodes: int = 60,
) -> SearchSpace:
    """Recurrent cells from linear maps, blends, products, sums and activations, with 1 to 3 states.

    For tokens (length,) or numbers (channels, length), which are embedded or mapped to `features`. Then
    `num_layers` layers of one cell, each with weights of its own and `hidden` features, and a linear
    map at every position or of the mean over them. With `tied` the last layer has `features`, too, and
    the tokens' embedding is the last map. A recursive grammar; `max_nodes` bounds the tree that is
    drawn. Every cell reads its input and all its states. Left out: dropout, and the rest of AWD-LSTM's
    regularization.
    """
    skeleton = _Skeleton(features, hidden, num_layers, tied)
    if max_nodes < SMALLEST:
        raise ConfigurationError(
            f"recurrent_cell was given max_nodes={max_nodes}; its smallest cell has {SMALLEST}."
        )
    nodes = (_node_rule("unary", 1), _node_rule("binary", 2), _node_rule("ternary", 3))
    earlier = tuple(_earlier_rule(i) for i in range(NUM_REFERENCES))
    states = tuple(_state_rule(i) for i in range(MAX_STATES))
    kinds = {s: [_kind_rule(n, w) for n, w in names.items()] for s, names in KINDS.items()}
    return SearchSpace(
        start="Network",
        rules={
            "Network": (_network_rule(skeleton),),
            "Cell": [_cell_rule(n + 1, weight) for n, weight in enumerate(STATE_WEIGHTS)],
            "State": (*earlier, *nodes),
            "Value": (_input_rule(), *states, *earlier, *nodes),
            **kinds,
        },
        spec=Signature((64,), (64, 65), 65),
        limits=Limits(max_drawn_nodes=max_nodes),
        weigh={"Value": _weigh_value, "State": _weigh_state},
        canonical=canonical,
        notation=notation(),
        examples=EXAMPLES,
    )


@dataclass(frozen=True)
class _Skeleton:
    features: int
    hidden: int
    num_layers: int
    tied: bool

    def __post_init__(self) -> None:
        if min(self.features, self.hidden, self.num_layers) < 1:
            raise ConfigurationError(
                f"recurrent_cell was given features={self.features}, hidden={self.hidden} and "
                f"num_layers={self.num_layers}; each is at least 1."
            )

    def sizes(self, signature: Signature) -> list[Size]:
        """The size of every layer; Misfit where the signature is none of a sequence."""
        shape, out = signature.input, signature.output
        if len(shape) != (2 if signature.vocabulary is None else 1):
            raise Misfit(
                f"the input {shape} is no sequence; give (channels, length) of numbers, or (length,) "
                "of tokens"
            )
        if len(out) != 1 and (len(out) != 2 or out[0] != shape[-1]):
            raise Misfit(f"the output {out} is neither (features,) nor ({shape[-1]}, features)")
        if self.tied and (len(out) != 2 or out[1] != signature.vocabulary):
            raise Misfit("tied weights are for tokens in and the same tokens out at every position")
        widths = [self.features, *[self.hidden] * self.num_layers]
        if self.tied:
            widths[-1] = self.features
        return [Size(shape[-1], i, o) for i, o in pairwise(widths)]


def _network_rule(skeleton: _Skeleton) -> Rule:
    """Embedding or lift, layers, head."""

    def infer(signature: Signature, cell: Call) -> tuple[int, ...]:
        for size in skeleton.sizes(signature):
            cell(size)
        return signature.output

    def build(signature: Signature, cell: Make) -> nn.Module:
        sizes = skeleton.sizes(signature)
        lift: nn.Module = (
            LinearLift(signature.input[0], skeleton.features)
            if signature.vocabulary is None
            else embedding(signature.vocabulary, skeleton.features)
        )
        layers = {"lift": lift} | {f"layer{i}": cell(size)[0] for i, size in enumerate(sizes)}
        return nn.Sequential(OrderedDict(layers, head=_head(signature, sizes[-1], lift, skeleton.tied)))

    def cost(signature: Signature, cell: Call) -> Complexity:
        sizes = skeleton.sizes(signature)
        return _lift_cost(signature, sizes[0]) + _head_cost(signature, sizes[-1], skeleton.tied)

    return Rule("network", {"cell": "Cell"}, infer, build, cost=cost)


def _head(signature: Signature, size: Size, lift: nn.Module, tied: bool) -> nn.Module:
    if tied:
        assert isinstance(lift, nn.Embedding)
        return tied_decoder(lift)
    outputs = signature.output[-1]
    one_each = len(signature.output) == 2
    return nn.Linear(size.features, outputs) if one_each else MeanHead(size.features, outputs)


def _lift_cost(signature: Signature, size: Size) -> Complexity:
    if signature.vocabulary is None:
        return everywhere(Flow(size.length, signature.input[0], causal=True), size.inputs)
    params = signature.vocabulary * size.inputs
    return Complexity(params=params, activations=size.length * size.inputs)


def _head_cost(signature: Signature, size: Size, tied: bool) -> Complexity:
    outputs = signature.output[-1]
    if len(signature.output) == 1:
        return linear(size.features, outputs)
    shared = Complexity(params=-size.features * outputs if tied else 0)
    return everywhere(Flow(size.length, size.features, causal=True), outputs) + shared


def _cell_rule(num_states: int, weight: float) -> Rule:
    """A cell of so many states, each new one derived after those before it."""

    def infer(size: Size, *states: Call) -> int:
        point = Point(size, num_states)
        for state in states:
            point = state(point)
        unread = {INPUT, *(f"h{i}" for i in range(num_states))} - point.read
        if unread:
            raise Misfit(f"the cell never reads {', '.join(sorted(unread))}")
        return size.features

    def build(size: Size, *states: Make) -> nn.Module:
        point, nodes = Point(size, num_states), []
        for state in states:
            made, point = state(point)
            nodes += made
        return RecurrentLayer(size, Program(tuple(nodes), point.beside))

    roles = {f"h{i}": "State" for i in range(num_states)}
    return Rule(f"cell{num_states}", roles, infer, build, weight, lambda size, *states: Complexity())


def _node_rule(name: str, arity: int) -> Rule:
    """A new node of so many inputs, of which no two are the same value."""

    def infer(point: Point, kind: Call, *inputs: Call) -> Point:
        inner = point.within(kind(None))
        for value in inputs:
            inner = value(inner)
        return point.complete(inner)

    def build(point: Point, kind: Make, *inputs: Make) -> tuple[Node, ...]:
        operation, inner = kind(None)[0], point.within(kind(None)[0])
        nodes: list[Node] = []
        for value in inputs:
            made, inner = value(inner)
            nodes += made
        return (*nodes, Node(operation, inner.beside))

    def cost(point: Point, kind: Call, *inputs: Call) -> Complexity:
        inner = point.within(kind(None))
        for value in inputs:
            inner = value(inner)
        return node_cost(point.size, Node(kind(None), inner.beside))

    roles = {"kind": name.capitalize()} | dict.fromkeys("abc"[:arity], "Value")
    return Rule(name, roles, infer, build, cost=cost)


def _kind_rule(name: str, weight: float) -> Rule:
    def same(spec: object) -> str:
        return name

    return terminal(name, same, infer=same, cost=_free, weight=weight)


def _input_rule() -> Rule:
    def infer(point: Point) -> Point:
        if not point.mapped:
            raise Misfit("the input is taken by linear maps alone")
        return point.take(INPUT)._replace(read=point.read | {INPUT})

    return terminal(INPUT, _no_nodes, infer=infer, cost=_free)


def _state_rule(index: int) -> Rule:
    name = f"h{index}"

    def infer(point: Point) -> Point:
        if index >= point.num_states:
            raise Misfit(f"there is no state {name} in a cell of {point.num_states}")
        return point.take(name)._replace(read=point.read | {name})

    return terminal(name, _no_nodes, infer=infer, cost=_free)


def _earlier_rule(index: int) -> Rule:
    name = f"n{index}"

    def infer(point: Point) -> Point:
        if index >= point.done:
            raise Misfit(f"{name} is not complete here, where {point.done} nodes are")
        return point.take(name)

    return terminal(name, _no_nodes, infer=infer, cost=_free)


def _no_nodes(point: Point) -> tuple[Node, ...]:
    return ()


def _free(spec: object) -> Complexity:
    return Complexity()


def _weigh_value(choice: Choice) -> Sequence[float]:
    """Shares of the input, of the states, of earlier nodes and of new ones, among what there is."""
    point = choice.spec
    assert isinstance(point, Point)
    shares = (0.3, 0.3, 0.15, 0.25) if point.mapped else (0.0, 0.2, 0.1, 0.7)
    return [_share(rule.name, point, shares, choice.depth) for rule in choice.options]


def _weigh_state(choice: Choice) -> Sequence[float]:
    """New states are new nodes, two thirds of them, or earlier ones."""
    point = choice.spec
    assert isinstance(point, Point)
    return [_share(rule.name, point, (0.0, 0.0, 0.33, 0.67), 0) for rule in choice.options]


def _share(name: str, point: Point, shares: tuple[float, float, float, float], depth: int) -> float:
    of_input, of_states, of_earlier, of_new = shares
    if name in OPENING:
        return of_new * OPENING[name] * GROWTH**depth
    if name in point.beside:
        return 0.0
    if name == INPUT:
        return of_input
    index = int(name[1:])
    if name[0] == "h":
        return of_states / point.num_states if index < point.num_states else 0.0
    return of_earlier / point.done if index < point.done else 0.0
