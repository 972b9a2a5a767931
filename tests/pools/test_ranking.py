"""Normalisation, sums of ranks and precision at the top: closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from nas.errors import ConfigurationError
from nas.ranking import descending, log_rank_sum, normalised, precision_at

TRANSFORMS = ("rank", "minmax", "log")


def column(*values):
    return np.array(values, float)[:, None]


def test_minmax_and_ranks_of_a_column():
    np.testing.assert_allclose(normalised(column(3, 1, 2, 5), "minmax")[:, 0], [0.5, 0, 0.25, 1])
    np.testing.assert_allclose(normalised(column(30, 1, 2, 2), "rank")[:, 0], [1, 0, 0.5, 0.5])


def test_logarithms_are_even_over_orders_of_magnitude():
    x = normalised(column(1e-6, 1e-3, 1, 1e3), "log")[:, 0]
    np.testing.assert_allclose(np.diff(x), 1 / 3, atol=0.03)
    signed = normalised(column(-100, -1, 1, 100), "log")[:, 0]
    np.testing.assert_allclose(signed, 1 - signed[::-1])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_order_is_kept_between_0_and_1(transform):
    x = np.random.default_rng(0).normal(size=(50, 3)) ** 3
    found = normalised(x, transform)
    assert (found.min(), found.max()) == (0, 1)
    assert (np.argsort(found, axis=0) == np.argsort(x, axis=0)).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("values", [(2, 2, 2), (0, 0, 0), (np.nan,) * 3, (4,)], ids=str)
def test_a_column_without_differences_is_0(transform, values):
    assert (normalised(column(*values), transform) == 0).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_missing_value_is_0_and_has_no_say(transform):
    found = normalised(column(5, np.nan, 7, 9), transform)[:, 0]
    assert found[1] == 0
    np.testing.assert_allclose(found[[0, 2, 3]], normalised(column(5, 7, 9), transform)[:, 0])


def test_ranks_are_summed_by_their_logarithms():
    values = np.array([[1, 30], [2, 10], [3, 20]], float)
    expected = np.log([1 / 3 * 1, 2 / 3 * 1 / 3, 1 * 2 / 3])
    np.testing.assert_allclose(log_rank_sum(values), expected)


def test_one_bad_rank_weighs_more_than_the_same_step_among_good_ones():
    values = np.array([[9, 1], [5, 5], *([i, i] for i in (2, 3, 4, 6, 7, 8))], float)
    scores = log_rank_sum(values)
    assert scores[1] > scores[0]


def test_a_missing_value_ranks_worst():
    assert np.argmin(log_rank_sum(column(3, np.nan, 1))) == 1


def test_equals_come_in_their_order():
    assert descending(np.array([1.0, 2, 2, 3, 1])).tolist() == [3, 1, 2, 0, 4]


@pytest.mark.parametrize("count", [1, 10, 50, 100])
def test_the_precision_of_an_objective_with_itself_is_1(count):
    x = np.random.default_rng(0).normal(size=100)
    assert precision_at(x, x, count) == 1


@pytest.mark.parametrize("count", [1, 10, 50])
def test_the_precision_of_a_reversed_ranking_is_0_up_to_half(count):
    x = np.random.default_rng(0).normal(size=100)
    assert precision_at(-x, x, count) == 0


def test_the_precision_of_a_random_ranking_is_the_share_on_average():
    rng = np.random.default_rng(0)
    found = [precision_at(rng.random(200), rng.random(200), 20) for _ in range(500)]
    assert np.mean(found) == pytest.approx(20 / 200, abs=0.01)


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_beyond_the_pool_is_refused(count):
    with pytest.raises(ConfigurationError, match=f"precision at {count}"):
        precision_at(np.zeros(3), np.zeros(3), count)
