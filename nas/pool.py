"""A pool: architectures with the metrics that evaluators gave them, in one file of columns.

The file is numpy's npz, without pickle. `architectures` holds the texts as lines of UTF-8,
`metric/NAME` a column of float64 for each metric (NaN: missing), `seconds` by the clock, `cpu_seconds`
and `cost` what each row took, `reasons` and `description` JSON in UTF-8.
``numpy.load(file)["metric/params"]`` reads a column without nasgram.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError, unknown
from nas.task import Metric

FORMAT = "nasgram pool 2"
PREFIX = "metric/"
Column = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]  # Any: the file says of which type


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """Rows are architectures by their texts, columns are metrics (rows,), NaN where one is missing.

    `reasons` says, by row, why an architecture is infeasible or lacks a metric. `costs` are in the
    evaluator's unit. `description` says how the pool came about: the tables of its space, task and
    evaluators, its sample and fold, the cost's unit, and the versions that computed it.
    """

    texts: tuple[str, ...]
    columns: Mapping[str, Column]
    metrics: Mapping[str, Metric]
    reasons: Mapping[int, str]
    seconds: Column
    cpu_seconds: Column
    costs: Column
    description: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values

    def __len__(self) -> int:
        return len(self.texts)

    def column(self, name: str) -> Column:
        """The values of a metric (rows,); DataError where the pool has none of that name."""
        if name not in self.columns:
            raise DataError(unknown(name, "a metric of the pool", self.columns))
        return self.columns[name]

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """The values of several metrics (rows, metrics)."""
        return np.stack([self.column(name) for name in names], axis=1)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of every architecture, by its text."""
        return {text: row for row, text in enumerate(self.texts)}

    def write(self, path: Path) -> None:
        """Write the pool to a file, whole or not at all."""
        told = {
            "format": FORMAT,
            "metrics": [vars(metric) for metric in self.metrics.values()],
            "description": dict(self.description),
        }
        arrays = {
            "architectures": _bytes("".join(f"{text}\n" for text in self.texts)),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "cost": self.costs,
            "reasons": _bytes(json.dumps({str(row): why for row, why in self.reasons.items()})),
            "description": _bytes(json.dumps(told, sort_keys=True)),
            **{f"{PREFIX}{name}": column for name, column in self.columns.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.new")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its flag is no array
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Pool:
        """The pool in a file; DataError where the file is missing, damaged or no pool."""
        arrays = read_arrays(path)
        try:
            told = json.loads(_text(arrays["description"]))
            metrics = {m["name"]: Metric(**m) for m in told["metrics"]}
            if told["format"] != FORMAT:
                raise ValueError(f'it has the format "{told["format"]}"')
            reasons = {int(row): why for row, why in json.loads(_text(arrays["reasons"])).items()}
            texts = tuple(_text(arrays["architectures"]).split("\n")[:-1])
            pool = cls(
                texts,
                {name: _column(arrays, f"{PREFIX}{name}", len(texts)) for name in metrics},
                metrics,
                reasons,
                _column(arrays, "seconds", len(texts)),
                _column(arrays, "cpu_seconds", len(texts)),
                _column(arrays, "cost", len(texts)),
                told["description"],
            )
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else error
            raise DataError(
                f'"{path}" is not a pool of this version ({said}); make one with `nas score`.'
            ) from None
        if len(pool.rows) != len(texts) or any(not 0 <= row < len(texts) for row in reasons):
            raise DataError(
                f'"{path}" is damaged: its architectures and reasons disagree; make it anew with '
                "`nas score`."
            )
        return pool


def read_arrays(path: Path) -> Arrays:
    """The arrays of an npz, without pickle; DataError where the file is missing or none."""
    if not path.is_file():
        raise DataError(f'there is no file "{path}"; a pool is made with `nas score -o {path}`.')
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no npz")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f'"{path}" cannot be read as an npz ({error}); name another file.') from None


def _column(arrays: Arrays, name: str, num_rows: int) -> Column:
    column = arrays[name]
    if column.dtype != np.float64 or column.shape != (num_rows,) or np.isinf(column).any():
        raise ValueError(
            f"{name} is {column.dtype} of shape {column.shape}, not finite float64 of ({num_rows},)"
        )
    return column


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _text(array: NDArray[Any]) -> str:  # Any: checked here
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"a text is {array.dtype} of shape {array.shape}, not uint8 of (bytes,)")
    return array.tobytes().decode()
