"""Several evaluators one after the other, cheap ones first, up to the first refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.task import Metric


@registry.evaluator("cascade")
@final
@dataclass(frozen=True)
class Cascade(Evaluator):
    """The metrics of all stages, run in order until one is infeasible or a limit is exceeded.

    The last stage is the dearest: cost is its cost in its unit (0 where it was not reached), and its
    first metric is the default objective. A stage whose metrics are all shared and known is skipped.
    """

    stages: tuple[Evaluator, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigurationError("a cascade has no stages; give it at least one evaluator.")

    @property
    def cost_unit(self) -> str:
        return self.stages[-1].cost_unit

    @property
    def needs_task(self) -> bool:
        return any(stage.needs_task for stage in self.stages)

    @property
    def num_steps(self) -> int:
        return max(stage.num_steps for stage in self.stages)

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        *earlier, last = (stage.metrics(problem) for stage in self.stages)
        found = (*last, *(metric for metrics in earlier for metric in metrics))
        names = [metric.name for metric in found]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(
                    f'two stages of the cascade give the metric "{name}"; leave one of them out.'
                )
        return found

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        metrics: dict[str, float] = {}
        missing: dict[str, str] = {}
        weights: Mapping[str, Tensor] | None = None
        cost = 0.0
        for stage in self.stages:
            within = _reporting(metrics, problem, context)
            result = _known(stage, problem, context) or stage.evaluate(problem, architecture, within)
            metrics |= result.metrics
            missing |= result.missing
            weights = result.weights if result.weights is not None else weights
            cost = result.cost if stage is self.stages[-1] else 0.0
            reason = result.infeasible or problem.lack(missing) or problem.excess(metrics)
            if reason is not None:
                return Evaluation(metrics, reason, cost, weights, missing)
        return Evaluation(metrics, None, cost, weights, missing)

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        scores: dict[str, float] = {}
        for stage in self.stages:
            scores |= stage.test(problem, architecture, weights)
        return scores


def _reporting(before: Mapping[str, float], problem: Problem, context: Context) -> Context:
    """A context whose curves have the objectives that earlier stages measured, for pruners."""
    names = {objective.metric for objective in problem.objectives}
    measured = {name: value for name, value in before.items() if name in names}
    if not measured:
        return context
    return replace(context, report=lambda step, row: context.report(step, {**measured, **row}))


def _known(stage: Evaluator, problem: Problem, context: Context) -> Evaluation | None:
    """A stage's metrics where all are shared and were measured before."""
    metrics = stage.metrics(problem)
    if not all(metric.shared and metric.name in context.known for metric in metrics):
        return None
    return Evaluation({m.name: context.known[m.name] for m in metrics}, cost=0.0)
