"""Scoring an architecture: the evaluator's interface, what it is given and what it answers."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nas.architecture import Architecture
from nas.checkpoint import Checkpoint, Unkept
from nas.task import Metric

if TYPE_CHECKING:
    from nas.problem import Problem

Row = Mapping[str, float]


class Pruned(Exception):
    """Raised by `Context.report` when the study's pruner gives a trial up."""


def _ignore(step: int, row: Row) -> None:
    return None


def _silent(done: int, total: int, what: str) -> None:
    return None


def _unnoted(name: str, value: Any) -> None:  # Any: a JSON value
    return None


@dataclass(frozen=True)
class Context:
    """What a searcher or evaluator may use beside the problem.

    `seed` is the study's and `number` the trial's; `rng` and `stream` follow from both alone.
    `report(step, row)` adds a row to the trial's curve and raises `Pruned` to give it up;
    `progress(done, total, what)` moves a progress bar. `known` holds metrics that an architecture
    computing the same function was measured to have. `device` and `threads` are what to run on.

    For the inner work of a searcher (`InnerSearch`): `report` never raises; `note(name, value)` keeps a
    JSON value on the open trial, beside its curve; `checkpoint` keeps where the work stands, until the
    trial is told. For evaluations: `common` keeps what all trials of the study share.
    """

    seed: int = 0
    number: int = 0
    device: str = "cpu"
    threads: int = 1
    known: Mapping[str, float] = field(default_factory=dict)
    report: Callable[[int, Row], None] = _ignore
    progress: Callable[[int, int, str], None] = _silent
    note: Callable[[str, Any], None] = _unnoted  # Any: a JSON value
    checkpoint: Checkpoint = Unkept()
    common: Checkpoint = Unkept()

    @property
    def rng(self) -> random.Random:
        """The trial's random stream, from its beginning."""
        return self.stream("trial", self.number)

    def stream(self, *key: object) -> random.Random:
        """A random stream that follows from the study's seed and a key of one's own."""
        return random.Random("/".join(map(str, (self.seed, *key))))


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, or why there are none (`infeasible`: a result, not a bug).

    `missing` gives the reasons for single metrics that there are none of while others are; where one is
    an objective or has a limit, the study takes the architecture as infeasible.

    `cost` is in the evaluator's own unit (`Evaluator.cost_unit`). `weights` is the trained state, for
    saving what was found; it is not part of the record.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    infeasible: str | None = None
    cost: float = 1.0
    weights: Mapping[str, Tensor] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


def checked(problem: Problem, evaluation: Evaluation) -> Evaluation:
    """The evaluation, infeasible where a metric is no finite number, is lacking, or exceeds a limit."""
    if evaluation.infeasible is not None:
        return evaluation
    for name, value in evaluation.metrics.items():
        if not math.isfinite(value):
            finite = {k: v for k, v in evaluation.metrics.items() if math.isfinite(v)}
            return replace(evaluation, metrics=finite, infeasible=f"{name} is {value}")
    reason = problem.lack(evaluation.missing) or problem.excess(evaluation.metrics)
    return replace(evaluation, infeasible=reason)


class Evaluator(ABC):
    """Gives an architecture its metrics. Frozen; its fields are its configuration."""

    @property
    @abstractmethod
    def cost_unit(self) -> str:
        """What `Evaluation.cost` counts: "evaluations", "epochs", "seconds", ..."""

    @property
    @abstractmethod
    def needs_task(self) -> bool:
        """Whether it scores on the data of a task."""

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """The step of a trial's curve that a whole evaluation ends with; 0 where it reports none."""

    @abstractmethod
    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        """Every metric that `evaluate` gives for the problem; the first is the default objective."""

    @abstractmethod
    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        """The metrics for search, from training and validation data alone."""

    @abstractmethod
    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        """The scores on held-out test data, for the end of a study; empty where there is none.

        `weights` is what `evaluate` returned for the same architecture.
        """
