"""DARTS' way to write a cell network: a Genotype, of which each node's pairs stand in any order.

Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ...], normal_concat=range(2, 6),
reduce=[...], reduce_concat=range(2, 6)): two pairs (operation, input) for every node, inputs 0 and 1
the cell's own and the nodes from 2 on. Here too is one text for cells that differ in the numbering of
their nodes alone.

Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019 (its code's form).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from itertools import permutations

from nas.architecture import Architecture, brief, quote
from nas.errors import SearchSpaceError
from nas.space import Notation

Pair = tuple[str, int]  # operation, input
Node = tuple[Pair, Pair]  # by input
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_START = re.compile(r"\s*(?:\w+\s*=\s*)?(?=Genotype\s*\()")


def notation() -> Notation:
    """The notation, for spaces of `network(normal cell, reduction cell)`."""
    return Notation("darts", read, write)


def nodes_of(cell: Architecture) -> tuple[Node, ...]:
    """The pairs of every node of a cell's derivation, by input."""
    return tuple(_node(picked) for picked in cell.children)


def _node(picked: Architecture) -> Node:
    _, *sources = picked.rule.split("_")  # pick_0_2
    first, second = picked.children
    return (first.rule, int(sources[0])), (second.rule, int(sources[1]))


def write(architecture: Architecture) -> str:
    """The Genotype of an architecture."""
    cells = [nodes_of(cell) for cell in architecture.children]
    concat = f"range(2, {2 + len(cells[0])})"
    normal, reduction = ([pair for node in cell for pair in node] for cell in cells)
    return (
        f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduction}, reduce_concat={concat})"
    )


def read(text: str) -> str | None:
    """The space's own text for a Genotype, a name before it allowed; None where it is none.

    SearchSpaceError where it is one that does not give two distinct inputs for every node, or whose
    output is not all of the nodes side by side.
    """
    start = _START.match(text)
    if start is None:
        return None
    found = _fields(text, text[start.end() :].strip())
    return f"network({', '.join(_cell(text, found, kind) for kind in ('normal', 'reduce'))})"


def _fields(text: str, call: str) -> dict[str, object]:
    """The fields of a Genotype, read as literals: nothing of the text is executed."""
    try:
        parsed = ast.parse(call, mode="eval").body
        if not isinstance(parsed, ast.Call) or parsed.args:
            raise ValueError
        found = {str(k.arg): _value(k.value) for k in parsed.keywords}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise _malformed(text, "it is not Genotype(normal=[(name, input), ...], ...)") from None
    if sorted(found) != sorted(FIELDS):
        raise _malformed(text, f"it takes {', '.join(FIELDS)}")
    return found


def _value(node: ast.expr) -> object:
    match node:
        case ast.Call(func=ast.Name(id="range"), args=[start, stop], keywords=[]):
            return range(ast.literal_eval(start), ast.literal_eval(stop))
    return ast.literal_eval(node)


def _cell(text: str, fields: dict[str, object], kind: str) -> str:
    pairs = _pairs(text, fields[kind], kind)
    nodes = [sorted(pairs[i : i + 2], key=lambda pair: pair[1]) for i in range(0, len(pairs), 2)]
    for (_, first), (_, second) in nodes:
        if first == second:
            raise _malformed(text, f"a node of {kind} takes input {first} twice")
    concat = fields[f"{kind}_concat"]
    if not _all_of(concat, len(nodes)):
        raise _malformed(
            text, f"{kind}_concat is {concat}, and in this space it is all nodes, 2 to {1 + len(nodes)}"
        )
    return _spelled([((a, i), (b, j)) for (a, i), (b, j) in nodes])


def _all_of(concat: object, num_nodes: int) -> bool:
    """Whether a cell's output is all of its nodes."""
    if not isinstance(concat, list | tuple | range) or len(concat) != num_nodes:
        return False
    return set(concat) == set(range(2, 2 + num_nodes))


def _pairs(text: str, given: object, kind: str) -> list[Pair]:
    listed = given if isinstance(given, list | tuple) else ()
    pairs = [(p[0], p[1]) for p in listed if isinstance(p, list | tuple) and len(p) == 2]
    if (
        not pairs
        or len(pairs) < len(listed)
        or len(pairs) % 2
        or not all(isinstance(name, str) and type(i) is int and i >= 0 for name, i in pairs)
    ):
        raise _malformed(text, f"{kind} takes two pairs (name, input) for every node")
    return pairs


def _spelled(nodes: Sequence[Node]) -> str:
    parts = [f"pick_{i}_{j}({quote(a)}, {quote(b)})" for (a, i), (b, j) in nodes]
    return f"cell({', '.join(parts)})"


def _malformed(text: str, what: str) -> SearchSpaceError:
    return SearchSpaceError(f"{brief(text)} is not a Genotype of this space: {what}.")


def renumbered(architecture: Architecture) -> str:
    """One text for architectures whose cells differ in the numbering of their nodes alone.

    Their networks compute the same function where the maps that follow have their input channels in
    the other order. The smallest text of all orders in which inputs stand before the nodes they feed.
    """
    cells = [min(_orders(nodes_of(cell))) for cell in architecture.children]
    return f"network({', '.join(map(_spelled, cells))})"


def _orders(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """The cell under every numbering of its nodes."""
    found = []
    for order in permutations(range(2, 2 + len(nodes))):
        new = {0: 0, 1: 1} | {old: number for number, old in enumerate(order, 2)}
        if all(new[i] < new[old] for old in order for _, i in nodes[old - 2]):
            found.append(tuple(_moved(nodes[old - 2], new) for old in order))
    return found


def _moved(node: Node, new: dict[int, int]) -> Node:
    first, second = sorted(((name, new[i]) for name, i in node), key=lambda pair: pair[1])
    return first, second
