"""What a study finds is kept while it runs: each trial that joins the best front, as it is told."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from nas.configuration import StudyConfiguration
from nas.found import Found, Measured, Provenance, TaskName, load, save
from nas.record import Record
from nas.storage import locked
from nas.study import Observer, Study, Unobserved, Weights
from nas.trial import Failure, Trial


@final
@dataclass
class Keeper(Observer):
    """Saves what joins the front of every worker's trials, so that a kill loses none.

    Several processes may keep what they find in one folder: a file and its weights are written
    together, each whole.
    """

    study: Study
    configuration: StudyConfiguration
    folder: Path
    record: Record
    observer: Observer = field(default_factory=Unobserved)
    front: list[Trial] = field(default_factory=list)
    read: int = 0  # trials of the record's history that the front is of

    def on_progress(self, done: int, total: int, what: str) -> None:
        """Told on to the observer."""
        self.observer.on_progress(done, total, what)

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        """Save a trial that joins the front, then tell the observer."""
        others = self.record.history.trials[self.read :]
        self.read += len(others)
        known = sorted([*self.front, *others, trial], key=lambda t: t.number)
        self.front = self.study.problem.front(known)
        if trial in self.front:
            self.save(trial, weights, {})
        self.observer.on_trial(trial, weights)

    def on_failure(self, failure: Failure) -> None:
        """Told on to the observer."""
        self.observer.on_failure(failure)

    def file(self, trial: Trial) -> Path:
        """Where a trial is kept, if it is."""
        return found_file(self.folder, trial)

    def save(self, trial: Trial, weights: Weights, test: Mapping[str, float]) -> None:
        """Write what was found at a trial; without weights, those saved before are kept."""
        path = self.file(trial)
        found = self.found(trial, test)
        with locked(self.folder / "found"):
            if weights is None and path.is_file():
                before = load(path)
                found = replace(before, metrics={**before.metrics, **found.metrics})
            save(found, path, weights)

    def keep_only(self, front: Sequence[Trial]) -> None:
        """Remove what was saved before something better came, and what a killed write left."""
        kept = {self.file(trial) for trial in front}
        with locked(self.folder / "found"):
            for path in {self.file(trial) for trial in self.record.history.trials}:
                for file in (path, path.with_suffix(".safetensors")):
                    for remains in path.parent.glob(f".{file.name}.*"):
                        remains.unlink()
                    if path not in kept:
                        file.unlink(missing_ok=True)

    def found(self, trial: Trial, test: Mapping[str, float]) -> Found:
        """A trial with its scores, as it is saved."""
        search = self.configuration.search
        task = TaskName(search.task.name, search.task.settings) if search.task else None
        return Found(
            self.study.problem.space,
            trial.architecture,
            metrics=self._measured(trial, test),
            task=task,
            provenance=Provenance(
                study=self.study.name,
                trial=trial.number,
                seed=self.study.seed,
                command=f"nas search {shlex.quote(str(self.folder / 'study.toml'))}",
            ),
        )

    def _measured(self, trial: Trial, test: Mapping[str, float]) -> dict[str, Measured]:
        units = {name: metric.unit for name, metric in self.study.metrics.items()}
        measured = {n: Measured(v, units[n], "validation") for n, v in trial.metrics.items()}
        for name, value in test.items():
            measured[f"test_{name}"] = Measured(value, units.get(name, ""), "test")
        return measured


def found_file(folder: Path, trial: Trial) -> Path:
    """Where a trial of the study in a folder is kept, if it is."""
    return folder / "found" / f"{trial.architecture.digest}.json"
