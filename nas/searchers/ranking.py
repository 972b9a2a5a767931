"""The best of a pool, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.evaluation import Context
from nas.pool_source import Source, tried
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.trial import History


@registry.searcher("ranking")
@registry.searcher("zero_cost")  # by what its pools usually hold
@final
@dataclass(frozen=True)
class Ranking(Searcher):
    """The architectures of a pool from the best down, by one metric or by several ranks together.

    `ranking` and `zero_cost` are two names of one searcher.

    1. Score the pool: the sum over `metrics` of log(rank / m), rank 1 the worst of m. With one metric
       that is its own order.
    2. Propose the best that was not tried yet and keeps the limits; end where none is left.

    `pool` is a file that `nas score` wrote. `metrics` are names of its columns, each in its own
    direction or in that of METRIC:DIRECTION (params:max); by default all but the study's objectives and
    resources, such as params. A missing value shares the worst rank. A trial notes its `rank` in the
    pool (equals share one) and its `score`.

    Reference: Lee and Ham, AZ-NAS, CVPR 2024 (the combination of ranks).
    """

    source: Source = Source()

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal | None:
        candidates = self.source.candidates(problem)
        scores = candidates.log_rank_sums
        for row, architecture in candidates.best(scores, problem, tried(history)):
            rank = 1 + int((scores > scores[row]).sum())
            return Proposal(architecture, {"rank": rank, "score": float(scores[row])})
        return None
