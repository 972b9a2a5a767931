"""NAS-Bench-NLP's way to write a recurrent cell: a recipe, JSON of named nodes in any order.

{"f": {"op": "linear", "input": ["x", "h_prev_0"]},
 "h_new_0": {"op": "activation_tanh", "input": ["f"]}}

Here too are one text for cells that differ in numbering and order alone, and well-known cells.

Reference: Klyuchnikov et al., NAS-Bench-NLP: Neural Architecture Search Benchmark for Natural Language
Processing, IEEE Access 2022 (its code's form).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations

from nas.architecture import Architecture, brief
from nas.errors import SearchSpaceError, unknown
from nas.space import Notation
from search_spaces.operations.recurrent import INPUT, Node, Program

MAX_STATES = 3
MOST_NESTED = 145  # with the rules above, what a space takes
OPERATIONS = {  # of a recipe: the kind, and the numbers of inputs it takes
    "linear": ("linear", (1, 2, 3)),
    "blend": ("blend", (3,)),
    "elementwise_prod": ("prod", (2, 3)),
    "elementwise_sum": ("sum", (2, 3)),
    "activation_tanh": ("tanh", (1,)),
    "activation_sigm": ("sigmoid", (1,)),
    "activation_leaky_relu": ("leaky_relu", (1,)),
}
SYMMETRIC = ("linear", "sum", "prod")
ARITIES = {1: "unary", 2: "binary", 3: "ternary"}
_NEW, _PREVIOUS = re.compile(r"h_new_(\d+)"), re.compile(r"h_prev_(\d+)")

_GATE = "unary(sigmoid, binary(linear, x, h0))"
_CELL_STATE = (
    f"binary(sum, binary(prod, {_GATE}, h1), binary(prod, {_GATE}, unary(tanh, binary(linear, x, h0))))"
)
_RESET_AFTER = f"unary(tanh, binary(sum, unary(linear, x), binary(prod, {_GATE}, unary(linear, h0))))"
_RESET_BEFORE = f"unary(tanh, binary(linear, x, binary(prod, {_GATE}, h0)))"
EXAMPLES = {
    "rnn": "network(cell1(unary(tanh, binary(linear, x, h0))))",
    "lstm": f"network(cell2(binary(prod, {_GATE}, unary(tanh, {_CELL_STATE})), n10))",
    "gru": f"network(cell1(ternary(blend, {_GATE}, h0, {_RESET_AFTER})))",
    "gru_reset_before": f"network(cell1(ternary(blend, {_GATE}, h0, {_RESET_BEFORE})))",
}


def notation() -> Notation:
    """The notation, for spaces of `network(cell)`."""
    return Notation("nasbench_nlp", read, write)


def program_of(cell: Architecture) -> Program:
    """The nodes of a cell's derivation, numbered as they are complete."""
    nodes: list[Node] = []

    def value(tree: Architecture) -> str:
        if not tree.children:
            return tree.rule
        kind, *inputs = tree.children
        node = Node(kind.rule, tuple(value(i) for i in inputs))
        nodes.append(node)
        return f"n{len(nodes) - 1}"

    outputs = tuple(value(state) for state in cell.children)
    return Program(tuple(nodes), outputs)


def write(architecture: Architecture) -> str:
    """The recipe of an architecture; its nodes are named by number, but for the new states."""
    program = program_of(architecture.children[0])
    kinds = {kind: name for name, (kind, _) in OPERATIONS.items()}
    names = {INPUT: INPUT} | {f"h{i}": f"h_prev_{i}" for i in range(MAX_STATES)}
    names |= {name: f"node_{name[1:]}" for name, _ in program.named()}
    names |= {name: f"h_new_{i}" for i, name in enumerate(program.outputs)}
    recipe = {
        names[name]: {"op": kinds[node.operation], "input": [names[i] for i in node.inputs]}
        for name, node in program.named()
    }
    return json.dumps(recipe)


def read(text: str) -> str | None:
    """The space's own text for a recipe; None where the text is none.

    SearchSpaceError for an operation, a number of inputs or a name that there is not, for nodes that
    depend on themselves, and for nodes that no new state depends on.
    """
    if not text.lstrip().startswith("{"):
        return None
    recipe = _Recipe(text, _nodes(text))
    states = [recipe.value(f"h_new_{i}") for i in range(recipe.num_states)]
    unused = [name for name in recipe.nodes if name not in recipe.done]
    if unused:
        raise recipe.error(f"no new state depends on {', '.join(unused)}; leave it out")
    return f"network(cell{len(states)}({', '.join(states)}))"


def _nodes(text: str) -> dict[str, Node]:
    try:
        given = json.loads(text)
        nodes = {name: Node(str(n["op"]), tuple(map(str, n["input"]))) for name, n in given.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SearchSpaceError(
            f'{brief(text)} is no recipe; write {{"name": {{"op": "linear", "input": ["x"]}}, ...}}.'
        ) from None
    for name, node in nodes.items():
        if node.operation not in OPERATIONS:
            what = f'an operation of recipes, given at "{name}"'
            raise SearchSpaceError(unknown(node.operation, what, OPERATIONS))
        counts = OPERATIONS[node.operation][1]
        if len(node.inputs) not in counts:
            allowed = " or ".join(map(str, counts))
            raise SearchSpaceError(
                f'"{name}" gives {len(node.inputs)} inputs to {node.operation}; give it {allowed}.'
            )
    return nodes


@dataclass
class _Recipe:
    """Reads a recipe from its new states down; `done` are the nodes that are complete, by number."""

    text: str
    nodes: Mapping[str, Node]
    done: dict[str, int] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    @property
    def num_states(self) -> int:
        """How many new states there are; numbered from 0."""
        found = sorted(int(m[1]) for name in self.nodes if (m := _NEW.fullmatch(name)))
        if not 1 <= len(found) <= MAX_STATES or found != list(range(len(found))):
            raise self.error(f"give h_new_0, and up to h_new_{MAX_STATES - 1}, each number once")
        return len(found)

    def value(self, name: str) -> str:
        """The space's text for a name: a whole node where it is mentioned first."""
        if name in self.done:
            return f"n{self.done[name]}"
        previous = _PREVIOUS.fullmatch(name)
        if previous or name == INPUT:
            return f"h{int(previous[1])}" if previous else INPUT
        if name in self.open:
            raise self.error(f"{' needs '.join([*self.open[self.open.index(name) :], name])}")
        if len(self.open) > MOST_NESTED:
            raise self.error(f"more than {MOST_NESTED} nodes are nested")
        if name not in self.nodes:
            names = [INPUT, *(f"h_prev_{i}" for i in range(self.num_states)), *self.nodes]
            raise SearchSpaceError(unknown(name, "an input of a recipe's node", names))
        node = self.nodes[name]
        self.open.append(name)
        inputs = [self.value(i) for i in node.inputs]
        self.open.pop()
        self.done[name] = len(self.done)
        return f"{ARITIES[len(inputs)]}({OPERATIONS[node.operation][0]}, {', '.join(inputs)})"

    def error(self, reason: str) -> SearchSpaceError:
        return SearchSpaceError(f"the recipe {brief(self.text)} cannot be read: {reason}.")


def canonical(architecture: Architecture) -> str:
    """One text for cells that differ in how nodes are numbered, in the order of the inputs of linear
    maps, sums and products, and in the numbers of the states after the first.

    Cells of one text compute the same function with matched weights. Nodes that are computed twice
    are not merged, and equal inputs of one node may stay in the order that they were written in.
    """
    program = program_of(architecture.children[0])
    orders = permutations(range(1, len(program.outputs)))
    return min(_text(program, (0, *order)) for order in orders)


def _text(program: Program, order: tuple[int, ...]) -> str:
    """The expressions of the new states in an order, a node's number where it was written before."""
    renamed = {f"h{old}": f"h{new}" for new, old in enumerate(order)}
    nodes = dict(program.named())
    ranks = renamed.copy()  # what inputs are ordered by: of a node, a digest of all that is below it
    for name, node in nodes.items():
        below = [ranks.get(i, i) for i in node.inputs]
        parts = sorted(below) if node.operation in SYMMETRIC else below
        ranks[name] = hashlib.sha256(f"{node.operation}({','.join(parts)})".encode()).hexdigest()
    done: dict[str, int] = {}

    def expression(name: str) -> str:
        if name in done:
            return f"n{done[name]}"
        if name not in nodes:
            return renamed.get(name, name)
        node, inputs = nodes[name], list(nodes[name].inputs)
        if node.operation in SYMMETRIC:
            inputs.sort(key=lambda i: ranks.get(i, i))
        text = f"{node.operation}({', '.join([expression(i) for i in inputs])})"
        done[name] = len(done)
        return text

    return "; ".join(expression(program.outputs[i]) for i in order)
