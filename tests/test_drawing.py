"""Drawings: well-formed, complete, nothing over anything else, folded where the tree is large."""

from __future__ import annotations

import random
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from nas.architecture import Architecture, read
from nas.drawing import folded, svg, text_tree

SVG = "{http://www.w3.org/2000/svg}"
SMALL = read("cell(skip_connect, conv_3x3, branch(none, avg_pool_3x3), conv_1x1)")


def random_tree(size: int, seed: int) -> Architecture:
    rng = random.Random(seed)
    leaves = [Architecture("Op", rng.choice(["relu", "linear_64", "a rather long rule's name"]))] * 1
    leaves += [Architecture("Op", f"op_{rng.randrange(9)}") for _ in range(size // 2)]
    while len(leaves) > 1:
        k = min(len(leaves), rng.randint(1, 4))
        leaves.append(Architecture("Inner", f"inner_{k}", tuple(leaves[:k])))
        del leaves[:k]
    return leaves[0]


def large_tree() -> Architecture:
    rng = random.Random(1)
    ops = ", ".join(rng.choice(["silu", "gelu", "spline"]) for _ in range(120))
    cells = ", ".join(rng.choice(["cell(a, b, c)", "cell(a, a, c)"]) for _ in range(45))
    return read(f"net(each({ops}), chain({cells}), head(cell(a, b, c)))")


def rectangles(image: ET.Element) -> list[tuple[float, float, float, float]]:
    found = []
    for box in image.iter(f"{SVG}rect"):
        if box.get("class") != "paper":
            x, y, width, height = (float(box.get(k, "0")) for k in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def words(image: ET.Element, kind: str) -> list[str]:
    return [t.text or "" for t in image.iter(f"{SVG}text") if t.get("class") == kind]


def test_every_rule_has_a_box_where_nothing_is_folded() -> None:
    image = ET.fromstring(svg(SMALL))
    assert sorted(words(image, "rule")) == sorted(node.rule for _, node in SMALL.nodes())


def test_edges_are_labelled_with_roles() -> None:
    tree = Architecture("Net", "net", (Architecture("Op", "relu"),), ("net.inner",))
    assert words(ET.fromstring(svg(tree)), "role") == ["inner"]


@pytest.mark.parametrize("tree", [SMALL, *(random_tree(n, n) for n in (3, 30, 200)), large_tree()])
def test_no_two_boxes_overlap_and_all_lie_on_the_paper(tree: Architecture) -> None:
    image = ET.fromstring(svg(tree, largest=1000))
    width, height = float(image.get("width", 0)), float(image.get("height", 0))
    boxes = rectangles(image)
    assert len(boxes) == sum(1 for _ in tree.nodes())
    for first, second in combinations(boxes, 2):
        apart = (
            first[2] < second[0] or second[2] < first[0] or first[3] < second[1] or second[3] < first[1]
        )
        assert apart
    assert all(b[0] >= 0 and b[2] <= width and b[1] >= 0 and b[3] <= height for b in boxes)


def test_a_large_tree_is_folded_to_its_different_parts() -> None:
    tree = large_tree()
    assert sum(1 for _ in tree.nodes()) > 300
    boxes = rectangles(ET.fromstring(svg(tree)))
    assert len(boxes) < 20


def test_folding_counts_every_node_once() -> None:
    tree = Architecture("N", "net", (read("cell(a, b)"),) * 12)
    root = folded(tree, largest=5)
    assert [child.count for child in root.children] == [12]
    assert root.children[0].roles == tuple(map(str, range(12)))


def test_a_subtree_that_comes_back_elsewhere_is_named() -> None:
    tree = read("net(left(cell(a, b, c)), right(cell(a, b, c)))")
    text = text_tree(tree, largest=5)
    assert "cell (A)" in text
    assert "cell = A" in text


def test_equal_texts_of_different_symbols_are_not_folded_together() -> None:
    tree = Architecture("N", "net", (Architecture("A", "x"), Architecture("B", "x")))
    assert len(folded(tree, largest=1).children) == 2


@pytest.mark.parametrize(
    "rule", ["a<b & 'c' \"d\"", "tab\tand\nline", "null\x00byte", "日本語", "x" * 300]
)
def test_special_names_are_escaped_and_fit_their_box(rule: str) -> None:
    image = ET.fromstring(svg(Architecture("S", rule, (Architecture("S", "leaf"),)), title=rule))
    assert len(rectangles(image)) == 2
    tooltips = [t.text or "" for t in image.iter(f"{SVG}title")]
    assert any(len(t) >= len(rule) for t in tooltips)


def test_a_drawing_is_the_same_every_time() -> None:
    assert svg(large_tree(), title="a") == svg(large_tree(), title="a")


def test_lines_for_a_terminal_show_the_tree() -> None:
    assert text_tree(read("cell(skip, seq(conv, relu))")) == "\n".join(
        ["cell", "├─ 0: skip", "└─ 1: seq", "   ├─ 0: conv", "   └─ 1: relu"]
    )
