"""Successive halving in several brackets, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from optuna.pruners import HyperbandPruner

from nas import registry
from nas.curves import Curves
from nas.pruner import Point, Pruner, no_curve, one_objective
from nas.rungs import beyond, check_rungs, exponent, lowest_rung


@registry.pruner("hyperband")
@final
@dataclass(frozen=True)
class Hyperband(Pruner):
    """Hyperband: brackets of successive halving, from one that gives up early to one that never does.

    A trial belongs to the bracket s that a hash of the study's seed and the trial's number gives, of
    floor(log_eta(R / r)) + 1 brackets. At the rungs r eta^s, r eta^(s + 1), ... it goes on where it is
    among the best 1 / eta of its bracket's trials that came so far. eta is `reduction_factor`, r
    `min_resource` and R `max_resource`, in steps of the curve (epochs of the evaluator training, from
    1). None: R is a whole evaluation, and r = ceil(R / eta^k) with the largest eta^k <= R. For one
    objective; Optuna's HyperbandPruner. Searchers do not look at brackets.

    Reference: Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, Hyperband: A Novel Bandit-Based Approach
    to Hyperparameter Optimization, JMLR 18, 2018, Algorithm 1; its halving is asynchronous here.
    """

    min_resource: int | None = None
    max_resource: int | None = None
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        resources = {"min_resource": self.min_resource, "max_resource": self.max_resource}
        check_rungs(resources, self.reduction_factor)

    def refusal(self, num_objectives: int, num_steps: int) -> str | None:
        refused = one_objective(num_objectives) or no_curve(num_steps)
        refused = refused or beyond("max_resource", self.max_resource, num_steps)
        return refused or beyond("min_resource", self.min_resource, self.max_resource or num_steps)

    def prunes(self, point: Point, curves: Curves) -> bool:
        lowest = self._lowest(point.last)
        if point.step < lowest:
            return False
        brackets = self.num_brackets(point.last)
        # Optuna takes the number of brackets from a rounded logarithm; this ratio is a little above
        # the whole power, so that it cannot fall short of it.
        most = lowest * self.reduction_factor ** (brackets - 1) + (brackets > 1)
        return curves.ask(HyperbandPruner(lowest, most, self.reduction_factor), point)

    def num_brackets(self, num_steps: int) -> int:
        """The number of brackets, for a whole evaluation of so many steps."""
        if self.min_resource is None:
            return max(1, exponent(self._most(num_steps), self.reduction_factor)) + 1
        return exponent(self._most(num_steps) // self.min_resource, self.reduction_factor) + 1

    def _lowest(self, num_steps: int) -> int:
        return self.min_resource or lowest_rung(self._most(num_steps), self.reduction_factor)

    def _most(self, num_steps: int) -> int:
        return self.max_resource or num_steps
