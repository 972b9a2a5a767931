from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluators import datasets
from evaluators.table import Table
from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError, DataError
from nas.evaluation import Context
from nas.space import Notation
from tests.evaluators.networks import cells, problem, row, write_table

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "nb201.npz")


def cell(first: str, second: str) -> Architecture:
    return cells().parse(f"network({first}, {second})")


def test_it_looks_up_validation_accuracy_and_seconds_at_cost_one(path: Path) -> None:
    index = row("nor_conv_3x3", "avg_pool_3x3")
    result = Table(path).evaluate(problem(), cell("nor_conv_3x3", "avg_pool_3x3"), Context())
    assert result.metrics == {
        "accuracy": index / 200,
        "rank": 15625 - index,
        "train_seconds": index + 0.5,
    }
    assert result.cost == 1


def test_only_test_reads_test_accuracy(path: Path) -> None:
    architecture = cell("nor_conv_3x3", "avg_pool_3x3")
    tested = Table(path).test(problem(), architecture, None)
    index = row("nor_conv_3x3", "avg_pool_3x3")
    assert tested == {"accuracy": index / 200 + 1, "rank": 15625 - index}


def test_a_search_needs_no_test_column(tmp_path: Path, path: Path) -> None:
    kept = {k: v for k, v in np.load(path).items() if "test" not in k}
    np.savez(tmp_path / "hidden.npz", **kept)
    evaluator = Table(tmp_path / "hidden.npz")
    architecture = cell("skip_connect", "skip_connect")
    assert evaluator.evaluate(problem(), architecture, Context()).infeasible is None
    with pytest.raises(DataError, match='"c10_test200" is not a column of'):
        evaluator.test(problem(), architecture, None)


def test_a_test_column_is_refused_as_validation(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds test results; search on a validation column"):
        Table(path, validation_column="c10_test200")


def test_seconds_are_left_out_where_the_table_has_none(path: Path) -> None:
    evaluator = Table(path, dataset="cifar100", epochs=12)
    assert [m.name for m in evaluator.metrics(problem())] == ["accuracy", "rank"]
    result = evaluator.evaluate(problem(), cell("skip_connect", "skip_connect"), Context())
    assert result.metrics["accuracy"] == row("skip_connect", "skip_connect") / 300


def test_equal_cells_share_the_best_rank(tmp_path: Path, path: Path) -> None:
    arrays = dict(np.load(path))
    arrays["c10_test200"] = np.full_like(arrays["c10_test200"], 50.0)
    best = row("nor_conv_3x3", "nor_conv_3x3")
    arrays["c10_test200"][best] = 60.0
    np.savez(tmp_path / "ties.npz", **arrays)
    evaluator = Table(tmp_path / "ties.npz")
    assert evaluator.test(problem(), cell("skip_connect", "skip_connect"), None)["rank"] == 2
    assert evaluator.test(problem(), cell("nor_conv_3x3", "nor_conv_3x3"), None)["rank"] == 1


def test_other_columns_can_be_named(path: Path) -> None:
    evaluator = Table(path, validation_column="c100_val12", test_column="c100_test12")
    architecture = cell("skip_connect", "skip_connect")
    index = row("skip_connect", "skip_connect")
    assert evaluator.evaluate(problem(), architecture, Context()).metrics["accuracy"] == index / 300
    assert evaluator.test(problem(), architecture, None)["accuracy"] == index / 300 + 1


def test_a_column_that_is_missing_is_named_with_the_nearest(path: Path) -> None:
    with pytest.raises(
        DataError, match=r'"c10_val12" is not a column of .*; did you mean "c100_val12"?'
    ):
        Table(path, epochs=12).metrics(problem())


def test_a_cell_without_a_result_is_infeasible(tmp_path: Path, path: Path) -> None:
    arrays = dict(np.load(path))
    index = row("skip_connect", "skip_connect")
    arrays["c10_valid200"][index] = np.nan
    np.savez(tmp_path / "gap.npz", **arrays)
    result = Table(tmp_path / "gap.npz").evaluate(
        problem(), cell("skip_connect", "skip_connect"), Context()
    )
    assert result.infeasible == f"the table has no accuracy for row {index}"


def test_a_space_without_the_notation_is_refused(path: Path) -> None:
    given = problem(replace(cells(), notation=None))
    with pytest.raises(ConfigurationError, match='space "cells" has no such notation'):
        Table(path).evaluate(given, cell("skip_connect", "skip_connect"), Context())


def test_a_cell_that_is_not_in_the_table_is_infeasible(path: Path) -> None:
    other = Notation("other", lambda text: None, lambda architecture: "|sep_conv~0|")
    given = problem(replace(cells(), notation=other))
    found = Table(path).evaluate(given, cell("skip_connect", "skip_connect"), Context())
    assert "has no such cell" in str(found.infeasible)
    assert found.cost == 0
    assert Table(path).test(given, cell("skip_connect", "skip_connect"), None) == {}


def test_a_column_of_the_wrong_length_is_named_with_its_shape(tmp_path: Path) -> None:
    short = tmp_path / "short.npz"
    np.savez(short, ops=np.zeros((3, 6), np.int8), c10_valid200=np.zeros(2), c10_test200=np.zeros(3))
    with pytest.raises(DataError, match=r"of shape \(2,\); a column is numbers, one for each of the 3"):
        Table(short).metrics(problem())


def test_no_test_column_is_suggested_for_a_missing_validation_column(tmp_path: Path) -> None:
    without = tmp_path / "without.npz"
    np.savez(without, ops=np.zeros((3, 6), np.int8), c10_test200=np.zeros(3))
    with pytest.raises(DataError) as said:
        Table(without).metrics(problem())
    assert "c10_test200" not in str(said.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "nb201.npz"
    broken.write_text("not a table")
    with pytest.raises(DataError, match="is no npz file"):
        Table(broken).metrics(problem())


def test_a_file_without_operations_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", c10_valid200=np.zeros(3))
    with pytest.raises(DataError, match='"ops" is not an array of'):
        Table(tmp_path / "bare.npz").metrics(problem())


@pytest.mark.parametrize("ops", [np.zeros((3, 5), int), np.full((3, 6), 5)], ids=["edges", "operation"])
def test_operations_of_another_benchmark_are_refused(tmp_path: Path, ops: np.ndarray) -> None:
    np.savez(tmp_path / "other.npz", ops=ops, c10_valid200=np.zeros(3))
    with pytest.raises(DataError, match="a table has \\(cells, 6\\) whole numbers from 0 to 4"):
        Table(tmp_path / "other.npz").metrics(problem())


def test_without_a_path_it_is_found_among_the_data_sets(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(path.parent))
    assert registry.make("evaluator", "table").metrics(problem())[0].name == "accuracy"


def test_absence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"nasbench201 was not found in .*; put the table at"):
        Table().metrics(problem())


def test_the_real_table_has_the_published_optimum() -> None:
    with pytest.MonkeyPatch.context() as patch:
        if datasets.VARIABLE not in os.environ and SHARED.is_dir():
            patch.setenv(datasets.VARIABLE, str(SHARED))
        if datasets.find("nasbench201") is None:
            pytest.skip(f"the table nasbench201 is not in ${datasets.VARIABLE}")
        evaluator = Table(datasets.located("nasbench201"))
    text = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
        "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    )
    best = Notation("best", lambda text: None, lambda architecture: text)
    given, architecture = problem(replace(cells(), notation=best)), cell("skip_connect", "skip_connect")
    assert evaluator._row(given, architecture) == 6111
    assert max(evaluator._columns["accuracy"]) == evaluator._columns["accuracy"][6111]
    result = evaluator.evaluate(given, architecture, Context())
    assert result.metrics["accuracy"] == pytest.approx(91.607, abs=6e-4)
    assert evaluator.test(given, architecture, None)["accuracy"] == pytest.approx(94.373, abs=6e-4)
