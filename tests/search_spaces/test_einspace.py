"""einspace: its options and weights, analytic shapes, fused convolutions, seeds, canonical text."""

from __future__ import annotations

import math
import random
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import conv2d

from nas.architecture import Architecture
from nas.complexity import measure
from nas.derivation import Choice
from nas.errors import ConfigurationError, SearchSpaceError
from nas.grammar import Misfit
from nas.source import source
from nas.space import Signature
from nas.variation import by_weight, mutate, sample
from search_spaces.einspace import einspace, einspace_1d
from search_spaces.operations.fundamental import (
    Branches,
    Flow,
    Fold,
    Joined,
    Unfold,
    branching_rules,
    convolution_of,
)

SPACE = einspace()
EVEN = einspace().at(Signature((8, 32, 32), (10,)))  # no option of B is filtered at its input
SMALL = einspace(max_nodes=80, max_instances=400).at(Signature((3, 12, 20), (7,)))
LONG = einspace_1d(max_nodes=80, max_instances=400).at(Signature((2, 24), (5,)))
TOKENS = einspace(max_nodes=80, max_instances=400).at(Signature((16, 12), (5,)))


def admitted(symbol, spec, space=SPACE):
    """The names of the drawn options of a symbol whose `infer` takes a spec."""
    found = []
    for rule in space.grammar.options(symbol, spec):
        try:
            rule.infer(spec)
        except Misfit:
            continue
        found.append(rule.name)
    if symbol not in space.weigh:
        return found
    every = space.grammar.options(symbol, spec)
    weights = space.weigh[symbol](Choice("", symbol, every, every, spec))
    drawn = {rule.name for rule, weight in zip(every, weights, strict=True) if weight}
    return [name for name in found if name in drawn]


IMAGE, COLUMN = Flow((3, 28, 28)), Flow((784, 27), (28, 28))


@pytest.mark.parametrize(
    ("symbol", "spec", "count"),
    [
        ("P", IMAGE, 13),
        ("P", Flow((3, 8, 8)), 12),
        ("P", Flow((3, 16, 3)), 10),
        ("P", COLUMN, 2),
        ("R", IMAGE, 6),
        ("R", COLUMN, 3),
        ("R", Flow((784, 27)), 2),
        ("R", Flow((784, 27), (14, 14)), 2),
        ("C", IMAGE, 13),
        ("C", COLUMN, 13),
        ("B", Flow((8, 16, 16)), 12),
        ("B", IMAGE, 3 + 2),
        ("B", Flow((4, 6, 6)), 3 + 3 + 1),
        ("B", Flow((784, 32)), 3 + 6),
        ("A", Joined(2, Flow((4, 6, 6)), Flow((4, 6, 6))), 3 + 3),
        ("A", Joined(2, Flow((4, 6, 5)), Flow((4, 6, 5))), 1 + 3),
        ("A", Joined(2, Flow((4, 6, 5)), Flow((4, 5, 9))), 2),
        ("A", Joined(2, Flow((4, 6, 5)), Flow((4, 6, 9))), 1),
        ("A", Joined(2, Flow((4, 6)), Flow((4, 6, 9))), 0),
        ("A", Joined(4, Flow((4, 6, 6)), Flow((4, 6, 6))), 1 + 3),
        ("A", Joined(8, Flow((5, 5)), Flow((5, 5))), 1 + 2),
    ],
    ids=str,
)
def test_as_many_options_are_admitted_as_the_paper_leaves(symbol, spec, count):
    assert len(admitted(symbol, spec)) == count


def test_every_symbol_has_the_paper_s_options():
    counts = {s: len(SPACE.grammar.options(s, None)) for s in ("B", "A", "P", "R", "C", "S", "M")}
    assert counts == {"B": 12, "A": 12, "P": 14, "R": 8, "C": 13, "S": 3, "M": 4}


def test_an_odd_axis_is_never_grouped():
    names = admitted("B", Flow((3, 28, 28)))
    assert not any(name.endswith("axis1") for name in names)
    assert {"group2axis2", "group2axis3"} <= set(names)


def test_every_split_gives_equal_parts_of_the_whole():
    for rule in branching_rules():
        branches = rule.infer(Flow((8, 16, 24)))
        assert isinstance(branches, Branches)
        parts = rule.build(Flow((8, 16, 24)))(torch.randn(2, 8, 16, 24))
        assert len(parts) == branches.factor
        assert all(tuple(part.shape) == (2, *branches.flow.shape) for part in parts)


@cache
def draws() -> list[tuple[Choice, str]]:
    """The choices of samples where no option was removed, with what was chosen."""
    made: list[tuple[Choice, str]] = []
    rng = random.Random(0)
    draw = by_weight(rng)

    def choose(choice):
        name = draw(choice)
        if not choice.rejected:
            made.append((choice, name))
        return name

    for _ in range(600):
        EVEN.derive(choose)
    return made


def test_modules_are_drawn_by_the_paper_s_probabilities():
    counts = Counter((c.symbol, name) for c, name in draws() if c.symbol in ("S", "M"))
    for symbol, ends in (("S", 0.0), ("M", 0.32)):
        total = sum(n for (s, _), n in counts.items() if s == symbol)
        for rule in ("sequential", "branching", "routing", "computation"):
            p = ends if rule == "computation" else (1 - ends) / 3
            assert abs(counts[symbol, rule] - p * total) <= 3 * math.sqrt(p * (1 - p) * total)


@pytest.mark.parametrize("symbol", ["C", "B", "P"])
def test_terminals_are_drawn_evenly_where_nothing_is_filtered(symbol):
    shape = None if symbol == "C" else EVEN.spec.input
    names = [n for c, n in draws() if c.symbol == symbol and shape in (None, c.spec.shape)]
    options = [r.name for r in EVEN.grammar.options(symbol, None)]
    counts = Counter(names)
    assert len(names) > 400
    assert stats.chisquare([counts[o] for o in options]).pvalue > 0.0027  # 3 sigma


@pytest.mark.parametrize(("probability", "radius"), [(0.32, 0.98222), (4 / 13, 1.0)])
def test_the_expected_modules_below_a_module_are_those_of_the_paper(probability, radius):
    """Appendix A.4: 2 below a sequence, 1 below a routing, 4/3 distinct ones below a branching."""
    space, flow = einspace(computation_probability=probability), Flow((8, 32, 32))
    modules = space.grammar.options("M", flow)
    weights = space.weigh["M"](Choice("", "M", modules, modules, flow))
    splits = [rule.infer(flow).factor for rule in space.grammar.options("B", flow)]
    below = {"sequential": 2, "routing": 1, "computation": 0}
    below["branching"] = np.mean([2 if factor == 2 else 1 for factor in splits])
    expected = sum(w * below[rule.name] for w, rule in zip(weights, modules, strict=True))
    assert expected == pytest.approx(radius, abs=1e-5)
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize("space", [SMALL, LONG, TOKENS], ids=["image", "1d", "tokens"])
def test_what_is_drawn_runs_as_the_shapes_say(space):
    rng, built = random.Random(3), 0
    while built < 170:
        architecture = sample(space, rng)
        costs = space.complexity(architecture)
        if costs.macs > 1e8 or costs.params > 1e6 or costs.activations > 1e6:
            continue
        network = space.build(architecture).eval()
        with torch.no_grad():
            inner = network[:-1](torch.randn(2, *space.spec.input))
            out = network[-1](inner)
        assert out.shape == (2, *space.spec.output)
        assert measure(network, space.spec.input) == costs
        assert tuple(inner.shape[1:]) == flow_out(space, architecture).shape
        built += 1


def flow_out(space, architecture):
    """The flow out of the backbone."""
    walk = space.walk(architecture)
    walk.out(space.spec)
    (visit,) = walk.root.owned[0].visits.values()
    return visit.out


@pytest.mark.parametrize("kernel", [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (4, 4, 0)], ids=str)
def test_unfolding_a_linear_map_and_folding_is_one_convolution(kernel):
    k, stride, padding = kernel
    unfold, linear = Unfold(*kernel).double(), nn.Linear(3 * k * k, 5).double()
    x = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    size = tuple((n + 2 * padding - k) // stride + 1 for n in (12, 20))
    apart = Fold(size)(linear(unfold(x)))
    weight = linear.weight.view(5, 3, k, k)
    torch.testing.assert_close(apart, conv2d(x, weight, linear.bias, stride, padding))
    torch.testing.assert_close(apart, convolution_of(unfold, linear)(x))


def test_a_convolution_is_built_as_one():
    text = (
        "network(sequential(routing(im2col3k1s1p, computation(linear16), col2im), computation(relu)))"
    )
    network = SMALL.build(SMALL.parse(text))
    assert [type(layer).__name__ for layer in network] == ["Conv2d", "LeakyReLU", "Head"]
    assert all(p.requires_grad for p in network.parameters())


def test_patches_are_folded_to_the_map_they_came_from():
    """On a map that is not square a fold to another size would differ."""
    text = (
        "network(routing(im2col4k4s0p, sequential(computation(norm), computation(linear16)), col2im))"
    )
    architecture = SMALL.parse(text)
    assert flow_out(SMALL, architecture).shape == (16, 3, 5)


def test_branches_of_two_differ_and_more_are_copies_with_their_own_weights():
    rng = random.Random(5)
    differ = 0
    for architecture in (sample(SMALL, rng) for _ in range(200)):
        for _, node in architecture.nodes():
            if node.rule == "branching":
                split, inner, _ = node.children
                assert len(inner.children) == (2 if "2" in split.rule[:6] else 1)
                differ += len(inner.children) == 2 and inner.children[0] != inner.children[1]
    assert differ > 20
    text = "network(sequential(branching(clone4, each(computation(linear16)), add), computation(relu)))"
    branches = SMALL.build(SMALL.parse(text))[0].branches
    assert len({tuple(b.weight.flatten().tolist()) for b in branches}) == 4


def test_a_mutant_is_the_parent_outside_one_subtree_whose_rule_is_another():
    rng = random.Random(6)
    parent = SPACE.parse("resnet18")
    plan = {path: node.rule for path, node in parent.nodes()}
    for _ in range(40):
        child = {path: node.rule for path, node in mutate(SPACE, parent, rng).nodes()}
        different = [p for p in plan if child.get(p) != plan[p]]
        root = min(different, key=len)
        assert root in child
        assert all(p == root or p.startswith(root + "/") or split_of(root, p) for p in different)


def split_of(root, path):
    """Whether a path is among the modules below a changed split, whose number follows from it."""
    return root.endswith(".split") and path.startswith(root.removesuffix("split") + "inner")


def test_the_mutated_node_is_drawn_evenly():
    rng = random.Random(7)
    space = einspace(max_nodes=1000).at(SMALL.spec)
    parent = space.parse(
        "network(sequential(sequential(computation(relu), computation(norm)), computation(softmax)))"
    )
    plan = {path: node.rule for path, node in parent.nodes()}
    roots = Counter()
    for _ in range(700):
        child = {path: node.rule for path, node in mutate(space, parent, rng).nodes()}
        roots[min((p for p in plan if child.get(p) != plan[p]), key=len)] += 1
    paths = list(space.choices(parent))
    assert set(roots) == set(paths)
    assert stats.chisquare([roots[p] for p in paths]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "params", "nodes"),
    [
        ("resnet18", 11_210_560, 267),
        ("wide_resnet16_4", 2_748_576, 194),
        ("transformer", 4_269_568, 208),
        ("mlp_mixer", 2_434_048, 264),
    ],
)
def test_published_networks_have_their_parameters(name, params, nodes):
    architecture = SPACE.parse(name)
    network = SPACE.build(architecture)
    assert sum(p.numel() for p in network[:-1].parameters()) == params
    assert SPACE.complexity(architecture) == measure(network, (3, 32, 32))
    counted = [node for _, node in architecture.nodes() if node.rule not in ("network", "each")]
    assert len(counted) == nodes  # of four equal heads one


def test_nothing_that_is_drawn_exceeds_the_limits():
    rng = random.Random(8)
    space = einspace(max_nodes=40, max_instances=60)
    parent = sample(space, rng)
    for _ in range(400):
        parent = mutate(space, parent, rng) if rng.random() < 0.5 else sample(space, rng)
        assert sum(1 for _ in parent.nodes()) <= 40
        assert space.walk(parent).instances(space.spec) <= 60


def test_too_many_instances_are_refused_when_read():
    text = "computation(relu)"
    for _ in range(4):
        text = f"branching(clone8, each({text}), add)"
    with pytest.raises(SearchSpaceError, match="instances"):
        SPACE.parse(f"network({text})")


def test_deep_trees_end_sooner_with_growth():
    def depths(space):
        rng = random.Random(9)
        drawn = [sample(space, rng) for _ in range(300)]
        return np.mean([max(p.count("/") for p, _ in a.nodes()) for a in drawn])

    assert depths(einspace(computation_growth=0.2)) < depths(einspace())


@pytest.mark.parametrize("head", ["tokens", "features"])
def test_the_head_averages_over_tokens_or_as_published_over_features(head):
    space = einspace(head=head).at(Signature((3, 12, 20), (7,)))
    text = "network(routing(im2col4k4s0p, computation(linear16), identity))"
    network = space.build(space.parse(text)).eval()
    x = torch.randn(2, 3, 12, 20)
    tokens = network[:-1](x)
    assert tokens.shape == (2, 15, 16)
    averaged = tokens.mean(1 if head == "tokens" else 2)
    torch.testing.assert_close(network(x), network[-1].linear(averaged))


def test_a_convolution_along_the_length_keeps_it():
    names = [r.name for r in LONG.grammar.options("C", None) if r.name.startswith("conv1d")]
    assert len(names) == 16
    for name in names:
        space = LONG.at(Signature((2, 24), (3,)))
        text = f"network(sequential(computation({name}), computation(identity)))"
        architecture = space.parse(text)
        width = int(name.split("p")[-1])
        assert flow_out(space, architecture).shape == (width, 24)
        assert space.build(architecture)(torch.randn(2, 2, 24)).shape == (2, 3)


def respelled(node: Architecture, rng: random.Random) -> str:
    """Another derivation of the same function: re-associated, with identities put in."""
    children = [respelled(child, rng) for child in node.children]
    text = f"{node.rule}({', '.join(children)})" if children else node.rule
    if node.rule == "sequential" and node.children[0].rule == "sequential":
        first, second = (respelled(c, rng) for c in node.children[0].children)
        text = f"sequential({first}, sequential({second}, {children[1]}))"
    if node.symbol != "M" or rng.random() < 0.5:
        return text
    return rng.choice(
        [
            f"sequential({text}, computation(identity))",
            f"sequential(computation(identity), {text})",
            f"routing(identity, {text}, identity)",
        ]
    )


def test_respelled_derivations_have_one_canonical_text_and_one_output():
    rng = random.Random(10)
    for _ in range(60):
        architecture = sample(SMALL, rng)
        costs = SMALL.complexity(architecture)
        if costs.macs > 1e7 or costs.params > 1e6:
            continue
        other = SMALL.parse(respelled(architecture, rng))
        assert SMALL.canonical(other) == SMALL.canonical(architecture)
        networks = [SMALL.build(a).eval() for a in (architecture, other)]
        matched = zip(*(n.parameters() for n in networks), strict=True)
        with torch.no_grad():
            for first, second in matched:
                second.copy_(first.view_as(second))
            x = torch.randn(2, 3, 12, 20)
            outputs = [network(x) for network in networks]
        torch.testing.assert_close(*outputs, equal_nan=True, rtol=1e-4, atol=1e-5)


def test_one_canonical_text_means_one_function():
    """Every small module without weights: those of one text put out the same."""
    space = einspace(max_nodes=9).at(Signature((2, 2, 3), (2,)))
    rng, x = random.Random(11), torch.randn(2, 2, 2, 3)
    outputs: dict[str, torch.Tensor] = {}
    shared = 0
    for _ in range(4000):
        architecture = sample(space, rng)
        if space.complexity(architecture).params > 100:
            continue
        network = space.build(architecture)
        if list(network[:-1].parameters()):
            continue
        text = space.canonical(architecture)
        y = network[:-1](x)
        shared += text in outputs
        assert torch.equal(outputs.setdefault(text, y), y), text
    assert shared > 200


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"computation_probability": 1.0}, "above 0 and below 1"),
        ({"computation_growth": -0.1}, "at least 0"),
        ({"max_nodes": 5}, "smallest network has 6"),
        ({"head": "mean"}, "tokens, features"),
    ],
    ids=str,
)
def test_settings_that_make_no_space_are_refused(settings, told):
    with pytest.raises(ConfigurationError, match=told):
        einspace(**settings)


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        (Signature((4,), (2,)), "has not 2 or 3 axes"),
        (Signature((3, 8, 8), (2, 8, 8)), "not one vector"),
        (Signature((16,), (16, 5), vocabulary=5), "tokens"),
    ],
    ids=str,
)
def test_what_is_no_classifier_is_refused(signature, told):
    with pytest.raises(SearchSpaceError, match=told):
        sample(SPACE.at(signature), random.Random(0))


@pytest.mark.parametrize("space", [SMALL, LONG, TOKENS], ids=["image", "1d", "tokens"])
def test_plain_source_computes_the_same(space):
    rng, written = random.Random(12), 0
    while written < 12:
        architecture = sample(space, rng)
        costs = space.complexity(architecture)
        if costs.macs > 1e7 or costs.params > 1e6 or costs.activations > 1e6:
            continue
        network = space.build(architecture).eval()
        made = source(network)
        scope: dict[str, Any] = {}
        exec(compile(made.text, "source", "exec"), scope)
        copy = scope["Model"]()
        copy.load_state_dict(made.state)
        x = torch.randn(2, *space.spec.input)
        torch.testing.assert_close(copy.eval()(x), network(x), equal_nan=True)
        written += 1
