"""Drawings of an architecture's derivation tree: SVG for people, indented lines for terminals.

The tree grows from left to right: a column a level, a row a leaf, every parent at the middle of its
children. Large trees are folded: equal children of one parent are drawn once with their number, and a
subtree that was drawn before is named instead of being drawn again.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from nas.architecture import Architecture

FONT, SMALL = 13.0, 11.0  # px
ROW, BOX, PAD, GAP, MARGIN = 34.0, 24.0, 9.0, 22.0, 14.0  # px
MOST_ROLES = 34  # characters of an edge's label
MOST_RULE = 44  # characters in a box; the whole name is in its tooltip
SMALLEST_REFERENCE = 3  # nodes of a subtree that is named rather than drawn again

_STYLE = """
svg { font-family: "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.paper { fill: #ffffff; }
.box { fill: #ffffff; stroke: #b3b8c0; }
.inner { fill: #eef0f3; stroke: #b3b8c0; }
.named { fill: #ffffff; stroke: #b3b8c0; stroke-dasharray: 4 3; }
.rule { fill: #1f2328; font-size: 13px; }
.role, .count { fill: #667080; font-size: 11px; }
.count { font-weight: bold; }
.edge { stroke: #b3b8c0; fill: none; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #16181c; }
  .box { fill: #16181c; stroke: #565d68; }
  .inner { fill: #262a31; stroke: #565d68; }
  .named { fill: #16181c; stroke: #565d68; }
  .rule { fill: #e6e8eb; }
  .role, .count { fill: #9aa3b0; }
  .edge { stroke: #565d68; }
}
"""


@dataclass(frozen=True)
class Node:
    """A box of a drawing: `count` equal children of one parent, reached by `roles`.

    `mark` is the letter of a subtree that is drawn once; where `repeated`, it was drawn elsewhere.
    """

    rule: str
    symbol: str
    roles: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()
    mark: str = ""
    repeated: bool = False

    @property
    def count(self) -> int:
        """How many subtrees of the architecture it stands for."""
        return max(1, len(self.roles))


def folded(architecture: Architecture, largest: int = 40) -> Node:
    """The nodes to draw: all of them up to `largest`, fewer of a larger tree."""
    if _size(architecture, {}) <= largest:
        return _whole(architecture, ())
    return _Folder(architecture).fold(architecture, ())


def svg(architecture: Architecture, *, title: str = "", largest: int = 40) -> str:
    """A standalone SVG file of the derivation; a tree of more than `largest` nodes is folded."""
    root = folded(architecture, largest)
    layout = _Layout(root)
    top = MARGIN + (2 * FONT if title else 0.0)
    width = max(layout.width, _width(title, FONT) if title else 0.0) + 2 * MARGIN
    height = top + layout.rows * ROW - (ROW - BOX) + MARGIN
    size = {"width": _number(width), "height": _number(height)}
    image = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_number(width)} {_number(height)}",
            **size,
        },
    )
    ET.SubElement(image, "title").text = _legal(title or "Derivation of an architecture")
    ET.SubElement(image, "style").text = _STYLE
    ET.SubElement(image, "rect", {"class": "paper", **size})
    if title:
        _text(image, title, MARGIN, MARGIN + FONT * 0.9, "rule")
    shifted = ET.SubElement(image, "g", {"transform": f"translate({_number(MARGIN)} {_number(top)})"})
    for place in layout.places:
        for child in place.children:
            _edge(shifted, place, child)
    for place in layout.places:
        _box(shifted, place)
    ET.indent(image)
    return ET.tostring(image, encoding="unicode") + "\n"


def text_tree(architecture: Architecture, *, largest: int = 40) -> str:
    """The derivation as indented lines, `role: rule`, folded as the drawing is."""
    return "\n".join(_lines(folded(architecture, largest), "", ""))


def _lines(node: Node, first: str, rest: str) -> Iterator[str]:
    roles = f"{_roles(node.roles)}: " if node.roles else ""
    yield f"{first}{roles}{_label(node)}{_suffix(node)}"
    for index, child in enumerate(node.children):
        last = index == len(node.children) - 1
        yield from _lines(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def _size(node: Architecture, known: dict[int, int]) -> int:
    """The number of nodes, each object counted once however often it is asked for."""
    if id(node) not in known:
        known[id(node)] = 1 + sum(_size(child, known) for child in node.children)
    return known[id(node)]


def _role(node: Architecture, index: int) -> str:
    """The role of a child: the last word of its step."""
    return node.steps[index].rpartition(".")[2] if node.steps else str(index)


def _whole(node: Architecture, roles: tuple[str, ...]) -> Node:
    children = tuple(_whole(child, (_role(node, i),)) for i, child in enumerate(node.children))
    return Node(node.rule, str(node.symbol), roles, children)


class _Folder:
    """Folds equal children into one, and names the subtrees that come back elsewhere."""

    def __init__(self, architecture: Architecture) -> None:
        self.sizes: dict[int, int] = {}
        self.texts: dict[int, str] = {}
        self.marks: dict[str, str] = {}
        _size(architecture, self.sizes)
        self.places = Counter(self._drawn(architecture))

    def fold(self, node: Architecture, roles: tuple[str, ...]) -> Node:
        """The node with its equal children together."""
        text = self._text(node)
        repeats = self.places[text] > 1 and self.sizes[id(node)] >= SMALLEST_REFERENCE
        if repeats and text in self.marks:
            return Node(node.rule, str(node.symbol), roles, (), self.marks[text], repeated=True)
        mark = self.marks.setdefault(text, _letters(len(self.marks))) if repeats else ""
        children = [self.fold(c, r) for c, r in self._groups(node)]
        return Node(node.rule, str(node.symbol), roles, tuple(children), mark)

    def _groups(self, node: Architecture) -> list[tuple[Architecture, tuple[str, ...]]]:
        """The different children in order, each with all the roles that it fills."""
        first: dict[str, Architecture] = {}
        roles: dict[str, list[str]] = {}
        for index, child in enumerate(node.children):
            text = self._text(child)
            first.setdefault(text, child)
            roles.setdefault(text, []).append(_role(node, index))
        return [(first[text], tuple(roles[text])) for text in first]

    def _drawn(self, node: Architecture) -> Iterator[str]:
        """The text of every subtree that would be drawn if none were named."""
        yield self._text(node)
        for child, _ in self._groups(node):
            yield from self._drawn(child)

    def _text(self, node: Architecture) -> str:
        if id(node) not in self.texts:
            self.texts[id(node)] = f"{node.symbol} {node}"
        return self.texts[id(node)]


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


@dataclass
class _Place:
    """A node with its box: left, middle and width in px."""

    node: Node
    depth: int
    children: list[_Place] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0


class _Layout:
    """Columns by depth, rows by leaf; a column is as wide as its widest box and its edges' labels."""

    def __init__(self, root: Node) -> None:
        self.places: list[_Place] = []
        self.rows = 0
        self._place(root, 0)
        columns = self._columns()
        for place in self.places:
            place.x = columns[place.depth]
        self.width = max(p.x + p.width + _suffix_width(p.node) for p in self.places)

    def _place(self, node: Node, depth: int) -> _Place:
        place = _Place(node, depth, width=_width(_label(node), FONT) + 2 * PAD)
        self.places.append(place)
        place.children = [self._place(child, depth + 1) for child in node.children]
        if place.children:
            place.y = (place.children[0].y + place.children[-1].y) / 2
        else:
            place.y = self.rows * ROW + BOX / 2
            self.rows += 1
        return place

    def _columns(self) -> Mapping[int, float]:
        widths: dict[int, float] = {}
        labels: dict[int, float] = {}
        for place in self.places:
            node, depth = place.node, place.depth
            widths[depth] = max(widths.get(depth, 0.0), place.width + _suffix_width(node))
            label = _width(_roles(node.roles), SMALL) if node.roles else 0.0
            labels[depth] = max(labels.get(depth, 0.0), label)
        columns, x = {0: 0.0}, 0.0
        for depth in range(1, len(widths)):
            x += widths[depth - 1] + GAP + labels[depth] + GAP
            columns[depth] = x
        return columns


def _label(node: Node) -> str:
    rule = _legal(node.rule)
    return rule if len(rule) <= MOST_RULE else rule[: MOST_RULE - 1] + "…"


def _suffix(node: Node) -> str:
    """What stands behind a box: how often it is there, and the letter of a subtree drawn once."""
    count = f" × {node.count}" if node.count > 1 else ""
    return count + (f" = {node.mark}" if node.repeated else f" ({node.mark})" if node.mark else "")


def _suffix_width(node: Node) -> float:
    suffix = _suffix(node)
    return _width(suffix, SMALL) * 1.15 + 4 if suffix else 0.0


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
    text = _legal(", ".join(parts))
    if len(text) <= MOST_ROLES:
        return text
    kept = text[: MOST_ROLES - 3].rpartition(", ")[0]
    return f"{kept}, …" if kept else text[: MOST_ROLES - 1] + "…"


def _edge(parent: ET.Element, place: _Place, child: _Place) -> None:
    start = place.x + place.width + _suffix_width(place.node)
    label = _roles(child.node.roles)
    end = child.x - (_width(label, SMALL) + 8 if label else 0)
    across = [_number(x) for x in (start, start + GAP / 2, end)]
    down = [_number(y) for y in (place.y, child.y)]
    path = f"M{across[0]} {down[0]}H{across[1]}V{down[1]}H{across[2]}"
    ET.SubElement(parent, "path", {"class": "edge", "d": path})
    if label:
        text = _text(parent, label, child.x - 4, child.y + SMALL * 0.35, "role")
        text.set("text-anchor", "end")


def _box(parent: ET.Element, place: _Place) -> None:
    node = place.node
    group = ET.SubElement(parent, "g")
    ET.SubElement(group, "title").text = _tooltip(node)
    kind = "named" if node.repeated else "inner" if node.children else "box"
    top = place.y - BOX / 2
    corner = {"x": _number(place.x), "y": _number(top), "rx": "4"}
    size = {"width": _number(place.width), "height": _number(BOX)}
    ET.SubElement(group, "rect", {"class": kind, **corner, **size})
    text = _text(group, _label(node), place.x + place.width / 2, place.y + FONT * 0.35, "rule")
    text.set("text-anchor", "middle")
    if suffix := _suffix(node):
        _text(group, suffix.strip(), place.x + place.width + 5, place.y + SMALL * 0.35, "count")


def _tooltip(node: Node) -> str:
    roles = f"{', '.join(node.roles)}: " if node.roles else ""
    return _legal(f"{roles}{node.symbol} → {node.rule}")


def _text(parent: ET.Element, text: str, x: float, y: float, kind: str) -> ET.Element:
    element = ET.SubElement(parent, "text", {"class": kind, "x": _number(x), "y": _number(y)})
    element.text = _legal(text)
    return element


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _legal(text: str) -> str:
    """The text without characters that XML cannot hold or that break a line."""
    return "".join("�" if _illegal(c) else " " if c.isspace() else c for c in text)


def _illegal(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Cn") and not character.isspace()


def _width(text: str, size: float) -> float:
    """The width in px by the widest of the common sans-serif fonts, so that no box is too small."""
    return size * sum(_advance(character) for character in text)


def _advance(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in "mMwW@%":
        return 1.0
    if character in "ijlI.,:;|!' ()[]{}tfr/\\-":
        return 0.45
    if character in "+=<>~#^&":
        return 0.85
    return 0.8 if character.isupper() or not character.isascii() else 0.65
