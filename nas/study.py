"""A study: propose, claim, evaluate, tell, until a limit is reached.

The loop, with what it does about inner searches, reuse, limits, pruning and interruption, is kept in
one file.
"""

from __future__ import annotations

import json
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from torch import Tensor

from nas.architecture import Architecture
from nas.checkpoint import Checkpoints
from nas.complexity import UNITS
from nas.curves import Curves
from nas.errors import ConfigurationError, StorageError, unknown
from nas.evaluation import Context, Evaluation, Evaluator, Pruned, Row, checked
from nas.lease import renewed
from nas.problem import Problem
from nas.pruner import Point, Pruner
from nas.pruners.none import Never
from nas.record import MOST_LOSSES, NOTE, Claim, Opened, Record
from nas.searcher import Failed, InnerSearch, Proposal, Searcher
from nas.task import Metric
from nas.trial import Failure, Trial

WAIT_SECONDS = 0.2
MOST_REUSED_IN_A_ROW = 1000
CONFIGURATION = "nasgram"  # the study attribute that holds what exactly runs
METRICS = "metrics"
DATA = "data"  # and of which data its scores are

Weights = Mapping[str, Tensor] | None


class Observer(ABC):
    """Is told what happens in a study while it runs."""

    @abstractmethod
    def on_progress(self, done: int, total: int, what: str) -> None:
        """Within the evaluation that runs: `done` of `total` steps of what."""

    @abstractmethod
    def on_trial(self, trial: Trial, weights: Weights) -> None:
        """A trial was told; `weights` are its trained state, where the evaluator gives any."""

    @abstractmethod
    def on_failure(self, failure: Failure) -> None:
        """The inner search of a trial came to no architecture."""


@final
class Unobserved(Observer):
    """Does nothing of what it is told."""

    def on_progress(self, done: int, total: int, what: str) -> None:
        """Nothing."""

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        """Nothing."""

    def on_failure(self, failure: Failure) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Budget:
    """Where a study stops: trials in all, seconds of this run, cost in all (None: no limit)."""

    trials: int | None = None
    seconds: float | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        given = {"trials": self.trials, "seconds": self.seconds, "cost": self.cost}
        if all(value is None for value in given.values()):
            raise ConfigurationError("a budget needs a limit: trials, seconds or cost.")
        for name, value in given.items():
            if value is not None and value <= 0:
                raise ConfigurationError(f"the budget's {name} are {value}; they must be above 0.")


@dataclass(frozen=True)
class Study:
    """One search, recorded under its name in a storage, that can be stopped and resumed at any time.

    `configuration` is kept with the study as JSON; a study of another configuration is refused.
    `folder` is where inner searches keep their checkpoints; without one, they begin anew.
    """

    name: str
    problem: Problem
    searcher: Searcher
    evaluator: Evaluator
    storage: BaseStorage
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    pruner: Pruner = Never()
    configuration: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    folder: Path | None = None
    metrics: Mapping[str, Metric] = field(init=False)

    def __post_init__(self) -> None:
        metrics = {m.name: m for m in self.evaluator.metrics(self.problem)}
        object.__setattr__(self, "metrics", metrics)
        check(self.problem, self.evaluator, self.pruner)

    def open(self) -> Record:
        """The study's record, made in the storage where it does not exist."""
        try:
            study_id = self.storage.get_study_id_from_name(self.name)
        except KeyError:
            study_id = self._create()
        known = self.storage.get_study_user_attrs(study_id).get(CONFIGURATION)
        if known is None:
            self._describe(study_id)
        elif known != self.configuration:
            raise StorageError(_difference(self.name, known, self.configuration))
        return Record(self.storage, study_id, self.problem)

    def checkpoints(self) -> Checkpoints:
        """Where the inner searches of its trials keep how they stand."""
        identity = [dict(self.configuration), self.seed, repr(self.searcher), self.device]
        folder = None if self.folder is None else self.folder / "checkpoints"
        return Checkpoints(folder, json.dumps(identity, sort_keys=True))

    def _create(self) -> int:
        directions = [
            StudyDirection.MAXIMIZE if o.sign > 0 else StudyDirection.MINIMIZE
            for o in self.problem.objectives
        ]
        with suppress(DuplicatedStudyError):  # another process was first
            self.storage.create_new_study(directions, self.name)
        return int(self.storage.get_study_id_from_name(self.name))

    def _describe(self, study_id: int) -> None:
        names = [o.metric for o in self.problem.objectives]
        units = {m.name: {"unit": m.unit, "direction": m.direction} for m in self.metrics.values()}
        self.storage.set_study_system_attr(study_id, "study:metric_names", names)
        self.storage.set_study_user_attr(study_id, METRICS, units)
        self.storage.set_study_user_attr(study_id, CONFIGURATION, dict(self.configuration))

    def _hold_to_data(self, study_id: int) -> None:
        """Keep which data the scores are on; StorageError where these are others."""
        task = self.problem.task
        if task is None:
            return
        known = self.storage.get_study_user_attrs(study_id).get(DATA)
        if known is None:
            self.storage.set_study_user_attr(study_id, DATA, task.digest)
        elif known != task.digest:
            raise StorageError(
                f'the data of task "{task.name}" are others than those that study "{self.name}" began '
                "with, and scores on them do not compare; put those back, or give this study another "
                "name with --study."
            )

    def run(
        self, budget: Budget, observer: Observer | None = None, record: Record | None = None
    ) -> list[Trial]:
        """Search until the budget is spent or nothing is left to propose; the finished trials.

        Trials that were lost or interrupted are retried first, in their own places. An exception of
        the evaluator closes its trial and passes on; a later run retries it. `record` is the study's,
        where it is open already. Other processes may run the same study at the same time. StorageError
        where the task's data are not those that the study began with.
        """
        record = record or self.open()
        self._hold_to_data(record.study_id)
        run = _Run(self, record, budget, observer or Unobserved(), Curves(record, self.seed))
        record.refresh()
        run.checkpoints.remove_told({trial.number for trial in record.history})
        with renewed(run.renew, run.record.run):
            try:
                while run.step():
                    pass
            except KeyboardInterrupt:
                record.close_mine("interrupted")
                raise
        return run.record.history.trials


def tested(study: Study, trial: Trial, weights: Weights) -> tuple[Mapping[str, float], Weights]:
    """A trial's scores on test data, and its weights; where those were lost, it is trained again."""
    scores = study.evaluator.test(study.problem, trial.architecture, weights)
    if scores or weights is not None:
        return scores, weights
    context = Context(study.seed, trial.number, study.device, study.threads)
    again = study.evaluator.evaluate(study.problem, trial.architecture, context)
    if again.weights is None:
        return scores, None
    return study.evaluator.test(study.problem, trial.architecture, again.weights), again.weights


def check(problem: Problem, evaluator: Evaluator, pruner: Pruner) -> None:
    """Refuse parts that do not go together: SearchSpaceError or ConfigurationError says which."""
    metrics = {m.name for m in evaluator.metrics(problem)}
    for objective in problem.objectives:
        if objective.metric not in metrics:
            what = "a metric that the evaluator gives"
            raise ConfigurationError(unknown(objective.metric, what, sorted(metrics)))
    for name in problem.limits:
        if name not in metrics | UNITS.keys():
            raise ConfigurationError(unknown(name, "a metric", sorted(metrics | UNITS.keys())))
    refusal = pruner.refusal(len(problem.objectives), evaluator.num_steps)
    if refusal is not None:
        raise ConfigurationError(refusal)
    problem.sample(random.Random(0))  # raises where the space does not fit the task


@dataclass
class _Run:
    study: Study
    record: Record
    budget: Budget
    observer: Observer
    curves: Curves
    checkpoints: Checkpoints = field(init=False)
    began: float = field(default_factory=time.monotonic)
    curve: list[dict[str, float]] = field(default_factory=list)
    cost: float = 0.0
    paid: int = 0  # trials that cost something
    summed: int = 0
    failed: int = 0  # failures that were summed
    reused_in_a_row: int = 0
    working: Opened | Claim | None = None

    def __post_init__(self) -> None:
        self.checkpoints = self.study.checkpoints()

    def renew(self) -> None:
        """Renew the lease of the trial that is being worked on; called from a thread of its own."""
        held = self.working
        if held is not None:
            with suppress(UpdateFinishedTrialError):
                self.record.renew(held)

    def step(self) -> bool:
        """Work on one trial, or wait for others; False where the search is over."""
        limit = self.budget.trials
        lost = self.record.to_retry(limit)
        if lost is None and self.record.close_lost():
            lost = self.record.to_retry(limit)
        if self._spent_seconds() or self._spent_cost():
            return False
        if lost is not None:
            return self._retry(*lost)
        place = self.record.size
        if (limit is not None and place >= limit) or self._is_cost_promised():
            return self._wait()
        match self._propose(place):
            case None:
                return self._wait()
            case InnerSearch() as search:
                self._search(self.record.open(place), search, losses=0)
            case proposal:
                self._work(self.record.claim(proposal, place), losses=0)
        return True

    def _retry(self, number: int, trial: FrozenTrial) -> bool:
        """Work on a lost trial again, from its search where it had no architecture yet."""
        losses, said = self.record.losses(number), trial.user_attrs
        proposed: Proposal | InnerSearch | None
        if "architecture" in said:
            architecture = self.study.problem.space.parse(said["architecture"])
            notes, cost = said.get("notes", {}), said.get("search_cost", {})
            proposed = Proposal(architecture, notes, trial.system_attrs, cost)
        else:
            proposed = self._propose(self.record.place(number))
        if proposed is None:
            return self._wait()
        if isinstance(proposed, InnerSearch):
            self._search(self.record.reopen(number), proposed, losses=losses)
        else:
            self._work(self.record.retry(proposed, number), losses=losses)
        return True

    def _spent_seconds(self) -> bool:
        most = self.budget.seconds
        return most is not None and time.monotonic() - self.began >= most

    def _spent_cost(self) -> bool:
        trials = self.record.history.trials
        for trial in trials[self.summed :]:
            self.cost += trial.cost
            self.paid += trial.cost > 0
            self.reused_in_a_row = self.reused_in_a_row + 1 if trial.reused is not None else 0
        self.summed = len(trials)
        failures = self.record.history.failures
        self.cost += sum(failure.cost for failure in failures[self.failed :])
        self.failed = len(failures)
        if self.budget.cost is None:
            return False
        return self.cost >= self.budget.cost or self.reused_in_a_row >= MOST_REUSED_IN_A_ROW

    def _is_cost_promised(self) -> bool:
        """Whether what others work on will spend the budget, at the mean cost of a trial so far."""
        if self.budget.cost is None or self.paid == 0:
            return False
        promised = self.record.awaited() * self.cost / self.paid
        return self.cost + promised >= self.budget.cost

    def _wait(self) -> bool:
        """Whether other workers are still at it: their trials may yet have to be retried."""
        if not self.record.awaited(self.budget.trials):
            return False
        time.sleep(WAIT_SECONDS)
        return True

    def _context(self, number: int) -> Context:
        study = self.study
        return Context(
            seed=study.seed,
            number=number,
            device=study.device,
            threads=study.threads,
            progress=self.observer.on_progress,
            common=self.checkpoints.common(),
        )

    def _propose(self, place: int) -> Proposal | InnerSearch | None:
        history = self.record.history
        return self.study.searcher.propose(self.study.problem, history, self._context(place))

    def _work(self, claim: Claim | None, *, losses: int) -> None:
        """Evaluate a claim and tell what came of it; None is a trial that another worker has."""
        if claim is not None:
            with self._holding(claim):
                self._evaluate(claim, losses, time.monotonic())

    def _search(self, opened: Opened | None, search: InnerSearch, *, losses: int) -> None:
        """Do the search that a trial was opened for, and evaluate what it finds."""
        if opened is None:
            return
        began = time.monotonic()
        with self._holding(opened):
            found = self._searched(opened, search, losses)
            if isinstance(found, Claim):
                self._evaluate(found, losses, began)
            else:
                failure = replace(found, seconds=time.monotonic() - began)
                if self.record.fail(opened, failure):
                    self.observer.on_failure(failure)
                self.checkpoints.at(opened.place).remove()

    @contextmanager
    def _holding(self, held: Opened | Claim) -> Iterator[None]:
        """Hold a trial while it is worked on; an exception in that closes it, to be retried."""
        try:
            self.working = held
            yield
        except UpdateFinishedTrialError:  # the trial was lost to another worker
            self.record.close(held.trial_id, "lost")
        except Exception as error:
            self.record.close(held.trial_id, f"error: {type(error).__name__}: {error}"[:2000])
            error.add_note(f"in trial {held.place}")
            raise
        finally:
            self.working = None

    def _evaluate(self, claim: Claim, losses: int, began: float) -> None:
        trial, weights = self._result(claim, losses)
        trial = replace(trial, seconds=time.monotonic() - began)
        self.working = None
        if self.record.tell(claim, trial, self.curve):
            self.observer.on_trial(trial, weights)
        self.checkpoints.at(claim.place).remove()

    def _searched(self, opened: Opened, search: InnerSearch, losses: int) -> Claim | Failure:
        """What an inner search comes to; its architecture is put into the trial."""
        if losses >= MOST_LOSSES:
            reason = f"its worker died {losses} times while searching, without getting further"
            return Failure(opened.place, reason)
        context = replace(
            self._context(opened.place),
            report=lambda step, row: self.record.report_search(opened, step, row),
            note=lambda name, value: self.record.note(opened, f"{NOTE}{name}", value),
            checkpoint=self.checkpoints.at(opened.place),
        )
        found = search.run(context)
        if isinstance(found, Failed):
            return Failure(opened.place, found.reason, self._inner_cost(found))
        return self.record.name(opened, found)

    def _inner_cost(self, found: Proposal | Failed) -> float:
        """What a search cost in the evaluator's unit; 0 where it is counted in others."""
        return found.cost.get(self.study.evaluator.cost_unit, 0.0)

    def _result(self, claim: Claim, losses: int) -> tuple[Trial, Weights]:
        self.curve = []
        architecture = claim.proposal.architecture
        if losses >= MOST_LOSSES:
            reason = f"its worker died {losses} times while evaluating it"
            return self._trial(claim, Evaluation(infeasible=reason, cost=0.0)), None
        refusal = self.study.problem.refusal(architecture)
        if refusal is not None:
            return self._trial(claim, Evaluation(infeasible=refusal, cost=0.0)), None
        same = self.record.history.same(architecture)
        if same is not None:
            metrics = dict(same.metrics)
            evaluation = Evaluation(metrics, same.infeasible, cost=0.0, missing=same.missing)
            return self._trial(claim, evaluation, reused=same.number), None
        return self._evaluated(claim, architecture)

    def _evaluated(self, claim: Claim, architecture: Architecture) -> tuple[Trial, Weights]:
        equal = self.record.history.equal(architecture)
        known: dict[str, float] = {}
        if equal is not None and equal.completed:
            shared = (m.name for m in self.study.metrics.values() if m.shared)
            known = {name: equal.metrics[name] for name in shared if name in equal.metrics}
        context = replace(
            self._context(claim.place),
            known=known,
            report=lambda step, row: self._report(claim, step, row),
        )
        try:
            evaluation = self.study.evaluator.evaluate(self.study.problem, architecture, context)
        except Pruned:
            last = {k: v for k, v in self.curve[-1].items() if k != "step"}
            evaluation = Evaluation(last, cost=float(len(self.curve)))
            return self._trial(claim, evaluation, pruned=True), None
        reused = equal.number if equal is not None and known and evaluation.cost == 0 else None
        return self._trial(
            claim, checked(self.study.problem, evaluation), reused=reused
        ), evaluation.weights

    def _trial(
        self,
        claim: Claim,
        evaluation: Evaluation,
        *,
        pruned: bool = False,
        reused: int | None = None,
    ) -> Trial:
        return Trial(
            claim.place,
            claim.proposal.architecture,
            metrics=dict(evaluation.metrics),
            infeasible=evaluation.infeasible,
            missing=dict(evaluation.missing),
            pruned=pruned,
            notes=dict(claim.proposal.notes),
            system_attributes=dict(claim.proposal.system_attributes),
            cost=evaluation.cost + self._inner_cost(claim.proposal),
            reused=reused,
        )

    def _report(self, claim: Claim, step: int, row: Row) -> None:
        """Add a row to the curve, and ask the pruner unless it is the last."""
        previous = int(self.curve[-1]["step"]) if self.curve else -1
        self.curve.append({"step": float(step), **row})
        values = [self._so_far(claim, o.metric, row) for o in self.study.problem.objectives]
        if any(math.isinf(value) for value in values):
            return
        if len(values) == 1 and not math.isnan(values[0]):
            self.record.report(claim, step, values[0])
        last = self.study.evaluator.num_steps
        if step >= last:
            return
        signed = (o.sign * v for o, v in zip(self.study.problem.objectives, values, strict=True))
        point = Point(claim.trial_id, claim.place, step, tuple(signed), previous, last)
        if self.study.pruner.prunes(point, self.curves):
            raise Pruned

    def _so_far(self, claim: Claim, metric: str, row: Row) -> float:
        """A metric within an evaluation: reported, or told by the architecture; NaN: not known."""
        if metric in row:
            return row[metric] if math.isfinite(row[metric]) else math.inf
        if metric not in UNITS:
            return math.nan
        space, architecture = self.study.problem.space, claim.proposal.architecture
        return space.complexity(architecture).metrics()[metric]


def _difference(name: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    keys = [k for k in (*known, *given) if known.get(k) != given.get(k)]
    what = "; ".join(f"{k} {known.get(k)!r}, not {given.get(k)!r}" for k in dict.fromkeys(keys))
    return (
        f'study "{name}" exists with another configuration ({what}); '
        f"go on with it by `nas resume {name}`, or give this one another name with --study."
    )
