"""Finalists: the best trials of a search, trained anew with the full recipe and scored on test data.

A search ranks by short training on validation data; whether its order holds after a full training is
seen here. A finalist is saved as it is trained, so that a kill loses the one at hand alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas import registry
from nas.configuration import FinalistsConfiguration, SearchConfiguration
from nas.conversion import plain
from nas.errors import ConfigurationError, DataError, NasgramError
from nas.found import Found, load
from nas.keeper import Keeper
from nas.nondominated_sorting import ordered
from nas.problem import Problem
from nas.progress import Step, Watched
from nas.retraining import Retraining
from nas.retraining import train as retrain
from nas.storage import locked
from nas.training import Recipe
from nas.trial import Trial

TRAINER = "training"  # the evaluator whose settings are the recipe
TIMES_LONGER = 10


@dataclass(frozen=True)
class Finalist:
    """One of the best trials after its full training.

    `search_rank` and `rank` (None: not trained) count from 1 among the finalists. `validation` and
    `test` go by the task's scores; they are empty where `failed` says why it could not be trained.
    """

    trial: Trial
    search_rank: int
    epochs: int
    rank: int | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None
    failed: str | None = None

    @property
    def moved(self) -> str:
        """How many ranks it gained by the full training: "+1", "-2" or "="."""
        gained = 0 if self.rank is None else self.search_rank - self.rank
        return f"{gained:+}" if gained else "="


def check(search: SearchConfiguration, finalists: FinalistsConfiguration | None) -> None:
    """ConfigurationError where a search's best cannot be trained, or the settings are wrong."""
    if finalists is None:
        return
    if search.task is None:
        named = ", ".join(evaluator.name for evaluator in search.evaluators)
        raise ConfigurationError(
            f"finalists are trained on a task, and this study has none (its evaluator is {named}); "
            "name one with --task, or leave the finalists out."
        )
    recipe(search, finalists)


def recipe(search: SearchConfiguration, finalists: FinalistsConfiguration) -> Recipe:
    """How finalists are trained: as the search trains, for ten times the epochs, settings on top."""
    own: Mapping[str, object] = {}
    for evaluator in search.evaluators:
        if evaluator.name == TRAINER:
            own = evaluator.settings
    short: Recipe = registry.make("evaluator", TRAINER, own).recipe
    settings = {**own, "epochs": short.epochs * TIMES_LONGER, **finalists.settings}
    full: Recipe = registry.make("evaluator", TRAINER, settings).recipe
    return full


def chosen(problem: Problem, trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best completed trials, best first, each of another function.

    By the objective; with several, by front, then the least crowded (Deb et al. 2002), so that few
    finalists are spread over the front, its ends first.
    """
    distinct: dict[str, Trial] = {}
    for trial in sorted((t for t in trials if t.completed), key=lambda t: t.number):
        key = problem.key(trial.architecture)
        if key not in distinct or problem.better(trial, distinct[key]):
            distinct[key] = trial
    listed = list(distinct.values())
    order = ordered([problem.values(trial) for trial in listed])
    return [listed[i] for i in order[:count]]


def train(keeper: Keeper, trials: Sequence[Trial], watched: Watched) -> list[Finalist]:
    """The finalists of a study's trials, those trained that are not yet; other processes wait."""
    settings = keeper.configuration.finalists
    if settings is None or settings.count == 0:
        return []
    work = _Work(keeper, recipe(keeper.configuration.search, settings), watched)
    best = chosen(keeper.study.problem, trials, settings.count)
    with locked(keeper.folder / "finalists"):
        found = [work.finalist(trial, i, len(best)) for i, trial in enumerate(best, 1)]
    return _ranked(keeper.study.problem, found)


def known(keeper: Keeper, trials: Sequence[Trial]) -> list[Finalist]:
    """The finalists of a study's trials that were trained, ranked among each other."""
    settings = keeper.configuration.finalists
    if settings is None or settings.count == 0:
        return []
    how = recipe(keeper.configuration.search, settings)
    reader = _Reader(keeper, how)
    best = chosen(keeper.study.problem, trials, settings.count)
    read = [(trial, i, reader.read(trial)) for i, trial in enumerate(best, 1)]
    found = [_finalist(trial, i, how, file) for trial, i, file in read if file is not None]
    return _ranked(keeper.study.problem, found)


@dataclass(frozen=True)
class _Reader:
    """Finds the files of finalists that were trained by a recipe."""

    keeper: Keeper
    how: Recipe

    def path(self, trial: Trial) -> Path:
        kept = self.keeper.file(trial)
        return kept.with_name(f"{kept.stem}-finalist.json")

    def options(self) -> str:
        """The flags of `nas train` that train a finalist as here."""
        standard, settings = Recipe(), vars(self.how)
        changed = [f"{k}={v}" for k, v in settings.items() if v != getattr(standard, k)]
        flags = [f"--set evaluator.{setting}" for setting in changed]
        return " ".join([f"--seed {self.keeper.study.seed}", *flags])

    def command(self, trial: Trial) -> str:
        files = self.keeper.configuration.search.load
        loaded = "".join(f" --load {shlex.quote(file)}" for file in files)
        return f"nas{loaded} train {shlex.quote(str(self.path(trial)))} {self.options()}"

    def read(self, trial: Trial) -> Found | None:
        """The file of a finalist that was trained as is wanted now; None where there is none."""
        path, wanted = self.path(trial), self.keeper.found(trial, {})
        if not path.is_file():
            return None
        try:
            found = load(path)
        except NasgramError:
            return None
        same = found.architecture == trial.architecture and _same_setup(found, wanted)
        whole = found.weights is not None and found.weights.is_file()
        by = found.provenance.command or ""
        return found if same and whole and by.endswith(f" {self.options()}") else None


def _same_setup(one: Found, other: Found) -> bool:
    """Whether two found files are of one skeleton, task and shapes."""
    if one.task is None or other.task is None:
        return False
    tasks = one.task.name == other.task.name and plain(one.task.settings) == plain(other.task.settings)
    return tasks and one.signature == other.signature and _settings(one) == _settings(other)


def _settings(found: Found) -> object:
    return found.space.name, plain(found.space.settings)


@dataclass(frozen=True)
class _Work:
    keeper: Keeper
    how: Recipe
    watched: Watched

    def finalist(self, trial: Trial, number: int, count: int) -> Finalist:
        """A trial after its full training; that is done where it was not done before."""
        reader = _Reader(self.keeper, self.how)
        found = reader.read(trial)
        if found is not None:
            return _finalist(trial, number, self.how, found)
        retraining = Retraining(
            recipe=self.how,
            seed=self.keeper.study.seed,
            device=self.keeper.study.device,
            threads=self.keeper.study.threads,
            command=reader.command(trial),
        )

        def watch() -> AbstractContextManager[Step]:
            return nullcontext(self._step(f"finalist {number} of {count}, "))

        self.watched.notice(f"finalist {number} of {count}: trial {trial.number}")
        try:
            wanted = self.keeper.found(trial, {})
            found = retrain(wanted, retraining, output=reader.path(trial), watch=watch)
        except DataError as error:
            return Finalist(trial, number, self.how.epochs, failed=str(error))
        return _finalist(trial, number, self.how, found)

    def _step(self, prefix: str) -> Step:
        observer = self.watched.observers[0]
        return lambda done, total, what: observer.on_progress(done, total, prefix + what)


def _finalist(trial: Trial, search_rank: int, how: Recipe, found: Found) -> Finalist:
    measured = found.metrics
    return Finalist(
        trial,
        search_rank,
        how.epochs,
        validation={n: m.value for n, m in measured.items() if m.split == "validation"},
        test={n.removeprefix("test_"): m.value for n, m in measured.items() if m.split == "test"},
        path=found.path,
    )


def _ranked(problem: Problem, finalists: Sequence[Finalist]) -> list[Finalist]:
    """The finalists in the search's order with their ranks after the full training.

    They rank by the study's objectives, with what was trained in place of the search's scores; where
    no objective is trained for (a proxy), by the task's first score.
    """
    trained = [f for f in finalists if f.failed is None]
    ranks = {
        trained[index].trial.number: rank
        for rank, index in enumerate(ordered([_values(problem, f) for f in trained]), 1)
    }
    return [replace(f, rank=ranks.get(f.trial.number)) for f in finalists]


def _values(problem: Problem, finalist: Finalist) -> tuple[float, ...]:
    if any(o.metric in finalist.validation for o in problem.objectives) or problem.task is None:
        metrics = {**finalist.trial.metrics, **finalist.validation}
        return tuple(o.sign * metrics[o.metric] for o in problem.objectives)
    first = problem.task.scores[0].metric
    sign = 1 if first.direction == "maximize" else -1
    return (sign * finalist.validation[first.name],)


def table(problem: Problem, finalists: Sequence[Finalist]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows that show finalists: scores by search, after full training, on test data."""
    scored = [score.metric for score in problem.task.scores] if problem.task else []
    shown = {m.name: f"{m.name} ({m.unit})" if m.unit not in ("", "1") else m.name for m in scored}
    names, objectives = list(shown), [o.metric for o in problem.objectives]
    columns = ["trial", *(f"search {shown.get(n, n)}" for n in objectives)]
    columns += [f"{kind} {shown[n]}" for kind in ("full", "test") for n in names]
    columns += ["rank", "file"]
    rows = []
    for f in finalists:
        scores = [f"{f.trial.metrics[n]:.6g}" for n in objectives]
        for measured in (f.validation, f.test):
            scores += [f"{measured[n]:.6g}" if n in measured else "" for n in names]
        rank = f"{f.search_rank} to {f.rank} ({f.moved})" if f.failed is None else f"failed: {f.failed}"
        rows.append([str(f.trial.number), *scores, rank, f.path.name if f.path else ""])
    return columns, rows


def markdown(problem: Problem, finalists: Sequence[Finalist]) -> list[str]:
    """A section of a report: the finalists as a table, and what it means."""
    columns, rows = table(problem, finalists)
    lines = ["## Finalists", "", f"{title(finalists)}.", "", "| " + " | ".join(columns) + " |"]
    lines.append("| --- " * len(columns) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", "Search and full scores are on validation data. A rank that changes says that the "]
    lines[-1] += "search's short training ordered these otherwise than a full one does."
    return lines


def title(finalists: Sequence[Finalist]) -> str:
    """What was done to the finalists, in words."""
    return f"The best {len(finalists)}, trained anew for {finalists[0].epochs} epochs"
