"""Folding a derivation tree to what a person can take in: what is drawn of it, and as which boxes.

A large tree is folded in four ways, none of which knows the space:

- a rule of one or two children that is nested in itself is one box with a list of children;
- equal children of one parent (equal neighbors of a list, whose order matters) are drawn once, with
  their number;
- a subtree that was drawn before is named by its letter instead of being drawn again;
- where many boxes are still left, a small subtree is one box that holds its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from nas.architecture import Architecture

LARGEST, DEEPEST = 40, 12  # nodes and levels of a tree that is drawn as it is
MOST_BOXES = 40  # beyond, small subtrees are written in one box
MOST_WRITTEN = 64  # characters of such a box
SMALLEST_REFERENCE = 3  # nodes of a subtree that is named rather than drawn again


@dataclass(frozen=True)
class Node:
    """A box of a drawing: `count` equal children of one parent, reached by `roles`.

    `mark` is the letter of a subtree that is drawn once; where `repeated`, it was drawn elsewhere.
    `nested` nodes of one rule are one box whose children are a list. Where each of them is the last,
    or each the `first`, child of the one before (`nested_by`), the list's roles count 1, 2, ...;
    else they are paths of 1 and 2, the first and the second child. `written` is the text of the
    subtree that a box holds whole. `nodes` counts the nodes in one box, those of its children not.
    """

    rule: str
    symbol: str
    roles: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()
    mark: str = ""
    repeated: bool = False
    nested: int = 1
    nested_by: str = ""
    written: str = ""
    nodes: int = 1

    @property
    def count(self) -> int:
        """How many subtrees of the architecture it stands for."""
        return max(1, len(self.roles))


def folded(architecture: Architecture, largest: int = LARGEST) -> Node:
    """The nodes to draw: all of them up to `largest` and 12 levels, fewer of a larger tree."""
    if _size(architecture, {}) <= largest and _depth(architecture) <= DEEPEST:
        return _whole(architecture, ())
    node = _Folder(architecture, write=False).fold(architecture, ())
    if _boxes(node) > MOST_BOXES:
        node = _Folder(architecture, write=True).fold(architecture, ())
    return node


def letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


def _size(node: Architecture, known: dict[int, int]) -> int:
    """The number of nodes, each object counted once however often it is asked for."""
    if id(node) not in known:
        known[id(node)] = 1 + sum(_size(child, known) for child in node.children)
    return known[id(node)]


def _depth(node: Architecture) -> int:
    return max((1 + _depth(child) for child in node.children), default=0)


def _boxes(node: Node) -> int:
    return 1 + sum(_boxes(child) for child in node.children)


def _role(node: Architecture, index: int) -> str:
    """The role of a child: the last word of its step."""
    return node.steps[index].rpartition(".")[2] if node.steps else str(index)


def _whole(node: Architecture, roles: tuple[str, ...]) -> Node:
    children = tuple(_whole(child, (_role(node, i),)) for i, child in enumerate(node.children))
    return Node(node.rule, str(node.symbol), roles, children)


@dataclass(frozen=True)
class _Run:
    """A node with those of its rule that are nested in it: the (role, child) of them all."""

    children: list[tuple[str, Architecture]]
    nested: int = 1
    by: str = ""

    @property
    def is_list(self) -> bool:
        """Whether its children are steps in an order, rather than parts with a role each."""
        return self.nested > 1 and len(self.children) > 1


def _run(node: Architecture) -> _Run:
    """All nesting of a rule of one or two children in itself, without the boxes in between."""
    if len(node.children) not in (1, 2):
        return _Run([(_role(node, i), child) for i, child in enumerate(node.children)])
    paths, children = zip(*_steps(node, ""), strict=True)
    nested = len(paths) - 1 if len(node.children) == 2 else len(paths[0])
    if nested == 1 or len(children) == 1:
        return _Run([(_role(node, i), child) for i, child in enumerate(children)], nested, "last")
    by = _spine(paths)
    roles = [str(i + 1) for i in range(len(paths))] if by else paths
    return _Run(list(zip(roles, children, strict=True)), nested, by)


def _steps(node: Architecture, path: str) -> Iterator[tuple[str, Architecture]]:
    """The nearest nodes below that are not of its kind, with their paths: 1 and 2 for the children."""
    for index, child in enumerate(node.children):
        here = f"{path}{index + 1}"
        if child.rule == node.rule and len(child.children) == len(node.children):
            yield from _steps(child, here)
        else:
            yield here, child


def _spine(paths: Sequence[str]) -> str:
    """Whether each node is the last, or each the first, child of the one before; else empty."""
    last = len(paths) - 1
    if all(path == "2" * i + "1" for i, path in enumerate(paths[:-1])):
        return "last"
    return "first" if all(path == "1" * (last - i) + "2" for i, path in enumerate(paths) if i) else ""


class _Folder:
    """Folds one architecture; see the ways above. `write`: small subtrees as one box."""

    def __init__(self, architecture: Architecture, *, write: bool) -> None:
        self.write = write
        self.sizes: dict[int, int] = {}
        self.texts: dict[int, str] = {}
        self.marks: dict[str, str] = {}
        _size(architecture, self.sizes)
        self.places = Counter(self._drawn(architecture, set()))

    def fold(self, node: Architecture, roles: tuple[str, ...]) -> Node:
        """The node with its equal children together."""
        made = Node(node.rule, str(node.symbol), roles)
        if self._is_written(node):
            return replace(made, written=str(node), nodes=self.sizes[id(node)])
        text = self._text(node)
        repeats = self.places[text] > 1 and self.sizes[id(node)] >= SMALLEST_REFERENCE
        if repeats and text in self.marks:
            return replace(made, mark=self.marks[text], repeated=True)
        mark = self.marks.setdefault(text, letters(len(self.marks))) if repeats else ""
        run = _run(node)
        children = tuple(self.fold(c, r) for c, r in self._groups(run))
        made = replace(made, nested=run.nested, nested_by=run.by, nodes=run.nested)
        return replace(made, children=children, mark=mark)

    def _groups(self, run: _Run) -> list[tuple[Architecture, tuple[str, ...]]]:
        """The different children in order, each with all the roles that it fills."""
        if run.is_list:
            neighbors = [list(g) for _, g in groupby(run.children, key=lambda c: self._text(c[1]))]
            return [(group[0][1], tuple(role for role, _ in group)) for group in neighbors]
        first: dict[str, Architecture] = {}
        roles: dict[str, list[str]] = {}
        for role, child in run.children:
            text = self._text(child)
            first.setdefault(text, child)
            roles.setdefault(text, []).append(role)
        return [(first[text], tuple(roles[text])) for text in first]

    def _drawn(self, node: Architecture, seen: set[str]) -> Iterator[str]:
        """The text of every subtree that is drawn or named, in the order of the drawing."""
        if self._is_written(node):
            return
        text = self._text(node)
        yield text
        if text in seen and self.sizes[id(node)] >= SMALLEST_REFERENCE:
            return
        seen.add(text)
        for child, _ in self._groups(_run(node)):
            yield from self._drawn(child, seen)

    def _is_written(self, node: Architecture) -> bool:
        return self.write and bool(node.children) and len(str(node)) <= MOST_WRITTEN

    def _text(self, node: Architecture) -> str:
        if id(node) not in self.texts:
            self.texts[id(node)] = f"{node.symbol} {node}"
        return self.texts[id(node)]
