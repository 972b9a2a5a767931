"""What a person sees in a terminal: progress bars, tables and curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nas.problem import Problem
from nas.progress import Watched
from nas.study import Budget, Observer, Weights
from nas.task import Metric
from nas.trial import Failure, Trial

PLAIN_WIDTH = 120  # of tables where there is no terminal


@dataclass
class _Bars:
    """The bars of a study; plain lines where it is no terminal."""

    problem: Problem
    metrics: Mapping[str, Metric]
    console: Console
    progress: Progress
    whole: TaskID
    front: list[Trial]

    def tell(self, trial: Trial) -> None:
        """Move the bar of the study."""
        self.front = self.problem.front([*self.front, trial])
        best = describe(self.front[0], self.problem, self.metrics) if self.front else "none yet"
        self.progress.update(self.whole, advance=1, best=f"best {best}")
        if not self.console.is_terminal:
            said = describe(trial, self.problem, self.metrics)
            self.notice(f"trial {trial.number}: {said}; best {best}")

    def fail(self, failure: Failure) -> None:
        """Move the bar of the study past a search that came to nothing."""
        self.progress.update(self.whole, advance=1)
        self.notice(f"trial {failure.number}: no architecture ({failure.reason})")

    def notice(self, sentence: str) -> None:
        """A line above the bars."""
        self.progress.console.print(sentence, highlight=False, soft_wrap=True)


@final
@dataclass
class ProgressObserver(Observer):
    """A bar for the evaluation that a worker runs, beside that of the study."""

    bars: _Bars
    inner: TaskID
    worker: str = ""  # its name, where there are several

    def on_progress(self, done: int, total: int, what: str) -> None:
        """Move the bar of the evaluation that runs."""
        self._inner(done, total, what, visible=True)

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        """Move the bar of the study."""
        self.bars.tell(trial)
        self._inner(0, 1, f"after trial {trial.number}", visible=bool(self.worker))

    def on_failure(self, failure: Failure) -> None:
        """Move the bar of the study, and say why there is no architecture."""
        self.bars.fail(failure)
        self._inner(0, 1, f"after trial {failure.number}", visible=bool(self.worker))

    def _inner(self, done: int, total: int, what: str, *, visible: bool) -> None:
        self.bars.progress.update(
            self.inner,
            completed=done,
            total=total,
            description=f"{self.worker}{what}",
            visible=visible,
        )


def describe(trial: Trial, problem: Problem, metrics: Mapping[str, Metric]) -> str:
    """A trial's objectives with units, or why it has none."""
    if not trial.completed:
        return "pruned" if trial.pruned else f"infeasible ({trial.infeasible})"
    return ", ".join(
        f"{o.metric} {number(trial.metrics[o.metric])}{unit(metrics, o.metric)}"
        for o in problem.objectives
    )


@contextmanager
def watching(
    problem: Problem,
    metrics: Mapping[str, Metric],
    budget: Budget,
    done: Sequence[Trial],
    workers: int,
) -> Iterator[Watched]:
    """Observers that draw on standard error while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[bold]{task.fields[best]}"),
    )
    with Progress(*columns, console=console, transient=False, disable=not console.is_terminal) as bar:
        whole = bar.add_task("trials", total=budget.trials, completed=len(done), best="")
        bars = _Bars(problem, metrics, console, bar, whole, problem.front(done))
        names = [f"worker {n}: " for n in range(1, workers + 1)] if workers > 1 else [""]
        observers = [
            ProgressObserver(
                bars, bar.add_task(f"{name}starting", total=1, visible=bool(name), best=""), name
            )
            for name in names
        ]
        yield Watched(observers, bars.notice)
        for observer in observers:
            bar.update(observer.inner, visible=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; long texts fold, numbers stand to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        numeric = all(_is_number(cell) for cell in cells if cell)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(table)


def curve(title: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """A curve drawn with characters; empty for fewer than two finite points."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if len(points) < 2:
        return ""
    from uniplot import plot_to_string

    return str(
        plot_to_string(
            [y for _, y in points],
            [x for x, _ in points],
            lines=True,
            width=60,
            height=10,
            title=title,
            x_gridlines=[],
            y_gridlines=[],
        )
    )


def scatter(
    title: str,
    points: Sequence[tuple[float, float]],
    marked: Sequence[tuple[float, float]],
    labels: tuple[str, str],
) -> str:
    """Points (x, y) drawn with characters, `marked` ones as "o"; empty for fewer than two."""
    if len(points) < 2:
        return ""
    from uniplot import plot_to_string

    series = (points, marked)
    return str(
        plot_to_string(
            [[y for _, y in s] for s in series],
            [[x for x, _ in s] for s in series],
            width=60,
            height=12,
            title=title,
            legend_labels=list(labels),
            character_set="ascii",
            force_ascii_characters=[".", "o"],
            color=False,
            x_gridlines=[],
            y_gridlines=[],
        )
    )


def number(value: float) -> str:
    """A number with the digits that matter."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4g}"


def unit(metrics: Mapping[str, Metric], name: str) -> str:
    """The unit of a metric with a space before it; nothing for a number without one ("1")."""
    found = metrics[name].unit if name in metrics else ""
    return f" {found}" if found not in ("", "1") else ""


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True


@contextmanager
def watching_one() -> Iterator[Callable[[int, int, str], None]]:
    """A progress function (done, total, what) that draws one bar on standard error."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def step(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield step
