from __future__ import annotations

import pytest

from nas import registry
from nas.architecture import Architecture, read
from nas.errors import SearchSpaceError


@pytest.fixture
def found():
    space = registry.make("space", "kan")
    return space.parse("kan(2, chain(layer(8, rbf), layer(16, b_spline)), output(chebyshev))")


def test_the_graph_is_the_tree_with_paths_rules_and_steps(found):
    graph = found.graph()
    assert set(graph.nodes) == {path for path, _ in found.nodes()}
    assert graph.nodes["hidden/1/width"]["rule"] == "16"
    assert graph.edges["hidden", "hidden/1"]["step"] == "1"
    assert graph.number_of_edges() == graph.number_of_nodes() - 1


def test_values_are_read_by_path(found):
    assert found.value("depth") == 2
    assert found.value("hidden/0/basis") == "rbf"
    with pytest.raises(SearchSpaceError, match="hidden/0/width"):
        found.value("hidden/0/with")


def test_the_digest_follows_the_text_alone(found):
    bare = read(str(found))
    assert bare.digest == found.digest
    assert Architecture("S", "other").digest != found.digest


def test_names_with_special_signs_are_quoted_and_read_back():
    names = ["a b", "f(x)", 'say "hi"', "1,2", "é", "plain", "back\\slash"]
    tree = Architecture("", "root", tuple(Architecture("", name) for name in names))
    assert read(str(tree)) == tree


def test_a_deep_tree_is_written_and_read_without_recursion():
    tree = Architecture("", "leaf")
    for _ in range(5000):
        tree = Architecture("", "n", (tree,))
    text = str(tree)
    assert str(read(text)) == text


def test_a_text_nested_too_deeply_for_a_space_is_refused():
    with pytest.raises(SearchSpaceError, match="5,000 nested rules"):
        registry.make("space", "kan").parse("kan(" * 4999 + "x" + ")" * 4999)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "(", "a(", "a)", "a(b", "a(b,)", "a(,b)", "a()", "a b", "a(b))", '"a', "a,b", "a((b))"],
)
def test_a_malformed_text_is_told_with_its_place(text):
    with pytest.raises(SearchSpaceError, match="malformed at character"):
        read(text)
