"""Searchers compared over seeds at equal cost on one problem, against random sampling.

`compare` runs what a protocol.toml says and writes, into ``results/benchmarks/NAME``, the protocol,
`runs.csv` (a row a run, written as it ends, so that a stopped comparison goes on), `anytime.csv` (the
best so far at every improvement), `scores.csv` (what runs found, scored anew) and `report.md`.

Protocol, runs, and the files they go on from are kept together, which is why the file is long.
"""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from nas import comparison_scores
from nas import configuration as config
from nas.children import end_with_parent
from nas.comparison_report import write_report
from nas.configuration import Made, PartConfiguration, SearchConfiguration
from nas.conversion import convert, plain
from nas.errors import ConfigurationError, StorageError, unknown
from nas.progress import WatchOne, unwatched
from nas.storage import open_storage
from nas.study import Budget, Observer, Study, Weights, tested
from nas.trial import Failure, History, Trial

RESULTS = Path("results")
SAMPLING = "random_sampling"
KEYS = ("name", "seeds", "trials", "cost", "baseline", "storage", "device", "threads")
Table = Mapping[str, Any]  # Any: values of a TOML table
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Protocol:
    """A comparison: one problem, several searchers, the same seeds for each, and a budget.

    `budgets` are those of searchers that have one of their own, by label. `scores` are evaluators, by
    label, that score what every run found, when it is over and at no cost. `baseline` is how many
    random architectures, one a seed, are evaluated without selection.
    `storage` is "journal" (a run that is killed goes on where it was) or "memory" (it begins anew).
    """

    name: str
    search: SearchConfiguration
    searchers: Mapping[str, PartConfiguration]
    seeds: tuple[int, ...]
    budget: Budget
    baseline: int
    storage: str = "journal"
    device: str = "cpu"
    threads: int = 1
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    scores: Mapping[str, PartConfiguration] = field(default_factory=dict)

    @classmethod
    def read(cls, tables: Table) -> Protocol:
        """From the tables of a protocol file; ConfigurationError naming what is wrong."""
        head = tables.get("protocol")
        if not isinstance(head, dict) or "name" not in head:
            raise ConfigurationError('a protocol begins with [protocol] and name = "...".')
        for key in head:
            if key not in KEYS:
                raise ConfigurationError(unknown(key, "an option of [protocol]", KEYS))
        rest = {k: v for k, v in tables.items() if k not in ("protocol", "searcher", "score")}
        if "seed" in rest:
            raise ConfigurationError('"seed" is no option of a protocol; give [protocol] seeds.')
        seeds = head.get("seeds", 3)
        listed = (
            tuple(range(seeds))
            if isinstance(seeds, int)
            else convert(seeds, tuple[int, ...], '"seeds"')
        )
        if not listed:
            raise ConfigurationError('"seeds" of [protocol] is empty; give a number or a list.')
        searchers, budgets = _searchers(tables.get("searcher", []))
        storage = head.get("storage", "journal")
        if storage not in ("journal", "memory"):
            raise ConfigurationError(unknown(str(storage), "a storage", ("journal", "memory")))
        return cls(
            name=convert(head["name"], str, '"name"'),
            search=SearchConfiguration.read(rest),
            searchers=searchers,
            seeds=listed,
            budget=_budget({k: v for k, v in head.items() if k in BUDGETS}),
            baseline=convert(head.get("baseline", len(listed)), int, '"baseline"'),
            storage=storage,
            device=convert(head.get("device", "cpu"), str, '"device"'),
            threads=convert(head.get("threads", 1), int, '"threads"'),
            budgets=budgets,
            scores=comparison_scores.read(tables.get("score", [])),
        )

    def tables(self) -> dict[str, Any]:  # Any: TOML values
        """The protocol as tables that `read` takes."""
        counted = self.seeds == tuple(range(len(self.seeds)))
        seeds = len(self.seeds) if counted else list(self.seeds)
        head: dict[str, Any] = {"name": self.name, "seeds": seeds}  # Any: as above
        head |= _limits(self.budget)
        head |= {"baseline": self.baseline, "storage": self.storage}
        head |= {"device": self.device, "threads": self.threads}
        search = {k: v for k, v in self.search.tables().items() if k not in ("seed", "searcher")}
        own = {label: {"budget": _limits(budget)} for label, budget in self.budgets.items()}
        listed = [
            {"label": label, **own.get(label, {}), **part.table()}
            for label, part in self.searchers.items()
        ]
        scores = [{"label": label, **part.table()} for label, part in self.scores.items()]
        more = {"score": scores} if scores else {}
        return {"protocol": head, **search, "searcher": listed, **plain(more)}

    def runs(self) -> Iterator[Run]:
        """Every run: the unselected draws, then the searchers, seed by seed."""
        draws = replace(self.search, searcher=PartConfiguration("random"))
        for seed in range(self.baseline):
            yield self._run(SAMPLING, replace(draws, seed=seed), Budget(trials=1))
        for seed in self.seeds:
            for label, part in self.searchers.items():
                budget = self.budgets.get(label, self.budget)
                yield self._run(label, replace(self.search, searcher=part, seed=seed), budget)

    def _run(self, label: str, search: SearchConfiguration, budget: Budget) -> Run:
        return Run(label, search, budget, self.device, self.threads)


BUDGETS = {"trials": int, "cost": float}


def _budget(table: Any) -> Budget:  # Any: checked here
    if not isinstance(table, dict):
        raise ConfigurationError(f"budget is {table!r}; it takes a table, such as {{ trials = 1 }}.")
    for key in table:
        if key not in BUDGETS:
            raise ConfigurationError(unknown(key, "a limit of a run", BUDGETS))
    return Budget(**{k: convert(v, BUDGETS[k], f'"{k}"') for k, v in table.items()})


def _limits(budget: Budget) -> dict[str, float]:
    return {k: v for k, v in vars(budget).items() if v is not None}


def _searchers(listed: Any) -> tuple[dict[str, PartConfiguration], dict[str, Budget]]:  # Any: as above
    """The searchers by label, and the budgets of those that have their own."""
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError("a protocol needs a [[searcher]] for each one to compare.")
    found: dict[str, PartConfiguration] = {}
    budgets: dict[str, Budget] = {}
    for table in listed:
        part = PartConfiguration.read(table, "searcher")
        label = str(part.settings.get("label", part.name))
        if label in found or label == SAMPLING:
            raise ConfigurationError(f'two runs are called "{label}"; give one another label = "...".')
        if "budget" in part.settings:
            budgets[label] = _budget(part.settings["budget"])
        rest = {k: v for k, v in part.settings.items() if k not in ("label", "budget")}
        found[label] = PartConfiguration(part.name, rest)
    return found, budgets


@dataclass(frozen=True)
class Run:
    """One searcher with one seed."""

    label: str
    search: SearchConfiguration
    budget: Budget
    device: str
    threads: int

    @property
    def key(self) -> tuple[str, int]:
        """Its name among the runs."""
        return self.label, self.search.seed


@dataclass(frozen=True)
class Ended:
    """What a run came to: a row of runs.csv, and the rows of its anytime curve."""

    row: dict[str, Any]  # Any: CSV cells
    anytime: list[dict[str, Any]]  # Any: as above


@dataclass(frozen=True)
class Comparison:
    """A comparison that is done: its protocol, its folder and the rows of its files."""

    protocol: Protocol
    folder: Path
    runs: list[dict[str, Any]]  # Any: CSV cells
    anytime: list[dict[str, Any]]  # Any: as above
    scores: list[dict[str, Any]] = field(default_factory=list)  # Any: as above

    def tables(self) -> dict[str, Any]:  # Any: JSON values
        """For scripts: the protocol, the folder and every run."""
        return {
            "protocol": self.protocol.tables(),
            "folder": str(self.folder),
            "runs": self.runs,
            **({"scores": self.scores} if self.scores else {}),
        }


def compare(
    protocol: Path | Protocol,
    *,
    jobs: int = 1,
    results: Path = RESULTS,
    watch: WatchOne = unwatched,
) -> Comparison:
    """Run what of a protocol has not run yet, in `jobs` processes, and write the report."""
    if not isinstance(protocol, Protocol):
        protocol = Protocol.read(config.read_toml(protocol))
    made = _checked(protocol)
    folder = results / "benchmarks" / protocol.name
    _keep_protocol(protocol, folder)
    known = {(r["searcher"], int(r["seed"])) for r in _read(folder / "runs.csv")}
    runs = list(protocol.runs())
    left = [run for run in runs if run.key not in known]
    with watch() as step:
        step(len(runs) - len(left), len(runs), "runs")
        work = partial(_work, journals=folder / "journals" if protocol.storage == "journal" else None)
        for done, end in enumerate(_done(work, left, jobs), len(runs) - len(left) + 1):
            _append(folder / "anytime.csv", end.anytime)
            _append(folder / "runs.csv", [end.row])
            step(done, len(runs), "runs")
    order = {run.key: i for i, run in enumerate(runs)}
    ended = _ordered(folder / "runs.csv", order)
    scores = _scores(protocol, folder, ended, jobs, watch)
    comparison = Comparison(protocol, folder, ended, _ordered(folder / "anytime.csv", order), scores)
    objective = made.problem.objectives[0]
    metric = {m.name: m for m in made.evaluator.metrics(made.problem)}[objective.metric]
    write_report(comparison, objective, metric.unit, made.evaluator.cost_unit)
    return comparison


def _checked(protocol: Protocol) -> Made:
    """The parts, so that a wrong name is told before anything runs."""
    for part in protocol.searchers.values():
        made = config.make(replace(protocol.search, searcher=part))
    for score in protocol.scores.values():
        config.make(comparison_scores.searched(made.configuration, score))
    if len(made.problem.objectives) != 1:
        raise ConfigurationError("a comparison takes one objective; give one [[objective]].")
    return made


def _keep_protocol(protocol: Protocol, folder: Path) -> None:
    path = folder / "protocol.toml"
    text = tomli_w.dumps(protocol.tables())
    if path.is_file() and not _same_but_for_more(config.read_toml(path), protocol.tables()):
        raise StorageError(
            f'"{folder}" holds a comparison of another protocol; give this one another name, or remove '
            "that folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _same_but_for_more(known: Table, given: Table) -> bool:
    """Whether runs of one protocol are runs of the other: seeds, searchers, scores may be added."""

    def rest(tables: Table) -> dict[str, Any]:  # Any: TOML values
        head = {k: v for k, v in tables["protocol"].items() if k not in ("seeds", "baseline")}
        return {**{k: v for k, v in tables.items() if k not in added}, "protocol": head}

    added = ("searcher", "score")
    kept = all(part in given.get(key, []) for key in added for part in known.get(key, []))
    return kept and json.dumps(rest(known), sort_keys=True) == json.dumps(rest(given), sort_keys=True)


def _scores(
    protocol: Protocol, folder: Path, runs: list[dict[str, Any]], jobs: int, watch: WatchOne
) -> list[dict[str, Any]]:  # Any: CSV cells
    """What the runs found, scored by the protocol's scores; what is not yet scored is now."""
    path = folder / "scores.csv"
    made = _checked(protocol).configuration
    wanted = {n: comparison_scores.searched(made, score) for n, score in protocol.scores.items()}
    machine = protocol.device, protocol.threads
    left = list(comparison_scores.missing(wanted, runs, _read(path), machine))
    if left:
        with watch() as step:
            for done, rows in enumerate(_done(comparison_scores.Scoring.rows, left, jobs), 1):
                _append(path, rows)
                step(done, len(left), "scores")
    return _rewritten(path, comparison_scores.last(_read(path), runs, list(wanted)))


def _done(work: Callable[[Job], Result], left: Sequence[Job], jobs: int) -> Iterator[Result]:
    """What comes of each piece of work, in `jobs` processes, as it is done."""
    if jobs == 1:
        yield from map(work, left)
        return
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(jobs, spawn, end_with_parent) as pool:
        futures = [pool.submit(work, piece) for piece in left]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
            raise


@dataclass
class _Best(Observer):
    """Keeps the weights of the best trial."""

    study: Study
    best: Trial | None = None
    weights: Weights = None

    def on_progress(self, done: int, total: int, what: str) -> None:
        """Runs have one bar for all, which counts runs."""

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        if self.best is None or self.study.problem.better(trial, self.best):
            self.best, self.weights = trial, weights

    def on_failure(self, failure: Failure) -> None:
        """Nothing: it has no architecture to be the best."""


def _work(run: Run, journals: Path | None) -> Ended:
    made = _parts(json.dumps(run.search.tables() | {"seed": 0}))
    url = f"journal:{journals / f'{run.label}-{run.search.seed}.journal'}" if journals else "memory"
    study = Study(
        f"{run.label}-{run.search.seed}",
        made.problem,
        made.searcher,
        made.evaluator,
        open_storage(url),
        seed=run.search.seed,
        device=run.device,
        threads=run.threads,
        pruner=made.pruner,
        configuration=run.search.tables(),
        folder=journals / f"{run.label}-{run.search.seed}" if journals else None,
    )
    keeper = _Best(study)
    record = study.open()
    study.run(run.budget, keeper, record)
    return _ended(run, study, record.history, keeper)


@cache
def _parts(tables: str) -> Made:
    return config.make(SearchConfiguration.read(json.loads(tables)))


def _ended(run: Run, study: Study, history: History, keeper: _Best) -> Ended:
    trials, failures = history.trials, history.failures
    objective = study.problem.objectives[0].metric
    front = study.problem.front(trials)
    row: dict[str, Any] = {  # Any: CSV cells
        "searcher": run.label,
        "seed": run.search.seed,
        "trials": len(trials) + len(failures),
        "cost": sum(t.cost for t in trials) + sum(f.cost for f in failures),
        "seconds": round(sum(t.seconds for t in trials) + sum(f.seconds for f in failures), 3),
    }
    if not front:
        return Ended(row | {objective: math.nan, "test": math.nan, "architecture": ""}, [])
    best = front[0]
    weights = keeper.weights if keeper.best == best else None
    row |= {
        objective: best.metrics[objective],
        "test": tested(study, best, weights)[0].get(objective, math.nan),
        "architecture": str(best.architecture),
    }
    return Ended(row, _anytime(run, study, history))


def _anytime(run: Run, study: Study, history: History) -> list[dict[str, Any]]:  # Any: CSV cells
    """The best so far at every improvement, by cost; with its test score if that takes no weights."""
    objective = study.problem.objectives[0].metric
    rows: list[dict[str, Any]] = []  # Any: as above
    best: Trial | None = None
    cost = 0.0
    for count, trial in enumerate(history, 1):
        cost += trial.cost
        failed = sum(f.cost for f in history.failures if f.number < trial.number)
        if trial.completed and (best is None or study.problem.better(trial, best)):
            best = trial
            test = study.evaluator.test(study.problem, trial.architecture, None)
            rows.append(
                {
                    "searcher": run.label,
                    "seed": run.search.seed,
                    "trials": count,
                    "cost": cost + failed,
                    objective: trial.metrics[objective],
                    "test": test.get(objective, math.nan),
                }
            )
    return rows


def _read(path: Path) -> list[dict[str, Any]]:  # Any: CSV cells
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _append(path: Path, rows: Sequence[Table]) -> None:
    if not rows:
        return
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _ordered(path: Path, order: Mapping[tuple[str, int], int]) -> list[dict[str, Any]]:  # Any: cells
    """The rows of the protocol's runs in its order, each once; the file is rewritten so."""
    rows = {}
    for row in _read(path):
        key = (row["searcher"], int(row["seed"]))
        if key in order:
            rows[(order[key], int(row["trials"]))] = row
    return _rewritten(path, [rows[key] for key in sorted(rows)])


def _rewritten(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: as above
    """The rows, in place of those that the file held."""
    if rows:
        temporary = path.with_suffix(".part")
        temporary.unlink(missing_ok=True)
        _append(temporary, rows)
        temporary.replace(path)
    return rows
