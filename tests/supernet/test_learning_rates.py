"""Learning rates: their ends, their shapes, their warm-up."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from nas.errors import ConfigurationError
from nas.learning_rates import Constant, Cosine, CosinePower


def rates(schedule, epochs: int) -> list[float]:
    return [schedule.rate(done, epochs) for done in range(epochs)]


@pytest.mark.parametrize("power", [1.0, 2.0, 10.0, 1e6])
def test_cosine_power_annealing_falls_from_the_first_to_the_last(power):
    found = rates(CosinePower(0.025, 1e-4, power, 0), 40)
    assert found[0] == pytest.approx(0.025, rel=1e-12)
    assert found[-1] == pytest.approx(1e-4, rel=1e-9)
    assert all(a > b for a, b in pairwise(found))


def test_power_1_is_a_cosine_after_the_same_rescaling():
    found = rates(CosinePower(1.0, 0.0, 1.0, 0), 30)
    c = [(1 + math.cos(math.pi * t / 30)) / 2 for t in range(1, 31)]
    assert found == pytest.approx([(v - c[-1]) / (c[0] - c[-1]) for v in c])


@pytest.mark.parametrize(("power", "expected"), [(2.0, 0.4142), (10.0, 0.2403)])
def test_half_way_the_rate_is_the_published_share(power, expected):
    assert CosinePower(1.0, 0.0, power, 0).rate(4999, 10_000) == pytest.approx(expected, abs=1e-4)


def test_warm_up_rises_linearly_and_the_curve_is_that_of_the_rest():
    found = rates(CosinePower(0.025, 1e-4, 2.0, 5), 25)
    assert found[:6] == pytest.approx([0.025 * t / 6 for t in range(1, 7)])
    assert found[5:] == pytest.approx(rates(CosinePower(0.025, 1e-4, 2.0, 0), 20))


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_a_single_epoch_has_a_rate(warmup):
    assert CosinePower(0.025, 1e-4, 2.0, warmup).rate(0, 1) == pytest.approx(0.025 / (warmup + 1))


def test_the_cosine_is_darts_and_a_constant_is_constant():
    found = rates(Cosine(0.025, 0.001), 50)
    assert found[0] == 0.025
    assert found[25] == pytest.approx(0.013)
    assert found[-1] == pytest.approx(0.001 + 0.024 * (1 + math.cos(math.pi * 49 / 50)) / 2)
    assert rates(Constant(0.0025), 3) == [0.0025] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: CosinePower(power=0.5),
        lambda: CosinePower(warmup_epochs=-1),
        lambda: CosinePower(0.1, 0.2),
        lambda: Cosine(math.inf),
    ],
)
def test_rates_that_are_not_allowed_are_refused(make):
    with pytest.raises(ConfigurationError):
        make()
