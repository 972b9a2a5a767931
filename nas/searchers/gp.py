"""Bayesian optimization with a Gaussian process: Optuna's sampler of that name."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from optuna.distributions import CategoricalDistribution
from optuna.samplers import GPSampler

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.mirror import mirror, seed
from nas.parameters import Parameters, categorical, distribution, parameter_name, parameters
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.space import SearchSpace
from nas.trial import History
from nas.variation import sample

NUM_DRAWN = 200  # architectures that tell which choices are common
ABSENT = "(absent)"  # the value of a choice that an architecture does not have


@registry.searcher("gp")
@final
@dataclass(frozen=True)
class GP(Searcher):
    """Bayesian optimization: a Gaussian process over the choices, and log expected improvement.

    1. Until `initial_size` trials are completed, draw at random.
    2. Fit a Gaussian process to each objective: Matern 5/2 over whether choices differ, with a length
       scale for each choice.
    3. Propose what maximizes log expected improvement (several objectives: hypervolume improvement),
       with the trials that run elsewhere as pending; limits that are measured are modelled too.

    The process needs the same choices in every trial: they are the `most_choices` choices that are the
    commonest in 200 random architectures, and one that is not there has a value for that. The others,
    many in a recursive space, are drawn by the grammar's weights. Pruned trials and infeasible ones
    without all metrics are left out. What was tried before is derived again, up to `redraws` times,
    with ever more choices drawn by weight.

    Reference: Jones, Schonlau, Welch, Efficient Global Optimization of Expensive Black-Box Functions,
    Journal of Global Optimization 13, 1998; Ament et al., Unexpected Improvements to Expected
    Improvement for Bayesian Optimization, NeurIPS 2023 [both recalled]. Optuna's sampler.
    """

    initial_size: int = 10
    most_choices: int = 32
    redraws: int = 20

    def __post_init__(self) -> None:
        for name in ("initial_size", "most_choices"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it is at least 1.")

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal:
        image = mirror(self, problem, history, self._encoding(problem.space))
        sampler = GPSampler(
            n_startup_trials=self.initial_size,
            warn_independent_sampling=False,
            seed=seed(context),
        )
        asked = image.ask(sampler, history.running, image.joint)
        architecture = asked.derive(
            history, context.rng, alone=lambda name, weights: False, redraws=self.redraws
        )
        image.close(asked)
        return Proposal(architecture)

    def _encoding(self, space: SearchSpace) -> Callable[[], Common]:
        return lambda: Common(space, common(space, self.most_choices))


@dataclass(frozen=True)
class Common:
    """Encodes every architecture by the same parameters."""

    space: SearchSpace
    distributions: Mapping[str, CategoricalDistribution]

    def __call__(self, architecture: Architecture) -> Parameters:
        made = parameters(self.space, architecture).values
        values = {}
        for name, among in self.distributions.items():
            value = made.get(name, ABSENT)
            # what no drawn architecture showed, an absence too, has no value of its own
            values[name] = value if value in among.choices else str(among.choices[-1])
        return Parameters(values, dict(self.distributions))


def common(space: SearchSpace, most: int) -> dict[str, CategoricalDistribution]:
    """The parameters that most random architectures have; absence is a value where some lack one."""
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    names: dict[str, tuple[str, ...]] = {}
    for _ in range(NUM_DRAWN):
        for choice in space.choices(sample(space, rng)).values():
            name = parameter_name(choice)
            counts[name] += 1
            names[name] = tuple(str(n) for n in distribution(choice).choices)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    return {
        name: categorical(names[name] if counts[name] == NUM_DRAWN else (*names[name], ABSENT))
        for name in ordered
    }
