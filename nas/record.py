"""Optuna as the record of a study: what was claimed, by whom, and what came of it.

A claim is one write: the trial is created RUNNING with its text, choices, notes and lease. What counts
follows from the list of trials alone, by one rule for every worker (`Counted`): trials count in the
order of their numbers; the first retry of a lost trial takes its place; a trial that ranks beyond a
worker's limit, or retries what was retried already, closes itself as surplus. No locks are needed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.derivation import Choice
from nas.grammar import Pick
from nas.lease import Lease, is_lost, lease
from nas.problem import Problem
from nas.searcher import Proposal
from nas.space import SearchSpace
from nas.trial import History, Trial

MOST_PARAMETERS = 64
MOST_LOSSES = 3
Attributes = Mapping[str, Any]  # Any: JSON values


@dataclass
class Counted:
    """Which place each trial takes, told from the trials in the order of their numbers."""

    before: Counted | None = None  # what was counted up to here, not changed by counting on
    size: int = 0
    _places: dict[int, int] = field(default_factory=dict)  # trial number -> place
    _retried: set[int] = field(default_factory=set)  # numbers of lost trials

    def add(self, number: int, attributes: Attributes) -> None:
        """Count the trial of the next number."""
        if attributes.get("closed") == "surplus":
            return
        lost = attributes.get("retry_of")
        if lost is None:
            self._places[number] = self.size
            self.size += 1
            return
        place = self.place(lost)
        if place is not None and not self.is_retried(lost):
            self._places[number] = place
            self._retried.add(lost)

    def place(self, number: int) -> int | None:
        """The place of a trial among those that count; None where it is surplus."""
        if number in self._places:
            return self._places[number]
        return self.before.place(number) if self.before else None

    def is_retried(self, number: int) -> bool:
        """Whether a later trial took a lost trial's place."""
        return number in self._retried or (self.before is not None and self.before.is_retried(number))

    def on(self) -> Counted:
        """A count that goes on from here and leaves this one as it is."""
        return Counted(self, self.size)


@dataclass(frozen=True)
class Claim:
    """A trial this process works on: its place in the study, and what is to be evaluated."""

    trial_id: int
    place: int
    proposal: Proposal


class Record:
    """The trials of one study, read as they come; the searchers' history follows from it."""

    def __init__(self, storage: BaseStorage, study_id: int, problem: Problem) -> None:
        self.storage = storage
        self.study_id = study_id
        self.problem = problem
        self.history = History(problem.key)
        self.size = 0  # trials that count, open ones too
        self._counted = Counted()  # of the trials before the first open one
        self._settled = 0
        self._seen: dict[int, FrozenTrial] = {}  # from the first open one on
        self._ids: dict[int, int] = {}
        self._told: set[int] = set()
        self._mine: set[int] = set()
        self._unretried: dict[int, FrozenTrial] = {}  # closed without a result, by number
        self._architectures: dict[int, Architecture] = {}  # of open trials, by number
        self._with_parameters = _has_parameters(problem.space)

    def refresh(self) -> Counted:
        """Read what is new, put finished trials into the history, and count."""
        for number, trial in self._seen.items():
            if not trial.state.is_finished():
                self._seen[number] = self.storage.get_trial(self._ids[number])
        return self._read_new()

    def _read_new(self) -> Counted:
        self._probe()
        tail = self._settle()
        self._tell_history(tail)
        self.size = tail.size
        self.history.running = [
            self._architecture(n)
            for n, t in self._seen.items()
            if not t.state.is_finished()
            and tail.place(n) is not None
            and self._ids[n] not in self._mine
        ]
        return tail

    def _probe(self) -> None:
        number = self._settled + len(self._seen)
        while True:
            try:
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
            except KeyError:
                return
            self._ids[number] = trial_id
            self._seen[number] = self.storage.get_trial(trial_id)
            number += 1

    def _settle(self) -> Counted:
        """Count for good up to the first open trial; what follows is counted on a copy."""
        while self._settled in self._seen and self._seen[self._settled].state.is_finished():
            self._counted.add(self._settled, self._seen[self._settled].user_attrs)
            self._take(self._settled, self._counted)
            del self._seen[self._settled], self._ids[self._settled]
            self._settled += 1
        if not self._seen:
            return self._counted
        tail = self._counted.on()
        for number, trial in self._seen.items():
            tail.add(number, trial.user_attrs)
        return tail

    def _tell_history(self, tail: Counted) -> None:
        for number in self._seen:
            if self._seen[number].state.is_finished():
                self._take(number, tail)

    def _take(self, number: int, counted: Counted) -> None:
        trial = self._seen[number]
        place = counted.place(number)
        if number in self._told or place is None:
            return
        self._told.add(number)
        if "evaluation" in trial.user_attrs:
            self.history.add(self._read(number, trial, place))
        else:
            self._unretried[number] = trial
        self._architectures.pop(number, None)

    def _architecture(self, number: int) -> Architecture:
        if number not in self._architectures:
            text = self._seen[number].user_attrs["architecture"]
            self._architectures[number] = self.problem.space.parse(text)
        return self._architectures[number]

    def _read(self, number: int, trial: FrozenTrial, place: int) -> Trial:
        attributes, result = trial.user_attrs, trial.user_attrs["evaluation"]
        return Trial(
            place,
            self._architecture(number),
            metrics=result["metrics"],
            infeasible=result.get("infeasible"),
            pruned=result.get("pruned", False),
            notes=attributes.get("notes", {}),
            cost=result["cost"],
            seconds=result["seconds"],
            reused=result.get("reused"),
        )

    def close_lost(self) -> bool:
        """Close the open trials whose workers are gone, so that they are retried; whether any were."""
        closed = False
        for number, trial in list(self._seen.items()):
            if trial.state.is_finished() or self._ids[number] in self._mine:
                continue
            holder = trial.user_attrs.get("lease")
            if holder is None or is_lost(holder) or _is_own(holder):
                self._close_one(number, trial)
                closed = True
        return closed

    def _close_one(self, number: int, trial: FrozenTrial) -> None:
        """Close a lost trial; one that was lost while being told, as its worker would have."""
        if "evaluation" not in trial.user_attrs:
            self.close(self._ids[number], "lost")
            return
        with suppress(UpdateFinishedTrialError):
            self._end(self._ids[number], self._read(number, trial, 0))

    def to_retry(self) -> tuple[int, FrozenTrial] | None:
        """The first trial that was closed without a result and is not being retried."""
        counted = self.refresh()
        for number in [n for n in self._unretried if counted.is_retried(n)]:
            del self._unretried[number]
        return next(iter(self._unretried.items()), None)

    def claim(
        self, proposal: Proposal, *, limit: int | None = None, retry_of: int | None = None
    ) -> Claim | None:
        """Claim a trial for a proposal, or a retry of a lost one.

        None where it ranks beyond the limit or was retried already: it is closed as surplus.
        """
        attributes: dict[str, Any] = {  # Any: JSON values
            "architecture": str(proposal.architecture),
            "digest": proposal.architecture.digest,
            "lease": lease(),
        }
        if proposal.notes:
            attributes["notes"] = dict(proposal.notes)
        if retry_of is not None:
            attributes["retry_of"] = retry_of
        template = self._template(proposal.architecture, attributes)
        trial_id = self.storage.create_new_trial(self.study_id, template_trial=template)
        self._mine.add(trial_id)
        counted = self._read_new()
        number = next(n for n, i in self._ids.items() if i == trial_id)
        self._architectures[number] = proposal.architecture
        place = counted.place(number)
        if place is None or (limit is not None and place >= limit):
            self.close(trial_id, "surplus")
            return None
        return Claim(trial_id, place, proposal)

    def _template(self, architecture: Architecture, attributes: dict[str, Any]) -> FrozenTrial:
        parameters: dict[str, str] = {}
        distributions: dict[str, BaseDistribution] = {}
        if self._with_parameters:
            nodes = dict(architecture.nodes())
            for path, choice in self.problem.space.choices(architecture).items():
                name = _parameter(path, choice)
                parameters[name] = nodes[path].rule
                distributions[name] = _categorical(tuple(r.name for r in choice.every))
        return optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions=distributions,
            user_attrs=attributes,
        )

    def renew(self, claim: Claim) -> None:
        """Renew the lease of a claim."""
        self.storage.set_trial_user_attr(claim.trial_id, "lease", lease())

    def report(self, claim: Claim, step: int, value: float) -> None:
        """Add a point to the curve that Optuna's pruners and the dashboard see."""
        self.storage.set_trial_intermediate_value(claim.trial_id, step, value)

    def tell(self, claim: Claim, trial: Trial, curve: list[dict[str, float]]) -> bool:
        """Write what came of a claim and close it; False where it was lost to another worker."""
        result: dict[str, Any] = {  # Any: JSON values
            "metrics": dict(trial.metrics),
            "cost": trial.cost,
            "seconds": round(trial.seconds, 4),
        }
        optional = {"infeasible": trial.infeasible, "reused": trial.reused, "curve": curve or None}
        optional |= {"pruned": trial.pruned or None}
        result |= {key: value for key, value in optional.items() if value is not None}
        try:
            self.storage.set_trial_user_attr(claim.trial_id, "evaluation", result)
            self._end(claim.trial_id, trial)
        except UpdateFinishedTrialError:
            return False
        finally:
            self._mine.discard(claim.trial_id)
        return True

    def _end(self, trial_id: int, trial: Trial) -> None:
        """Give a trial its final state, and its values where it has them."""
        if trial.completed:
            values = [trial.metrics[o.metric] for o in self.problem.objectives]
            self.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
            return
        state = TrialState.FAIL if trial.infeasible is not None else TrialState.PRUNED
        self.storage.set_trial_state_values(trial_id, state)

    def close(self, trial_id: int, why: str) -> None:
        """Close a trial without a result: "surplus", "lost", "interrupted" or "error: ..."."""
        with suppress(UpdateFinishedTrialError):  # another worker closed it first
            self.storage.set_trial_user_attr(trial_id, "closed", why)
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self._mine.discard(trial_id)

    def losses(self, number: int) -> int:
        """How many times the trial of that number and those it retried were lost with their worker."""
        count, current = 0, number
        while True:
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, current)
            attributes = self.storage.get_trial(trial_id).user_attrs
            count += attributes.get("closed") == "lost"
            if "retry_of" not in attributes:
                return count
            current = attributes["retry_of"]


def _is_own(holder: Lease) -> bool:
    return bool(holder.get("pid") == os.getpid() and holder.get("host") == socket.gethostname())


def _has_parameters(space: SearchSpace) -> bool:
    """Whether every choice becomes a parameter of Optuna's: finite spaces of at most 64 choices."""
    return space.finite and space.extent.choices <= MOST_PARAMETERS


def _parameter(path: str, choice: Choice) -> str:
    """A parameter's name: the path, with k of n for a Pick, whose options depend on n."""
    name = path or str(choice.symbol)
    if isinstance(choice.symbol, Pick) and isinstance(choice.spec, tuple):
        return f"{name} ({choice.symbol.k} of {len(choice.spec)})"
    return name


@cache
def _categorical(names: tuple[str, ...]) -> CategoricalDistribution:
    return CategoricalDistribution(names)
