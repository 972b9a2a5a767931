"""Ranking by several values at once: fronts of points that none dominates, ties by crowding distance.

Reference: Deb, Pratap, Agarwal, Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm:
NSGA-II, IEEE Transactions on Evolutionary Computation 6(2), 2002, sections III-A and III-B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = Sequence[Sequence[float]] | NDArray[np.float64]  # (n points, m values), more is better


def fronts(points: Points) -> NDArray[np.intp]:
    """The front that each point is in (n,): 0 where none dominates it, 1 without those, and so on.

    A point dominates another where it is nowhere less and somewhere more; equal points share a front.
    """
    dominated = _dominated(np.asarray(points, dtype=np.float64))
    found = np.full(len(dominated), -1, dtype=np.intp)
    by = dominated.sum(axis=1)  # of the points left
    front, best = 0, np.flatnonzero(by == 0)
    while len(best):
        found[best] = front
        by -= dominated[:, best].sum(axis=1)
        front += 1
        best = np.flatnonzero((by == 0) & (found < 0))
    return found


def crowding(points: Points) -> NDArray[np.float64]:
    """The crowding distance of each point among those of one front (n,); infinite at the ends.

    d(p) = sum over the values of (next more - next less) / (most - least). Equal points count as one,
    so that distances do not depend on the points' order.
    """
    values = np.asarray(points, dtype=np.float64)
    distinct, where = np.unique(values, axis=0, return_inverse=True)
    distances = np.zeros(len(distinct))
    for column in distinct.T:
        distances += _gaps(column)
    return distances[where.reshape(-1)]


def _gaps(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """For every number of a column, how far its neighbors are apart in parts of the range (n,)."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    span = ordered[-1] - ordered[0]
    if span == 0:
        return np.zeros(len(column))
    gaps = np.full(len(column), np.inf)
    gaps[order[1:-1]] = (ordered[2:] - ordered[:-2]) / span
    return gaps


def num_better(points: Points, index: int) -> int:
    """How many points rank before one: in an earlier front, or in its front and less crowded."""
    values = np.asarray(points, dtype=np.float64)
    ranks = fronts(values)
    mates = np.flatnonzero(ranks == ranks[index])
    distances = crowding(values[mates])
    own = distances[int(np.flatnonzero(mates == index)[0])]
    return int((ranks < ranks[index]).sum() + (distances > own).sum())


def ordered(points: Points) -> list[int]:
    """The points' indices, best first: by front, then least crowded, then in the order given."""
    if not len(points):
        return []
    values = np.asarray(points, dtype=np.float64)
    ranks = fronts(values)
    distances = np.zeros(len(values))
    for front in range(int(ranks.max()) + 1):
        mates = np.flatnonzero(ranks == front)
        distances[mates] = crowding(values[mates])
    return [int(i) for i in np.lexsort((-distances, ranks))]


def _dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the point of a row is dominated by that of a column (n, n)."""
    n = len(values)
    nowhere_less, somewhere_more = np.ones((n, n), dtype=bool), np.zeros((n, n), dtype=bool)
    for column in values.T:
        nowhere_less &= column[None, :] >= column[:, None]
        somewhere_more |= column[None, :] > column[:, None]
    return nowhere_less & somewhere_more
