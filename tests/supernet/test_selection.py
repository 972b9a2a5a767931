"""Selections: what they read off a supernet of which the worth of every option is known."""

from __future__ import annotations

import json
import random

import pytest
import torch
from torch import nn

from nas.bilevel import FirstOrder, levels_of
from nas.errors import ConfigurationError
from nas.relaxation import Draw, FixedUniform, Relaxation, SoftmaxMixture
from nas.selection import Decisions, Magnitude, Perturbation, Probe, decide, shares
from nas.space import Signature
from nas.supernet import Supernet
from nas.validation import Measurement, Validation, fixed_batches
from tests.supernet.planted import edges, nested, nodes, set_alphas, task, validation
from tests.supernet.test_supernet import RELAXED, Case

SOFTMAX = SoftmaxMixture()


def signals(supernet: Supernet, *, informative: int = 0, count: int = 40):
    """Inputs whose pair number `informative` tells the class, the others being noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *supernet.space.spec.input, generator=generator) / 3
    y = torch.arange(count) % 2
    x[:, 2 * informative : 2 * informative + 2] += nn.functional.one_hot(y, 2) * 2.0
    return x, y


def probe_of(supernet: Supernet, x, y, relaxation: Relaxation = SOFTMAX) -> Probe:
    draw = Draw(torch.Generator())
    return Probe(supernet, lambda: relaxation.relax(supernet, draw), validation(supernet, x, y).measure)


def result(selection, probe: Probe, seed: int = 0, **kwargs):
    decisions = decide(selection, probe, selection.begin(probe.supernet, random.Random(seed)), **kwargs)
    return selection.architecture(probe.supernet, decisions), decisions


@pytest.mark.parametrize("strong", ["identity", "noise"])
def test_magnitude_keeps_the_useless_operation_and_perturbation_drops_it(strong):
    supernet = Supernet(edges({"identity": (1.0, 1.0), "useful": (-9.0, -9.0), "noise": (0.5, -0.5)}))
    x, y = signals(supernet)
    x = -x  # the class is where the input is least: only the useful option turns it round
    alphas = {"identity": 0.0, "useful": 0.3, "noise": 0.0} | {strong: 1.0}
    set_alphas(supernet, {"e0": list(alphas.values())})
    probe = probe_of(supernet, x, y)
    assert str(result(Magnitude(), probe)[0]) == f"net({strong})"
    for criterion in ("score", "loss"):
        found, _ = result(Perturbation(criterion=criterion), probe)
        assert str(found) == "net(useful)"


def test_what_counts_is_the_score_without_an_option_not_that_with_it_alone():
    # Three fifths of the examples are solved by `a` and as well by its twin, two fifths by `b` alone.
    pairs = {"a": (1.0, 1.0, 0.0, 0.0), "twin": (1.0, 1.0, 0.0, 0.0), "b": (0.0, 0.0, 1.0, 1.0)}
    supernet = Supernet(edges(pairs | {"zero": (0.0, 0.0, 0.0, 0.0)}))
    x = torch.tensor([[0.0, 1.0, 0.0, 0.0]] * 3 + [[0.0, 0.0, 0.0, 1.0]] * 2)
    y = torch.ones(5, dtype=torch.long)
    probe = probe_of(supernet, x, y, FixedUniform())
    alone = {}
    for name in supernet.choices["e0"].names:
        supernet.choices["e0"].select(name)
        alone[name] = probe.measure().score
    assert alone == pytest.approx({"a": 60, "twin": 60, "b": 40, "zero": 0})
    found, decisions = result(Perturbation(), probe)
    assert {name: score for name, score, _ in decisions.made[0].measured} == pytest.approx(
        {"a": 100, "twin": 100, "b": 60, "zero": 100}
    )
    assert str(found) == "net(b)"


class Spy:
    """Measures nothing and writes down how the supernet stands."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self.seen: list[dict[str, list[float] | None]] = []

    def measure(self) -> Measurement:
        weights = {p: c.weights for p, c in self.supernet.choices.items()}
        self.seen.append({p: None if w is None else w.tolist() for p, w in weights.items()})
        return Measurement(float(len(self.seen)), 0.0)


def test_one_option_is_masked_at_a_time_and_nothing_else_moves():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0), "c": (3.0, 3.0)}, 3))
    set_alphas(supernet, {f"e{i}": [0.3 * i, 1.0, -0.5] for i in range(3)})
    soft = shares(supernet)
    spy = Spy(supernet)
    draw = Draw(torch.Generator())
    probe = Probe(supernet, lambda: SoftmaxMixture().relax(supernet, draw), spy.measure)
    _, decisions = result(Perturbation(together="none"), probe)
    assert len(spy.seen) == 3 * 3
    order = [decision.path for decision in decisions.made]
    for number, path in enumerate(order):
        for option in range(3):
            seen = spy.seen[3 * number + option]
            masked = [w if i != option else 0.0 for i, w in enumerate(soft[path])]
            assert seen[path] == pytest.approx(masked)
            assert seen[path][option] == 0.0
            for other in set(order) - {path}:
                decided = order.index(other) < number
                assert seen[other] is None if decided else seen[other] == pytest.approx(soft[other])


def test_the_order_of_choices_is_drawn_and_the_same_for_a_seed():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0)}, 6))
    begin = Perturbation().begin
    orders = [begin(supernet, random.Random(seed)).order for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(supernet.choices)


def test_ties_of_the_score_are_broken_by_the_loss():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0), "c": (1.0, 1.0)}))
    losses = iter([0.5, 0.9, 0.7])
    probe = Probe(supernet, supernet.open, lambda: Measurement(50.0, next(losses)))
    assert str(result(Perturbation(), probe)[0]) == "net(b)"


def test_after_its_decision_an_edge_is_exactly_its_operation_and_its_alpha_has_no_gradient():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0)}, 2))
    probe = probe_of(supernet, *signals(supernet))
    selection = Perturbation(together="none")
    decisions = selection.step(probe, selection.begin(supernet, random.Random(0)))
    (path,) = decisions.rules
    probe.relax()
    x = torch.randn(5, 2)
    mixture = supernet.network.edges[int(path[1])]
    taken = mixture.options[supernet.choices[path].names.index(decisions.rules[path])]
    assert torch.equal(mixture(x), taken(x))
    supernet(x).square().sum().backward()
    table, row = supernet.alphas.numbers[path]
    gradient = supernet.alphas.tables[table].grad
    assert not gradient[row].any()
    assert gradient[1 - row].any()


def test_the_two_important_inputs_of_a_node_survive():
    supernet = Supernet(nodes(4))
    x, y = signals(supernet)
    x, x[:, 6:] = torch.randn_like(x) * 0.2, 0.0
    x[:, 2:4] += nn.functional.one_hot(y, 2) * 1.0
    x[::2, 0:2] -= nn.functional.one_hot(y, 2)[::2] * 0.9
    x[:, 4:6] += nn.functional.one_hot(y, 2) * 0.8
    found, decisions = result(Perturbation(), probe_of(supernet, x, y, FixedUniform()))
    assert decisions.rules["n0"] == "pick_1_2"
    assert str(found).startswith("net(pick_1_2(")
    topology = next(d for d in decisions.made if d.path == "n0")
    assert [name for name, *_ in topology.measured[:4]] == ["0", "1", "2", "3"]
    assert len(topology.measured) == 4 + 3


def test_a_node_with_exactly_as_many_inputs_as_it_keeps_is_left_alone():
    supernet = Supernet(nodes(2, 3))
    _, decisions = result(Perturbation(), probe_of(supernet, *signals(supernet)))
    assert [d.path for d in decisions.made if "pick" in d.rule] == ["n1"]


def test_the_darts_cells_take_14_and_3_steps():
    supernet = Supernet(RELAXED["darts_cell"].space())
    selection = Perturbation()
    measured, tuned = [], []

    def measure():
        measured.append(None)
        return Measurement(0.0, 0.0)

    probe = Probe(supernet, supernet.open, measure)
    found, decisions = result(selection, probe, tune=tuned.append)
    assert selection.num_steps(supernet) == 14 + 3
    assert len(tuned) == 14 + 3 - 1
    # All operations of both cells before any topology; in a step, one of the normal and the reduction.
    assert all("pick" not in d.rule for d in decisions.made[:28])
    assert all("pick" in d.rule for d in decisions.made[28:])
    cells = [d.path.split("/")[0] for d in decisions.made]
    assert cells == ["normal", "reduction"] * 17
    # seven operations an edge, since `none` cannot be chosen; 3, 4 + 3 and 5 + 4 + 3 elements a node
    assert len(measured) == 2 * (14 * 7 + 3 + 7 + 12)
    assert supernet.space.contains(found)
    assert not any(node.rule == "none" for _, node in found.nodes())


@pytest.mark.parametrize(
    "case",
    [
        RELAXED["nasbench201"],
        RELAXED["kan"],
        RELAXED["sequence_mixer"],
        Case("darts_cell_1d", {"channels": 2, "cells": 3, "nodes": 2}),
    ],
    ids=lambda case: case.name,
)
def test_perturbation_selects_on_any_supernet(case):
    supernet = Supernet(case.space(), case.fixed)
    tuned = []
    spec = supernet.space.spec
    x = spec.random(4, torch.Generator().manual_seed(0))

    def measure():
        return Measurement(0.0, float(supernet(x).square().mean()))

    probe = Probe(supernet.eval(), supernet.open, measure)
    found, decisions = result(Perturbation(), probe, tune=tuned.append)
    assert supernet.space.contains(found)
    assert {d.path for d in decisions.made} == set(supernet.choices)
    assert len(tuned) == Perturbation().num_steps(supernet) - 1


def test_choices_below_an_option_are_decided_once_it_is_taken():
    supernet = Supernet(nested())
    x, y = signals(supernet)
    weights = torch.tensor([0.1, 0.2, 0.7])

    def relax():
        supernet.open()
        supernet.mix({"e": weights, "e/doubled.inner": torch.tensor([0.8, 0.2])})

    probe = Probe(supernet, relax, validation(supernet, x, y).measure)
    found, decisions = result(Perturbation(), probe)
    assert [d.path for d in decisions.made] == ["e", "e/doubled.inner"]
    assert str(found) == "net(doubled(plus))"


def test_a_selection_goes_on_from_its_decisions_written_down():
    supernet = Supernet(nodes(4, 3))
    probe = probe_of(supernet, *signals(supernet))
    selection = Perturbation()
    written = []
    whole, decisions = result(selection, probe, tune=lambda d: written.append(json.dumps(d.to_json())))
    for text in written:
        fresh = Supernet(nodes(4, 3))
        fresh.load_state_dict(supernet.state_dict())
        again = probe_of(fresh, *signals(fresh))
        resumed = decide(selection, again, Decisions.from_json(json.loads(text)))
        assert resumed == decisions
        assert selection.architecture(fresh, resumed) == whole


def test_weights_and_open_alphas_are_tuned_between_decisions_at_a_tenth_of_the_rate():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0)}, 3))
    x, y = signals(supernet)
    selection = Perturbation(together="none")
    rates, before = [], {}

    def tune(decisions):
        optimizer = torch.optim.SGD(supernet.weights(), 0.025 * selection.tuning_rate)
        rates.append(optimizer.param_groups[0]["lr"])
        adam = torch.optim.Adam(supernet.alphas.parameters(), 3e-4, weight_decay=1e-3)
        levels = levels_of(supernet, optimizer, adam)
        before.update({k: v.clone() for k, v in supernet.state_dict().items()})
        rows = {p: r.detach().clone() for p, r in supernet.alphas.rows().items()}

        def loss():
            probe.relax()
            return nn.functional.cross_entropy(supernet(x), y)

        FirstOrder().step(levels, loss, loss)
        for path, row in supernet.alphas.rows().items():
            assert torch.equal(row, rows[path]) == (path in decisions.rules)
        factors = [name for name in before if name.endswith("factors")]
        moved = [not torch.equal(before[name], supernet.state_dict()[name]) for name in factors]
        assert sum(moved) == 2 * 3 - len(decisions.rules)  # of a decided edge its operation alone

    probe = probe_of(supernet, x, y)
    result(selection, probe, tune=tune)
    assert rates == [pytest.approx(0.0025)] * 2


def test_measuring_leaves_statistics_modes_and_random_state():
    supernet = Supernet(RELAXED["nasbench201"].space()).train()
    supernet.network[0].eval()
    modes = [module.training for module in supernet.modules()]
    x = torch.randn(12, *supernet.space.spec.input)
    given = task(x, torch.arange(12) % 5)
    measured = Validation(supernet, given, fixed_batches(given.valid, 2, 6))
    before = {name: t.clone() for name, t in supernet.state_dict().items()}
    random_state = torch.get_rng_state()
    first, second = measured.measure(), measured.measure()
    assert first == second
    assert all(torch.equal(t, before[name]) for name, t in supernet.state_dict().items())
    assert [module.training for module in supernet.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)


def test_masked_networks_are_judged_by_the_statistics_of_the_batch_or_by_the_stored_ones():
    supernet = Supernet(RELAXED["nasbench201"].space()).train()
    x = 5 + 3 * torch.randn(12, *supernet.space.spec.input)
    given = task(x, torch.arange(12) % 5)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(supernet(x), given.valid.targets)
    supernet.load_state_dict(Supernet(supernet.space).state_dict() | supernet.state_dict())
    batch = Validation(supernet, given, [given.valid]).measure()
    assert batch.loss == pytest.approx(float(expected), rel=1e-5)
    stored = Validation(supernet, given, [given.valid], batch_norm="stored").measure()
    supernet.eval()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(supernet(x), given.valid.targets)
    assert stored.loss == pytest.approx(float(expected), rel=1e-5)
    assert abs(stored.loss - batch.loss) > 1e-3


def test_outputs_that_are_not_finite_are_the_worst():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (float("inf"), 1.0)}))
    x, y = signals(supernet)
    measured = validation(supernet, x, y)
    supernet.choices["e0"].select("b")
    worst = measured.measure()
    supernet.choices["e0"].select("a")
    assert measured.measure() > worst
    assert json.loads(json.dumps(worst)) == list(worst)


def test_batches_are_the_first_of_the_split_and_none_has_one_example():
    split = task(torch.randn(13, 2), torch.arange(13) % 2).valid
    assert [len(b) for b in fixed_batches(split, 10, 4)] == [4, 4, 4]
    assert [len(b) for b in fixed_batches(split, 2, 4)] == [4, 4]
    assert [len(b) for b in fixed_batches(split, 10, 5)] == [5, 5, 3]


@pytest.mark.parametrize(
    "fields", [{"criterion": "acc"}, {"together": "all"}, {"tuning_epochs": -1}, {"tuning_rate": 0.0}]
)
def test_settings_that_are_not_allowed_are_refused(fields):
    with pytest.raises(ConfigurationError, match="perturbation was given"):
        Perturbation(**fields)


def test_magnitude_has_no_steps():
    supernet = Supernet(RELAXED["nasbench201"].space().at(Signature((3, 8, 8), (5,))))
    probe = Probe(supernet, supernet.open, lambda: Measurement(0.0, 0.0))
    names = supernet.choices["cell/0-1"].names
    set_alphas(supernet, {path: [0.0, 0.0, 0.0, 1.0, 0.0] for path in supernet.choices})
    found, decisions = result(Magnitude(), probe)
    assert decisions == Decisions()
    assert {node.rule for path, node in found.nodes() if path.startswith("cell/")} == {names[3]}
