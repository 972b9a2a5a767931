from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from evaluators.training import Training
from nas import registry
from nas.errors import ConfigurationError
from nas.evaluation import Context, Pruned
from nas.scaled import Scaled
from nas.training import Recipe, evaluate, seeded
from tests.evaluators.networks import bars, cells, fixed, line, problem

QUICK = Training(Recipe(epochs=2, batch_size=16))
TEXT = "network(nor_conv_3x3, avg_pool_3x3)"


def made(task=None):
    given = problem(cells(), bars() if task is None else task)
    return given, given.space.parse(TEXT)


def test_its_metrics_are_the_tasks_scores() -> None:
    given, _ = made()
    assert QUICK.metrics(given) == tuple(score.metric for score in bars().scores)
    assert all(metric.shared for metric in QUICK.metrics(given))


def test_the_recipe_is_set_on_the_evaluators_level() -> None:
    settings = {"epochs": 3, "optimizer": "adam", "augmentation": "flip"}
    evaluator = registry.make("evaluator", "training", settings)
    assert evaluator == Training(Recipe(epochs=3, optimizer="adam", augmentation="flip"))


def test_the_scores_are_the_weights_scores_on_validation() -> None:
    given, architecture = made()
    result = QUICK.evaluate(given, architecture, Context())
    model = Scaled(given.space.build(architecture), given.task.scaling)
    model.load_state_dict(result.weights)
    assert evaluate(model, given.task.valid, given.task.scores) == result.metrics
    assert result.cost == 2


def test_test_scores_are_of_the_test_split_and_have_the_same_names() -> None:
    given, architecture = made()
    result = QUICK.evaluate(given, architecture, Context())
    swapped = replace(given, task=replace(given.task, test=given.task.valid))
    assert QUICK.test(swapped, architecture, result.weights) == result.metrics
    tested = QUICK.test(given, architecture, result.weights)
    assert tested.keys() == result.metrics.keys()
    assert tested != result.metrics


def test_the_test_split_is_never_read_by_a_search() -> None:
    given, architecture = made()
    nothing = replace(given.task.test, inputs=torch.zeros(0), targets=torch.zeros(0))
    hidden = replace(given, task=replace(given.task, test=nothing))
    results = [QUICK.evaluate(p, architecture, Context()).metrics for p in (given, hidden)]
    assert results[0] == results[1]


def test_without_weights_nothing_is_tested() -> None:
    given, architecture = made()
    assert QUICK.test(given, architecture, None) == {}


def test_the_weights_start_from_the_studys_seed() -> None:
    given, architecture = made()
    still = Training(Recipe(epochs=1, learning_rate=1e-30, weight_decay=0.0))
    result = still.evaluate(given, architecture, Context(seed=5, number=7))
    with seeded(5):
        network = given.space.build(architecture)
    assert torch.equal(result.weights["network.0.0.weight"], network[0][0].weight)


def test_known_scores_are_taken_over_at_no_cost() -> None:
    known = {"accuracy": 50.0, "loss": 1.0, "params": 3.0}
    space = fixed(lambda: pytest.fail("it was built"), bars().signature)
    given = problem(space, bars())
    result = QUICK.evaluate(given, space.parse("only"), Context(known=known))
    assert result.metrics == {"accuracy": 50.0, "loss": 1.0}
    assert result.cost == 0


def test_partly_known_scores_are_measured() -> None:
    given, architecture = made()
    assert QUICK.evaluate(given, architecture, Context(known={"accuracy": 50.0})).cost == 2


def test_numerical_failure_is_infeasible_at_the_cost_of_its_epochs() -> None:
    class Overflowing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * float("inf")

    space = fixed(lambda: Overflowing(2, 1), line().signature)
    result = QUICK.evaluate(problem(space, line()), space.parse("only"), Context())
    assert result.infeasible is not None
    assert result.infeasible.endswith("in epoch 1")
    assert (result.cost, result.metrics, result.weights) == (1, {}, None)


def test_a_bug_in_a_module_passes() -> None:
    space = fixed(lambda: nn.Linear(3, 1), line().signature)
    with pytest.raises(RuntimeError, match="shapes"):
        QUICK.evaluate(problem(space, line()), space.parse("only"), Context())


def test_pruning_passes() -> None:
    def report(epoch, row):
        raise Pruned

    given, architecture = made()
    with pytest.raises(Pruned):
        QUICK.evaluate(given, architecture, Context(report=report))


def test_without_a_task_it_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="the problem has none; name one, such as digits"):
        QUICK.metrics(problem())
