"""The grammar's core: structured symbols, values, references, misfits, counting and limits."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from torch import nn

from nas.architecture import read
from nas.derivation import Limits
from nas.errors import SearchSpaceError
from nas.grammar import Chain, Each, Misfit, Pick, Ref, Rule, terminal, values
from nas.space import SearchSpace
from nas.variation import moves, mutate, sample


def leaf(name, weight=1.0):
    return terminal(name, lambda spec: nn.Identity(), weight=weight)


def rule(name, infer, **children):
    return Rule(name, children, infer, lambda spec, *below: nn.Sequential(*(c(spec)[0] for c in below)))


def only(root, spec=1, **rules):
    """A space whose start symbol has the one rule `root`."""
    return SearchSpace("Start", {"Start": [root], **rules}, spec)


def texts(space):
    return [str(a) for a in space.enumerate()]


def draws(space, n, seed=0):
    rng = random.Random(seed)
    return [sample(space, rng) for _ in range(n)]


# --- constraints between siblings


def experts():
    """As many experts as are active at once, or more."""

    def infer(spec, experts, active):
        if active(spec) > experts(spec):
            raise Misfit(f"{active(spec)} of {experts(spec)} experts cannot be active")
        return spec

    root = rule("moe", infer, experts="Experts", active="Active")
    return only(root, Experts=values(2, 4, 8), Active=values(1, 2, 4))


def test_size_counts_constraints_between_siblings():
    assert experts().size() == 2 + 3 + 3 == len(texts(experts()))
    assert "moe(2, 4)" not in texts(experts())


def test_a_text_that_breaks_a_constraint_is_refused_with_the_reason():
    with pytest.raises(SearchSpaceError, match="4 of 2 experts cannot be active"):
        experts().parse("moe(2, 4)")


def test_restarts_and_misfits_are_counted_and_every_draw_is_admissible():
    rng, space = random.Random(0), experts()

    def choose(choice):
        return rng.choice(choice.options).name

    found = [space.derive(choose) for _ in range(300)]
    assert all(space.contains(d.architecture) for d in found)
    assert sum(d.restarts for d in found) > 0
    assert sum(d.misfits for d in found) >= sum(d.restarts for d in found)


# --- references


def neurons():
    """A neuron chosen once and used by two blocks."""

    def infer(spec, neuron, first, second):
        neuron(spec)
        return second(first(spec))

    root = rule("net", infer, neuron="Neuron", first="Block", second="Block")
    block = Rule(
        "block",
        {"width": "Width", "neuron": Ref("neuron")},
        lambda spec, width, neuron: neuron(width(spec)),
        lambda spec, width, neuron: nn.Sequential(neuron(width(spec)[0])[0]),
    )
    return only(root, Neuron=[leaf("lif"), leaf("if")], Block=[block], Width=values(16, 32))


def test_a_reference_is_chosen_once_and_stands_once_in_the_tree():
    space = neurons()
    assert space.size() == 2 * 2 * 2 == len(texts(space))
    found = space.parse("net(lif, block(16), block(32))")
    assert list(space.choices(found)) == ["neuron", "first/width", "second/width"]
    assert space.spec_out(found) == 32
    walk = space.walk(found)
    assert walk.uses(1)["neuron"] == {1: 1, 16: 1, 32: 1}


def test_a_reference_to_no_role_is_refused_when_the_space_is_made():
    block = Rule("block", {"neuron": Ref("neurom")}, lambda s, n: n(s), lambda s, n: n(s)[0])
    root = rule("net", lambda s, neuron, block: block(neuron(s)), neuron="Neuron", block="Block")
    with pytest.raises(SearchSpaceError, match='did you mean "neuron"'):
        only(root, Neuron=[leaf("lif")], Block=[block])


# --- structured symbols


def test_each_derives_one_child_for_every_spec():
    root = rule("net", lambda spec, ops: ops((1, 2, 3)), ops=Each("Op"))
    space = only(root, Op=[leaf("a"), leaf("b")])
    assert space.size() == 8
    found = space.parse("net(each(a, b, a))")
    assert space.spec_out(found) == (1, 2, 3)
    assert found.at("ops/1").rule == "b"


def test_pick_has_a_rule_for_every_subset_and_names_it():
    root = rule("net", lambda spec, ops: ops((5, 6, 7)), ops=Pick(2, "Op"))
    space = only(root, Op=[leaf("a"), leaf("b")])
    assert space.size() == math.comb(3, 2) * 4 == len(set(texts(space)))
    found = space.parse("net(pick_0_2(a, b))")
    assert space.spec_out(found) == ((0, 5), (2, 7))
    assert found.at("ops/2").rule == "b"


def test_chain_threads_what_flows_and_gives_every_stage():
    root = rule(
        "net", lambda spec, depth, ops: ops((spec, depth(spec))), depth="Depth", ops=Chain("Op")
    )
    grow = terminal("grow", lambda spec: nn.Identity(), infer=lambda spec: spec + 1)
    space = only(root, Depth=values(0, 1, 3), Op=[grow, leaf("keep")])
    assert space.size() == 1 + 2 + 8 == len(texts(space))
    assert space.spec_out(space.parse("net(3, chain(grow, keep, grow))")) == (2, 2, 3)


def test_a_structured_symbol_that_is_given_something_else_says_so():
    space = only(rule("net", lambda spec, ops: ops(spec), ops=Chain("Op")), Op=[leaf("a")])
    with pytest.raises(SearchSpaceError, match=re.escape("takes (spec, number of stages)")):
        sample(space, random.Random(0))


def test_values_read_back_as_what_they_are():
    root = rule("net", lambda spec, *v: tuple(c(spec) for c in v), rate="Rate", shape="Shape")
    space = only(root, Rate=values(0.5, 0.25), Shape=values((1, 2), (3,)))
    found = space.parse('net(0.25, "(1, 2)")')
    assert (found.value("rate"), found.value("shape")) == (0.25, (1, 2))
    assert space.spec_out(found) == (0.25, (1, 2))


# --- recursion and limits


WIDE = Limits()


def recursive(limits=WIDE, weight=1.0):
    infer = lambda spec, *parts: [p(spec) for p in parts][-1]  # noqa: E731
    pair = replace(rule("pair", infer, left="Tree", right="Tree"), weight=weight)
    return SearchSpace("Tree", {"Tree": [pair, leaf("end")]}, 1, limits=limits)


def test_a_recursive_grammar_is_infinite():
    assert recursive().size() == math.inf
    assert not recursive().finite
    assert len(set(islice(recursive(Limits(max_depth=9)).enumerate(), 50))) == 50


def halving(most_nodes):
    """Pairs of halves, of which an odd number has none: 8 is a pair of 4s, each a pair of 2s, ..."""

    def halves(size, left, right):
        if size % 2:
            raise Misfit("odd")
        return left(size // 2) + right(size // 2)

    def exact(size):
        def infer(spec):
            if spec != size:
                raise Misfit("another size")
            return spec

        return terminal(str(size), lambda spec: nn.Identity(), infer=infer)

    pair = rule("pair", halves, left="Tree", right="Tree")
    rules = {"Tree": [exact(1), exact(2), exact(4), pair]}
    return SearchSpace("Tree", rules, 8, limits=Limits(max_nodes=most_nodes))


@pytest.mark.parametrize(("most_nodes", "count"), [(2, 0), (3, 1), (5, 3), (7, 8), (15, 25)])
def test_every_tree_within_the_limits_is_enumerated(most_nodes, count):
    """T(8) = T(4)^2, T(4) = 1 + T(2)^2, T(2) = 1 + T(1)^2, each node counted: 25 without a limit."""
    found = list(halving(most_nodes)._enumerate("Tree", 8, {}))
    assert len(set(found)) == len(found) == count


@pytest.mark.parametrize(
    "limits", [Limits(max_nodes=7), Limits(max_depth=4), Limits(max_instances=9)], ids=str
)
def test_limits_bound_every_draw(limits):
    space = recursive(limits, weight=2.0)
    for found in draws(space, 100):
        nodes = list(found.nodes())
        assert len(nodes) <= min(limits.max_nodes, limits.max_instances)
        assert max(path.count("/") + bool(path) for path, _ in nodes) + 1 <= limits.max_depth
        assert space.contains(found)


def test_a_text_beyond_the_limits_is_refused():
    space = recursive(Limits(max_depth=2))
    with pytest.raises(SearchSpaceError, match="3 nested rules"):
        space.parse("pair(pair(end, end), end)")


def test_instances_count_repetitions():
    root = rule("net", lambda spec, op: op(spec, times=10), op="Op")
    space = only(root, Op=[leaf("a")])
    assert space.walk(space.parse("net(a)")).instances(1) == 11
    with pytest.raises(SearchSpaceError, match="more than 5 instances"):
        sample(replace(space, limits=Limits(max_instances=5)), random.Random(0))


# --- how infer calls its children


def test_infer_may_call_its_children_in_reverse():
    def infer(spec, first, second):
        return first(second(spec))

    double = terminal("double", lambda s: nn.Identity(), infer=lambda s: 2 * s)
    add = terminal("add", lambda s: nn.Identity(), infer=lambda s: s + 3)
    space = only(rule("net", infer, first="Op", second="Op"), Op=[double, add])
    assert space.spec_out(space.parse("net(double, add)")) == (1 + 3) * 2
    assert all(space.contains(a) for a in draws(space, 20))
    assert space.size() == 4


def test_calling_a_child_again_checks_it_for_the_new_spec():
    def infer(spec, op):
        return op(op(spec))

    def small(spec):
        if spec > 2:
            raise Misfit(f"{spec} is above 2")
        return 2 * spec

    halve = terminal("double", lambda s: nn.Identity(), infer=small)
    space = only(rule("net", infer, op="Op"), Op=[halve, leaf("keep")])
    assert space.size() == 2
    at_two = space.at(2)
    assert at_two.size() == 1 == len(texts(at_two))
    with pytest.raises(SearchSpaceError, match="4 is above 2"):
        at_two.parse("net(double)")
    assert {str(a) for a in draws(at_two, 20)} == {"net(keep)"}


def test_a_child_that_is_never_called_is_refused():
    space = only(rule("net", lambda spec, op: spec, op="Op"), Op=[leaf("a"), leaf("b")])
    with pytest.raises(SearchSpaceError, match='never calls its child at "op"'):
        sample(space, random.Random(0))


# --- weights


def weighted():
    root = rule("net", lambda s, a, b: b(a(s)), first="Op", second="Op")
    return only(root, Op=[leaf("rare", 1), leaf("often", 3), leaf("seed", 0)])


def test_a_weight_of_zero_is_accepted_and_never_drawn_or_counted():
    space = weighted()
    assert space.size() == 4
    assert space.contains(space.parse("net(seed, rare)"))
    assert all("seed" not in str(a) for a in [*draws(space, 200), *space.enumerate()])
    assert all(m.rule != "seed" for m in moves(space, space.parse("net(rare, rare)")))


def test_mutation_elsewhere_keeps_a_rule_of_weight_zero():
    space, rng = weighted(), random.Random(0)
    children = {str(mutate(space, space.parse("net(seed, rare)"), rng)) for _ in range(60)}
    assert "net(seed, often)" in children
    assert children <= {"net(seed, often)", "net(rare, rare)", "net(often, rare)"}


def test_draws_follow_the_weights():
    n = 4000
    counts = Counter(a.at("first").rule for a in draws(weighted(), n))
    assert counts["often"] / n == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / n))


def test_a_symbol_that_no_rule_fits_is_reported_with_the_reason():
    def never(spec):
        raise Misfit("nothing fits here")

    bad = [terminal(name, lambda s: nn.Identity(), infer=never) for name in "ab"]
    space = only(rule("net", lambda s, op: op(s), op="Op"), Op=bad)
    with pytest.raises(SearchSpaceError, match="in 1001 derivations: nothing fits here"):
        sample(space, random.Random(0))
    assert space.size() == 0
    assert texts(space) == []


# --- texts


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("net(a", '1 ")" missing'),
        ("net(a))", 'unexpected ")"'),
        ("net(a,, b)", 'unexpected ","'),
        ("net()", 'unexpected ")"'),
        ("", "nothing to read"),
        ("a b", 'unexpected "b"'),
        ('net("a', "cannot read"),
        ("(a)", 'unexpected "("'),
    ],
)
def test_malformed_texts_are_refused_with_the_place(text, what):
    with pytest.raises(SearchSpaceError, match=re.escape(what)) as caught:
        read(text)
    assert "is malformed at character" in str(caught.value)
    assert "the form is rule(child, child, ...)" in str(caught.value)


def test_a_misspelt_rule_gets_the_nearest_name():
    with pytest.raises(SearchSpaceError, match='did you mean "often"'):
        weighted().parse("net(oftn, rare)")


def test_a_wrong_number_of_children_is_named():
    with pytest.raises(SearchSpaceError, match=r"takes 2 children \(first, second\), and 1 were given"):
        weighted().parse("net(often)")


@pytest.mark.parametrize("name", ["(1, 2)", 'say "hi"', "a b", "back\\slash", "é(", "3x3"])
def test_any_name_reads_back_from_its_text(name):
    space = only(rule("net", lambda s, op: op(s), op="Op"), Op=[leaf(name), leaf("plain")])
    for found in space.enumerate():
        assert space.parse(str(found)) == found
    assert str(read(str(found))) == str(found)


def test_spaces_in_a_text_do_not_matter():
    space = weighted()
    assert space.parse("  net( rare ,often ) ") == space.parse("net(rare, often)")


# --- grammars that cannot be


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: only(rule("net", None, op="Opp"), Op=[leaf("a")]), 'did you mean "Op"'),
        (lambda: only(leaf("net"), Op=[]), 'symbol "Op" has no rules'),
        (lambda: only(leaf("net"), Op=[leaf("a"), leaf("a")]), "rules of one name: a"),
        (lambda: SearchSpace("Stat", {"Start": [leaf("a")]}, 1), 'start symbol "Stat" has no rules'),
        (lambda: leaf("net", -1.0), "weight of at least 0"),
        (lambda: Rule("net", {"a/b": "Op"}, None, None), 'no "/"'),
    ],
)
def test_a_grammar_that_cannot_be_is_refused_when_it_is_made(make, what):
    with pytest.raises(SearchSpaceError, match=what):
        make()


# --- counting


def test_a_space_too_large_for_a_float_is_counted_exactly():
    root = rule("net", lambda spec, ops: ops((1,) * 3000), ops=Each("Op"))
    space = only(root, Op=[leaf("a"), leaf("b")])
    assert space.finite
    assert space.size() == 2**3000
