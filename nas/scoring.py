"""Scoring a finite space, or a sample of any space, into a pool; resumable, in several processes."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas import configuration as config
from nas import pool_rows
from nas.architecture import Architecture
from nas.configuration import Made, SearchConfiguration
from nas.errors import ConfigurationError, StorageError
from nas.pool import Pool
from nas.pool_rows import Row, Rows
from nas.problem import Problem
from nas.progress import Step, WatchOne, unwatched
from nas.scoring_workers import Job, Machine, rows
from nas.training import torch_device
from nas.version import VERSION

DRAWS = 1000  # in a row without a new architecture, until a sample is as large as it gets
NO_PART = ("searcher", "objective", "pruner")  # of a search that has no say in scores


@dataclass(frozen=True)
class Scoring:
    """What to score: a search's space, task, evaluators, limits and seed; all of it, or a sample.

    `sample` is how many distinct architectures are drawn (None: all of a finite space, in its order).
    With `fold`, an equivalence of the space by its name (`SearchSpace.classes`), only the first
    architecture of each class is scored, and a sample is one of classes. `seconds` of the clock after
    which no more are begun (None: no limit).
    """

    search: SearchConfiguration
    sample: int | None = None
    fold: str | None = None
    machine: Machine = Machine()
    workers: int = 1
    seconds: float | None = None

    def __post_init__(self) -> None:
        sample = 1 if self.sample is None else self.sample
        for name, value in (("sample", sample), ("workers", self.workers)):
            if value < 1:
                raise ConfigurationError(f"{name} is {value}; it takes a whole number from 1.")
        if self.seconds is not None and self.seconds <= 0:
            raise ConfigurationError(f"seconds are {self.seconds}; they must be above 0.")


def score(scoring: Scoring, output: Path, *, watch: WatchOne = unwatched) -> Pool:
    """Score what a pool lacks and write it; one that was interrupted goes on where it stood.

    Each row is kept as soon as it is scored, in `output` with `.part` at its end. A pool of the same
    setup in `output` is added to. Where `seconds` ended it, the pool holds what is scored so far.
    StorageError where either is of another setup.
    """
    began = time.monotonic()
    made = config.make(scoring.search)
    torch_device(scoring.machine.device)
    texts = [str(architecture) for architecture in chosen(made.problem, scoring)]
    identity = _identity(made, scoring)
    known = _known(output, identity, texts)
    part = output.with_name(f"{output.name}.part")
    with pool_rows.opened(part, identity) as kept, watch() as step:
        kept.done.update(known | kept.done)
        _score(made, texts, scoring, began, kept, step)
        description = {**_description(made, scoring, identity), "asked": len(texts)}
        pool = _pool(made, [kept.done[text] for text in texts if text in kept.done], description)
        pool.write(output)
    if kept.done.keys() <= set(texts):  # a larger sample may have been interrupted
        pool_rows.remove(part)
    return pool


def chosen(problem: Problem, scoring: Scoring) -> list[Architecture]:
    """The architectures of a pool in its order, each class or text once."""
    space = problem.space
    classes = str if scoring.fold is None else space.classes(scoring.fold)
    found: dict[str, Architecture] = {}
    if scoring.sample is None:
        if not space.finite:
            raise ConfigurationError(
                f'space "{space.name}" is infinite and cannot be scored whole; give --sample N.'
            )
        for architecture in space.enumerate():
            found.setdefault(classes(architecture), architecture)
        return list(found.values())
    rng, failed = random.Random(f"{scoring.search.seed}/pool"), 0
    while len(found) < scoring.sample and failed < DRAWS:
        architecture = problem.sample(rng)
        failed = failed + 1 if classes(architecture) in found else 0
        found.setdefault(classes(architecture), architecture)
    return list(found.values())


def _score(
    made: Made, texts: Sequence[str], scoring: Scoring, began: float, kept: Rows, step: Step
) -> None:
    """Score the first of each function, then the others, which take shared metrics over."""
    metrics = made.evaluator.metrics(made.problem)
    shared = [metric.name for metric in metrics if metric.shared]
    first = _first_equals(made.problem, texts) if shared else {}

    def is_over() -> bool:
        return scoring.seconds is not None and time.monotonic() - began >= scoring.seconds

    def work(jobs: Sequence[Job]) -> None:
        for row in rows(made, jobs, scoring.machine, scoring.workers):
            kept.append(row)
            step(min(len(kept.done), len(texts)), len(texts), "architectures")
            if is_over():
                break

    step(len(kept.done), len(texts), "architectures")
    work([Job(text) for text in texts if text not in kept.done and text not in first])
    if is_over():
        return
    jobs = []
    for text in (text for text in texts if text in first and text not in kept.done):
        same = kept.done[first[text]]
        known = {name: same.metrics[name] for name in shared if name in same.metrics}
        if len(known) == len(metrics):
            kept.append(Row(text, known))
        else:
            jobs.append(Job(text, known))
    work(jobs)


def _first_equals(problem: Problem, texts: Sequence[str]) -> dict[str, str]:
    """For every text that is not the first of its function, the first."""
    firsts: dict[str, str] = {}
    found = {}
    for text in texts:
        first = firsts.setdefault(problem.key(problem.space.parse(text)), text)
        if first != text:
            found[text] = first
    return found


def _known(output: Path, identity: pool_rows.Identity, texts: Sequence[str]) -> dict[str, Row]:
    """The rows of an existing pool, if it is of the same setup and all of them are asked for."""
    if not output.exists():
        return {}
    pool = Pool.read(output)
    pool_rows.check(output, pool.description.get("identity", {}), identity)
    if not set(pool.texts) <= set(texts):
        raise StorageError(
            f'"{output}" holds {len(set(pool.texts) - set(texts)):,} architectures that are not asked '
            "for now; name another file with -o."
        )
    return {row.text: row for row in rows_of(pool)}


def rows_of(pool: Pool) -> list[Row]:
    """The rows of a pool."""
    columns = {name: column.tolist() for name, column in pool.columns.items()}
    return [
        Row(
            text,
            {name: column[i] for name, column in columns.items() if column[i] == column[i]},
            pool.reasons.get(i),
            float(pool.costs[i]),
            float(pool.seconds[i]),
            float(pool.cpu_seconds[i]),
        )
        for i, text in enumerate(pool.texts)
    ]


def _pool(made: Made, found: Sequence[Row], description: Mapping[str, Any]) -> Pool:  # Any: JSON
    metrics = {m.name: m for m in made.evaluator.metrics(made.problem)}
    return Pool(
        tuple(row.text for row in found),
        {n: np.array([row.metrics.get(n, np.nan) for row in found], float) for n in metrics},
        metrics,
        {i: row.reason for i, row in enumerate(found) if row.reason is not None},
        np.array([row.seconds for row in found], float),
        np.array([row.cpu_seconds for row in found], float),
        np.array([row.cost for row in found], float),
        description,
    )


def _identity(made: Made, scoring: Scoring) -> dict[str, Any]:  # Any: JSON values
    """What decides the values of a row, beside its architecture."""
    tables = made.configuration.tables()
    return {
        **{key: table for key, table in tables.items() if key not in NO_PART},
        **({} if made.problem.task is None else {"data": made.problem.task.digest}),
        "device": scoring.machine.device,
        "versions": {"nasgram": VERSION, "torch": str(torch.__version__), "numpy": np.__version__},
    }


def _description(
    made: Made, scoring: Scoring, identity: Mapping[str, Any]
) -> dict[str, Any]:  # Any: JSON values
    return {
        "identity": identity,
        "sample": scoring.sample,
        "fold": scoring.fold,
        "cost_unit": made.evaluator.cost_unit,
    }


def unfolded(pool: Pool, problem: Problem) -> Pool:
    """Every architecture of a finite space with the row of its class, of a pool that was folded.

    What belongs to the text and not to the class (parameters, latency) is then that of the class's
    representative.
    """
    name = pool.description.get("fold")
    if name is None:
        raise ConfigurationError("the pool was not folded, so there is nothing to unfold.")
    space = problem.space
    classes = space.classes(name)
    by_class = {classes(space.parse(text)): row for row, text in enumerate(pool.texts)}
    pairs = [(str(a), by_class.get(classes(a))) for a in space.enumerate()]
    kept = [(text, row) for text, row in pairs if row is not None]
    taken = np.array([row for _, row in kept], dtype=int)
    return replace(
        pool,
        texts=tuple(text for text, _ in kept),
        columns={n: column[taken] for n, column in pool.columns.items()},
        reasons={i: pool.reasons[r] for i, r in enumerate(taken.tolist()) if r in pool.reasons},
        seconds=pool.seconds[taken],
        cpu_seconds=pool.cpu_seconds[taken],
        costs=pool.costs[taken],
        description={**pool.description, "fold": None, "unfolded": name},
    )
