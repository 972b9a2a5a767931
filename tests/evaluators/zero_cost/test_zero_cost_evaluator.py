"""The evaluator on the spaces and tasks there are, in studies and cascades."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from evaluators.cascade import Cascade
from evaluators.complexity import ComplexityEvaluator
from evaluators.zero_cost.evaluator import ZeroCost
from nas import registry
from nas.arrays import classification, regression
from nas.conversion import convert
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation
from nas.language import Windows, language_modelling
from nas.problem import Objective, Problem
from nas.searchers.random import Random
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.task import Task
from nas.training import seeded
from search_spaces.nasbench201 import nasbench201
from tests.evaluators.networks import bars, cells, problem
from tests.evaluators.zero_cost.subjects import measured, subject

QUICK = (
    *("synflow", "synflow(batch_norm=true)", "grad_norm", "snip", "plain", "grasp", "fisher", "zico"),
    *("jacob_cov", "epe_nas", "naswot", "meco", "l2_norm", "ntk_condition(batch_size=6)"),
    *("zen(repeats=1, batch_size=8)", "swap(repeats=1, batch_size=8)", "az_nas(batch_size=8)"),
    *("linear_regions(batch_size=8)", "wide_deep"),
)


def numbers(*shape: int, regress: bool = False) -> Task:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, *shape))
    if regress:
        return regression("numbers", x, x.reshape(60, -1).sum(1))
    return classification("numbers", x, np.arange(60) % 3)


def text() -> Task:
    return language_modelling("letters", np.arange(2000) % 7, 7, Windows(context=16))


def evaluated(space: str, task: Task, seed: int = 0, **settings: object) -> Evaluation:
    made = registry.make("space", space, settings)
    given = Problem(made, (Objective("synflow", "maximize"),), task)
    architecture = given.sample(random.Random(seed))
    return ZeroCost(QUICK, batch_size=12).evaluate(given, architecture, Context(seed=1))


SPACES = {
    "nasbench201": ("nasbench201", numbers(2, 8, 8), {"channels": 4, "cells": 1}),
    "darts": ("darts_cell", numbers(2, 8, 8), {"channels": 4, "cells": 3}),
    "darts-1d": ("darts_cell_1d", numbers(2, 16), {"channels": 4, "cells": 3}),
    "kan": ("kan", numbers(5), {"widths": (4, 8)}),
    "kan-regression": ("kan", numbers(5, regress=True), {"widths": (4, 8)}),
    "sequences": ("sequence_mixer", numbers(2, 16), {}),
    "tokens": ("sequence_mixer", text(), {}),
    "einspace": ("einspace", numbers(2, 8, 8), {"max_nodes": 40}),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_metric_has_a_finite_value_or_a_reason(name, seed):
    space, task, settings = SPACES[name]
    result = evaluated(space, task, seed, **settings)
    assert result.infeasible is None
    wanted = {m.name for m in ZeroCost(QUICK).metrics(problem())}
    assert result.metrics.keys() | result.missing.keys() == wanted
    assert not result.metrics.keys() & result.missing.keys()
    assert all(map(math.isfinite, result.metrics.values()))
    assert all(result.missing.values())
    assert {"synflow", "grad_norm", "snip", "zico", "grasp"} <= result.metrics.keys()


def test_a_spline_network_refuses_what_it_lacks():
    missing = evaluated("kan", SPACES["kan"][1], widths=(4, 8)).missing
    for name in ("naswot", "swap", "linear_regions"):
        assert "no ReLU" in missing[name]
    for name in ("fisher", "zen", "meco"):
        assert missing[name].startswith("no ")


def test_a_regression_has_no_classes():
    result = evaluated("kan", SPACES["kan-regression"][1], widths=(4, 8))
    assert "no class" in result.missing["epe_nas"]
    assert "jacob_cov" in result.metrics


def study(evaluator, objective: str, **limits: float) -> list:
    given = Problem(cells(), (Objective(objective, "maximize"),), bars(), limits)
    return Study("s", given, Random(), evaluator, open_storage("memory")).run(Budget(trials=3))


def test_a_study_is_infeasible_where_its_objective_is_missing():
    trials = study(ZeroCost(("linear_regions", "wide_deep"), 8), "wide_deep")
    assert all(t.infeasible.startswith("no wide_deep: Conv2d is no linear map") for t in trials)
    assert all("linear_regions" in t.metrics for t in trials)


def test_a_study_goes_on_without_a_metric_that_is_no_objective_and_keeps_the_reason():
    trials = study(ZeroCost(("linear_regions", "wide_deep"), 8), "linear_regions")
    assert all(t.completed for t in trials)
    assert all("Conv2d" in t.missing["wide_deep"] for t in trials)


def test_a_missing_metric_that_has_a_limit_is_infeasible():
    trials = study(ZeroCost(("synflow", "wide_deep"), 8), "synflow", wide_deep=1.0)
    assert all(t.infeasible.startswith("no wide_deep") for t in trials)


def test_a_cascade_keeps_the_reasons_of_what_is_missing():
    cascade = Cascade((ZeroCost(("synflow", "wide_deep"), 8), ComplexityEvaluator()))
    given = Problem(cells(), (Objective("params", "minimize"),), bars())
    result = cascade.evaluate(given, cells().parse("network(skip_connect, skip_connect)"), Context())
    assert result.infeasible is None
    assert result.missing.keys() == {"wide_deep"}


def test_an_architecture_is_scored_the_same_in_every_trial_and_otherwise_by_another_seed():
    given, evaluator = (
        Problem(cells(), (Objective("snip", "maximize"),), bars()),
        ZeroCost(("snip",), 8),
    )
    architecture = cells().parse("network(nor_conv_3x3, skip_connect)")
    first, again, other = (
        evaluator.evaluate(given, architecture, Context(seed, number)).metrics["snip"]
        for seed, number in ((0, 0), (0, 5), (1, 0))
    )
    assert first == again != other


def test_nothing_that_applies_is_infeasible_with_the_reasons():
    given = Problem(cells(), (Objective("wide_deep", "minimize"),), bars())
    architecture = cells().parse("network(nor_conv_3x3, skip_connect)")
    result = ZeroCost(("wide_deep",), 8).evaluate(given, architecture, Context())
    assert "Conv2d is no linear map" in result.infeasible


def test_a_batch_of_one_is_infeasible():
    given = Problem(cells(), (Objective("snip", "maximize"),), bars())
    architecture = cells().parse("network(nor_conv_3x3, skip_connect)")
    result = ZeroCost(("snip", "naswot"), batch_size=1).evaluate(given, architecture, Context())
    assert "the batch has 1 example" in result.infeasible


@pytest.mark.parametrize(
    ("proxies", "why"), [(("snip", "snip"), "two proxies"), ((), "no proxies"), (("snip(a=1)",), '"a"')]
)
def test_proxies_that_do_not_go_together_are_refused(proxies, why):
    with pytest.raises(ConfigurationError, match=why):
        ZeroCost(proxies)


def test_text_is_parted_at_commas_outside_of_parentheses():
    found = convert("zen(repeats=1, batch_size=8), snip", tuple[str, ...], "proxies")
    assert found == ("zen(repeats=1, batch_size=8)", "snip")


REFERENCE = {"synflow": 0.785, "zico": 0.796, "meco": 0.897, "naswot": 0.664, "jacob_cov": 0.659}
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@pytest.mark.slow
def test_rank_correlations_on_nasbench201_are_those_measured_before(data_folder):
    """120 cells, one a stage, on noise: Spearman with the published accuracy, within 0.15."""
    table = np.load(data_folder / "nasbench201" / "nb201.npz")
    rows = np.random.default_rng(0).choice(15625, 120, replace=False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, 32, 32, generator=generator)
    y = torch.randint(10, (16,), generator=generator)
    space, scores = nasbench201(channels=16, cells=1), []
    for row in rows:
        operations = ", ".join(OPERATIONS[i] for i in table["ops"][row])
        with seeded(0):
            network = space.build(space.parse(f"network(cell({operations}))"))
        scores.append(measured(subject(network, x, y), *REFERENCE).values)
    accuracy = table["c10_test200"][rows]
    for name, expected in REFERENCE.items():
        valid = [i for i, found in enumerate(scores) if name in found]
        assert len(valid) == 118
        rho = spearmanr([scores[i][name] for i in valid], accuracy[valid]).statistic
        assert rho == pytest.approx(expected, abs=0.15), name
