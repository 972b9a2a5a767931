"""Scoring an architecture by training its network and measuring it on validation data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.scaled import Scaled
from nas.task import Metric, Task
from nas.training import Recipe, evaluate, seeded, train


@registry.evaluator("training")
@final
@dataclass(frozen=True)
class Training(Evaluator):
    """Validation scores after training the network from fresh weights by a recipe.

    The metrics are the task's scores, in its units, after the last epoch; cost counts epochs. Weights,
    batches and noise follow from the study's seed alone, so that an architecture scores the same in
    every trial of a study. Scores that `context.known` has are taken over at no cost.
    """

    recipe: Recipe = Recipe()

    @property
    def cost_unit(self) -> str:
        return "epochs"

    @property
    def needs_task(self) -> bool:
        return True

    @property
    def num_steps(self) -> int:
        return self.recipe.epochs

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return tuple(score.metric for score in _task(problem).scores)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        task = _task(problem)
        names = [score.metric.name for score in task.scores]
        if all(name in context.known for name in names):
            return Evaluation({name: context.known[name] for name in names}, cost=0.0)
        with seeded(context.seed):
            network = problem.space.build(architecture)
        trained = train(network, task, self.recipe, context)
        cost = float(trained.epochs)
        if trained.infeasible is not None:
            return Evaluation(infeasible=trained.infeasible, cost=cost)
        return Evaluation(trained.scores, cost=cost, weights=trained.weights())

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        if weights is None:
            return {}
        task = _task(problem)
        with seeded(0):  # only so that building leaves torch's random state alone
            model = Scaled(problem.space.build(architecture), task.scaling)
        model.load_state_dict(weights)
        return evaluate(model, task.test, task.scores)


def _task(problem: Problem) -> Task:
    if problem.task is None:
        raise ConfigurationError(
            'evaluator "training" trains on a task and the problem has none; name one, such as digits.'
        )
    return problem.task
