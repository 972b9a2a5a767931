"""Scores that are known by hand, and invariances that they must have."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evaluators.zero_cost.observation import Step
from evaluators.zero_cost.passes import Noise
from evaluators.zero_cost.zen import Features, _score
from tests.evaluators.zero_cost.subjects import convolutional, images, measured, reason, score, subject

X = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
W = torch.tensor([[0.5, -1.0]])


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().mean() / 2


@pytest.fixture
def line():
    """y = w x with the loss mean(y^2) / 2, so that g = mean(y x) and H = mean(x x^T)."""
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(W)
    return subject(network, X, loss=squares)


OUT = X @ W.T  # (2, 1)
G = (OUT * X).mean(0)
H = X.T @ X / 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grad_norm", G.norm()),
        ("snip", (G * W[0]).abs().sum()),
        ("plain", (G * W[0]).sum()),
        ("grasp", -(H @ G * W[0]).sum()),
        ("fisher", 2 * 0.5 * (OUT * OUT / 2).square().mean()),
        ("synflow", torch.tensor(1.5).log()),
        ("l2_norm", W.norm()),
    ],
)
def test_one_linear_layer_by_hand(line, name, value):
    assert score(line, name) == pytest.approx(float(value), rel=1e-5)


def chain(*widths: int, bias: bool = False, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(nn.Linear(inputs, outputs, bias=bias))
        if norm:
            layers.append(nn.BatchNorm1d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers[:-1])


@pytest.fixture(autouse=True)
def state():
    with torch.random.fork_rng():
        yield


def vectors(batch: int = 12, features: int = 5) -> Tensor:
    return torch.randn(batch, features, generator=torch.Generator().manual_seed(1))


def test_synflow_of_a_chain_is_its_length_times_the_flow():
    network = chain(5, 4, 4, 3)
    flow = torch.ones(5, dtype=torch.float64)
    for layer in network:
        if isinstance(layer, nn.Linear):
            flow = layer.weight.detach().double().abs() @ flow
    assert score(subject(network, vectors()), "synflow") == pytest.approx(
        math.log(3 * float(flow.sum()))
    )


def doubled(network: nn.Module, factor: float = 2.0) -> nn.Module:
    with torch.no_grad():
        next(network.parameters()).mul_(factor)
    return network


@pytest.mark.parametrize("norm", [False, True])
def test_synflow_doubles_with_a_layer_whether_it_is_normed_or_not(norm):
    plain, twice = (subject(f(chain(5, 4, 4, 3, norm=norm)), vectors()) for f in (lambda n: n, doubled))
    assert score(twice, "synflow") - score(plain, "synflow") == pytest.approx(math.log(2))


def test_synflow_does_not_know_signs():
    network = chain(5, 4, 3)
    before = score(subject(network, vectors()), "synflow")
    assert score(subject(doubled(network, -1.0), vectors()), "synflow") == pytest.approx(before)


def test_with_batch_norm_on_synflow_hardly_changes_with_a_layers_scale():
    plain, twice = (
        subject(f(convolutional()), images()) for f in (lambda n: n, lambda n: doubled(n, 2.0))
    )
    name = "synflow(batch_norm=true)"
    assert score(twice, name) == pytest.approx(score(plain, name), abs=0.01)
    assert score(twice, "synflow") - score(plain, "synflow") > 0.5


def test_a_deep_synflow_beyond_float32_is_finite():
    network = nn.Sequential(*[nn.Linear(8, 8, bias=False) for _ in range(80)])
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(10.0)
    expected = 81 * math.log(80) - math.log(10) + math.log(80)
    assert score(subject(network, vectors(features=8)), "synflow") == pytest.approx(expected, rel=0.01)


def test_plain_of_a_normed_layer_is_nothing_beside_its_snip():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs[:, :3], targets)

    given = subject(network, images(), loss=loss)
    assert abs(score(given, "plain")) < 1e-3 * score(given, "snip")
    assert score(given, "snip") > 1e-3


def test_naswot_of_one_unit_each_is_the_determinant_of_agreements():
    network = nn.Sequential(nn.ReLU(), nn.Linear(2, 3))
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert score(subject(network, x), "naswot") == pytest.approx(math.log(2 * 2 - 1))


def test_naswot_of_equal_examples_is_refused_as_singular():
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    assert "do not tell the examples apart" in reason(
        subject(network, vectors()[:1].repeat(4, 1)), "naswot"
    )


def test_naswot_does_not_depend_on_the_order_of_the_batch():
    network = chain(5, 16, 3)
    first, second = (
        score(subject(network, vectors()), "naswot"),
        score(subject(network, vectors().flip(0)), "naswot"),
    )
    assert first == pytest.approx(second)


class Rows(nn.Module):
    """Has given input gradients: y = sum of x * rows."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows, self.weight = rows, nn.Parameter(torch.ones(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.rows[: len(x)]).sum(1, keepdim=True) * self.weight + torch.zeros(3)


def test_jacob_cov_of_uncorrelated_gradients_is_the_highest_there_is():
    rows = torch.eye(8) - 1 / 8  # centred
    orthogonal = torch.linalg.qr(rows[:, :4] - rows[:, :4].mean(0)).Q.T
    given = subject(Rows(orthogonal), torch.zeros(4, 8))
    assert score(given, "jacob_cov") == pytest.approx(
        -4 * (math.log1p(1e-5) + 1 / (1 + 1e-5)), rel=1e-6
    )
    near = orthogonal[:1] + 0.01 * orthogonal
    assert score(subject(Rows(near), torch.zeros(4, 8)), "jacob_cov") < -1000


def test_zen_restores_the_scale_that_batch_norm_takes_away():
    """The BN term gains log c where the weights before it are c times as large."""

    def zen(factor: float) -> float:
        network = doubled(
            nn.Sequential(
                nn.Conv2d(2, 4, 3, bias=False),
                nn.BatchNorm2d(4, eps=1e-12),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4, 3),
            ),
            factor,
        )
        given = subject(network, images())
        seen = []
        for x in (images(), images() + 0.01 * images(seed=1)):
            watched = Features(Noise(12)).watch(given, Step(x))
            with given.prepared(), torch.no_grad(), watched as told:
                network(x)
                seen.append(told())
        return _score(*seen)

    torch.manual_seed(0)
    first = zen(1.0)
    torch.manual_seed(0)
    assert zen(5.0) - first == pytest.approx(math.log(5), abs=1e-3)


def test_zico_does_not_know_the_losss_scale():
    given = subject(convolutional(), images())
    scaled = subject(convolutional(), images(), loss=lambda y, t: 8 * cross_entropy(y, t))
    assert score(scaled, "zico") == pytest.approx(score(given, "zico"), rel=1e-5)


def test_zico_of_equal_halves_is_refused():
    x = images(6).repeat(2, 1, 1, 1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    given = subject(network, x, (torch.arange(6) % 3).repeat(2))
    assert "no weight's gradient differs" in reason(given, "zico")


def test_the_kernels_condition_does_not_know_the_outputs_scale():
    class Times(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * x

    network = chain(5, 16, 3)
    plain = score(subject(network, vectors()), "ntk_condition")
    assert plain >= 1
    larger = nn.Sequential(network, Times())
    assert score(subject(larger, vectors()), "ntk_condition") == pytest.approx(plain, rel=1e-3)


def test_swap_counts_at_most_units_and_patterns():
    network = chain(5, 16, 3)
    given = subject(network, vectors())
    assert 1 <= score(given, "swap(batch_size=2)") <= 4
    assert score(given, "swap(batch_size=60)") == 16  # a pattern of its own for every unit


def test_linear_regions_are_at_most_the_inputs():
    narrow, wide = chain(5, 1, 3), chain(5, 64, 3)
    assert score(subject(narrow, vectors()), "linear_regions(batch_size=64)") == 2
    assert score(subject(wide, vectors()), "linear_regions(batch_size=64)") == 64


def test_a_network_that_is_twice_as_deep_by_identities_has_their_trainability_missing():
    network = nn.Sequential(
        nn.Sequential(nn.Linear(5, 4), nn.Tanh()),
        nn.Sequential(nn.Identity(), nn.Identity()),
        nn.Linear(4, 3),
    )
    found = measured(subject(network, vectors()), "az_nas")
    assert "az_trainability" in found.missing
    assert found.values["az_progressivity"] == pytest.approx(0)
