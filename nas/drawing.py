"""Drawings of an architecture's derivation tree: SVG for people, indented lines for terminals.

The tree grows from left to right: a column a level, a row a leaf, every parent at the middle of its
children, or beside the first where there are many. What would reach further than a page is wide goes
on below, under a letter. Large trees are folded (`nas.folding`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from xml.etree import ElementTree as ET

from nas.architecture import Architecture
from nas.folding import LARGEST, Node, folded, letters
from nas.vector_image import blank, legal, number, put_text, text_width, written

FONT, SMALL = 13.0, 11.0  # px
ROW, BOX, PAD, GAP, MARGIN = 34.0, 24.0, 9.0, 22.0, 14.0  # px
WIDEST = 1000.0 - 2 * MARGIN  # px of a drawing; what lies further to the right goes on below
LETTER = 44.0  # px of it that are kept for the letters of what goes on
MIDDLE_ROWS = 6  # a parent of more rows stands beside its first child
MOST_ROLES = 34  # characters of an edge's label
MOST_RULE = 44  # characters in a box; the whole name is in its tooltip


def svg(architecture: Architecture, *, title: str = "", largest: int = LARGEST) -> str:
    """A standalone SVG file of the derivation; a tree of more than `largest` nodes is folded."""
    panels = _panels(folded(architecture, largest))
    top = MARGIN + (2 * FONT if title else 0.0)
    width = max([p.width for p in panels] + [text_width(title, FONT) if title else 0.0]) + 2 * MARGIN
    height = top + sum(p.height for p in panels) + ROW * (len(panels) - 1) + MARGIN
    image = blank(width, height, title or "Derivation of an architecture")
    if title:
        put_text(image, title, MARGIN, MARGIN + FONT * 0.9, "rule")
    for panel in panels:
        place = f"translate({number(MARGIN)} {number(top)})"
        _panel(ET.SubElement(image, "g", {"transform": place}), panel)
        top += panel.height + ROW
    return written(image)


def text_tree(architecture: Architecture, *, largest: int = LARGEST) -> str:
    """The derivation as indented lines, `role: rule`, folded as the drawing is."""
    return "\n".join(_lines(folded(architecture, largest), "", ""))


def _lines(node: Node, first: str, rest: str) -> Iterator[str]:
    roles = f"{_roles(node.roles)}: " if node.roles else ""
    yield f"{first}{roles}{_label(node)}{_suffix(node)}"
    for index, child in enumerate(node.children):
        last = index == len(node.children) - 1
        yield from _lines(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


@dataclass
class _Place:
    """A node with its box: left, middle and width in px. `below` is the letter it goes on under."""

    node: Node
    width: float
    children: list[_Place] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    below: str = ""

    @property
    def suffix(self) -> str:
        """What stands behind the box."""
        return _suffix(self.node, self.below)

    @property
    def end(self) -> float:
        """The right end of the box and of what stands behind it, in px."""
        return self.x + self.width + (text_width(self.suffix, SMALL) * 1.15 + 4 if self.suffix else 0.0)


class _Panel:
    """A tree cut to the width of a page: columns by depth, rows by leaf.

    A column is as wide as its widest box with children (a leaf has its row to itself) and its edges'
    labels. Under a letter, the root stands for
    what was cut off above. `cut` are the places whose children are left to panels of their own.
    """

    def __init__(self, root: Node, letter: str, free: Iterator[str]) -> None:
        self.letter = letter
        self.rows = 0
        self.cut: list[_Place] = []
        self.root = _place(root)
        if letter:
            head = Node(letter, root.symbol, children=root.children)
            self.root = _Place(head, text_width(letter, FONT))
        self.places = [self.root]
        self._grow([self.root], free)
        self._row(self.root)
        self.width = max(place.end for place in self.places)
        self.height = self.rows * ROW - (ROW - BOX)

    def _grow(self, column: list[_Place], free: Iterator[str]) -> None:
        """Put the children into columns, as far as the page is wide."""
        while parents := [place for place in column if place.node.children]:
            following = [[_place(child) for child in parent.node.children] for parent in parents]
            labels = [
                text_width(_roles(c.node.roles), SMALL) for children in following for c in children
            ]
            x = max(parent.end for parent in parents) + GAP + max(labels) + GAP
            column = []
            for parent, children in zip(parents, following, strict=True):
                for child in children:
                    child.x = x
                if parent is not self.root and max(c.end for c in children) > WIDEST - LETTER:
                    parent.below = parent.node.mark or next(free)
                    self.cut.append(parent)
                else:
                    parent.children = children
                    column += children
            self.places += column

    def _row(self, place: _Place) -> None:
        for child in place.children:
            self._row(child)
        if not place.children:
            place.y = self.rows * ROW + BOX / 2
            self.rows += 1
            return
        first, last = place.children[0].y, place.children[-1].y
        place.y = (first + last) / 2 if last - first <= MIDDLE_ROWS * ROW else first


def _place(node: Node) -> _Place:
    return _Place(node, text_width(_label(node), FONT) + 2 * PAD)


def _panels(root: Node) -> list[_Panel]:
    """The tree and, under letters, what was cut off from it, in the order of the cuts."""
    marks = {node.mark for node in _nodes(root)}
    free = (letter for letter in map(letters, count()) if letter not in marks)
    found: list[_Panel] = []
    waiting = [(root, "")]
    while waiting:
        found.append(_Panel(*waiting.pop(0), free))
        waiting += [(place.node, place.below) for place in found[-1].cut]
    return found


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _nodes(child)


def _label(node: Node) -> str:
    if node.written:
        return legal(node.written)
    label = legal(node.rule)
    return label if len(label) <= MOST_RULE else label[: MOST_RULE - 1] + "…"


def _suffix(node: Node, below: str = "") -> str:
    """What stands behind a box: how often it is there, how long its list is, and its letter."""
    times = f" × {node.count}" if node.count > 1 else ""
    left = " left" if node.nested_by == "first" else ""
    nested = f" … {node.nested} nested{left}" if node.nested > 1 else ""
    letter = f" = {node.mark}" if node.repeated else f" ({node.mark})" if node.mark else ""
    return times + nested + (f" → {below}" if below else letter)


def _roles(roles: tuple[str, ...]) -> str:
    """Roles side by side, runs of numbers as 3..7, shortened to what fits an edge."""
    runs: list[list[str]] = []
    for role in roles:
        if (
            runs
            and role.isdecimal()
            and runs[-1][-1].isdecimal()
            and int(role) == int(runs[-1][-1]) + 1
        ):
            runs[-1].append(role)
        else:
            runs.append([role])
    parts = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs]
    text = legal(", ".join(parts))
    if len(text) <= MOST_ROLES:
        return text
    kept = text[: MOST_ROLES - 3].rpartition(", ")[0]
    return f"{kept}, …" if kept else text[: MOST_ROLES - 1] + "…"


def _panel(parent: ET.Element, panel: _Panel) -> None:
    for place in panel.places:
        for child in place.children:
            _edge(parent, place, child)
    for place in panel.places:
        if panel.letter and place is panel.root:
            put_text(parent, panel.letter, place.x, place.y + FONT * 0.35, "letter")
        else:
            _box(parent, place)


def _edge(parent: ET.Element, place: _Place, child: _Place) -> None:
    start = place.end
    label = _roles(child.node.roles)
    end = child.x - (text_width(label, SMALL) + 8 if label else 0)
    across = [number(x) for x in (start, start + GAP / 2, end)]
    down = [number(y) for y in (place.y, child.y)]
    path = f"M{across[0]} {down[0]}H{across[1]}V{down[1]}H{across[2]}"
    ET.SubElement(parent, "path", {"class": "edge", "d": path})
    if label:
        text = put_text(parent, label, child.x - 4, child.y + SMALL * 0.35, "role")
        text.set("text-anchor", "end")


def _box(parent: ET.Element, place: _Place) -> None:
    node = place.node
    group = ET.SubElement(parent, "g")
    ET.SubElement(group, "title").text = _tooltip(node)
    kind = "named" if node.repeated else "inner" if node.children or node.written else "box"
    top = place.y - BOX / 2
    corner = {"x": number(place.x), "y": number(top), "rx": "4"}
    size = {"width": number(place.width), "height": number(BOX)}
    ET.SubElement(group, "rect", {"class": kind, **corner, **size})
    text = put_text(group, _label(node), place.x + place.width / 2, place.y + FONT * 0.35, "rule")
    text.set("text-anchor", "middle")
    if suffix := place.suffix:
        put_text(group, suffix.strip(), place.x + place.width + 5, place.y + SMALL * 0.35, "count")


def _tooltip(node: Node) -> str:
    roles = f"{', '.join(node.roles)}: " if node.roles else ""
    how = f"each the {node.nested_by} child" if node.nested_by else "by the paths beside them"
    nested = f"; {node.nested} nested, {how}" if node.nested > 1 else ""
    return legal(f"{roles}{node.symbol} → {node.written or node.rule}{nested}")
