"""Giving up what is worse than the median, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from optuna.pruners import MedianPruner

from nas import registry
from nas.curves import Curves
from nas.errors import ConfigurationError
from nas.pruner import Point, Pruner, no_curve, one_objective
from nas.rungs import beyond


@registry.pruner("median")
@final
@dataclass(frozen=True)
class Median(Pruner):
    """Gives up a trial whose best value so far is below the median of the others at that step.

    The others are the completed trials, of which there must be `n_startup_trials`, and at least
    `n_min_trials` that reported at that step. Nothing is given up before step `n_warmup_steps` (none: a
    third of the steps, rounded up), and from there on every `interval_steps`. A step is a row of the
    curve: an epoch of the evaluator training, counted from 1. For one objective; Optuna's MedianPruner.

    Reference: Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017, section
    3.2.2 (there the running average of the others' values).
    """

    n_startup_trials: int = 5
    n_warmup_steps: int | None = None
    interval_steps: int = 1
    n_min_trials: int = 1

    def __post_init__(self) -> None:
        lowest = {"n_startup_trials": 0, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(f"{name} is {value}; it takes a whole number from {least}.")

    def refusal(self, num_objectives: int, num_steps: int) -> str | None:
        refused = one_objective(num_objectives) or no_curve(num_steps)
        return refused or beyond("n_warmup_steps", self.n_warmup_steps, num_steps)

    def prunes(self, point: Point, curves: Curves) -> bool:
        warmup = -(-point.last // 3) if self.n_warmup_steps is None else self.n_warmup_steps
        if point.step < warmup:
            return False
        pruner = MedianPruner(
            self.n_startup_trials, warmup, self.interval_steps, n_min_trials=self.n_min_trials
        )
        return curves.ask(pruner, point)
