from __future__ import annotations

import math

import numpy as np
import pytest

from nas.statistics import mean, paired_difference, relative_improvement

RANDOM = [97.05, 96.85, 96.57, 97.09, 96.76, 97.10, 96.94, 97.02]
DARTS = [97.47, 97.15, 97.41, 97.05, 96.93, 97.13, 97.40, 97.34]


def test_relative_improvement_of_the_published_darts_column():
    assert relative_improvement(DARTS, RANDOM).value == pytest.approx(0.32, abs=0.005)


def test_relative_improvement_of_an_oracle_on_the_table():
    assert relative_improvement([94.37], [87.04]).value == pytest.approx(8.42, abs=0.005)


def test_an_error_that_falls_is_an_improvement():
    assert relative_improvement([4.0, 4.0], [5.0, 5.0], sign=-1).value == pytest.approx(20)


def test_a_negative_score_that_rises_is_an_improvement():
    assert relative_improvement([-1.0, -1.0], [-2.0, -2.0]).value == pytest.approx(50)


def test_a_random_method_has_zero_in_its_interval():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        estimate = relative_improvement(list(rng.normal(90, 1, 30)), list(rng.normal(90, 1, 30)))
        held += estimate.low <= 0 <= estimate.high
    assert held >= 34


def test_the_interval_holds_the_mean_and_shrinks_with_n():
    rng = np.random.default_rng(1)
    few, many = mean(list(rng.normal(0, 1, 10))), mean(list(rng.normal(0, 1, 1000)))
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 3


def test_a_paired_difference_takes_pairs():
    estimate = paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])


def test_one_number_has_no_interval():
    assert math.isnan(mean([3.0]).low)
    assert "no interval" in str(mean([3.0]))
