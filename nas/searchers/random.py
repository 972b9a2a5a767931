"""Random search: every trial an independent draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.evaluation import Context
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.trial import History


@registry.searcher("random")
@final
@dataclass(frozen=True)
class Random(Searcher):
    """Random search: independent draws by the weights of the space's rules.

    Reference: Li, Talwalkar, Random Search and Reproducibility for Neural Architecture Search,
    UAI 2019 [recalled]. The baseline every other searcher is compared with.
    """

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal:
        return Proposal(problem.sample(context.rng))
