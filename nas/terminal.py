"""What a person sees in a terminal: progress bars, tables and curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

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
from nas.study import Budget, Observer, Weights
from nas.task import Metric
from nas.trial import Trial

PLAIN_WIDTH = 120  # of tables where there is no terminal


@dataclass
class ProgressObserver(Observer):
    """A bar for the study and one for the evaluation that runs; plain lines where it is no terminal."""

    problem: Problem
    metrics: Mapping[str, Metric]
    console: Console
    progress: Progress
    whole: TaskID
    inner: TaskID
    trials: list[Trial] = field(default_factory=list)

    def on_progress(self, done: int, total: int, what: str) -> None:
        """Move the bar of the evaluation that runs."""
        self.progress.update(self.inner, completed=done, total=total, description=what, visible=True)

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        """Move the bar of the study."""
        self.trials = [*self.problem.front([*self.trials, trial])]
        best = describe(self.trials[0], self.problem, self.metrics) if self.trials else "none yet"
        self.progress.update(self.whole, advance=1, best=f"best {best}")
        self.progress.update(self.inner, visible=False, completed=0)
        if not self.console.is_terminal:
            said = describe(trial, self.problem, self.metrics)
            self.console.print(f"trial {trial.number}: {said}; best {best}", highlight=False)


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
    problem: Problem, metrics: Mapping[str, Metric], budget: Budget, done: Sequence[Trial]
) -> Iterator[Observer]:
    """An observer that draws on standard error while the block runs."""
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
        inner = bar.add_task("", total=1, visible=False, best="")
        yield ProgressObserver(problem, metrics, console, bar, whole, inner, problem.front(done))
        bar.update(inner, visible=False)


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
