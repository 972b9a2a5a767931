"""A space of words and an evaluator that can be refused, killed and slowed, loaded by its path."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.space import SearchSpace
from nas.task import Metric
from tests import toys


@registry.space("words")
def words(length: int = 3) -> SearchSpace:
    """Words of a length, of the letters a to c; equal in function up to order."""
    return toys.letters(length, "abc")


@registry.evaluator("lettered")
@dataclass(frozen=True)
class Lettered(Evaluator):
    """A score of the function, shared, and what belongs to the word; writes down every word it scores.

    Words that begin with `refused` are infeasible, those that begin with `half` lack a metric. At
    `deadly` the process kills itself, while `lives` lasts; at `wrong` it raises.
    """

    log: Path
    milliseconds: float = 0.0
    shared: bool = False
    refused: str = "-"
    half: str = "-"
    deadly: str = "-"
    wrong: str = "-"
    lives: int = 0

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
        return (
            Metric("score", "points", "maximize", shared=self.shared),
            Metric("vowels", "letters", "minimize"),
        )

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        word = "".join(child.rule for child in architecture.children)
        with self.log.open("a") as file:
            file.write(f"{word}\n")
        time.sleep(self.milliseconds / 1e3)
        if word == self.deadly and self.log.read_text().split().count(word) <= self.lives:
            os.kill(os.getpid(), signal.SIGKILL)
        if word == self.wrong:
            raise ZeroDivisionError("a bug in an evaluator")
        if word[0] == self.refused:
            return Evaluation(infeasible=f"it begins with {word[0]}", cost=0.5)
        vowels = float(word.count("a"))
        if word[0] == self.half:
            return Evaluation({"score": float("nan"), "vowels": vowels})
        score = context.known.get("score", toys.score(architecture))
        return Evaluation({"score": score, "vowels": vowels})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}


@registry.evaluator("same")
@dataclass(frozen=True)
class Same(Evaluator):
    """A score that the function alone determines, and nothing else."""

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
        return (Metric("score", "points", "maximize", shared=True),)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        return Evaluation({"score": toys.score(architecture)})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}
