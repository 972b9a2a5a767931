"""A study from its configuration to its folder: run, resume or look at it, and keep what was found.

A study named NAME lives in ``results/studies/NAME``: `study.toml` (exactly what runs), its journal
unless another storage is named, `found/<digest>.json` with weights for every trial of the best front,
and `report.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from nas import configuration as config
from nas import finalists, pareto, workers
from nas.configuration import FinalistsConfiguration, Made, SearchConfiguration, StudyConfiguration
from nas.errors import StorageError, unknown
from nas.finalists import Finalist
from nas.found import load
from nas.keeper import Keeper, found_file
from nas.problem import Problem
from nas.progress import Watch, Watched, unwatched_study
from nas.record import Record
from nas.storage import absolute, open_storage, require
from nas.study import CONFIGURATION, Budget, Study, tested
from nas.task import Metric
from nas.training import torch_device
from nas.trial import Failure, Trial

RESULTS = Path("results")
DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Outcome:
    """What a study came to: its trials, the best of them, their test scores and saved files.

    `front` has the best trial first; with several objectives, every trial that no other dominates.
    `failures` are the trials whose inner search came to no architecture.
    `tests` and `files` go by trial number. `finalists` are the best after a full training. `budgets`
    are upper bounds on metrics that the trials were chosen by, where `under` did.
    """

    configuration: StudyConfiguration
    problem: Problem
    metrics: Mapping[str, Metric]
    cost_unit: str
    folder: Path
    trials: list[Trial]
    failures: list[Failure] = field(default_factory=list)
    tests: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    files: Mapping[int, Path] = field(default_factory=dict)
    finalists: list[Finalist] = field(default_factory=list)
    budgets: Mapping[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """What all trials cost, inner searches included, in the evaluator's unit."""
        return sum(t.cost for t in self.trials) + sum(f.cost for f in self.failures)

    @property
    def front(self) -> list[Trial]:
        """The best trials, best first."""
        return self.problem.front(self.trials)

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise StorageError(f"there is no finished trial {number} in {self.configuration.name}.")


def search(
    configuration: SearchConfiguration | StudyConfiguration,
    *,
    num_trials: int = DEFAULT_TRIALS,
    results: Path = RESULTS,
    watch: Watch = unwatched_study,
) -> Outcome:
    """Run a study, or go on with the one of that name; returns what it came to.

    A SearchConfiguration gets a name of its own, a journal in its folder, and `num_trials`.
    """
    if isinstance(configuration, SearchConfiguration):
        configuration = named(configuration, Budget(trials=num_trials), results=results)
    made = config.make(configuration.search)
    configuration = replace(configuration, search=made.configuration)
    finalists.check(made.configuration, configuration.finalists)
    torch_device(configuration.device)
    keeper = _opened(configuration, made, results)
    (keeper.folder / "study.toml").write_text(
        configuration.toml(default_storage=_own_journal(configuration.name, results)), encoding="utf-8"
    )
    study, record = keeper.study, keeper.record
    done, count = list(record.history.trials), configuration.workers
    with watch(study.problem, study.metrics, configuration.budget, done, count) as watched:
        if count > 1:
            workers.work(configuration, results, record, watched)
        else:
            keeper.observer = watched.observers[0]
            study.run(configuration.budget, keeper, record)
        return _finished(keeper, watched)


def opened(configuration: StudyConfiguration, *, results: Path = RESULTS) -> Keeper:
    """The study of a configuration with its record read, keeping what it finds in its folder."""
    return _opened(configuration, config.make(configuration.search), results)


def _opened(configuration: StudyConfiguration, made: Made, results: Path) -> Keeper:
    study = _study(configuration, made, open_storage(configuration.storage), results)
    record = study.open()
    record.refresh()
    folder = results / "studies" / configuration.name
    folder.mkdir(parents=True, exist_ok=True)
    return Keeper(study, configuration, folder, record)


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
    rest = {k: v for k, v in tables.items() if k not in ("study", "finalists")}
    found = SearchConfiguration.read(rest)
    limits = {k: study[k] for k in ("trials", "seconds", "cost") if k in study}
    budget = Budget(**limits) if limits else Budget(trials=DEFAULT_TRIALS)
    made = named(found, budget, name=study.get("name"), storage=study.get("storage"), results=results)
    machine = {k: study[k] for k in ("device", "threads", "workers") if k in study}
    last = FinalistsConfiguration.read(tables["finalists"]) if "finalists" in tables else None
    return replace(made, finalists=last, **machine)


def resume(
    name: str,
    budget: Budget | None = None,
    *,
    storage: str | None = None,
    results: Path = RESULTS,
    watch: Watch = unwatched_study,
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
    study = _study(configuration, made, open_storage(configuration.storage), results)
    record = study.open()
    record.refresh()
    folder = results / "studies" / name
    trials = _in_order(record)
    files = _files(folder, study.problem.front(trials))
    return Outcome(
        configuration,
        study.problem,
        study.metrics,
        made.evaluator.cost_unit,
        folder,
        trials,
        record.history.failures,
        tests={n: _tested(f) for n, f in files.items()},
        files=files,
        finalists=finalists.known(Keeper(study, configuration, folder, record), trials),
    )


def under(outcome: Outcome, budgets: Mapping[str, float]) -> Outcome:
    """The outcome of the completed trials alone whose metrics are at most so large."""
    trials = pareto.within(outcome.problem, outcome.trials, budgets)
    files = _files(outcome.folder, outcome.problem.front(trials))
    return replace(
        outcome,
        metrics=pareto.added_metrics(outcome.metrics, budgets),
        trials=trials,
        tests={n: _tested(f) for n, f in files.items()},
        files=files,
        finalists=[],
        budgets=budgets,
    )


def _files(folder: Path, front: list[Trial]) -> dict[int, Path]:
    """The files of those trials that are kept in a study's folder, by number."""
    files = {t.number: found_file(folder, t) for t in front}
    return {n: f for n, f in files.items() if f.is_file()}


def _in_order(record: Record) -> list[Trial]:
    """The trials by number; several workers finish them in another order."""
    return sorted(record.history.trials, key=lambda trial: trial.number)


def _study(configuration: StudyConfiguration, made: Made, storage: BaseStorage, results: Path) -> Study:
    kept = configuration.storage not in config.IN_MEMORY
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
        folder=results / "studies" / configuration.name if kept else None,
    )


def _finished(keeper: Keeper, watched: Watched) -> Outcome:
    """Score the front of every worker's trials on test data, train the finalists, and save all that."""
    keeper.record.refresh()
    study, trials = keeper.study, _in_order(keeper.record)
    front = study.problem.front(trials)
    tests, files = {}, {}
    for trial in front:
        path = keeper.file(trial)
        weights = load(path).state() if path.is_file() else None
        tests[trial.number], found = tested(study, trial, weights)
        keeper.save(trial, found if weights is None else None, tests[trial.number])
        files[trial.number] = path
    keeper.keep_only(front)
    outcome = Outcome(
        keeper.configuration,
        study.problem,
        study.metrics,
        study.evaluator.cost_unit,
        keeper.folder,
        trials,
        keeper.record.history.failures,
        tests,
        files,
        finalists.train(keeper, trials, watched),
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
        scores = [_shown(trial, outcome.metrics[n]) for n in names]
        test = outcome.tests.get(trial.number, {})
        shown = ", ".join(f"{n} {v:.6g}" for n, v in test.items()) or "none"
        cells = [str(trial.number), *scores, shown, f"`{trial.architecture}`"]
        lines.append("| " + " | ".join(cells) + " |")
    value = pareto.worth(outcome.problem, outcome.trials)
    for sentence in value.sentences(outcome.metrics) if value else []:
        lines += ["", sentence]
    infeasible = [t for t in outcome.trials if t.infeasible is not None]
    lines += ["", f"Infeasible: {len(infeasible)}. Reused at no cost: "]
    lines[-1] += f"{sum(t.reused is not None for t in outcome.trials)}. Cost: "
    lines[-1] += f"{outcome.cost:.6g} {outcome.cost_unit}."
    lines += [
        f"Trial {failure.number} came to no architecture: {failure.reason}."
        for failure in outcome.failures
    ]
    lines += ["", "Scores are validation scores, which the search optimized; judge by the test "]
    lines[-1] += "score, and by a comparison with random search at equal cost (`nas compare`)."
    if outcome.finalists:
        lines += ["", *finalists.markdown(outcome.problem, outcome.finalists)]
    return "\n".join(lines) + "\n"


def _shown(trial: Trial, metric: Metric) -> str:
    """A trial's metric with its unit, or that it is missing."""
    if metric.name not in trial.metrics:
        return "missing"
    return f"{trial.metrics[metric.name]:.6g} {metric.unit}".strip()


def _tested(file: Path) -> dict[str, float]:
    """The test scores in a found file, by the metric's name."""
    measured = load(file).metrics
    return {n.removeprefix("test_"): m.value for n, m in measured.items() if m.split == "test"}
