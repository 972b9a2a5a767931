"""Architectures that a population begins with in place of random ones: given, or the best of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nas.errors import ConfigurationError
from nas.pool_source import Source
from nas.problem import Problem


@dataclass(frozen=True)
class Start:
    """What a searcher proposes first.

    `start` are texts, or names of the space's examples. They are followed by the `start_size` best of
    `start_pool`, a file that `nas score` wrote, within the limits, by the sum of log relative ranks of
    `start_metrics`: each METRIC or METRIC:DIRECTION; by default all but resources and the study's
    objectives.
    """

    start: tuple[str, ...] = ()
    start_pool: Path | None = None
    start_metrics: tuple[str, ...] = ()
    start_size: int = 10

    def __post_init__(self) -> None:
        if self.start_size < 1:
            raise ConfigurationError(f"start_size is {self.start_size}; it is at least 1.")
        if self.start_metrics and self.start_pool is None:
            raise ConfigurationError("start_metrics are those of a pool; name it with start_pool=FILE.")

    def texts(self, problem: Problem) -> tuple[str, ...]:
        """All of them, in their order; none where nothing is given."""
        if self.start_pool is None:
            return self.start
        candidates = Source(self.start_pool, self.start_metrics).candidates(problem)
        found = candidates.best(candidates.log_rank_sums, problem)
        best = islice(found, self.start_size)
        return (*self.start, *(str(architecture) for _, architecture in best))
