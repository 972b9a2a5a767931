"""Folded drawings of derivations of 300 nodes: readable, complete, and nothing is lost by folding."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from nas.architecture import Architecture, read
from nas.drawing import svg, text_tree
from nas.folding import Node, folded
from tests.large_derivations import (
    from_the_left,
    in_a_row,
    in_halves,
    leaf,
    nested_branches,
    node,
    random_derivation,
    residual,
    residual_network,
)

SVG = "{http://www.w3.org/2000/svg}"
PAGE = 1000.0  # px


def number_of_nodes(tree: Architecture) -> int:
    return sum(1 for _ in tree.nodes())


LARGE = {
    "residual": residual_network(),
    "row": in_a_row(*(leaf(f"linear_{i}") for i in range(100))),
    "left": from_the_left(*(leaf(f"linear_{i}") for i in range(100))),
    "halves": in_halves(*(leaf(f"linear_{i}") for i in range(100))),
    "repeated": in_halves(*[residual(64, 1)] * 16),
    "branches": nested_branches(100),
    "wrapped": in_a_row(*[node("wrap", node("wrap", node("wrap", residual(16, 2))))] * 9, leaf("a")),
    **{f"random{seed}": random_derivation(250 + 20 * seed, seed) for seed in range(5)},
}
large = pytest.mark.parametrize("tree", LARGE.values(), ids=LARGE)


def every(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from every(child)


def unfolded(root: Node) -> str:
    """The text that a folded tree stands for, put together again in the slow and obvious way."""
    marked = {n.mark: n for n in every(root) if n.mark and not n.repeated}

    def text(given: Node) -> str:
        if given.written:
            return given.written
        if given.repeated:
            return text(marked[given.mark])
        if not given.children:
            return given.rule
        items = {role: text(child) for child in given.children for role in child.roles}
        if given.nested == 1:
            ordered = [items[role] for role in sorted(items, key=int)]
            return f"{given.rule}({', '.join(ordered)})"
        if len(items) == 1:
            inner = next(iter(items.values()))
            for _ in range(given.nested):
                inner = f"{given.rule}({inner})"
            return inner
        return joined(given.rule, paths(given, items))

    return text(root)


def paths(given: Node, items: dict[str, str]) -> dict[str, str]:
    """The steps of a list by their paths: 1 for the first child, 2 for the second."""
    if not given.nested_by:
        return items
    steps = [items[str(i + 1)] for i in range(len(items))]
    last = len(steps) - 1
    if given.nested_by == "last":
        return {"2" * i + ("1" if i < last else ""): step for i, step in enumerate(steps)}
    return {"1" * (last - i) + ("2" if i else ""): step for i, step in enumerate(steps)}


def joined(rule: str, items: dict[str, str]) -> str:
    if "" in items:
        return items[""]
    halves = [{p[1:]: t for p, t in items.items() if p[0] == side} for side in "12"]
    return f"{rule}({joined(rule, halves[0])}, {joined(rule, halves[1])})"


def boxes(image: ET.Element) -> list[tuple[float, float, float, float]]:
    """The boxes of a drawing and its texts outside of boxes: left, top, right, bottom in px."""
    found = []
    for group in image.findall(f"{SVG}g"):
        left, top = map(float, group.get("transform", "")[len("translate(") : -1].split())
        for box in group.iter(f"{SVG}rect"):
            x, y, width, height = (float(box.get(k, "0")) for k in ("x", "y", "width", "height"))
            found.append((left + x, top + y, left + x + width, top + y + height))
        for text in group.iter(f"{SVG}text"):
            if text.get("class") in ("role", "count", "letter"):
                x, y = left + float(text.get("x", 0)), top + float(text.get("y", 0))
                width = 6.2 * len(text.text or "")
                start = x - width if text.get("text-anchor") == "end" else x
                found.append((start, y - 9, start + width, y + 2))
    return found


@large
def test_the_trees_of_these_tests_are_large(tree: Architecture) -> None:
    assert number_of_nodes(tree) >= 200


@large
def test_folding_loses_nothing(tree: Architecture) -> None:
    assert unfolded(folded(tree)) == str(tree)


@large
def test_every_node_is_counted_once(tree: Architecture) -> None:
    root = folded(tree)
    marked = {n.mark: n for n in every(root) if n.mark and not n.repeated}

    def size(given: Node) -> int:
        if given.repeated:
            return size(marked[given.mark])
        return given.nodes + sum(child.count * size(child) for child in given.children)

    assert size(root) == number_of_nodes(tree)


@large
def test_a_drawing_is_not_wider_than_a_page_and_its_texts_can_be_read(tree: Architecture) -> None:
    image = ET.fromstring(svg(tree, title="A derivation"))
    width = float(image.get("width", 0))
    assert width <= PAGE
    assert 11 * min(1.0, PAGE / width) >= 10  # px: the smallest of the texts
    assert float(image.get("height", 0)) <= 30 * number_of_nodes(tree)


@large
def test_no_boxes_letters_or_roles_lie_over_each_other(tree: Architecture) -> None:
    for first, second in combinations(boxes(ET.fromstring(svg(tree))), 2):
        apart = first[2] <= second[0] or second[2] <= first[0]
        assert apart or first[3] <= second[1] or second[3] <= first[1], (first, second)


@large
def test_every_rule_is_named_in_the_drawing_and_in_the_text(tree: Architecture) -> None:
    image = ET.fromstring(svg(tree))
    drawn = " ".join(t.text or "" for t in image.iter(f"{SVG}text"))
    written = text_tree(tree)
    for rule in {n.rule for _, n in tree.nodes()}:
        assert rule in drawn
        assert rule in written


@large
def test_what_goes_on_under_a_letter_is_drawn_there_once(tree: Architecture) -> None:
    image = ET.fromstring(svg(tree))
    letters = [t.text or "" for t in image.iter(f"{SVG}text") if t.get("class") == "letter"]
    counts = [t.text or "" for t in image.iter(f"{SVG}text") if t.get("class") == "count"]
    onward = [text.rpartition("→ ")[2] for text in counts if "→" in text]
    assert sorted(letters) == sorted(onward)
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("nest", [in_a_row, in_halves, from_the_left])
def test_a_chain_is_a_list_rather_than_a_staircase(nest) -> None:
    root = folded(nest(*(leaf(f"linear_{i}") for i in range(100))))
    assert (root.rule, root.nested, len(root.children)) == ("sequential", 99, 100)
    assert all(not child.children for child in root.children)


def test_chains_that_are_nested_differently_are_drawn_differently() -> None:
    steps = [leaf(f"linear_{i}") for i in range(40)]
    texts = {text_tree(nest(*steps)) for nest in (in_a_row, in_halves, from_the_left)}
    assert len(texts) == 3


@pytest.mark.parametrize("nest", [in_a_row, in_halves])
def test_equal_steps_in_a_row_are_drawn_once_with_their_number(nest) -> None:
    root = folded(nest(leaf("norm"), *[residual(64, 1)] * 8, leaf("linear_10")))
    assert [child.count for child in root.children] == [1, 8, 1]
    assert " × 8" in text_tree(nest(leaf("norm"), *[residual(64, 1)] * 8, leaf("linear_10")))


def test_equal_steps_apart_from_each_other_keep_their_places() -> None:
    root = folded(in_a_row(*[leaf("norm"), leaf("relu")] * 20))
    assert [child.rule for child in root.children] == ["computation"] * 40


def test_only_subtrees_that_come_back_have_a_letter() -> None:
    text = text_tree(residual_network())
    named = {word for line in text.splitlines() for word in line.split() if word[:1] == "("}
    assert all(f"= {mark.strip('()')}" in text for mark in named)


def test_a_deep_tree_is_folded_though_it_has_few_nodes() -> None:
    assert folded(in_a_row(*(leaf(f"linear_{i}") for i in range(14)))).nested == 13


def test_a_small_tree_is_drawn_as_it_is() -> None:
    root = folded(read("sequential(a, sequential(b, sequential(b, c)))"))
    assert [n.nested for n in every(root)] == [1] * 7
