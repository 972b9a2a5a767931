"""A study from its configuration to its folder: run, resume or look at it, and keep what was found.

A study named NAME lives in ``results/studies/NAME``: `study.toml` (exactly what runs), its journal
unless another storage is named, `found/<digest>.json` with weights for every trial of the best front,
and `report.md`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from optuna.storages import BaseStorage

from nas import configuration as config
from nas.configuration import Made, SearchConfiguration, StudyConfiguration
from nas.errors import StorageError, unknown
from nas.found import Found, Measured, Provenance, TaskName, load, save
from nas.problem import Problem
from nas.storage import absolute, open_storage, require
from nas.study import CONFIGURATION, Budget, Observer, Study, Unobserved, Weights, tested
from nas.task import Metric
from nas.training import torch_device
from nas.trial import Trial

RESULTS = Path("results")
DEFAULT_TRIALS = 20


class Watch(Protocol):
    """Makes an observer for the time of a run; `nas.terminal.watching` draws progress bars."""

    def __call__(
        self, problem: Problem, metrics: Mapping[str, Metric], budget: Budget, done: Sequence[Trial]
    ) -> AbstractContextManager[Observer]:
        """The observer for a study in which these trials are done."""


def _quiet(
    problem: Problem, metrics: Mapping[str, Metric], budget: Budget, done: Sequence[Trial]
) -> AbstractContextManager[Observer]:
    return nullcontext(Unobserved())


@dataclass(frozen=True)
class Outcome:
    """What a study came to: its trials, the best of them, their test scores and saved files.

    `front` has the best trial first; with several objectives, every trial that no other dominates.
    `tests` and `files` go by trial number.
    """

    configuration: StudyConfiguration
    problem: Problem
    metrics: Mapping[str, Metric]
    cost_unit: str
    folder: Path
    trials: list[Trial]
    tests: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    files: Mapping[int, Path] = field(default_factory=dict)

    @property
    def front(self) -> list[Trial]:
        """The best trials, best first."""
        return self.problem.front(self.trials)


def search(
    configuration: SearchConfiguration | StudyConfiguration,
    *,
    num_trials: int = DEFAULT_TRIALS,
    results: Path = RESULTS,
    watch: Watch = _quiet,
) -> Outcome:
    """Run a study, or go on with the one of that name; returns what it came to.

    A SearchConfiguration gets a name of its own, a journal in its folder, and `num_trials`.
    """
    if isinstance(configuration, SearchConfiguration):
        configuration = named(configuration, Budget(trials=num_trials), results=results)
    made = config.make(configuration.search)
    configuration = replace(configuration, search=made.configuration)
    torch_device(configuration.device)
    study = _study(configuration, made, open_storage(configuration.storage))
    record = study.open()
    folder = results / "studies" / configuration.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(
        configuration.toml(default_storage=_own_journal(configuration.name, results)), encoding="utf-8"
    )
    keeper = _Keeper(study, configuration, folder)
    record.refresh()
    done = list(record.history.trials)
    keeper.front = study.problem.front(done)
    with watch(study.problem, study.metrics, configuration.budget, done) as observer:
        keeper.observer = observer
        study.run(configuration.budget, keeper)
    return _finished(configuration, study, keeper)


def named(
    search: SearchConfiguration,
    budget: Budget,
    *,
    name: str | None = None,
    storage: str | None = None,
    results: Path = RESULTS,
) -> StudyConfiguration:
    """A study of a search; without a name the next free one, without a storage a journal of its own."""
    if name is None:
        parts = [search.space.name, *([search.task.name] if search.task else []), search.searcher.name]
        stem, count = "-".join(parts), 1
        while (results / "studies" / f"{stem}-{count}").exists():
            count += 1
        name = f"{stem}-{count}"
    if not name or "/" in name or name.startswith("."):
        raise StorageError(f'"{name}" is no study name; it names a folder, so it has no "/".')
    return StudyConfiguration(search, name, budget, absolute(storage or _own_journal(name, results)))


def _own_journal(name: str, results: Path) -> str:
    return absolute(f"journal:{results / 'studies' / name / 'study.journal'}")


def stored(name: str, *, storage: str | None = None, results: Path = RESULTS) -> StudyConfiguration:
    """The configuration of an existing study, from its folder or, with `storage`, from its record."""
    file = results / "studies" / name / "study.toml"
    if storage is None and not file.is_file():
        folder = results / "studies"
        known = sorted(p.parent.name for p in folder.glob("*/study.toml"))
        raise StorageError(unknown(name, f"a study in {folder}", known))
    if storage is None:
        tables = config.read_toml(file)
        study = {**config.study_tables(tables, str(file)), "name": name}
        found = read_study({**tables, "study": study}, str(file), results=results)
        require(found.storage, name)
        return found
    require(storage, name)
    opened = open_storage(storage)
    study_id = opened.get_study_id_from_name(name)
    tables = opened.get_study_user_attrs(study_id).get(CONFIGURATION, {})
    search = SearchConfiguration.read(tables)
    return named(search, Budget(trials=DEFAULT_TRIALS), name=name, storage=storage, results=results)


def read_study(
    tables: Mapping[str, Any],
    what: str,
    *,
    results: Path = RESULTS,  # Any: TOML values
) -> StudyConfiguration:
    """A study from the tables of a study file."""
    study = config.study_tables(tables, what)
    found = SearchConfiguration.read({k: v for k, v in tables.items() if k != "study"})
    limits = {k: study[k] for k in ("trials", "seconds", "cost") if k in study}
    budget = Budget(**limits) if limits else Budget(trials=DEFAULT_TRIALS)
    made = named(found, budget, name=study.get("name"), storage=study.get("storage"), results=results)
    machine = {k: study[k] for k in ("device", "threads") if k in study}
    return replace(made, **machine)


def resume(
    name: str,
    budget: Budget | None = None,
    *,
    storage: str | None = None,
    results: Path = RESULTS,
    watch: Watch = _quiet,
) -> Outcome:
    """Go on with a study by its name, to its own budget or a new one."""
    configuration = stored(name, storage=storage, results=results)
    if budget is not None:
        configuration = replace(configuration, budget=budget)
    return search(configuration, results=results, watch=watch)


def show(name: str, *, storage: str | None = None, results: Path = RESULTS) -> Outcome:
    """What a study has come to so far, without running anything."""
    configuration = stored(name, storage=storage, results=results)
    made = config.make(configuration.search)
    study = _study(configuration, made, open_storage(configuration.storage))
    record = study.open()
    record.refresh()
    folder = results / "studies" / name
    trials = record.history.trials
    files = {t.number: _file(folder, t) for t in study.problem.front(trials)}
    files = {n: f for n, f in files.items() if f.is_file()}
    return Outcome(
        configuration,
        study.problem,
        study.metrics,
        made.evaluator.cost_unit,
        folder,
        trials,
        tests={n: _tested(f) for n, f in files.items()},
        files=files,
    )


def _study(configuration: StudyConfiguration, made: Made, storage: BaseStorage) -> Study:
    return Study(
        configuration.name,
        made.problem,
        made.searcher,
        made.evaluator,
        storage,
        seed=configuration.search.seed,
        device=configuration.device,
        threads=configuration.threads,
        pruner=made.pruner,
        configuration=made.configuration.tables(),
    )


@dataclass
class _Keeper(Observer):
    """Saves every trial that joins the best front, as it is told, so that a kill loses none."""

    study: Study
    configuration: StudyConfiguration
    folder: Path
    observer: Observer = field(default_factory=Unobserved)
    front: list[Trial] = field(default_factory=list)

    def on_progress(self, done: int, total: int, what: str) -> None:
        self.observer.on_progress(done, total, what)

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        self.front = self.study.problem.front([*self.front, trial])
        if trial in self.front:
            self.save(trial, weights, {})
        self.observer.on_trial(trial, weights)

    def save(self, trial: Trial, weights: Weights, test: Mapping[str, float]) -> None:
        """Write what was found at a trial; without weights, those saved before are kept."""
        path = _file(self.folder, trial)
        found = self._found(trial, test)
        if weights is None and path.is_file():
            before = load(path)
            found = replace(before, metrics={**before.metrics, **found.metrics})
        save(found, path, weights)

    def _found(self, trial: Trial, test: Mapping[str, float]) -> Found:
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


def _finished(configuration: StudyConfiguration, study: Study, keeper: _Keeper) -> Outcome:
    """Score the front on test data and save that; the front is that of every worker's trials."""
    record = study.open()
    record.refresh()
    trials = record.history.trials
    tests, files = {}, {}
    for trial in study.problem.front(trials):
        path = _file(keeper.folder, trial)
        weights = load(path).state() if path.is_file() else None
        tests[trial.number], found = tested(study, trial, weights)
        keeper.save(trial, found if weights is None else None, tests[trial.number])
        files[trial.number] = path
    for trial in trials:  # what was saved before something better came
        path = _file(keeper.folder, trial)
        if path not in files.values():
            path.unlink(missing_ok=True)
            path.with_suffix(".safetensors").unlink(missing_ok=True)
    outcome = Outcome(
        configuration,
        study.problem,
        study.metrics,
        study.evaluator.cost_unit,
        keeper.folder,
        trials,
        tests,
        files,
    )
    (keeper.folder / "report.md").write_text(report(outcome), encoding="utf-8")
    return outcome


def report(outcome: Outcome) -> str:
    """The study in markdown: how to run it again, the best trials, and what they mean."""
    names = list(outcome.metrics)
    front = outcome.front
    lines = [
        f"# Study {outcome.configuration.name}",
        "",
        f"{len(outcome.trials)} trials; regenerate with `nas search {outcome.folder / 'study.toml'}`.",
        "",
        "| trial | " + " | ".join(names) + " | test | architecture |",
        "| --- | " + "--- | " * len(names) + "--- | --- |",
    ]
    for trial in front:
        scores = [f"{trial.metrics[n]:.6g} {outcome.metrics[n].unit}".strip() for n in names]
        test = outcome.tests.get(trial.number, {})
        shown = ", ".join(f"{n} {v:.6g}" for n, v in test.items()) or "none"
        cells = [str(trial.number), *scores, shown, f"`{trial.architecture}`"]
        lines.append("| " + " | ".join(cells) + " |")
    infeasible = [t for t in outcome.trials if t.infeasible is not None]
    lines += ["", f"Infeasible: {len(infeasible)}. Reused at no cost: "]
    lines[-1] += f"{sum(t.reused is not None for t in outcome.trials)}. Cost: "
    lines[-1] += f"{sum(t.cost for t in outcome.trials):.6g} {outcome.cost_unit}."
    lines += ["", "Scores are validation scores, which the search optimized; judge by the test "]
    lines[-1] += "score, and by a comparison with random search at equal cost (`nas compare`)."
    return "\n".join(lines) + "\n"


def _tested(file: Path) -> dict[str, float]:
    """The test scores in a found file, by the metric's name."""
    measured = load(file).metrics
    return {n.removeprefix("test_"): m.value for n, m in measured.items() if m.split == "test"}


def _file(folder: Path, trial: Trial) -> Path:
    return folder / "found" / f"{trial.architecture.digest}.json"
