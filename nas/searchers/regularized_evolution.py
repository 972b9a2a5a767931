"""Aging evolution: tournaments among the youngest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.starting import Start
from nas.trial import History


@registry.searcher("regularized_evolution")
@final
@dataclass(frozen=True)
class RegularizedEvolution(Searcher):
    """Aging evolution: mutate the best of a random tournament among the youngest.

    1. Until `population_size` trials are completed, draw at random. With `start`, architectures by
       their texts or the names of the space's examples, or with `start_pool`, the `start_size` best of
       a pool, propose those in place of draws, and go on to 2 when all of them are tried.
    2. Draw `tournament_size` of the last `population_size` completed trials, without replacement.
    3. Propose the best of them with one choice made differently. The oldest has left the population.

    With several objectives the best is drawn from the tournament's Pareto front. Infeasible and
    pruned trials never enter the population. Cost: one evaluation a trial.

    Reference: Real, Aggarwal, Huang, Le, Regularized Evolution for Image Classifier Architecture
    Search, AAAI 2019, Algorithm 1 (there 100 and 25 for 20,000 trials). The start: Ericsson et al.,
    einspace, NeurIPS 2024, Section 4 (there the population is filled with copies of the seeds).
    """

    population_size: int = 20
    tournament_size: int = 5
    start: Start = Start()

    def __post_init__(self) -> None:
        if not 1 <= self.tournament_size <= self.population_size:
            raise ConfigurationError(
                f"tournament_size {self.tournament_size} and population_size {self.population_size} "
                "do not go together; 1 <= tournament_size <= population_size."
            )

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal:
        rng = context.rng
        population = history.completed[-self.population_size :]
        given = self.start.texts(problem)
        if context.number < len(given):
            return Proposal(problem.space.parse(given[context.number]))
        if len(population) < (1 if given else self.population_size):
            return Proposal(problem.sample(rng))
        tournament = rng.sample(population, min(self.tournament_size, len(population)))
        parent = rng.choice(problem.front(tournament))
        child = problem.mutate(parent.architecture, rng)
        return Proposal(child, {"parent": parent.number})
