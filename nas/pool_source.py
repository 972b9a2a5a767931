"""What a searcher takes from a pool: architectures that can be ranked, and the metrics to rank by."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.configuration import parse_objective
from nas.errors import ConfigurationError
from nas.pool import Pool
from nas.problem import Problem
from nas.ranking import Values, descending, log_rank_sum
from nas.trial import History

CELLS = 2**17  # of a matrix of scores at a time: it stays in the cache
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Source:
    """A pool in a file, and its metrics that are used: as METRIC, or METRIC:DIRECTION where another
    direction than its own is meant (params:max). None named: all but resources and the objectives.
    """

    pool: Path | None = None
    metrics: tuple[str, ...] = ()

    def candidates(self, problem: Problem) -> Candidates:
        """What can be ranked of the pool; ConfigurationError or DataError where it cannot be read."""
        if self.pool is None:
            raise ConfigurationError(
                "this searcher takes its architectures from a pool and none is named; make one with "
                "`nas score`, and give --set pool=FILE."
            )
        stamp = self.pool.stat() if self.pool.is_file() else None
        objectives = tuple(objective.metric for objective in problem.objectives)
        key = (stamp.st_mtime_ns, stamp.st_size) if stamp else None
        return _candidates(self.pool, key, self.metrics, objectives)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Architectures by their texts with the values (rows, metrics) of the metrics, as in the pool.

    An architecture that has none of the metrics is left out. `signs` has 1 for a metric of which more
    is better, else -1.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]
    values: Values
    signs: tuple[int, ...]

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of every architecture, by its text."""
        return {text: row for row, text in enumerate(self.texts)}

    @cached_property
    def log_rank_sums(self) -> Values:
        """Scores (rows,): the sum of the logarithms of relative ranks, each metric in its direction."""
        return log_rank_sum(self.values * np.array(self.signs))

    def best(
        self, scores: Values, problem: Problem, without: Container[str] = ()
    ) -> Iterator[tuple[int, Architecture]]:
        """The rows with their architectures, the highest score first, as far as limits allow.

        `without` are texts to leave out.
        """
        for row in _lazily_descending(scores):
            if self.texts[row] not in without and self._keeps_limits(row, problem):
                yield row, problem.space.parse(self.texts[row])

    def tops(self, columns: Values, weights: Values, problem: Problem) -> Rows:
        """For each of several mixes the row of its best within the limits: (mixes,), of equals the
        first. Empty where no architecture is within them.

        A mix of columns (rows, metrics) by weights (mixes, metrics) is their product.
        """
        known = _verdicts(self, problem)
        left = np.array([row for row in range(len(self.texts)) if known.get(row, True)], int)
        found = np.full(len(weights), -1)
        while len(left) and (found < 0).any():
            open_ = np.flatnonzero(found < 0)
            found[open_] = left[_argmax(columns[left], weights[open_])]
            refused = [r for r in np.unique(found).tolist() if not self._keeps_limits(r, problem)]
            left, found = np.setdiff1d(left, refused), np.where(np.isin(found, refused), -1, found)
        return found if len(left) else found[:0]

    def _keeps_limits(self, row: int, problem: Problem) -> bool:
        if not problem.limits:
            return True
        known = _verdicts(self, problem)
        if row not in known:
            known[row] = problem.refusal(problem.space.parse(self.texts[row])) is None
        return known[row]


def tried(history: History) -> set[str]:
    """The texts of what was tried, or is being tried."""
    return {str(t.architecture) for t in history} | {str(a) for a in history.running}


def _lazily_descending(scores: Values) -> Iterator[int]:
    """The rows by score; the first is found without sorting."""
    first = int(np.argmax(scores))
    yield first
    yield from (int(row) for row in descending(scores)[1:])


def _argmax(columns: Values, weights: Values) -> Rows:
    """The rows that are best by weights (mixes, metrics) of columns (rows, metrics): (mixes,)."""
    count, transposed = max(1, CELLS // len(columns)), np.ascontiguousarray(columns.T)
    blocks = np.split(weights, range(count, len(weights), count))
    return np.concatenate([np.argmax(block @ transposed, axis=1) for block in blocks])


@lru_cache(maxsize=8)
def _verdicts(candidates: Candidates, problem: Problem) -> dict[int, bool]:
    """By row, whether it keeps the limits: as far as that was asked before."""
    return {}


@lru_cache(maxsize=8)
def _candidates(
    path: Path, stamp: object, metrics: Sequence[str], objectives: Sequence[str]
) -> Candidates:
    pool = Pool.read(path)
    told = (m.name for m in pool.metrics.values() if not m.resource and m.name not in objectives)
    named = tuple(metrics) or tuple(told)
    if not named:
        raise ConfigurationError(
            f'"{path}" has no metric that is neither an objective nor a resource; name what is to be '
            f"taken, as METRIC:DIRECTION, of {', '.join(pool.metrics) or 'none'}."
        )
    parsed = [directed(pool, text) for text in named]
    values = pool.matrix([name for name, _ in parsed])
    rows = np.flatnonzero(np.isfinite(values).any(axis=1))
    if len(rows) == 0:
        raise ConfigurationError(f'"{path}" has no architecture with any of {", ".join(named)}.')
    return Candidates(
        tuple(pool.texts[row] for row in rows),
        tuple(name for name, _ in parsed),
        values[rows],
        tuple(sign for _, sign in parsed),
    )


def directed(pool: Pool, text: str) -> tuple[str, int]:
    """The name and sign (1: more is better) of METRIC or METRIC:DIRECTION; DataError without it."""
    name = text.partition(":")[0]
    pool.column(name)  # DataError where there is none
    return name, parse_objective(text if ":" in text else f"{name}:{pool.metrics[name].direction}").sign
