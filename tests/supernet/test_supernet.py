"""A supernet is its space with the choices left open: every space relaxes, or says why not."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch

from nas import registry
from nas.errors import SearchSpaceError
from nas.mixture import Mixture
from nas.relaxation import Draw, FixedUniform, SoftmaxMixture
from nas.selection import shares
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from tests.assertions import example_input
from tests.supernet.planted import edges, nested, nodes, set_alphas


@dataclass(frozen=True)
class Case:
    """A registered space, small, with the choices that are fixed when it is relaxed."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    signature: Signature | None = None
    fixed: dict[str, str] = field(default_factory=dict)

    def space(self) -> SearchSpace:
        space: SearchSpace = registry.make("space", self.name, self.settings)
        return space if self.signature is None else space.at(self.signature)


IMAGE = Signature((3, 8, 8), (5,))
MIXER = {
    "normalization": "pre",
    "width": "16",
    "depth": "2",
    "kernel": "3",
    "dilation": "2",
    "heads": "2",
    "expansion": "2",
}
RELAXED = {
    "nasbench201": Case("nasbench201", {"channels": 4, "cells": 1}, IMAGE),
    "darts_cell": Case("darts_cell", {"channels": 4, "cells": 4}, IMAGE),
    "darts_cell-pick-fixed": Case(
        "darts_cell", {"channels": 4, "cells": 3}, IMAGE, {"normal/3": "pick_0_2", "5": "pick_1_4"}
    ),
    "darts_cell_1d": Case("darts_cell_1d", {"channels": 4, "cells": 3}),
    "sharpdarts": Case("sharpdarts", {"channels": 4, "cells": 3}, IMAGE),
    "kan": Case("kan", fixed={"depth": "2", "width": "8"}),
    "kan-edges": Case("kan", {"basis_per": "edge"}, fixed={"depth": "2", "width": "4"}),
    "kan-edges-some-fixed": Case(
        "kan",
        {"basis_per": "edge"},
        fixed={
            "depth": "1",
            "width": "4",
            "hidden/0/basis/2": "chebyshev",
            "output/basis/0": "b_spline",
        },
    ),
    "sequence_mixer": Case("sequence_mixer", fixed=MIXER),
}
# What a refusal names: the path of the choice, and the reason.
REFUSED = {
    "kan-depth": (Case("kan"), "depth", "differ in what they give"),
    "kan-width": (Case("kan", fixed={"depth": "2"}), "hidden/0/width", "differ in what they give"),
    "sequence_mixer": (Case("sequence_mixer"), "normalization", "differ in what they give"),
    "einspace": (Case("einspace"), "backbone/sequential.first", "derived again within itself"),
    "einspace_1d": (Case("einspace_1d"), "backbone/sequential.first", "derived again within itself"),
}
NAMED = {case.name for case in RELAXED.values()} | {case.name for case, *_ in REFUSED.values()}


@cache
def supernet_of(case: str) -> Supernet:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return Supernet(RELAXED[case].space(), RELAXED[case].fixed)


@pytest.fixture(params=RELAXED)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    supernet = supernet_of(str(request.param))
    supernet.decide({})
    return supernet.train(False)


def relax(supernet: Supernet) -> None:
    SoftmaxMixture().relax(supernet, Draw(torch.Generator()))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_selected_supernet_is_the_network_that_inherits_its_weights(supernet, training):
    x = example_input(supernet.space)
    for seed in range(3):
        architecture = supernet.sample(random.Random(seed))
        network = supernet.inherit(architecture).train(training)
        supernet.train(training)
        supernet.select(architecture)
        with torch.no_grad():
            difference = (supernet(x) - network(x)).abs().max()
        assert float(difference) == 0.0


def test_one_hot_weights_are_the_selected_option(supernet):
    x = example_input(supernet.space)
    architecture = supernet.sample(random.Random(5))
    supernet.select(architecture)
    with torch.no_grad():
        expected = supernet(x)
        nodes = dict(architecture.nodes())
        rows = {
            path: 60.0
            * torch.nn.functional.one_hot(
                torch.tensor(supernet.choices[path].names.index(nodes[path].rule)), len(row)
            ).float()
            for path, row in supernet.alphas.rows().items()
            if path in nodes
        }
        set_alphas(supernet, {path: row.tolist() for path, row in rows.items()})
        relax(supernet)
        for path, choice in supernet.choices.items():
            if choice.picks:
                choice.select(nodes[path].rule)
        torch.testing.assert_close(supernet(x), expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_alphas_of_every_choice(supernet):
    torch.manual_seed(0)
    set_alphas(supernet, {p: [0.0] * len(r) for p, r in supernet.alphas.rows().items()})
    supernet.zero_grad()
    supernet.train()
    relax(supernet)
    x = example_input(supernet.space)
    (supernet(x) * torch.randn(supernet(x).shape)).sum().backward()
    for table in supernet.alphas.tables:
        assert bool(table.grad.any(-1).all())


def test_drawn_architectures_are_of_the_space_and_keep_what_is_fixed(supernet):
    rng = random.Random(0)
    for _ in range(5):
        architecture = supernet.sample(rng)
        assert supernet.space.contains(architecture)
        rules = {path: node.rule for path, node in architecture.nodes()}
        assert {path: rules[path] for path in supernet.fixed if path in rules}.items() <= (
            supernet.fixed.items()
        )


def test_what_is_decided_is_in_every_architecture_and_keeps_its_alphas(supernet):
    path, choice = next((p, c) for p, c in supernet.choices.items() if not c.picks)
    supernet.decide({path: choice.names[-1]})
    before = supernet.alphas.rows()[path].detach().clone()
    optimizer = torch.optim.Adam(supernet.alphas.parameters(), 0.1, weight_decay=0.1)
    relax(supernet)
    (supernet(example_input(supernet.space)) ** 2).sum().backward()
    optimizer.step()
    supernet.keep_decided()
    assert torch.equal(supernet.alphas.rows()[path], before)
    assert supernet.choices[path].active == [len(choice.names) - 1]
    for architecture in (supernet.sample(random.Random(1)), supernet.discretize({})):
        assert dict(architecture.nodes())[path].rule == choice.names[-1]
    supernet.decide({})


def test_an_architecture_that_was_fixed_otherwise_is_refused():
    supernet = supernet_of("kan")
    other = supernet.space.parse("kan(2, chain(layer(4, rbf), layer(8, rbf)), output(rbf))")
    with pytest.raises(SearchSpaceError, match=r'"4" at "hidden/0/width".*fixed to "8"'):
        supernet.select(other)


@pytest.mark.parametrize("refused", REFUSED)
def test_what_cannot_be_relaxed_is_refused_with_path_and_reason(refused):
    case, path, reason = REFUSED[refused]
    with pytest.raises(SearchSpaceError) as caught:
        Supernet(case.space(), case.fixed)
    assert f'"{path}' in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", [n for n in registry.parts("space") if n not in NAMED])
def test_spaces_that_are_not_named_here_relax_or_say_why_not(name):
    refusal = ""
    try:
        supernet = Supernet(Case(name).space())
    except SearchSpaceError as error:
        refusal = str(error)
    if refusal:
        assert "cannot be relaxed" in refusal
        return
    architecture = supernet.sample(random.Random(0))
    x = example_input(supernet.space, 2)
    network = supernet.eval().inherit(architecture)
    assert torch.equal(supernet(x), network(x))


def test_an_unknown_choice_to_fix_is_refused_with_the_nearest():
    with pytest.raises(SearchSpaceError, match='did you mean "width"'):
        Supernet(Case("kan").space(), {"depth": "2", "width": "4", "widht": "4"})


def test_cells_built_from_one_child_share_their_alphas():
    supernet = Supernet(Case("nasbench201", {"channels": 4, "cells": 2}, IMAGE).space())
    assert [tuple(table.shape) for table in supernet.alphas.tables] == [(6, 5)]
    mixtures = [m for m in supernet.modules() if isinstance(m, Mixture)]
    assert len(mixtures) == 6 * 6  # two cells in each of three stages
    assert len({id(m.choice) for m in mixtures}) == 6
    assert len({id(p) for m in mixtures for p in m.parameters()}) == sum(
        len(list(m.parameters())) for m in mixtures
    )


def test_the_darts_cell_has_two_tables_of_fourteen_edges_and_eight_operations():
    supernet = supernet_of("darts_cell")
    edges = [path for path, choice in supernet.choices.items() if not choice.picks]
    assert [sum(path.startswith(cell) for path in edges) for cell in ("normal", "reduction")] == [
        14,
        14,
    ]
    assert [tuple(table.shape) for table in supernet.alphas.tables] == [(28, 8)]
    picks = {path: len(c.names) for path, c in supernet.choices.items() if c.picks}
    assert picks == {f"{cell}/{n}": n for cell in ("normal", "reduction") for n in (3, 4, 5)}


def test_hand_set_alphas_give_exactly_the_expected_cell():
    supernet = supernet_of("darts_cell")
    names = supernet.choices["normal/2/0"].names
    alphas = {path: [0.0] * 8 for path in supernet.alphas.rows()}

    def put(path: str, name: str, value: float) -> None:
        alphas[path][names.index(name)] = value

    # `none` is the strongest everywhere, and is not chosen.
    for path in alphas:
        put(path, "none", 9.0)
    for cell in ("normal", "reduction"):
        put(f"{cell}/2/0", "sep_conv_3x3", 1.0)
        put(f"{cell}/2/1", "skip_connect", 1.0)
        put(f"{cell}/3/0", "max_pool_3x3", 3.0)
        put(f"{cell}/3/1", "dil_conv_3x3", 1.0)
        put(f"{cell}/3/2", "dil_conv_5x5", 2.0)
        for element, value in enumerate((1.0, 4.0, 3.0, 2.0)):
            put(f"{cell}/4/{element}", "sep_conv_5x5", value)
        for element, value in enumerate((5.0, 1.0, 2.0, 3.0, 4.0)):
            put(f"{cell}/5/{element}", "avg_pool_3x3", value)
    set_alphas(supernet, alphas)
    found = supernet.discretize(shares(supernet))
    cell = (
        "cell(pick_0_1(sep_conv_3x3, skip_connect), pick_0_2(max_pool_3x3, dil_conv_5x5), "
        "pick_1_2(sep_conv_5x5, sep_conv_5x5), pick_0_4(avg_pool_3x3, avg_pool_3x3))"
    )
    assert str(found) == f"network({cell}, {cell})"


def test_options_of_weight_0_are_mixed_and_never_chosen():
    supernet = supernet_of("darts_cell")
    choice = supernet.choices["reduction/5/2"]
    assert choice.names[0] == "none"
    assert choice.drawn == [False] + [True] * 7
    relax(supernet)
    assert choice.active == list(range(8))
    strong = {path: [9.0] + [0.0] * 7 for path in supernet.alphas.rows()}
    for architecture in (supernet.discretize(strong), supernet.sample(random.Random(0))):
        assert all(node.rule != "none" for _, node in architecture.nodes())


def test_a_pick_keeps_the_elements_whose_best_options_are_worth_most():
    supernet = Supernet(nodes(4))
    worth = {f"n0/{i}": [value, 0.0] for i, value in enumerate((0.1, 0.9, 0.3, 0.8))}
    assert str(supernet.discretize(worth)) == "net(pick_1_3(whole, whole))"


def test_elements_that_are_not_kept_are_zero():
    supernet = Supernet(nodes(3))
    supernet.select(supernet.space.parse("net(pick_0_2(whole, half))"))
    x = torch.tensor([[1.0, 2.0, 10.0, 20.0, 4.0, 6.0]])
    assert supernet(x).tolist() == [[3.0, 5.0]]


def test_choices_below_an_option_are_relaxed_with_it_and_wait_to_be_decided():
    supernet = Supernet(nested())
    assert list(supernet.choices) == ["e", "e/wrapped.inner", "e/doubled.inner"]
    assert [c.path for c in supernet.pending({})] == ["e"]
    assert [c.path for c in supernet.pending({"e": "wrapped"})] == ["e/wrapped.inner"]
    assert [c.path for c in supernet.pending({"e": "zero"})] == []
    strength = {"e": [0.0, 0.5, 0.4], "e/wrapped.inner": [0.1, 0.2], "e/doubled.inner": [0.0, 0.9]}
    assert str(supernet.discretize(strength)) == "net(doubled(minus))"


def test_inheritance_follows_a_supernet_that_was_moved_and_trained():
    supernet = Supernet(RELAXED["nasbench201"].space()).double().train()
    x = example_input(supernet.space).double()
    FixedUniform().relax(supernet, Draw(torch.Generator()))
    supernet(x)  # moves the statistics of the batch norms
    architecture = supernet.sample(random.Random(0))
    network = supernet.eval().inherit(architecture)
    assert torch.equal(network(x), supernet(x))


def test_a_decision_that_is_no_choice_is_refused():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0)}))
    with pytest.raises(SearchSpaceError, match='did you mean "e0"'):
        supernet.decide({"e00": "a"})
    with pytest.raises(SearchSpaceError, match="Allowed: a, b"):
        supernet.decide({"e0": "c"})
