"""The limit of infinite width and depth, from closed forms and noisy labels on a sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluators.zero_cost.wide_deep import Limit, OptimalActivation, optimal_activation, singular_vote
from tests.evaluators.zero_cost.subjects import images, reason, score, subject


def test_relu_comes_to_a_majority_vote():
    limit = Limit.of(torch.relu)
    assert limit.kind == "majority"
    assert limit.constant == pytest.approx(1 / math.pi, abs=3e-3)


def test_tanh_comes_to_a_singular_kernel():
    limit = Limit.of(torch.tanh)
    assert limit.kind == "singular"
    assert limit.constant == pytest.approx(0, abs=1e-9)
    assert 0 < limit.slope < 1 < limit.steepness


def test_a_centred_square_comes_to_the_nearest_neighbor():
    assert Limit.of(lambda x: x**2 - 1).kind == "nearest"


def test_a_linear_activation_comes_to_none_of_them():
    assert Limit.of(lambda x: 3 * x).kind == "none"


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 7])
def test_the_optimal_activations_exponent_is_the_dimension(dimension):
    limit = Limit.of(optimal_activation(dimension))
    assert limit.alpha == pytest.approx(dimension, abs=1e-6)


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_the_kernel_of_many_layers_is_a_power_of_the_distance(dimension):
    """S_k / A^k for f(z) = A z + (1 - 2 A) z^2 + A z^3 has the slope -d against the distance."""
    a = 2 ** (-dimension / 2)
    r = np.geomspace(0.005, 0.08, 9)
    logs = np.log(_limit(1 - r**2 / 2, a))
    slopes = np.diff(logs) / np.diff(np.log(r))
    assert slopes.mean() == pytest.approx(-dimension, abs=0.02)


def _limit(z: np.ndarray, a: float) -> np.ndarray:
    """lim S_k / A^k = z prod f(S_k) / (A S_k), a product that converges."""
    s, total = z, z.copy()
    for _ in range(400):
        f = a * s + (1 - 2 * a) * s**2 + a * s**3
        total, s = total * np.where(s > 1e-290, f / (a * np.maximum(s, 1e-290)), 1.0), f
    return total


def noisy(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the sphere S^2, their classes -1 and 1, and the classes as noise flips them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    wave = np.sign(np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1)
    flips = rng.random(count) < np.where(wave > 0, 0.2, 0.3)
    return tuple(map(torch.from_numpy, (x, wave, np.where(flips, -wave, wave))))


def accuracy(count: int, alpha: float) -> float:
    """On noisy labels, of the classifier that has seen `count` noisy examples."""
    (x, _, y), (queries, _, truth) = noisy(count, 0), noisy(2000, 1)
    return float((singular_vote(x, y, queries, alpha) == truth).double().mean())


def test_the_optimal_exponent_beats_the_nearest_neighbor_and_learns_on():
    nearest, few, many = accuracy(1600, 60), accuracy(100, 2), accuracy(1600, 2)
    assert many > nearest + 0.04
    assert many > few


def perceptron(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 3))


def vectors() -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def test_a_network_of_the_optimal_activation_scores_0():
    given = subject(perceptron(OptimalActivation(3)), vectors())
    assert score(given, "wide_deep") == pytest.approx(0, abs=1e-6)
    assert score(subject(perceptron(nn.Tanh()), vectors()), "wide_deep") > 0.1


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (perceptron(nn.ReLU()), "majority vote"),
        (perceptron(nn.Softmax(1)), "no known function of one number"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.GELU()),
            "2 kinds of activation",
        ),
        (nn.Sequential(nn.Linear(4, 3)), "0 kinds of activation"),
    ],
    ids=["relu", "softmax", "two", "linear"],
)
def test_other_networks_are_refused(network, why):
    assert why in reason(subject(network, vectors()), "wide_deep")


def test_a_convolutional_network_is_refused():
    network = nn.Sequential(nn.Conv2d(2, 3, 8), nn.Tanh(), nn.Flatten(), nn.Linear(3, 3))
    assert "Conv2d is no linear map" in reason(subject(network, images()), "wide_deep")
