"""What every registered evaluator keeps, with its default settings, on a tiny space and task."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator

import pytest
import torch

from evaluators import datasets
from nas import registry
from nas.architecture import Architecture
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from tests.evaluators.networks import bars, cells, problem, write_table

SETTINGS = {"epochs": 2, "batch_size": 16}  # where an evaluator has such settings of these types
CLOCKS = ("seconds",)  # an evaluator whose cost is in these reads a clock: no two results are alike


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_table(folder / "nb201.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(datasets.VARIABLE, str(folder))
        yield


@pytest.fixture(params=sorted(registry.parts("evaluator")))
def evaluator(request: pytest.FixtureRequest, data: None) -> Evaluator:
    options = registry.options("evaluator", request.param)
    given = {k: v for k, v in SETTINGS.items() if k in options and options[k].type is int}
    for name, option in options.items():
        if option.default is inspect.Parameter.empty:
            assert option.type == tuple[Evaluator, ...], f"{name} has no default to be tested with"
            given[name] = (registry.make("evaluator", "complexity"),)
    return registry.make("evaluator", request.param, given)


@pytest.fixture
def given() -> Problem:
    return problem(cells(), bars())


@pytest.fixture(
    params=["network(nor_conv_3x3, avg_pool_3x3)", "network(skip_connect, skip_connect)"],
    ids=["convolution", "skips"],
)
def architecture(request: pytest.FixtureRequest, given: Problem) -> Architecture:
    return given.space.parse(request.param)


def evaluated(evaluator: Evaluator, given: Problem, architecture: Architecture) -> Evaluation:
    return evaluator.evaluate(given, architecture, Context(seed=1))


def test_it_gives_exactly_the_metrics_it_states_or_a_reason(
    evaluator: Evaluator, given: Problem, architecture: Architecture
) -> None:
    result = evaluated(evaluator, given, architecture)
    if result.infeasible is not None:
        assert result.infeasible.strip()
        return
    assert result.metrics.keys() | result.missing.keys() == {m.name for m in evaluator.metrics(given)}
    assert not result.metrics.keys() & result.missing.keys()
    assert all(reason.strip() for reason in result.missing.values())
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_every_metric_states_unit_and_direction(evaluator: Evaluator, given: Problem) -> None:
    metrics = evaluator.metrics(given)
    assert metrics
    assert len({m.name for m in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.name.isidentifier()
        assert isinstance(metric.unit, str)
        assert metric.direction in ("maximize", "minimize")


def test_it_is_deterministic(evaluator: Evaluator, given: Problem, architecture: Architecture) -> None:
    if evaluator.cost_unit in CLOCKS:
        pytest.skip(f"its cost is in {evaluator.cost_unit}: it reads a clock")
    first = evaluated(evaluator, given, architecture)
    torch.rand(3)
    second = evaluated(evaluator, given, architecture)
    assert (first.metrics, first.infeasible) == (second.metrics, second.infeasible)
    assert first.cost == second.cost


def test_it_leaves_torch_as_it_was(
    evaluator: Evaluator, given: Problem, architecture: Architecture
) -> None:
    before, number = torch.get_rng_state(), torch.get_num_threads()
    result = evaluated(evaluator, given, architecture)
    evaluator.test(given, architecture, result.weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == number
    assert torch.is_grad_enabled()


def test_its_cost_is_finite_and_has_a_unit(
    evaluator: Evaluator, given: Problem, architecture: Architecture
) -> None:
    assert evaluator.cost_unit
    assert 0 <= evaluated(evaluator, given, architecture).cost < math.inf


def test_its_test_scores_are_among_its_metrics(
    evaluator: Evaluator, given: Problem, architecture: Architecture
) -> None:
    weights = evaluated(evaluator, given, architecture).weights
    tested = evaluator.test(given, architecture, weights)
    assert tested.keys() <= {m.name for m in evaluator.metrics(given)}
    assert all(math.isfinite(value) for value in tested.values())


def test_it_runs_without_a_task_where_it_says_so(
    evaluator: Evaluator, architecture: Architecture
) -> None:
    if evaluator.needs_task:
        pytest.skip("it needs a task")
    without = problem(cells())
    assert evaluator.evaluate(without, architecture, Context()).infeasible is None
