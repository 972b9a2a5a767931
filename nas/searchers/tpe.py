"""The tree-structured Parzen estimator: Optuna's sampler of that name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from optuna.samplers import TPESampler

from nas import registry
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.mirror import mirror, seed
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.trial import History


@registry.searcher("tpe")
@final
@dataclass(frozen=True)
class TPE(Searcher):
    """Tree-structured Parzen estimator: rules that are commoner among good trials than among others.

    1. Until `initial_size` trials are done, draw at random.
    2. Split the trials: the best tenth (with several objectives by dominance, ties by hypervolume), and
       the others. Estimate how the choices are distributed in either: l and g.
    3. Of `num_candidates` draws from l, propose the one with the largest l / g.

    One estimate covers all choices that every trial made (`multivariate`, by default with one
    objective); every other choice has its own, by its path. A choice that fewer than `initial_size`
    trials made is drawn by the grammar's weights: so are the outer branches of a recursive space.
    Infeasible trials count as bad ones, those running elsewhere too (the constant liar). What was tried
    before is derived again, up to `redraws` times, with ever more choices drawn by weight.

    Reference: Bergstra, Bardenet, Bengio, Kegl, Algorithms for Hyper-Parameter Optimization, NeurIPS
    2011; several objectives: Ozaki et al., Multiobjective Tree-Structured Parzen Estimator, JAIR 2022
    [both recalled]. Optuna's sampler, with its defaults.
    """

    initial_size: int = 10
    num_candidates: int = 24
    multivariate: bool | None = None
    redraws: int = 20

    def __post_init__(self) -> None:
        for name in ("initial_size", "num_candidates"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it is at least 1.")

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal:
        image = mirror(self, problem, history)
        sampler = TPESampler(
            n_startup_trials=self.initial_size,
            n_ei_candidates=self.num_candidates,
            multivariate=self._is_joint(problem),
            seed=seed(context),
        )
        asked = image.ask(sampler, history.running, image.joint if self._is_joint(problem) else {})
        architecture = asked.derive(
            history,
            context.rng,
            alone=lambda name, weights: image.counts[name] >= self.initial_size,
            redraws=self.redraws,
        )
        return Proposal(architecture, system_attributes=image.close(asked))

    def _is_joint(self, problem: Problem) -> bool:
        return len(problem.objectives) == 1 if self.multivariate is None else self.multivariate
