"""Studies and found architectures as a person reads them in a terminal, or a script as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nas.architecture import brief
from nas.drawing import text_tree
from nas.finalists import Finalist, table, title
from nas.found import Found
from nas.pareto import Worth, worth
from nas.searching import RESULTS, Outcome
from nas.terminal import curve, describe, number, print_table, scatter, unit

SHOWN = 160  # characters of an architecture in a table


def print_json(value: Any) -> None:  # Any: JSON values
    """JSON on standard output, for scripts."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_found(found: Found, *, as_json: bool, loaded: Sequence[str] = ()) -> None:
    """A found architecture: its metrics, what it costs, its text and tree, and how to reuse it."""
    complexity = found.space.complexity(found.architecture).metrics()
    if as_json:
        metrics = {name: vars(m) for name, m in found.metrics.items()}
        said = {"architecture": str(found.architecture), "space": found.space.name}
        print_json(said | {"metrics": metrics, "complexity": complexity})
        return
    rows = [[n, number(m.value), m.unit, m.split] for n, m in found.metrics.items()]
    rows += [
        [n, number(v), "B" if n == "activation_bytes" else "", "formula"] for n, v in complexity.items()
    ]
    print_table(f"{found.path}", ["metric", "value", "unit", "measured on"], rows)
    click.echo(f"space {found.space.name} {dict(found.space.settings) or ''}")
    click.echo(f"{found.architecture}\n\n{text_tree(found.architecture)}")
    if found.path is not None:
        print_reuse(found.path, found.weights is not None, loaded)


def print_reuse(path: Path, pretrained: bool, load: Sequence[str] = ()) -> None:
    """The lines that take a found file further; parts of a user's own are loaded before it."""
    call = "pretrained()" if pretrained else "build()"
    first = "import nas; from nas import registry; " if load else "import nas; "
    first += "".join(f"registry.load('{file}'); " for file in load)
    click.echo(f"Reuse it:  python -c \"{first}model = nas.load('{path}').{call}\"")
    follow = f"export {path} --to torch-export" if pretrained else f"train {path}"
    click.echo(f"      or:  nas {''.join(f'--load {file} ' for file in load)}{follow}")


def print_outcome(
    outcome: Outcome, *, as_json: bool, top: int, reference: Mapping[str, float] | None = None
) -> None:
    """A study: best trials, their curve or front, test scores, how to reuse the best.

    `reference` is the reference point of the hypervolume, in whole or in part.
    """
    front = worth(outcome.problem, outcome.trials, reference)
    if as_json:
        print_json(_outcome_tables(outcome, front))
        return
    _print_trials(outcome, top)
    infeasible = [t for t in outcome.trials if t.infeasible is not None]
    if infeasible:
        example = f"such as trial {infeasible[0].number}: {infeasible[0].infeasible}"
        click.echo(f"{len(infeasible)} infeasible, {example}")
    for failure in outcome.failures[:1]:
        example = f"such as trial {failure.number}: {failure.reason}"
        click.echo(f"{len(outcome.failures)} came to no architecture, {example}")
    if len(outcome.problem.objectives) == 1:
        click.echo(curve(*_best_so_far(outcome)))
        for trial in outcome.front:
            said = describe(trial, outcome.problem, outcome.metrics)
            click.echo(f"Best: trial {trial.number}, {said} (validation)")
    if front is not None:
        _print_front(outcome, front)
    _print_tests(outcome)
    if outcome.finalists:
        columns, rows = table(outcome.problem, outcome.finalists)
        print_table(title(outcome.finalists), columns, rows)
    _print_best_reuse(outcome)


def _print_trials(outcome: Outcome, top: int) -> None:
    """The best trials by one objective, or the Pareto front of several."""
    problem, metrics = outcome.problem, outcome.metrics
    several = len(problem.objectives) > 1
    completed = [t for t in outcome.trials if t.completed]
    best = outcome.front if several else sorted(completed, key=problem.values, reverse=True)
    names = list(metrics)
    units = [f"{n} ({unit(metrics, n).strip()})" if unit(metrics, n) else n for n in names]
    rows = [
        [
            str(t.number),
            *(number(t.metrics[n]) if n in t.metrics else "missing" for n in names),
            number(t.cost),
            brief(t.architecture, SHOWN),
        ]
        for t in best[:top]
    ]
    kind = "Pareto front" if several else "best first"
    fit = "".join(f", {n} at most {number(most)}" for n, most in outcome.budgets.items())
    title = f"{outcome.configuration.name}: {len(outcome.trials)} trials{fit}, {kind}"
    print_table(title, ["trial", *units, outcome.cost_unit, "architecture"], rows)
    if any(len(str(trial.architecture)) > SHOWN for trial in best[:top]):
        name = shlex.quote(outcome.configuration.name)
        click.echo(f"Long architectures are cut here; whole by `nas show {name} --json`.")


def _print_front(outcome: Outcome, front: Worth) -> None:
    """Two objectives as points; the hypervolume and the knee."""
    objectives = outcome.problem.objectives
    if len(objectives) == 2:
        first, second = (o.metric for o in objectives)
        completed = [t for t in outcome.trials if t.completed]
        every, best = (
            [(t.metrics[second], t.metrics[first]) for t in trials]
            for trials in (completed, outcome.front)
        )
        click.echo(scatter(f"{first} by {second}", every, best, ("trials", "Pareto front")))
    for sentence in front.sentences(outcome.metrics):
        click.echo(sentence)


def _print_tests(outcome: Outcome) -> None:
    for trial in outcome.front:
        test = outcome.tests.get(trial.number, {})
        if test:
            said = ", ".join(f"{n} {number(v)}{unit(outcome.metrics, n)}" for n, v in test.items())
            click.echo(f"Test of trial {trial.number}: {said}")


def _print_best_reuse(outcome: Outcome) -> None:
    """How to reuse the best finalist, or where there is none the best trial."""
    files = [f.path for f in outcome.finalists if f.rank == 1 and f.path is not None]
    files += [outcome.files[t.number] for t in outcome.front[:1] if t.number in outcome.files]
    for file in files[:1]:
        print_reuse(file, _has_weights(file), outcome.configuration.search.load)
    if outcome.front and not files:
        _print_rebuild(outcome)


def _print_rebuild(outcome: Outcome) -> None:
    """How to build the best trial anew where no file is kept of it, as it is off the front."""
    name, number_of_best = outcome.configuration.name, outcome.front[0].number
    folder = outcome.folder.parent.parent
    place = "" if folder == RESULTS else f", results=pathlib.Path('{folder}')"
    click.echo(
        f"Build trial {number_of_best}, of which no file is kept:  "
        f"python -c \"import pathlib; from nas import searching; o = searching.show('{name}'{place}); "
        f'model = o.problem.space.build(o.trial({number_of_best}).architecture)"'
    )


def _has_weights(path: Path) -> bool:
    return path.with_suffix(".safetensors").is_file()


def _best_so_far(outcome: Outcome) -> tuple[str, list[float], list[float]]:
    objective = outcome.problem.objectives[0]
    xs: list[float] = []
    ys: list[float] = []
    for trial in outcome.trials:
        if trial.completed:
            value = trial.metrics[objective.metric] * objective.sign
            before = ys[-1] if ys else value
            xs += [trial.number, trial.number]  # a step
            ys += [before, max(value, before)]
    return f"best {objective.metric} by trial", xs, [y * objective.sign for y in ys]


def _outcome_tables(outcome: Outcome, value: Worth | None) -> dict[str, Any]:  # Any: JSON values
    front = {t.number for t in outcome.front}
    trials = [
        {
            "number": t.number,
            "architecture": str(t.architecture),
            "metrics": dict(t.metrics),
            "infeasible": t.infeasible,
            "missing": dict(t.missing),
            "pruned": t.pruned,
            "cost": t.cost,
            "seconds": t.seconds,
            "reused": t.reused,
            "notes": dict(t.notes),
            "best": t.number in front,
            "test": dict(outcome.tests[t.number]) if t.number in outcome.tests else None,
            "file": str(outcome.files[t.number]) if t.number in outcome.files else None,
        }
        for t in outcome.trials
    ]
    return {
        "study": outcome.configuration.name,
        "objectives": [vars(o) for o in outcome.problem.objectives],
        "metrics": {n: {"unit": m.unit, "direction": m.direction} for n, m in outcome.metrics.items()},
        "best": [t.number for t in outcome.front],
        "under": dict(outcome.budgets),
        "pareto": None if value is None else _worth_table(value),
        "trials": trials,
        "failures": [vars(failure) for failure in outcome.failures],
        "finalists": [_finalist_table(f) for f in outcome.finalists],
    }


def _worth_table(value: Worth) -> dict[str, Any]:  # Any: JSON values
    return {
        "hypervolume": value.hypervolume,
        "share": value.share,
        "reference": dict(value.reference),
        "ideal": dict(value.ideal),
        "knee": None if value.knee is None else value.knee.number,
    }


def _finalist_table(finalist: Finalist) -> dict[str, Any]:  # Any: JSON values
    return {
        "number": finalist.trial.number,
        "architecture": str(finalist.trial.architecture),
        "search": dict(finalist.trial.metrics),
        "search_rank": finalist.search_rank,
        "epochs": finalist.epochs,
        "validation": dict(finalist.validation),
        "test": dict(finalist.test),
        "rank": finalist.rank,
        "file": str(finalist.path) if finalist.path else None,
        "failed": finalist.failed,
    }
