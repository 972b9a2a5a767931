from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from evaluators.cascade import Cascade
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.task import Metric
from tests.evaluators.networks import cells, problem

ARCHITECTURE = cells().parse("network(skip_connect, skip_connect)")


@dataclass(frozen=True)
class Stage(Evaluator):
    """Gives one metric and remembers that it ran."""

    name: str
    result: Evaluation
    shared: bool = False
    needs: bool = False
    runs: list[str] = field(default_factory=list)

    @property
    def cost_unit(self) -> str:
        return f"{self.name} runs"

    @property
    def needs_task(self) -> bool:
        return self.needs

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (Metric(self.name, "", "minimize", self.shared),)

    def evaluate(self, problem: Problem, architecture, context: Context) -> Evaluation:
        self.runs.append("evaluate")
        return self.result

    def test(self, problem: Problem, architecture, weights: Mapping[str, Tensor] | None):
        return {} if weights is None else {self.name: -1.0}


def stage(name: str, value: float, cost: float = 1.0, **settings) -> Stage:
    return Stage(name, Evaluation({name: value}, cost=cost), **settings)


def test_it_merges_the_metrics_and_costs_what_the_last_stage_does() -> None:
    cascade = Cascade((stage("cheap", 1.0, cost=5.0), stage("dear", 2.0, cost=7.0)))
    result = cascade.evaluate(problem(), ARCHITECTURE, Context())
    assert result.metrics == {"cheap": 1.0, "dear": 2.0}
    assert result.cost == 7
    assert cascade.cost_unit == "dear runs"


def test_the_last_stages_metric_is_the_default_objective() -> None:
    cascade = Cascade((stage("cheap", 1.0), stage("dear", 2.0)))
    assert [m.name for m in cascade.metrics(problem())] == ["dear", "cheap"]


def test_it_stops_at_the_first_infeasible_stage() -> None:
    last = stage("dear", 2.0)
    refused = Stage("cheap", Evaluation(infeasible="too bad", cost=3.0))
    result = Cascade((refused, last)).evaluate(problem(), ARCHITECTURE, Context())
    assert (result.infeasible, result.cost, last.runs) == ("too bad", 0, [])


def test_it_stops_at_the_first_limit_that_is_exceeded() -> None:
    last = stage("dear", 2.0)
    result = Cascade((stage("cheap", 9.0), last)).evaluate(problem(cheap=5.0), ARCHITECTURE, Context())
    assert result.infeasible == "cheap 9 exceeds the limit of 5"
    assert result.metrics == {"cheap": 9.0}
    assert last.runs == []


def test_a_stage_that_is_known_and_shared_is_skipped() -> None:
    shared, own = stage("dear", 2.0, shared=True), stage("cheap", 1.0)
    context = Context(known={"dear": 8.0, "cheap": 8.0})
    result = Cascade((own, shared)).evaluate(problem(), ARCHITECTURE, context)
    assert result.metrics == {"cheap": 1.0, "dear": 8.0}
    assert result.cost == 0
    assert shared.runs == []


def test_weights_come_from_the_stage_that_has_them() -> None:
    weights = {"w": torch.ones(1)}
    trained = Stage("trained", Evaluation({"trained": 1.0}, weights=weights))
    result = Cascade((trained, stage("after", 1.0))).evaluate(problem(), ARCHITECTURE, Context())
    assert result.weights is weights


def test_test_scores_of_all_stages_are_merged() -> None:
    cascade = Cascade((stage("cheap", 1.0), stage("dear", 2.0)))
    assert cascade.test(problem(), ARCHITECTURE, {}) == {"cheap": -1.0, "dear": -1.0}
    assert cascade.test(problem(), ARCHITECTURE, None) == {}


def test_it_needs_a_task_where_a_stage_does() -> None:
    assert Cascade((stage("cheap", 1.0), stage("dear", 1.0, needs=True))).needs_task
    assert not Cascade((stage("cheap", 1.0),)).needs_task


def test_a_metric_of_two_stages_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='two stages of the cascade give the metric "same"'):
        Cascade((stage("same", 1.0), stage("same", 2.0))).metrics(problem())


def test_no_stages_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a cascade has no stages"):
        Cascade(())
