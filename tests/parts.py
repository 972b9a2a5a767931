"""Parts of a user's own, for workers: loaded by its path, as `nas --load FILE` does."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.space import SearchSpace
from nas.task import Metric
from tests import toys


@registry.space("letters")
def letters(length: int = 6) -> SearchSpace:
    """Words of a length."""
    return toys.letters(length)


@registry.evaluator("scored")
@dataclass(frozen=True)
class Scored(Evaluator):
    """Scores words after some milliseconds; fails at one trial, dies at another, every time."""

    milliseconds: float = 0.0
    fail_at: int = -1
    die_at: int = -1

    @property
    def cost_unit(self) -> str:
        return "evaluations"

    @property
    def needs_task(self) -> bool:
        return False

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (Metric("score", "points", "maximize"),)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        context.progress(0, 1, "word")
        time.sleep(random.random() * 2e-3 * self.milliseconds)
        if context.number == self.fail_at:
            raise ZeroDivisionError("a bug in an evaluator")
        if context.number == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return Evaluation({"score": toys.score(architecture)})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {"score": toys.score(architecture) / 2}
