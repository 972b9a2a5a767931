"""What a network costs to store and run, computed from its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.complexity import UNITS
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.task import Metric


@registry.evaluator("complexity")
@final
@dataclass(frozen=True)
class ComplexityEvaluator(Evaluator):
    """Parameters, multiply-adds, FLOPs and activation bytes of one example, without training.

    All are to be minimized and cost nothing; `nas.complexity` says what each counts. They belong to the
    architecture as written: equal functions may differ in them by parts that do nothing.
    """

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
        return tuple(Metric(name, unit, "minimize", resource=True) for name, unit in UNITS.items())

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        return Evaluation(problem.space.complexity(architecture).metrics(), cost=0.0)

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}
