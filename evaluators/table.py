"""NAS-Bench-201: accuracies of trained networks looked up in a table instead of training.

Reference: Dong, Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search,
ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError, DataError, unknown
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.task import Metric

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SOURCES = ((0,), (0, 1), (0, 1, 2))  # of the edges into nodes 1, 2 and 3, in the table's order
PREFIX = {"cifar10": "c10", "cifar100": "c100", "imagenet16-120": "im16"}
VALIDATION = {
    ("cifar10", 200): "c10_valid200",
    ("cifar100", 200): "c100_val200",
    ("imagenet16-120", 200): "im16_val200",
}


@registry.evaluator("table")
@final
@dataclass(frozen=True)
class Table(Evaluator):
    """NAS-Bench-201's accuracies in % and training seconds, looked up by the benchmark's own text.

    `accuracy` is on validation data; only `test` reads test accuracy. Both are means over the
    benchmark's seeds after 200 epochs, or after the separate schedule of 12. `rank` is that of the
    accuracy among all cells of the table, 1 for the best; equal cells share the best rank. Neither is
    shared between equal functions: the benchmark trained each by itself. `validation_column` and
    `test_column` name other columns of the file; `path` is that of nb201.npz, looked for among the data
    sets if not given.
    """

    path: Path | None = None
    dataset: Literal["cifar10", "cifar100", "imagenet16-120"] = "cifar10"
    epochs: Literal[200, 12] = 200
    validation_column: str | None = None
    test_column: str | None = None

    def __post_init__(self) -> None:
        if self.validation_column is not None and "test" in self.validation_column:
            raise ConfigurationError(
                f'validation_column is "{self.validation_column}", which holds test results; '
                "search on a validation column and name this one as test_column."
            )

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
        accuracy, rank = Metric("accuracy", "%", "maximize"), Metric("rank", "1", "minimize")
        if "train_seconds" in self._columns:
            return accuracy, rank, Metric("train_seconds", "s", "minimize", resource=True)
        return accuracy, rank

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        row = self._row(problem, architecture)
        if row is None:
            return Evaluation(infeasible=f'"{self._file}" has no such cell', cost=0.0)
        metrics = {name: values[row] for name, values in self._columns.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                return Evaluation(infeasible=f"the table has no {name} for row {row}")
        return Evaluation(metrics)

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        wanted = self.test_column or f"{PREFIX[self.dataset]}_test{self.epochs}"
        column, row = _column(self._file, wanted), self._row(problem, architecture)
        if row is None or not math.isfinite(column[row]):
            return {}
        return {"accuracy": column[row], "rank": _ranks(self._file, wanted)[row]}

    @cached_property
    def _file(self) -> Path:
        from evaluators.datasets import located

        return located("nasbench201", self.path).resolve()

    @cached_property
    def _columns(self) -> dict[str, tuple[float, ...]]:
        """The columns shown to a search, by metric."""
        prefix = PREFIX[self.dataset]
        usual = VALIDATION.get((self.dataset, self.epochs), f"{prefix}_val{self.epochs}")
        name = self.validation_column or usual
        found = {"accuracy": _column(self._file, name), "rank": _ranks(self._file, name)}
        seconds = f"{prefix}_train_seconds200" if self.epochs == 200 else f"{prefix}_seconds12"
        if seconds in _arrays(self._file):
            found["train_seconds"] = _column(self._file, seconds)
        return found

    @cached_property
    def _rows(self) -> dict[str, int]:
        return _rows(self._file)

    def _row(self, problem: Problem, architecture: Architecture) -> int | None:
        notation = problem.space.notation
        if notation is None:
            raise ConfigurationError(
                f'evaluator "table" looks cells up as NAS-Bench-201 writes them and space '
                f'"{problem.space.name}" has no such notation; use the space nasbench201.'
            )
        return self._rows.get(notation.write(architecture))


@cache
def _arrays(path: Path) -> dict[str, Any]:  # Any: numpy arrays of every type
    from evaluators.tasks.array_files import read_npz

    return dict(read_npz(path))


@cache
def _column(path: Path, name: str) -> tuple[float, ...]:
    arrays, _ = _arrays(path), _rows(path)
    num_rows = len(arrays["ops"])
    fitting = [n for n, a in arrays.items() if a.dtype.kind in "fiu" and a.shape == (num_rows,)]
    if name in arrays and name not in fitting:
        raise DataError(
            f'the column "{name}" of "{path}" is {arrays[name].dtype} of shape {arrays[name].shape}; '
            f"a column is numbers, one for each of the {num_rows:,} rows of ops."
        )
    if name not in fitting:
        shown = [n for n in fitting if "test" not in n or "test" in name]
        raise DataError(unknown(name, f'a column of "{path}"', shown))
    return tuple(map(float, arrays[name]))


@cache
def _ranks(path: Path, name: str) -> tuple[float, ...]:
    """The rank of every row by a column, 1 for the largest; nan where it has no number."""
    values = np.asarray(_column(path, name))
    above = np.sort(values[np.isfinite(values)])[::-1]
    ranks = 1.0 + np.searchsorted(-above, -values)
    return tuple(np.where(np.isfinite(values), ranks, np.nan).tolist())


@cache
def _rows(path: Path) -> dict[str, int]:
    """The row of every cell by the benchmark's text for it."""
    arrays = _arrays(path)
    if "ops" not in arrays:
        raise DataError(unknown("ops", f'an array of "{path}" (an operation for each edge)', arrays))
    ops = arrays["ops"]
    if ops.ndim != 2 or ops.shape[1] != 6 or ops.min() < 0 or ops.max() >= len(OPERATIONS):
        raise DataError(
            f'"{path}" has ops of shape {ops.shape}; a table has (cells, 6) whole numbers from 0 to 4.'
        )
    return {_text(row): i for i, row in enumerate(ops.tolist())}


def _text(operations: list[int]) -> str:
    """The benchmark's text: |op~source|... for each node, joined by +."""
    names = iter(OPERATIONS[i] for i in operations)
    nodes = ("".join(f"|{next(names)}~{j}" for j in sources) for sources in SOURCES)
    return "|+".join(nodes) + "|"
