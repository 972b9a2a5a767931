"""Joining pools: their architectures and their metrics in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigurationError, DataError
from nas.pool import Column, Pool
from nas.task import Metric


def join(pools: Mapping[Path, Pool]) -> Pool:
    """All architectures and all metrics of some pools by their files, in the order in which they come.

    A value that several pools have must be one. Seconds and costs of an architecture are added up, its
    reasons stand side by side. The pools are of one space, whose settings may differ as some proxies
    ask for a narrow network, and folded alike; the first one's settings are those of the whole.
    """
    if len(pools) < 2:
        raise ConfigurationError("joining takes two pools or more.")
    _check(
        "space", {file: _identity(pool).get("space", {}).get("name") for file, pool in pools.items()}
    )
    _check("fold", {file: pool.description.get("fold") for file, pool in pools.items()})
    texts = tuple(dict.fromkeys(text for pool in pools.values() for text in pool.texts))
    rows = {text: row for row, text in enumerate(texts)}
    metrics: dict[str, Metric] = {}
    columns: dict[str, Column] = {}
    reasons: dict[int, list[str]] = {}
    for file, pool in pools.items():
        taken = np.array([rows[text] for text in pool.texts], int)
        for name, metric in pool.metrics.items():
            if metrics.setdefault(name, metric) != metric:
                raise DataError(f'"{file}" has another unit or direction of {name} than the others.')
            column = columns.setdefault(name, np.full(len(texts), np.nan))
            _fill(column, taken, pool.columns[name], f'"{file}" has another value of {name}', texts)
        for row, reason in pool.reasons.items():
            told = reasons.setdefault(int(taken[row]), [])
            told.extend([reason] if reason not in told else [])
    seconds, cpu_seconds, costs = _added(pools.values(), rows)
    said = {row: "; ".join(told) for row, told in reasons.items()}
    description = _description(list(pools.values()))
    return Pool(texts, columns, metrics, said, seconds, cpu_seconds, costs, description)


def _fill(column: Column, rows: np.ndarray, values: Column, said: str, texts: Sequence[str]) -> None:
    """Write the values that there are, where there is none or the same; else DataError."""
    known = column[rows]
    differ = np.isfinite(known) & np.isfinite(values) & (known != values)
    if differ.any():
        first = int(np.flatnonzero(differ)[0])
        raise DataError(
            f"{said} than a pool before it, {values[first]:.6g} and not {known[first]:.6g} for "
            f"{texts[rows[first]]}; leave one of the pools out."
        )
    column[rows] = np.where(np.isfinite(values), values, known)


def _added(pools: Iterable[Pool], rows: Mapping[str, int]) -> NDArray[np.float64]:
    """Seconds, CPU seconds and costs of every row: (3, rows)."""
    total = np.zeros((3, len(rows)))
    for pool in pools:
        total[:, [rows[text] for text in pool.texts]] += (pool.seconds, pool.cpu_seconds, pool.costs)
    return total


def _identity(pool: Pool) -> Mapping[str, Any]:  # Any: JSON values
    found: Mapping[str, Any] = pool.description.get("identity", {})
    return found


def _check(what: str, told: Mapping[Path, object]) -> None:
    """DataError where the pools do not agree."""
    (first, known), *others = told.items()
    for file, value in others:
        if value != known:
            raise DataError(
                f'"{file}" has the {what} {value}, and "{first}" has {known}; pools of one space, '
                "folded alike, can be joined."
            )


def _description(pools: Sequence[Pool]) -> dict[str, Any]:  # Any: JSON values
    """That of the first pool, with a task and loaded files where another has them, and all of them."""
    told = [pool.description for pool in pools]
    identities = [_identity(pool) for pool in pools]
    with_task = next((i for i in identities if "task" in i), {})
    units = list(dict.fromkeys(str(d.get("cost_unit", "")) for d in told))
    load = list(dict.fromkeys(file for i in identities for file in i.get("load", ())))
    identity = {k: v for k, v in identities[0].items() if k in ("space", "seed")}
    identity |= {k: with_task[k] for k in ("task",) if k in with_task} | (
        {"load": load} if load else {}
    )
    return {
        "identity": identity,
        "fold": told[0].get("fold"),
        "cost_unit": " and ".join(units),
        "joined": told,
    }
