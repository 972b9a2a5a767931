"""What was tried: one trial, and the history of a study that searchers propose from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nas.architecture import Architecture


@dataclass(frozen=True)
class Trial:
    """A finished trial. `number` counts the study's trials in order, retries of a lost one not apart.

    `metrics` is empty where `infeasible` says why; `missing` says it of single metrics. `notes` is what
    the searcher noted on its proposal, `system_attributes` what a sampler of Optuna's did. `reused` is
    the number of the trial whose result this one took over, at no cost.
    """

    number: int
    architecture: Architecture
    metrics: Mapping[str, float] = field(default_factory=dict)
    infeasible: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    pruned: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    cost: float = 0.0
    seconds: float = 0.0
    reused: int | None = None
    system_attributes: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values

    @property
    def completed(self) -> bool:
        """Whether it has the metrics of a whole evaluation."""
        return self.infeasible is None and not self.pruned


@dataclass(frozen=True)
class Failure:
    """A trial whose inner search came to no architecture, and why. It holds its place, and its cost."""

    number: int
    reason: str
    cost: float = 0.0
    seconds: float = 0.0


class Index(Protocol):
    """Whatever is to be told every finished trial once, in the order in which they finished."""

    def add(self, trial: Trial) -> None:
        """Take in the next finished trial."""


Kept = TypeVar("Kept", bound=Index)


class History:
    """The finished trials in the order in which they finished, indexed as they come.

    `key` maps an architecture to the text under which equal functions meet. `running` are the
    architectures that other workers evaluate, as far as they are known; `failures` the trials that came
    to none, which are not among `trials`. Adding a trial and
    looking one up take time that does not grow with their number.
    """

    def __init__(self, key: Callable[[Architecture], str] = str) -> None:
        self.trials: list[Trial] = []
        self.completed: list[Trial] = []
        self.failures: list[Failure] = []
        self.running: list[Architecture] = []
        self._key = key
        self._by_number: dict[int, Trial] = {}
        self._by_text: dict[str, Trial] = {}
        self._by_key: dict[str, Trial] = {}
        self._indexes: dict[Hashable, Any] = {}  # Any: an Index of any kind

    def add(self, trial: Trial) -> None:
        """Append a finished trial."""
        self.trials.append(trial)
        self._by_number[trial.number] = trial
        if trial.completed:
            self.completed.append(trial)
        if not trial.pruned:
            self._by_text.setdefault(str(trial.architecture), trial)
            self._by_key.setdefault(self._key(trial.architecture), trial)
        for index in self._indexes.values():
            index.add(trial)

    def index(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """An index over the finished trials that is kept with them: made once for a key.

        It follows from the trials alone, so that a searcher that uses one keeps no state of its own.
        """
        if key not in self._indexes:
            made = make()
            for trial in self.trials:
                made.add(trial)
            self._indexes[key] = made
        kept: Kept = self._indexes[key]
        return kept

    def number(self, number: int) -> Trial:
        """The trial of that number; KeyError where it has not finished."""
        return self._by_number[number]

    def same(self, architecture: Architecture) -> Trial | None:
        """The first trial of the very same architecture that was not pruned."""
        return self._by_text.get(str(architecture))

    def equal(self, architecture: Architecture) -> Trial | None:
        """The first trial of an architecture that computes the same function, if the space can tell."""
        return self._by_key.get(self._key(architecture))

    def knows(self, architecture: Architecture) -> bool:
        """Whether the very same architecture was tried, or is being tried."""
        return self.same(architecture) is not None or architecture in self.running

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)
