"""The curves of a study's trials as pruners see them, read from the record when they are asked for.

Only trials that count are seen, each at its place: a trial that was lost is seen as its retry alone, so
that a study which was stopped and resumed prunes as if it had not been.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.errors import ConfigurationError
from nas.pruner import Point
from nas.record import Counted, Record

RUNG = "rung:"  # a system attribute of a trial: the objectives' values where it reached that rung
OPTUNAS_RUNG = "completed_rung_"


@dataclass
class Curves:
    """What the trials of a study reported; `seed` is the study's."""

    record: Record
    seed: int
    _mirror: _Mirror | None = field(default=None, init=False)

    def counted(self) -> dict[int, FrozenTrial]:
        """The trials that count, finished or running, by place."""
        storage, study_id = self.record.storage, self.record.study_id
        trials = sorted(storage.get_all_trials(study_id, deepcopy=False), key=lambda t: t.number)
        counted = Counted()
        for trial in trials:
            counted.add(trial.number, trial.user_attrs)
        places = {trial.number: counted.place(trial.number) for trial in trials}
        return {
            place: trial
            for trial in trials
            if (place := places[trial.number]) is not None and "closed" not in trial.user_attrs
        }

    def at_rung(self, rung: int, point: Point) -> list[tuple[float, ...]]:
        """The values of all trials that reached a rung; those of the point, which does now, first."""
        self._check_known(point)
        key = f"{RUNG}{rung}"
        self.record.storage.set_trial_system_attr(point.trial_id, key, list(point.values))
        others = [t for place, t in self.counted().items() if place != point.place]
        return [point.values, *(tuple(t.system_attrs[key]) for t in others if key in t.system_attrs)]

    def ask(self, pruner: BasePruner, point: Point) -> bool:
        """What a pruner of Optuna's says of a point.

        It is asked on a copy of the study in memory, in which trials are numbered by their places and
        which is named by the seed, since Hyperband's brackets follow from both. The rungs that it notes
        on the trial are kept in the record.
        """
        self._check_known(point)
        trials = self.counted()
        if self._mirror is None or not self._mirror.agrees(trials):
            self._mirror = _Mirror(self.seed, self._direction())
        self._mirror.copy(trials)
        answer, noted = self._mirror.ask(pruner, point.place)
        for key, value in noted.items():
            if key not in trials[point.place].system_attrs:
                self.record.storage.set_trial_system_attr(point.trial_id, key, value)
        return answer

    def _direction(self) -> StudyDirection:
        sign = self.record.problem.objectives[0].sign
        return StudyDirection.MAXIMIZE if sign > 0 else StudyDirection.MINIMIZE

    def _check_known(self, point: Point) -> None:
        for objective, value in zip(self.record.problem.objectives, point.values, strict=True):
            if math.isnan(value):
                raise ConfigurationError(
                    f'the objective "{objective.metric}" is not known while a trial trains, so that '
                    "no pruner can rank by it; put the evaluator that gives it before the one that "
                    "trains, or leave the pruner out."
                )


@dataclass
class _Mirror:
    """A study of Optuna's in memory that follows the trials which count."""

    seed: int
    direction: StudyDirection
    storage: InMemoryStorage = field(default_factory=InMemoryStorage)
    study: optuna.Study = field(init=False)
    ids: list[int] = field(default_factory=list)  # by place
    copied: list[int | None] = field(default_factory=list)  # by place, the number that was copied
    settled: int = 0  # places before this one are finished

    def __post_init__(self) -> None:
        self.study = optuna.create_study(
            storage=self.storage,
            sampler=RandomSampler(),
            study_name=f"seed {self.seed}",
            direction=self.direction,
        )

    def agrees(self, trials: dict[int, FrozenTrial]) -> bool:
        """Whether what was copied stands; not where a trial was lost and its place taken by another."""
        return all(
            number is None or (place in trials and trials[place].number == number)
            for place, number in enumerate(self.copied)
        )

    def copy(self, trials: dict[int, FrozenTrial]) -> None:
        """Follow the trials; a place that no trial holds now is open and empty."""
        while len(self.copied) <= max(trials):
            self.ids.append(self.storage.create_new_trial(self.study._study_id))
            self.copied.append(None)
        for place in range(self.settled, len(self.copied)):
            if place in trials:
                self._copy_one(place, trials[place])
        while self.settled < len(self.copied) and self._own(self.settled).state.is_finished():
            self.settled += 1

    def _copy_one(self, place: int, trial: FrozenTrial) -> None:
        own = self._own(place)
        if own.state.is_finished():
            return
        self.copied[place] = trial.number
        for step in trial.intermediate_values.keys() - own.intermediate_values.keys():
            value = trial.intermediate_values[step]
            self.storage.set_trial_intermediate_value(self.ids[place], step, value)
        for key, value in trial.system_attrs.items():
            if key.startswith(OPTUNAS_RUNG) and key not in own.system_attrs:
                self.storage.set_trial_system_attr(self.ids[place], key, value)
        if trial.state.is_finished():
            values = trial.values if trial.state == TrialState.COMPLETE else None
            self.storage.set_trial_state_values(self.ids[place], trial.state, values)

    def ask(self, pruner: BasePruner, place: int) -> tuple[bool, dict[str, float]]:
        """Whether the trial at a place is pruned, and the rungs noted on it."""
        answer = bool(pruner.prune(self.study, self._own(place)))
        noted = self._own(place).system_attrs
        return answer, {k: v for k, v in noted.items() if k.startswith(OPTUNAS_RUNG)}

    def _own(self, place: int) -> FrozenTrial:
        return self.storage.get_trial(self.ids[place])
