"""Optuna as the record of a study: what was claimed, by whom, and what came of it.

A claim is one write: the trial is created RUNNING with its text, choices, notes and lease. One that is
opened for an inner search has a lease alone, is given rows and notes while that goes on, and its
architecture at the end of it; lost before that, it is retried by searching again. What counts
follows from the list of trials alone, by one rule for every worker (`Counted`): trials count in the
order of their numbers; a trial counts only in the place that it was proposed for, so that of several
workers that propose for one place the first has it; the first retry of a lost trial takes its place.
What does not count is surplus, from its first moment, and closes itself. No locks are needed. Creating,
naming, telling and closing trials are one protocol and kept in one file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.lease import is_lost, lease
from nas.parameters import Parameters, parameters
from nas.problem import Problem
from nas.searcher import Proposal
from nas.space import SearchSpace
from nas.trial import Failure, History, Trial
from nas.undisturbed import undisturbed

MOST_PARAMETERS = 64
MOST_LOSSES = 3
SEARCH = "search:"  # attributes of a trial: the rows of its inner search's curve, by step
NOTE = "note:"  # and what the search noted, by name
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
            if attributes.get("place", self.size) == self.size:
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
class Opened:
    """A trial that this process opened for an inner search: its place, and no architecture yet."""

    trial_id: int
    place: int


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
        self.run = uuid4().hex[:12]  # whose leases are told apart from those of this process's others
        self.size = 0  # trials that count, open ones too
        self._counted = Counted()  # of the trials before the first open one
        self._latest = self._counted  # of all that were read
        self._settled = 0
        self._seen: dict[int, FrozenTrial] = {}  # from the first open one on
        self._ids: dict[int, int] = {}
        self._told: set[int] = set()
        self._mine: set[int] = set()
        self._unretried: dict[int, FrozenTrial] = {}  # closed without a result, by number
        self._architectures: dict[int, Architecture] = {}  # of open trials, by number
        self._with_parameters = _has_parameters(problem.space)

    @undisturbed()
    def refresh(self) -> Counted:
        """Read what is new, put finished trials into the history, and count."""
        for number, trial in self._seen.items():
            if not trial.state.is_finished():
                self._seen[number] = self.storage.get_trial(self._ids[number])
        return self._read_new()

    def _read_new(self) -> Counted:
        self._probe()
        tail = self._latest = self._settle()
        self._tell_history(tail)
        self.size = tail.size
        named = (n for n in self._others() if "architecture" in self._seen[n].user_attrs)
        self.history.running = [self._architecture(n) for n in named]
        return tail

    def _others(self) -> list[int]:
        """The numbers of the open trials that count and are not this record's."""
        return [
            number
            for number, trial in self._seen.items()
            if not trial.state.is_finished()
            and self._latest.place(number) is not None
            and self._ids[number] not in self._mine
        ]

    def awaited(self, limit: int | None = None) -> int:
        """How many trials others are working on, of those that rank below a limit."""
        places = (self._latest.place(number) for number in self._others())
        return sum(p is not None and (limit is None or p < limit) for p in places)

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
        result = trial.user_attrs.get("evaluation")
        if result is None:
            self._unretried[number] = trial
        elif "architecture" in trial.user_attrs:
            self.history.add(self._read(number, trial, place))
        else:
            failure = Failure(place, result["infeasible"], result["cost"], result["seconds"])
            self.history.failures.append(failure)
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
            missing=result.get("missing", {}),
            pruned=result.get("pruned", False),
            notes=attributes.get("notes", {}),
            cost=result["cost"],
            seconds=result["seconds"],
            reused=result.get("reused"),
            system_attributes=dict(trial.system_attrs),
        )

    @undisturbed()
    def close_lost(self, why: str = "lost") -> bool:
        """Close the open trials whose workers are gone, so that they are retried; whether any were."""
        closed = False
        for number, trial in list(self._seen.items()):
            if trial.state.is_finished() or self._ids[number] in self._mine:
                continue
            holder = trial.user_attrs.get("lease")
            if holder is None or is_lost(holder):
                # read again: what it told between the last look and its end counts
                self._close_one(number, self.storage.get_trial(self._ids[number]), why)
                closed = True
        return closed

    def _close_one(self, number: int, trial: FrozenTrial, why: str) -> None:
        """Close a lost trial; one that was lost while being told, as its worker would have."""
        if self._latest.place(number) is None:
            self.close(self._ids[number], "surplus")
            return
        if "evaluation" not in trial.user_attrs:
            self.close(self._ids[number], why)
            return
        with suppress(UpdateFinishedTrialError):
            if "architecture" in trial.user_attrs:
                self._end(self._ids[number], self._read(number, trial, 0))
            else:
                self.storage.set_trial_state_values(self._ids[number], TrialState.FAIL)

    @undisturbed()
    def to_retry(self, limit: int | None = None) -> tuple[int, FrozenTrial] | None:
        """The first trial below a limit that was closed without a result and is not being retried."""
        counted = self.refresh()
        for number in [n for n in self._unretried if counted.is_retried(n)]:
            del self._unretried[number]
        for number, trial in self._unretried.items():
            place = counted.place(number)
            if limit is None or (place is not None and place < limit):
                return number, trial
        return None

    def place(self, number: int) -> int:
        """The place of a trial that counts, by its number."""
        place = self._latest.place(number)
        assert place is not None
        return place

    @undisturbed()
    def claim(self, proposal: Proposal, place: int) -> Claim | None:
        """Claim the place that a proposal was made for; None where another worker has it."""
        self._read_new()
        if self.size != place:
            return None
        return self._claim(proposal, {"place": place})

    @undisturbed()
    def retry(self, proposal: Proposal, lost: int) -> Claim | None:
        """Claim the place of a lost trial, by its number; None where another worker has it."""
        return self._claim(proposal, self._retrying(lost))

    @undisturbed()
    def open(self, place: int) -> Opened | None:
        """Open a trial for an inner search at a place; None where another worker has it."""
        self._read_new()
        if self.size != place:
            return None
        return self._create({"place": place})

    @undisturbed()
    def reopen(self, lost: int) -> Opened | None:
        """Open a trial for the inner search of a lost one, by its number; None where another has it."""
        return self._create(self._retrying(lost))

    @undisturbed()
    def name(self, opened: Opened, proposal: Proposal) -> Claim:
        """Give an open trial the architecture that its inner search found.

        The text comes last: without it the trial has none. UpdateFinishedTrialError where the trial
        was lost to another worker.
        """
        made = self._parameters(proposal)
        for name, kind in made.distributions.items():
            value = kind.to_internal_repr(made.values[name])
            self.storage.set_trial_param(opened.trial_id, name, value, kind)
        for key, value in proposal.system_attributes.items():
            self.storage.set_trial_system_attr(opened.trial_id, key, value)
        for key, value in _attributes(proposal).items():
            self.storage.set_trial_user_attr(opened.trial_id, key, value)
        return Claim(opened.trial_id, opened.place, proposal)

    @undisturbed()
    def report_search(self, opened: Opened, step: int, row: Mapping[str, float]) -> None:
        """Add a row to the curve of an inner search; numbers that are not finite are left out."""
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self.note(opened, f"{SEARCH}{step}", finite)

    @undisturbed()
    def note(self, opened: Opened, key: str, value: Any) -> None:  # Any: a JSON value
        """Keep a value on an open trial."""
        self.storage.set_trial_user_attr(opened.trial_id, key, value)

    def _retrying(self, lost: int) -> dict[str, Any]:  # Any: JSON values
        """What the retry of a lost trial begins with: what was reported of its search so far."""
        said = self._unretried[lost].user_attrs if lost in self._unretried else {}
        kept = {k: v for k, v in said.items() if k.startswith((SEARCH, NOTE))}
        rows = sum(key.startswith(SEARCH) for key in kept)
        return {"retry_of": lost, **kept, **({"search_from": rows} if rows else {})}

    def _claim(
        self, proposal: Proposal, attributes: dict[str, Any]
    ) -> Claim | None:  # Any: JSON values
        opened = self._create(attributes | _attributes(proposal), proposal)
        return None if opened is None else Claim(opened.trial_id, opened.place, proposal)

    def _create(
        self,
        attributes: dict[str, Any],  # Any: JSON values
        proposal: Proposal | None = None,
    ) -> Opened | None:
        """Create a running trial, in one write; None where it is surplus."""
        made = Parameters({}, {}) if proposal is None else self._parameters(proposal)
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=made.values,
            distributions=made.distributions,
            user_attrs=attributes | {"lease": lease(self.run)},
            system_attrs={} if proposal is None else dict(proposal.system_attributes),
        )
        trial_id = self.storage.create_new_trial(self.study_id, template_trial=template)
        self._mine.add(trial_id)
        counted = self._read_new()
        number = next(n for n, i in self._ids.items() if i == trial_id)
        if proposal is not None:
            self._architectures[number] = proposal.architecture
        place = counted.place(number)
        if place is None:
            self.close(trial_id, "surplus")
            return None
        return Opened(trial_id, place)

    def _parameters(self, proposal: Proposal) -> Parameters:
        if not self._with_parameters:
            return Parameters({}, {})
        return parameters(self.problem.space, proposal.architecture)

    def renew(self, held: Opened | Claim) -> None:
        """Renew the lease of a trial."""
        self.storage.set_trial_user_attr(held.trial_id, "lease", lease(self.run))

    @undisturbed()
    def report(self, claim: Claim, step: int, value: float) -> None:
        """Add a point to the curve that Optuna's pruners and the dashboard see."""
        self.storage.set_trial_intermediate_value(claim.trial_id, step, value)

    @undisturbed()
    def tell(self, claim: Claim, trial: Trial, curve: list[dict[str, float]]) -> bool:
        """Write what came of a claim and close it; False where it was lost to another worker."""
        result: dict[str, Any] = {  # Any: JSON values
            "metrics": dict(trial.metrics),
            "cost": trial.cost,
            "seconds": round(trial.seconds, 4),
        }
        optional: dict[str, Any] = {
            "infeasible": trial.infeasible,
            "reused": trial.reused,
            "curve": curve or None,
        }
        optional |= {"pruned": trial.pruned or None, "missing": dict(trial.missing) or None}
        result |= {key: value for key, value in optional.items() if value is not None}
        try:
            self.storage.set_trial_user_attr(claim.trial_id, "evaluation", result)
            self._end(claim.trial_id, trial)
        except UpdateFinishedTrialError:
            return False
        finally:
            self._mine.discard(claim.trial_id)
        return True

    @undisturbed()
    def fail(self, opened: Opened, failure: Failure) -> bool:
        """Write why a search came to nothing, and close its trial; False where another has it."""
        result = {
            "metrics": {},
            "infeasible": failure.reason,
            "cost": failure.cost,
            "seconds": round(failure.seconds, 4),
        }
        try:
            self.storage.set_trial_user_attr(opened.trial_id, "evaluation", result)
            self.storage.set_trial_state_values(opened.trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        finally:
            self._mine.discard(opened.trial_id)
        return True

    def _end(self, trial_id: int, trial: Trial) -> None:
        """Give a trial its final state, and its values where it has them."""
        if trial.completed:
            values = [trial.metrics[o.metric] for o in self.problem.objectives]
            self.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
            return
        state = TrialState.FAIL if trial.infeasible is not None else TrialState.PRUNED
        self.storage.set_trial_state_values(trial_id, state)

    @undisturbed()
    def close(self, trial_id: int, why: str) -> None:
        """Close a trial without a result: "surplus", "lost", "interrupted" or "error: ..."."""
        with suppress(UpdateFinishedTrialError):  # another worker closed it first
            self.storage.set_trial_user_attr(trial_id, "closed", why)
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self._mine.discard(trial_id)

    def close_mine(self, why: str) -> None:
        """Close the trials that this record still holds, so that they are retried."""
        for trial_id in list(self._mine):
            self.close(trial_id, why)

    @undisturbed()
    def losses(self, number: int) -> int:
        """How many times the trial of that number and those it retried were lost with their worker.

        Counted since an inner search last got further than the one before: that is no reason to end it.
        """
        count, current = 0, number
        while True:
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, current)
            attributes = self.storage.get_trial(trial_id).user_attrs
            if _got_further(attributes):
                return count
            count += attributes.get("closed") == "lost"
            if "retry_of" not in attributes:
                return count
            current = attributes["retry_of"]


def _attributes(proposal: Proposal) -> dict[str, Any]:  # Any: JSON values
    """What is written of a proposal; its text comes last."""
    found: dict[str, Any] = {}  # Any: as above
    if proposal.notes:
        found["notes"] = dict(proposal.notes)
    if proposal.cost:
        found["search_cost"] = dict(proposal.cost)
    found["digest"] = proposal.architecture.digest
    found["architecture"] = str(proposal.architecture)
    return found


def _got_further(attributes: Attributes) -> bool:
    """Whether a trial was lost in its search, and had more rows of it than it began with."""
    rows = sum(key.startswith(SEARCH) for key in attributes)
    return "architecture" not in attributes and rows > attributes.get("search_from", 0)


def _has_parameters(space: SearchSpace) -> bool:
    """Whether every choice becomes a parameter of Optuna's: finite spaces of at most 64 choices."""
    return space.finite and space.extent.choices <= MOST_PARAMETERS
