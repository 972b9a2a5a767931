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
from nas.complexity import Complexity
from nas.derivation import Choice, Limits
from nas.errors import ConfigurationError
from nas.grammar import Misfit, Rule, terminal
from nas.space import SearchSpace, Signature
from search_spaces.operations.recurrent import (
    ACTIVATIONS,
    INPUT,
    Node,
    Program,
    RecurrentLayer,
    Size,
    node_cost,
    tied_decoder,
    tied_embedding,
)
from search_spaces.operations.sequence import LinearLift
from search_spaces.operations.sequence_ends import flow_of, head, head_cost, lift_cost
from search_spaces.recurrent_recipe import ARITIES, EXAMPLES, MAX_STATES, canonical, notation

NUM_REFERENCES = 24  # earlier nodes that can be named; the longest published recipe has 15 nodes
SMALLEST = 6  # nodes of the tree of the smallest cell
# Weights are near the shares in the 291 different recipes of the published runs on WikiText-2. What no
# recipe has is rare where it may be an input, and is read but never drawn where it is a kind.
STATE_WEIGHTS = (0.47, 0.41, 0.12)  # of cells with one, two, three states
KINDS = {
    "Unary": {"tanh": 0.33, "sigmoid": 0.4, "leaky_relu": 0.27, "linear": 0.0},
    "Binary": {"linear": 0.87, "sum": 0.08, "prod": 0.05},
    "Ternary": {"linear": 0.85, "blend": 0.15, "sum": 0.0, "prod": 0.0},
}


class Shares(NamedTuple):
    """How often an input is the layer's input, any state, any earlier node, or a new node."""

    input: float
    state: float
    earlier: float
    unary: float
    binary: float
    ternary: float


OF_STATES = Shares(0, 0, 0.08, 0.57, 0.3, 0.05)
OF_LINEAR = Shares(0.26, 0.38, 0.09, 0.25, 0.01, 0.01)
OF_ACTIVATIONS = Shares(0, 0.01, 0.03, 0.01, 0.8, 0.15)
OF_ELEMENTWISE = Shares(0, 0.15, 0.29, 0.24, 0.23, 0.09)

Call = Callable[..., Any]  # Any: a spec out
Make = Callable[..., tuple[Any, Any]]  # Any: a product and its spec out


class Point(NamedTuple):
    """Where a derivation of a cell stands: what there is to take.

    `done` nodes are complete; `read` are the input and the states that were taken so far; `beside` are
    the values that were taken at this place already, in their order; `kind` is the operation whose
    input is derived, or empty where it is a new state.
    """

    size: Size
    num_states: int
    done: int = 0
    read: frozenset[str] = frozenset()
    beside: tuple[str, ...] = ()
    kind: str = ""

    def take(self, name: str) -> Point:
        """The point after a value was taken; Misfit where it was taken at this place already."""
        if name in self.beside:
            raise Misfit(f"{name} is taken twice in one place")
        return self._replace(beside=(*self.beside, name))

    def within(self, kind: str) -> Point:
        """The point at the inputs of a new node."""
        return self._replace(beside=(), kind=kind)

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
    nodes = tuple(_node_rule(name, arity) for arity, name in ARITIES.items())
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
        weigh={"Value": _weigh, "State": _weigh},
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
        length = flow_of(signature, self.features).length
        out = signature.output
        if self.tied and (len(out) != 2 or out[1] != signature.vocabulary):
            raise Misfit("tied weights are for tokens in and the same tokens out at every position")
        widths = [self.features, *[self.hidden] * self.num_layers]
        if self.tied:
            widths[-1] = self.features
        return [Size(length, i, o) for i, o in pairwise(widths)]


def _network_rule(skeleton: _Skeleton) -> Rule:
    """Embedding or lift, layers, head."""

    def infer(signature: Signature, cell: Call) -> tuple[int, ...]:
        for size in skeleton.sizes(signature):
            cell(size)
        return signature.output

    def build(signature: Signature, cell: Make) -> nn.Module:
        sizes = skeleton.sizes(signature)
        lift = _lift(signature, skeleton)
        layers = {f"layer{i}": cell(size)[0] for i, size in enumerate(sizes)}
        last = flow_of(signature, sizes[-1].features)
        end = tied_decoder(lift) if skeleton.tied else head(signature, last)
        return nn.Sequential(OrderedDict(lift=lift, **layers, head=end))

    def cost(signature: Signature, cell: Call) -> Complexity:
        sizes = skeleton.sizes(signature)
        first, last = (flow_of(signature, n) for n in (sizes[0].inputs, sizes[-1].features))
        shared = last.features * signature.output[-1] if skeleton.tied else 0
        ends = lift_cost(signature, first) + head_cost(signature, last)
        return ends + Complexity(params=-shared)

    return Rule("network", {"cell": "Cell"}, infer, build, cost=cost)


def _lift(signature: Signature, skeleton: _Skeleton) -> nn.Module:
    if signature.vocabulary is None:
        return LinearLift(signature.input[0], skeleton.features)
    embedding = tied_embedding if skeleton.tied else nn.Embedding
    return embedding(signature.vocabulary, skeleton.features)


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
        if point.kind != "linear":
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


def _weigh(choice: Choice) -> Sequence[float]:
    """The shares at the place, those of states and of earlier nodes divided among them."""
    point = choice.spec
    assert isinstance(point, Point)
    shares = OF_STATES if not point.kind else OF_ELEMENTWISE
    if point.kind in ACTIVATIONS:
        shares = OF_ACTIVATIONS
    if point.kind == "linear":
        shares = OF_LINEAR
    return [_share(rule.name, point, shares) for rule in choice.options]


def _share(name: str, point: Point, shares: Shares) -> float:
    if name in ARITIES.values():
        return float(getattr(shares, name))
    if name in point.beside:
        return 0.0
    if name == INPUT:
        return shares.input
    there, share = (point.num_states, shares.state) if name[0] == "h" else (point.done, shares.earlier)
    return share / there if int(name[1:]) < there else 0.0
