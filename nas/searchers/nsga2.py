"""NSGA-II: Optuna's sampler of that name, with the grammar's own variation where choices differ."""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, final

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import NSGAIISampler
from optuna.trial import FrozenTrial

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.mirror import Mirror, mirror, seed
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.starting import Start
from nas.trial import History, Trial

GENERATION = "NSGAIISampler:generation"  # of a trial, as Optuna notes it
PARENTS = "NSGAIISampler:parent:"  # of the study, before the generation whose parents they are


@registry.searcher("nsga2")
@final
@dataclass(frozen=True)
class NSGA2(Searcher):
    """NSGA-II: generations of children whose parents survived by dominance and crowding distance.

    1. The first `population_size` completed trials are random: generation 0. With `start`,
       architectures by their texts or the names of the space's examples, or with `start_pool`, the
       `start_size` best of a pool, the first of them are those.
    2. Of a generation and its parents together, `population_size` survive: front after front, of the
       last one those with the largest crowding distance. They are the next parents.
    3. A child takes each choice from one of two parents (with `crossover_probability`; from the second
       with `swapping_probability`), each parent the winner of a tournament of two; else it copies one.
       Every choice is then drawn anew with `mutation_probability` (by default 1 / number of choices).

    Where architectures do not have the same choices (conditional and recursive spaces), step 3 is made
    of the grammar's own crossover and mutation, with the same probabilities; the rest is the same.
    Infeasible trials and those that are running elsewhere are no parents; one that was measured but
    exceeds a limit is dominated by every feasible one. A child that was tried before is made again,
    up to `redraws` times; with 0 the sequence of trials is that of Optuna's sampler.

    Reference: Deb, Pratap, Agarwal, Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm:
    NSGA-II, IEEE Transactions on Evolutionary Computation 6(2), 2002 [recalled] (there 100 and 0.9).
    Optuna's sampler: its tournaments go by dominance alone.
    """

    population_size: int = 20
    crossover_probability: float = 0.9
    swapping_probability: float = 0.5
    mutation_probability: float | None = None
    redraws: int = 20
    start: Start = Start()

    def __post_init__(self) -> None:
        if self.population_size < 2:
            raise ConfigurationError(f"population_size is {self.population_size}; it is at least 2.")
        for name in ("crossover_probability", "swapping_probability", "mutation_probability"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigurationError(f"{name} is {value}; it is between 0 and 1.")

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal:
        image = mirror(self, problem, history)
        family = _Family(self, image, history, context.stream("variation", context.number))
        sampler = self._sampler(context, family)
        _prepare(image, sampler)
        asked = image.ask(sampler, history.running, image.joint)
        given = self.start.texts(problem)
        architecture = family.child
        if context.number < len(given):
            architecture = problem.space.parse(given[context.number])
        elif architecture is None:
            architecture = asked.derive(history, context.rng, alone=_is_even, redraws=self.redraws)
        return Proposal(architecture, system_attributes=image.close(asked))

    def _sampler(self, context: Context, family: _Family) -> NSGAIISampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return NSGAIISampler(
                population_size=self.population_size,
                crossover_prob=self.crossover_probability,
                swapping_prob=self.swapping_probability,
                mutation_prob=self.mutation_probability,
                child_generation_strategy=family if family.image.conditional else None,
                seed=seed(context),
            )


@dataclass
class _Family:
    """Makes a child of trees: what Optuna calls where parameters cannot be crossed."""

    searcher: NSGA2
    image: Mirror
    history: History
    rng: random.Random
    child: Architecture | None = None

    def __call__(
        self, study: Study, space: dict[str, BaseDistribution], population: list[FrozenTrial]
    ) -> dict[str, Any]:  # Any: values of parameters, of which there are none
        parents = [self.image.trials[t.number] for t in population]
        for _ in range(self.searcher.redraws + 1):
            self.child = self._child(parents)
            if not self.history.knows(self.child):
                break
        return {}

    def _child(self, population: Sequence[Trial]) -> Architecture:
        problem, rng = self.image.problem, self.rng
        if rng.random() < self.searcher.crossover_probability:
            first = self._winner(population)
            second = self._winner([t for t in population if t is not first] or population)
            child = problem.crossover(first.architecture, second.architecture, rng)
        else:
            child = rng.choice(population).architecture
        num_choices = len(problem.space.choices(child))
        given = self.searcher.mutation_probability
        probability = 1 / max(1, num_choices) if given is None else given
        for _ in range(sum(rng.random() < probability for _ in range(num_choices))):
            child = problem.mutate(child, rng)
        return child

    def _winner(self, population: Sequence[Trial]) -> Trial:
        """The dominating one of two that are drawn; the second where neither is."""
        first, second = self.rng.choice(population), self.rng.choice(population)
        return first if self.image.problem.better(first, second) else second


def _is_even(name: str, weights: Collection[float]) -> bool:
    """Whether the grammar draws as Optuna does, which knows no weights."""
    return len(set(weights)) == 1


def _prepare(image: Mirror, sampler: NSGAIISampler) -> None:
    """Leave on the mirror the parents of the generations that have begun, and no others.

    Optuna keeps a generation's parents when it is first asked for a child of theirs. Here they follow
    from the history instead: with several workers a trial of an earlier generation may come late, and
    then they are selected anew, each generation after the one before.
    """
    newest = max((t.system_attributes.get(GENERATION, 0) for t in image.trials.values()), default=0)
    late = min((t.system_attributes.get(GENERATION, 0) for t in image.fresh), default=newest)
    kept = {key for key, value in image.attributes().items() if value is not None}
    for key in kept:
        if key.startswith(PARENTS) and int(key.removeprefix(PARENTS)) > late:
            image.forget(key)
    study = image.study(sampler)
    for generation in range(1, newest + 1):
        if generation > late or f"{PARENTS}{generation}" not in kept:
            sampler.get_parent_population(study, generation)
