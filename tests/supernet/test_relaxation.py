"""Relaxations: from strengths to the weights of a forward pass."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nas.errors import ConfigurationError
from nas.relaxation import Draw, FixedUniform, GumbelSample, MaxWMixture, SinglePath, SoftmaxMixture
from nas.supernet import Supernet
from tests.supernet.planted import edges, nodes, set_alphas
from tests.supernet.test_supernet import supernet_of

OPTIONS = {"a": (1.0, 1.0), "b": (2.0, 2.0), "c": (3.0, 3.0)}


def draw(seed: int = 0, done: float = 0.0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), done)


@pytest.fixture
def supernet() -> Supernet:
    supernet = Supernet(edges(OPTIONS, 2))
    set_alphas(supernet, {"e0": [0.0, 1.0, 2.0], "e1": [0.5, 0.5, 0.5]})
    return supernet


def weights(supernet: Supernet, path: str) -> list[float]:
    given = supernet.choices[path].weights
    assert given is not None
    return [round(w, 6) for w in given.tolist()]


def test_the_softmax_mixture_is_the_weighted_sum(supernet):
    SoftmaxMixture().relax(supernet, draw())
    w = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    x = torch.randn(3, 2)
    expected = x * float(w @ torch.tensor([1.0, 2.0, 3.0])) * 2.0
    torch.testing.assert_close(supernet(x), expected)
    assert weights(supernet, "e1") == [0.333333] * 3


def test_alpha_gradients_are_finite_differences():
    supernet = Supernet(edges(OPTIONS, 2)).double()
    x = torch.randn(3, 2, dtype=torch.float64)

    def loss(table):
        with torch.no_grad():
            supernet.alphas.tables[0].copy_(table)
        SoftmaxMixture().relax(supernet, draw())
        return (supernet(x) ** 3).sum()

    start = supernet.alphas.tables[0].detach().clone()
    found = torch.autograd.grad(loss(start), list(supernet.alphas.parameters()))[0]
    for index in range(start.numel()):
        step = torch.zeros_like(start).view(-1)
        step[index] = 1e-5
        sides = [loss(start + sign * step.view_as(start)).item() for sign in (1, -1)]
        assert float(found.view(-1)[index]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


def test_fixed_uniform_ignores_the_alphas(supernet):
    FixedUniform().relax(supernet, draw())
    assert weights(supernet, "e0") == [0.333333] * 3
    assert not supernet.choices["e0"].weights.requires_grad


@pytest.mark.parametrize(
    "relaxation",
    [SoftmaxMixture(), MaxWMixture(), GumbelSample(), SinglePath(), FixedUniform()],
    ids=str,
)
def test_decided_choices_stay_decided(supernet, relaxation):
    supernet.decide({"e0": "b"})
    relaxation.relax(supernet, draw())
    assert supernet.choices["e0"].weights is None
    x = torch.randn(3, 2)
    edge = supernet.network.edges[0]
    torch.testing.assert_close(edge(x), 2 * x, rtol=0, atol=0)


@pytest.mark.parametrize("maximum", ["differentiated", "constant"])
def test_the_strongest_option_of_max_w_has_coefficient_1(supernet, maximum):
    MaxWMixture(maximum).relax(supernet, draw())
    w = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    given = supernet.choices["e0"].weights
    torch.testing.assert_close(given, 1 - w.max() + w)
    assert float(given.detach().max()) == 1.0
    assert weights(supernet, "e1") == [1.0] * 3


def test_through_its_own_coefficient_the_strongest_alpha_has_no_gradient(supernet):
    MaxWMixture().relax(supernet, draw())
    strongest = supernet.choices["e0"].weights[2]
    found = torch.autograd.grad(strongest, list(supernet.alphas.parameters()))[0]
    assert float(found.abs().max()) == 0.0
    MaxWMixture("constant").relax(supernet, draw())
    strongest = supernet.choices["e0"].weights[2]
    found = torch.autograd.grad(strongest, list(supernet.alphas.parameters()))[0]
    assert float(found[0, 2]) > 0.1


def test_a_gumbel_sample_computes_one_option_of_weight_exactly_1(supernet):
    GumbelSample().relax(supernet, draw())
    for path in ("e0", "e1"):
        choice = supernet.choices[path]
        assert len(choice.active) == 1
        assert choice.weights.tolist() == [float(i in choice.active) for i in range(3)]
    supernet(torch.randn(1, 2))
    calls = [option.calls for mixture in supernet.network.edges for option in mixture.options]
    assert sum(calls) == 2


def test_gumbel_samples_fall_with_the_probabilities_of_the_alphas(supernet):
    counts: Counter[int] = Counter()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        GumbelSample().relax(supernet, Draw(generator, 0.3))
        counts[supernet.choices["e0"].active[0]] += 1
    expected = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    for index in range(3):
        assert counts[index] / 3000 == pytest.approx(float(expected[index]), abs=0.03)


def test_the_gradient_of_a_gumbel_sample_is_that_of_its_soft_probability(supernet):
    GumbelSample(2.0, 2.0).relax(supernet, draw(3))
    choice = supernet.choices["e0"]
    index = choice.active[0]
    found = torch.autograd.grad(choice.weights[index], list(supernet.alphas.parameters()))[0]
    noise = -torch.empty(2, 3).exponential_(generator=torch.Generator().manual_seed(3)).log()
    table = supernet.alphas.tables[0].detach().clone().requires_grad_()
    soft = ((table.log_softmax(-1) + noise) / 2.0).softmax(-1)
    expected = torch.autograd.grad(soft[0, index], table)[0]
    torch.testing.assert_close(found, expected)
    assert float(expected.abs().max()) > 1e-3


def test_the_temperature_falls_linearly():
    anneal = GumbelSample()
    assert [anneal.temperature(done) for done in (0.0, 0.5, 1.0)] == [10.0, 5.05, pytest.approx(0.1)]
    with pytest.raises(ConfigurationError, match=r"temperatures from 0.1 to 10"):
        GumbelSample(0.1, 10.0)


def test_options_of_weight_0_are_never_sampled():
    supernet = supernet_of("darts_cell")
    supernet.decide({})
    set_alphas(supernet, {path: [9.0] + [0.0] * 7 for path in supernet.alphas.rows()})
    for seed in range(20):
        for relaxation in (GumbelSample(), SinglePath()):
            relaxation.relax(supernet, draw(seed))
            for choice in supernet.choices.values():
                assert (
                    choice.picks
                    or choice.names[choice.active[0]] != "none"
                    or (
                        len(choice.active) > 1  # below an element that was not picked: not used
                    )
                )


def test_single_paths_are_uniform_over_options_and_picks():
    supernet = Supernet(nodes(4))
    generator = torch.Generator().manual_seed(0)
    picked: Counter[tuple[int, ...]] = Counter()
    options: Counter[int] = Counter()
    for _ in range(1200):
        SinglePath().relax(supernet, Draw(generator))
        kept = supernet.choices["n0"].active
        picked[tuple(kept)] += 1
        options[supernet.choices[f"n0/{kept[0]}"].active[0]] += 1
    assert len(picked) == 6
    assert all(abs(n / 1200 - 1 / 6) < 0.05 for n in picked.values())
    assert abs(options[0] / 1200 - 1 / 2) < 0.05


@pytest.mark.parametrize("relaxation", [GumbelSample(), SinglePath()], ids=["gumbel", "single"])
def test_the_same_generator_draws_the_same(supernet, relaxation):
    taken = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(7)
        drawn = []
        for _ in range(10):
            relaxation.relax(supernet, Draw(generator))
            drawn.append([choice.active for choice in supernet.choices.values()])
        taken.append(drawn)
    assert taken[0] == taken[1]
