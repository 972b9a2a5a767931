"""Asynchronous successive halving on stored curves, for one objective or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from nas import registry
from nas.curves import Curves
from nas.nondominated_sorting import num_better
from nas.pruner import Point, Pruner, no_curve
from nas.rungs import beyond, check_rungs, lowest_rung, rungs


@registry.pruner("successive_halving")
@final
@dataclass(frozen=True)
class SuccessiveHalving(Pruner):
    """Asynchronous successive halving: at each rung the best 1 / eta of the trials so far go on.

    1. A trial reaches rung k when its curve reports step r eta^k, below the last one; the objectives
       there are written on the trial, so that other workers see those of running trials too.
    2. Of the n trials that reached the rung it goes on where fewer than max(1, floor(n / eta)) rank
       before it, and is given up otherwise.
    3. One trial ranks before another where it is in an earlier front of non-dominated sorting, or in
       the same front and less crowded. With one objective that is the better value.

    eta is `reduction_factor` and r `min_resource`, in steps of the curve (epochs of the evaluator
    training, from 1). None: r = ceil(R / eta^k) of R steps, with the largest eta^k <= R. A trial that
    is given up at a rung cannot be taken up again, as it keeps no weights: that is Algorithm 2 with
    promotions decided on arrival; the first eta - 1 trials go on where they are the best so far.
    Crowding distance, unlike hypervolume contribution, takes no reference point and no common scale.

    Reference: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, Algorithm
    2; for several objectives Schmucker, Donini, Zafar, Salinas, Archambeau, Multi-objective
    Asynchronous Successive Halving, arXiv:2106.12639, 2021, with the ranking of Deb et al. 2002.
    """

    min_resource: int | None = None
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        check_rungs({"min_resource": self.min_resource}, self.reduction_factor)

    def refusal(self, num_objectives: int, num_steps: int) -> str | None:
        return no_curve(num_steps) or beyond("min_resource", self.min_resource, num_steps)

    def rungs(self, num_steps: int) -> list[int]:
        """The rungs of a whole evaluation of so many steps."""
        lowest = self.min_resource or lowest_rung(num_steps, self.reduction_factor)
        return rungs(lowest, num_steps, self.reduction_factor)

    def prunes(self, point: Point, curves: Curves) -> bool:
        for rung in self.rungs(point.last):
            if point.previous < rung <= point.step:
                reached = curves.at_rung(rung, point)
                if not goes_on(reached, self.reduction_factor):
                    return True
        return False


def goes_on(reached: Sequence[Sequence[float]], reduction_factor: int) -> bool:
    """Whether the first of the trials that reached a rung goes on; their values, more is better."""
    return num_better(reached, 0) < max(1, len(reached) // reduction_factor)
