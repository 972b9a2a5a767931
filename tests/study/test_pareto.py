"""Hypervolume against closed forms and counting, the knee, and budgets."""

from __future__ import annotations

import random

import pytest

from nas import registry
from nas.errors import ConfigurationError
from nas.pareto import added_metrics, knee, within, worth
from nas.problem import Objective, Problem
from nas.trial import Trial
from tests.toys import letters

SPACE = letters(2, "ab")
ONE = SPACE.parse("word(a, b)")
GAIN, COST = Objective("gain", "maximize"), Objective("cost", "minimize")
BOTH = Problem(SPACE, (GAIN, COST))


def trials(*values, names=("gain", "cost")):
    return [Trial(i, ONE, dict(zip(names, v, strict=True))) for i, v in enumerate(values)]


def test_the_hypervolume_of_two_points_is_that_of_two_rectangles():
    found = worth(BOTH, trials((0.9, 100), (0.8, 50)), {"gain": 0.5, "cost": 200})
    assert found.hypervolume == pytest.approx(0.3 * 150 + 0.1 * 100)
    assert found.share == pytest.approx(55 / (0.4 * 150))
    assert found.ideal == {"gain": 0.9, "cost": 50}


def test_the_reference_is_a_tenth_of_the_range_worse_than_the_worst():
    found = worth(BOTH, trials((0.5, 100), (0.9, 300), (0.1, 200)))
    assert found.reference == pytest.approx({"gain": 0.1 - 0.08, "cost": 300 + 20})


def test_where_all_values_are_equal_the_reference_is_a_tenth_of_them_worse():
    found = worth(BOTH, trials((0.0, 100), (0.0, 100)))
    assert found.reference == pytest.approx({"gain": -0.1, "cost": 110})
    assert found.share == pytest.approx(1)


def test_a_dominated_trial_adds_nothing_and_another_adds_volume():
    at = {"gain": 0, "cost": 10}
    first = worth(BOTH, trials((2, 4), (3, 6)), at).hypervolume
    assert worth(BOTH, trials((2, 4), (3, 6), (2, 5)), at).hypervolume == first
    assert worth(BOTH, trials((2, 4), (3, 6), (1, 2)), at).hypervolume > first


def test_a_front_that_does_not_reach_the_reference_has_no_volume():
    assert worth(BOTH, trials((2, 4), (3, 6)), {"gain": 5}).hypervolume == 0


def test_three_objectives_agree_with_counting_random_points():
    rng = random.Random(0)
    names = ("x", "y", "z")
    problem = Problem(SPACE, tuple(Objective(n, "maximize") for n in names))
    points = [[rng.random() for _ in names] for _ in range(12)]
    found = worth(problem, trials(*points, names=names), dict.fromkeys(names, 0.0)).hypervolume
    drawn = [[rng.random() for _ in names] for _ in range(40_000)]
    inside = sum(any(all(a >= b for a, b in zip(p, d, strict=True)) for p in points) for d in drawn)
    error = (found * (1 - found) / len(drawn)) ** 0.5
    assert abs(inside / len(drawn) - found) < 4 * error


def test_one_objective_has_no_front_to_measure():
    assert worth(Problem(SPACE, (GAIN,)), trials((1, 1))) is None
    assert worth(BOTH, [Trial(0, ONE, infeasible="no")]) is None


def test_a_reference_for_what_is_no_objective_is_refused():
    with pytest.raises(ConfigurationError, match=r'"costs" is not an objective.*did you mean "cost"'):
        worth(BOTH, trials((1, 1)), {"costs": 1})


def test_the_knee_is_farthest_from_the_line_through_the_ends():
    """From the line gain = cost the points are 0, 5, 4 and 0 away, times the square root of 1/2."""
    assert knee(BOTH, trials((0, 0), (7, 2), (9, 5), (10, 10))).number == 1


def test_the_knee_does_not_depend_on_the_units():
    points = [(0, 0), (7, 2), (9, 5), (10, 10)]
    scaled = [(g * 1e-3 + 5, c * 1e6) for g, c in points]
    assert knee(BOTH, trials(*scaled)).number == knee(BOTH, trials(*points)).number


@pytest.mark.parametrize(
    "points", [[(0, 0), (1, 1)], [(0, 0), (5, 5), (10, 10)], [(0, 0), (2, 7), (10, 10)]]
)
def test_a_straight_or_inward_front_has_no_knee(points):
    assert knee(BOTH, trials(*points)) is None


def test_a_budget_is_on_any_metric_of_the_trials():
    given = [Trial(i, ONE, {"gain": float(i), "size": 10.0 * i}) for i in range(5)]
    assert [t.number for t in within(BOTH, given, {"size": 20})] == [0, 1, 2]
    assert [t.number for t in within(BOTH, given, {"size": 30, "gain": 1})] == [0, 1]


def test_parameters_need_not_have_been_measured():
    space = registry.make("space", "nasbench201", {"channels": 4, "cells": 1})
    problem = Problem(space, (GAIN,))
    small, large = (
        space.parse(f"network(cell({', '.join([name] * 6)}))") for name in ("none", "nor_conv_3x3")
    )
    given = [Trial(0, large, {"gain": 2.0}), Trial(1, small, {"gain": 1.0})]
    count = space.complexity(small).params
    (only,) = within(problem, given, {"params": count})
    assert (only.number, only.metrics) == (1, {"gain": 1.0, "params": float(count)})
    assert list(added_metrics({}, {"params": 1})) == ["params"]


def test_a_budget_that_nothing_fits_says_the_least_there_is():
    with pytest.raises(ConfigurationError, match="size at most 5; the least there is: size 7"):
        within(BOTH, [Trial(0, ONE, {"gain": 1.0, "size": 7.0})], {"size": 5})
    with pytest.raises(ConfigurationError, match="no trial is completed"):
        within(BOTH, [Trial(0, ONE, infeasible="no")], {"size": 5})
    with pytest.raises(ConfigurationError, match=r'"sise" is not a metric.*did you mean "size"'):
        within(BOTH, [Trial(0, ONE, {"gain": 1.0, "size": 7.0})], {"sise": 5})
