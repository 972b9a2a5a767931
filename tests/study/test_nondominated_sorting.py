from __future__ import annotations

import random

import numpy as np
import pytest

from nas.nondominated_sorting import crowding, fronts, num_better, ordered

INFINITE = float("inf")

# by hand: a, b, c, d form the first front, e is beaten by b alone, f by everything but a
POINTS = [(1.0, 9.0), (5.0, 6.0), (6.0, 5.0), (9.0, 1.0), (4.0, 5.5), (4.0, 0.5)]


def slow_fronts(points):
    left, found, front = set(range(len(points))), {}, 0

    def beats(p, q):
        return all(a >= b for a, b in zip(p, q, strict=True)) and p != q

    while left:
        best = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        found |= dict.fromkeys(best, front)
        left -= best
        front += 1
    return [found[i] for i in range(len(points))]


def test_fronts_of_a_hand_computed_example():
    assert fronts(POINTS).tolist() == [0, 0, 0, 0, 1, 2]


@pytest.mark.parametrize("num_values", [1, 2, 3])
def test_fronts_are_those_of_their_definition(num_values):
    rng = random.Random(num_values)
    points = [tuple(float(rng.randrange(6)) for _ in range(num_values)) for _ in range(60)]
    assert fronts(points).tolist() == slow_fronts(points)


def test_crowding_distances_of_a_hand_computed_example():
    # b: (6 - 1) / 8 + (9 - 5) / 8 = 1.125; c: (9 - 5) / 8 + (6 - 1) / 8 = 1.125
    assert crowding(POINTS[:4]).tolist() == [INFINITE, 1.125, 1.125, INFINITE]


def test_crowding_does_not_depend_on_units():
    scaled = [(1000 * a, b / 7) for a, b in POINTS[:4]]
    np.testing.assert_allclose(crowding(scaled), crowding(POINTS[:4]), rtol=1e-12)


def test_equal_points_share_front_and_distance():
    points = [*POINTS[:4], POINTS[1]]
    assert fronts(points)[1] == fronts(points)[4]
    assert crowding(points)[1] == crowding(points)[4] == 1.125


def test_the_order_is_by_front_then_by_crowding():
    order = ordered(POINTS)
    assert order == [0, 3, 1, 2, 4, 5]
    assert [num_better(POINTS, i) for i in order] == [0, 0, 2, 2, 4, 5]


def test_one_value_is_ranked_by_itself():
    values = [(3.0,), (7.0,), (3.0,), (5.0,)]
    assert ordered(values) == [1, 3, 0, 2]
    assert [num_better(values, i) for i in range(4)] == [2, 0, 2, 1]


def test_no_points_have_no_order():
    assert ordered([]) == []
