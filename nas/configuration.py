"""What to search, as frozen values: read from study.toml or flags, written back, made into parts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from nas import registry
from nas.conversion import convert, plain
from nas.errors import ConfigurationError, unknown
from nas.evaluation import Evaluator
from nas.problem import Objective, Problem
from nas.pruner import Pruner
from nas.searcher import Searcher
from nas.study import Budget, check

DIRECTIONS = {"max": "maximize", "min": "minimize", "maximize": "maximize", "minimize": "minimize"}
DEFAULT_TASK = "digits"
IN_MEMORY = ("memory", "sqlite://", "sqlite:///:memory:")
Table = Mapping[str, Any]  # Any: values of a TOML table


@dataclass(frozen=True)
class PartConfiguration:
    """A registered part by name, with the settings that differ from its defaults."""

    name: str
    settings: Table = field(default_factory=dict)

    @classmethod
    def read(cls, table: Any, what: str) -> PartConfiguration:  # Any: checked here
        """From a name, or a table with `name` and settings."""
        if isinstance(table, str):
            return cls(table)
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise ConfigurationError(
                f'[{what}] is {table!r}; it takes name = "..." and the settings of that {what}.'
            )
        return cls(table["name"], {k: v for k, v in table.items() if k != "name"})

    def table(self) -> dict[str, Any]:  # Any: as in Table
        """The part as a TOML table."""
        return {"name": self.name, **self.settings}


@dataclass(frozen=True)
class SearchConfiguration:
    """What determines a search's outcome: parts, objectives, limits and seed.

    Several evaluators make a cascade, run in order. No objectives: the evaluator's first metric.
    `load` names Python files that register parts of the user's own.
    """

    space: PartConfiguration
    searcher: PartConfiguration
    evaluators: tuple[PartConfiguration, ...]
    task: PartConfiguration | None = None
    objectives: tuple[Objective, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    pruner: PartConfiguration = PartConfiguration("none")
    load: tuple[str, ...] = ()

    def tables(self) -> dict[str, Any]:  # Any: as in Table
        """The configuration as plain tables, for TOML and for the record."""
        found: dict[str, Any] = {  # Any: as in Table
            "seed": self.seed,
            "pruner": self.pruner.table() if self.pruner.settings else self.pruner.name,
            "load": list(self.load),
            "limits": dict(self.limits),
            "space": self.space.table(),
            "searcher": self.searcher.table(),
            "evaluator": [e.table() for e in self.evaluators],
            "objective": [{"metric": o.metric, "direction": o.direction} for o in self.objectives],
        }
        if self.task is not None:
            found["task"] = self.task.table()
        return {k: plain(v) for k, v in found.items() if v not in ([], {})}

    @classmethod
    def read(cls, tables: Table) -> SearchConfiguration:
        """From tables such as `tables` gives; ConfigurationError naming what is wrong."""
        _check_keys(tables, SEARCH_KEYS, "study file")
        if "space" not in tables:
            raise ConfigurationError('[space] is missing; name one, such as name = "nasbench201".')
        evaluators = tables.get("evaluator", "training")
        listed = evaluators if isinstance(evaluators, list) else [evaluators]
        task = tables.get("task")
        return cls(
            space=PartConfiguration.read(tables["space"], "space"),
            searcher=PartConfiguration.read(tables.get("searcher", "random"), "searcher"),
            evaluators=tuple(PartConfiguration.read(e, "evaluator") for e in listed),
            task=None if task is None else PartConfiguration.read(task, "task"),
            objectives=tuple(_objective(o) for o in _list(tables, "objective")),
            limits=_limits(tables.get("limits", {})),
            seed=convert(tables.get("seed", 0), int, '"seed"'),
            pruner=PartConfiguration.read(tables.get("pruner", "none"), "pruner"),
            load=convert(tables.get("load", ()), tuple[str, ...], '"load"'),
        )


SEARCH_KEYS = (
    "space",
    "task",
    "searcher",
    "evaluator",
    "objective",
    "limits",
    "seed",
    "pruner",
    "load",
)


@dataclass(frozen=True)
class FinalistsConfiguration:
    """How many of the best trials are trained anew at the end; `settings` of the evaluator training."""

    count: int
    settings: Table = field(default_factory=dict)

    @classmethod
    def read(cls, table: Any) -> FinalistsConfiguration:  # Any: checked here
        """From a number, or a table with `count` and settings."""
        tables = table if isinstance(table, dict) else {"count": table}
        if "count" not in tables:
            raise ConfigurationError(
                "[finalists] has no count; say how many, with --finalists N or count = N."
            )
        count = convert(tables["count"], int, '"count" of [finalists]')
        if count < 0:
            raise ConfigurationError(f'"count" of [finalists] is {count}; it takes 0 or more.')
        rest = {k: v for k, v in tables.items() if k != "count"}
        return cls(count, plain(registry.converted("evaluator", "training", rest)))

    def table(self) -> dict[str, Any]:  # Any: as in Table
        """The configuration as a TOML table."""
        return {"count": self.count, **self.settings}


@dataclass(frozen=True)
class StudyConfiguration:
    """A search with its name, budget, storage and machine; what `study.toml` holds."""

    search: SearchConfiguration
    name: str
    budget: Budget
    storage: str
    device: str = "cpu"
    threads: int = 1
    workers: int = 1
    finalists: FinalistsConfiguration | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigurationError(f'"workers" of [study] is {self.workers}; it takes 1 or more.')
        if self.workers > 1 and self.storage in IN_MEMORY:
            raise ConfigurationError(
                f'the storage "{self.storage}" belongs to one process and cannot be shared by '
                f"{self.workers} workers; leave --storage out for a journal file, or take one worker."
            )

    def toml(self, *, default_storage: str) -> str:
        """The text of a study.toml that runs this study; the default storage is not named in it."""
        study: dict[str, Any] = {"name": self.name}  # Any: as in Table
        if self.storage != default_storage:
            study["storage"] = self.storage
        study |= {"device": self.device, "threads": self.threads, "workers": self.workers}
        budget = {k: v for k, v in vars(self.budget).items() if v is not None}
        finalists = {"finalists": self.finalists.table()} if self.finalists else {}
        return tomli_w.dumps({"study": study | budget, **finalists, **self.search.tables()})


STUDY_KEYS = ("name", "trials", "seconds", "cost", "storage", "device", "threads", "workers")


def read_toml(path: Path) -> dict[str, Any]:  # Any: as in Table
    """The tables of a TOML file; ConfigurationError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f'"{path}" cannot be read ({error.strerror}); name a file.') from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'"{path}" is not valid TOML: {error}.') from error


def study_tables(tables: Table, what: str) -> dict[str, Any]:  # Any: as in Table
    """The checked [study] table of a study file."""
    study = tables.get("study", {})
    if not isinstance(study, dict):
        raise ConfigurationError(f"[study] of {what} is {study!r}; it takes {', '.join(STUDY_KEYS)}.")
    _check_keys(study, STUDY_KEYS, f"[study] of {what}")
    wanted = {
        "name": str,
        "trials": int,
        "seconds": float,
        "cost": float,
        "storage": str,
        "device": str,
        "threads": int,
        "workers": int,
    }
    return {k: convert(v, wanted[k], f'"{k}" of [study]') for k, v in study.items()}


@dataclass(frozen=True)
class Made:
    """The parts of a search, made and put together."""

    problem: Problem
    searcher: Searcher
    evaluator: Evaluator
    configuration: SearchConfiguration
    pruner: Pruner


def make(configuration: SearchConfiguration) -> Made:
    """The parts that a configuration names; default objectives and a needed task are filled in."""
    for path in configuration.load:
        registry.load(Path(path))
    configuration = _converted(configuration)
    space, searcher = _part("space", configuration.space), _part("searcher", configuration.searcher)
    evaluator = make_evaluator(configuration.evaluators)
    if configuration.task is None and evaluator.needs_task:
        configuration = replace(configuration, task=PartConfiguration(DEFAULT_TASK))
    task = _part("task", configuration.task) if configuration.task else None
    if not configuration.objectives:
        first = evaluator.metrics(Problem(space, (Objective("", "maximize"),), task))[0]
        objective = Objective(first.name, first.direction)
        configuration = replace(configuration, objectives=(objective,))
    problem = Problem(space, configuration.objectives, task, configuration.limits)
    pruner = _part("pruner", configuration.pruner)
    check(problem, evaluator, pruner)
    return Made(problem, searcher, evaluator, configuration, pruner)


def _converted(configuration: SearchConfiguration) -> SearchConfiguration:
    """The same with every setting in its part's type, so that equal searches are equal values."""

    def part(kind: str, given: PartConfiguration) -> PartConfiguration:
        settings = registry.converted(kind, given.name, given.settings)
        return PartConfiguration(given.name, plain(settings))

    return replace(
        configuration,
        space=part("space", configuration.space),
        task=part("task", configuration.task) if configuration.task else None,
        searcher=part("searcher", configuration.searcher),
        evaluators=tuple(part("evaluator", e) for e in configuration.evaluators),
        pruner=part("pruner", configuration.pruner),
        load=tuple(str(Path(path).resolve()) for path in configuration.load),
    )


def make_evaluator(listed: Sequence[PartConfiguration]) -> Evaluator:
    """The one evaluator, or the cascade of several."""
    made: list[Evaluator] = [_part("evaluator", e) for e in listed]
    if len(made) == 1:
        return made[0]
    cascade: Evaluator = registry.get("evaluator", "cascade")(tuple(made))
    return cascade


def _part(kind: str, given: PartConfiguration) -> Any:  # Any: a part of any kind
    return registry.make(kind, given.name, given.settings)


def parse_objective(text: str) -> Objective:
    """An objective from METRIC:DIRECTION."""
    metric, _, direction = text.partition(":")
    return _objective({"metric": metric, "direction": direction})


def _objective(table: Any) -> Objective:  # Any: checked here
    if isinstance(table, str):
        return parse_objective(table)
    if not isinstance(table, dict) or not {"metric", "direction"} == table.keys():
        raise ConfigurationError(
            f'an objective is {table!r}; it takes metric = "..." and direction = "...".'
        )
    metric, direction = str(table["metric"]), str(table["direction"])
    if not metric or direction not in DIRECTIONS:
        raise ConfigurationError(
            f'the objective "{metric}:{direction}" is not METRIC:DIRECTION; '
            f"allowed directions: {', '.join(DIRECTIONS)}."
        )
    return Objective(metric, DIRECTIONS[direction])  # type: ignore[arg-type]  # checked above


def _limits(table: Any) -> dict[str, float]:  # Any: checked here
    if not isinstance(table, dict):
        raise ConfigurationError(f"[limits] is {table!r}; it takes METRIC = NUMBER.")
    return {k: convert(v, float, f'limit "{k}"') for k, v in table.items()}


def _list(tables: Table, key: str) -> list[Any]:  # Any: as in Table
    value = tables.get(key, [])
    return value if isinstance(value, list) else [value]


def _check_keys(table: Table, allowed: Sequence[str], what: str) -> None:
    for key in table:
        if key not in allowed:
            raise ConfigurationError(unknown(key, f"an option of the {what}", allowed))
