"""What a dashboard says of a study and of each of its trials, in markdown."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.configuration import StudyConfiguration
from nas.drawing import text_tree
from nas.lease import is_lost
from nas.problem import Objective
from nas.record import SEARCH, Counted
from nas.study import Budget
from nas.terminal import number

IMAGES = "/nasgram/trials"  # the address of the drawings: IMAGES/NUMBER/architecture.svg
SHORT = 100  # characters of an architecture's text that is shown as it is
MOST_BEST = 10
CLOSED = {
    "lost": "Lost: its worker ended before it could tell a result.",
    "interrupted": "Interrupted by hand before it had a result.",
    "surplus": "Surplus: another worker had its place already; it was not evaluated, nor counts.",
}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>|#!~$&])")


@dataclass(frozen=True)
class Units:
    """The units of a study's metrics in their order, of its cost, and what is optimized."""

    metrics: Mapping[str, str]
    cost: str
    objectives: tuple[Objective, ...]

    def rows(self, result: Mapping[str, Any]) -> Iterator[tuple[str, float, str, str]]:  # Any: JSON
        """(quantity, value, unit, what is wanted of it) of an evaluation as it is recorded."""
        wanted = {o.metric: f"objective: {o.direction}" for o in self.objectives}
        metrics = result.get("metrics", {})
        names = [
            *(n for n in self.metrics if n in metrics),
            *(n for n in metrics if n not in self.metrics),
        ]
        for name in names:
            yield name, metrics[name], _shown(self.metrics.get(name, "")), wanted.get(name, "")
        yield "cost", result.get("cost", 0.0), self.cost, ""
        yield "time", result.get("seconds", 0.0), "s", ""


@dataclass(frozen=True)
class Trials:
    """All trials of a study, with the places they take and which of them retry others."""

    trials: Sequence[FrozenTrial]
    places: Mapping[int, int] = field(init=False)  # number -> place
    numbers: Mapping[int, int] = field(init=False)  # place -> number of its latest trial
    retries: Mapping[int, int] = field(init=False)  # number -> number of the trial that retries it

    def __post_init__(self) -> None:
        counted = Counted()
        for trial in self.trials:
            counted.add(trial.number, trial.user_attrs)
        found = {t.number: counted.place(t.number) for t in self.trials}
        places = {n: p for n, p in found.items() if p is not None}
        lost = {n: self.trials[n].user_attrs.get("retry_of") for n in places}
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "numbers", {p: n for n, p in places.items()})
        object.__setattr__(self, "retries", {of: n for n, of in lost.items() if of is not None})


@dataclass(frozen=True)
class Notes:
    """Writes the notes. `read` gives the architecture of a text; `page` is the study's address."""

    units: Units
    read: Callable[[str], Architecture]
    page: str
    _blocks: dict[str, str] = field(default_factory=dict, repr=False)  # by the architecture's text

    def trial(self, trial: FrozenTrial, among: Trials) -> str:
        """What came of a trial, its metrics with units, curve, drawing and text."""
        attributes, image = trial.user_attrs, f"{IMAGES}/{trial.number}"
        result = attributes.get("evaluation")
        parts = [self._state(trial), *self._relations(trial, among)]
        if result is not None:
            parts.append(self._table(result))
            parts += [f"No {n}: {escaped(why)}" for n, why in result.get("missing", {}).items()]
        if points := len(search_curve(trial)):
            parts.append(f"![Search of trial {trial.number}]({image}/search.svg?points={points})")
        if points := len(curve(trial)):
            parts.append(f"![Curve of trial {trial.number}]({image}/curve.svg?points={points})")
        elif result is not None and "architecture" in attributes:
            parts.append("No curve: the evaluation reported none.")
        if "architecture" in attributes:
            parts.append(f"![Architecture of trial {trial.number}]({image}/architecture.svg)")
            parts.append(self._text(attributes["architecture"]))
            parts.append(f"[Drawing]({image}/architecture.svg), [whole text]({image}/architecture.txt)")
        if attributes.get("notes"):
            parts.append(f"Noted by the searcher:\n\n{fenced(json.dumps(attributes['notes']))}")
        return "\n\n".join(parts)

    def _state(self, trial: FrozenTrial) -> str:
        """What came of the trial, in a line."""
        attributes = trial.user_attrs
        result, closed = attributes.get("evaluation", {}), attributes.get("closed")
        if not trial.state.is_finished():
            return self._running(attributes)
        if "infeasible" in result:
            return f"**Infeasible:** {escaped(result['infeasible'])}"
        if trial.state == TrialState.PRUNED:
            return f"**Pruned** after {len(result.get('curve', ()))} steps: its curve fell behind."
        if closed is not None:
            return CLOSED.get(closed, f"**Closed by an {escaped(closed)}**")
        if trial.state != TrialState.COMPLETE:
            return "**Failed** without a reason on record."
        return f"**Complete:** {self._objectives(result)}"

    def _running(self, attributes: Mapping[str, Any]) -> str:  # Any: JSON values
        lease = attributes.get("lease", {})
        if not lease:
            return "**Running.**"
        host = str(lease.get("host", "")).partition(" ")[0]
        who = f"process {lease.get('pid')} on {escaped(host)}"
        if is_lost(lease):
            return f"**Lost:** its worker ({who}) is gone; the next run of the study retries it."
        if "architecture" not in attributes:
            return f"**Running:** {who}, searching for its architecture."
        return f"**Running:** {who}."

    def _objectives(self, result: Mapping[str, Any]) -> str:  # Any: JSON values
        wanted = [o.metric for o in self.units.objectives]
        rows = [row for row in self.units.rows(result) if row[0] in wanted]
        return ", ".join(f"{escaped(name)} {with_unit(value, unit)}" for name, value, unit, _ in rows)

    def _relations(self, trial: FrozenTrial, among: Trials) -> Iterator[str]:
        """How it stands to other trials: reused, retrying, retried."""
        place, lost = among.places.get(trial.number), trial.user_attrs.get("retry_of")
        reused = trial.user_attrs.get("evaluation", {}).get("reused")
        if reused is not None:
            first = self.link(among.numbers.get(reused, reused))
            yield f"**Reused:** the result of {first}, at no cost."
        if lost is not None:
            yield f"It retries {self.link(lost)}."
        if trial.number in among.retries:
            yield f"It is retried by {self.link(among.retries[trial.number])}."
        if place is not None and place != trial.number:
            yield f"It counts as trial {place} of the study, the number that `nas show` gives it."

    def link(self, number: int) -> str:
        """A link to a trial's page."""
        return f"[trial {number}]({self.page}/trials?numbers={number})"

    def _table(self, result: Mapping[str, Any]) -> str:  # Any: JSON values
        lines = ["| quantity | value | unit | |", "| --- | ---: | --- | --- |"]
        for name, value, unit, wanted in self.units.rows(result):
            lines.append(f"| {escaped(name)} | {number(value)} | {escaped(unit)} | {wanted} |")
        return "\n".join(lines)

    def _text(self, text: str) -> str:
        if text not in self._blocks:
            self._blocks[text] = fenced(text if len(text) <= SHORT else text_tree(self.read(text)))
        return self._blocks[text]

    def study(self, configuration: StudyConfiguration, file: Path | None, among: Trials) -> str:
        """How to run the study anew, what came of it, and the file that says what runs.

        `file` is its study.toml, where it is at hand.
        """
        name, counted = configuration.name, len(among.numbers)
        parts = [
            f"# {escaped(name)}",
            f"{counted} trials: {_states(among)}.",
            "Run the same search anew:",
        ]
        parts.append(fenced(_command(name, file), "bash"))
        if file is None:
            parts.append("with this as `study.toml`:")
            configuration = replace(configuration, budget=Budget(trials=max(1, counted)), storage="")
            parts.append(fenced(configuration.toml(default_storage=""), "toml"))
            return "\n\n".join([*parts, *self._best(among)])
        parts += [f"Go on with it: `nas resume {shlex.quote(name)} --trials {2 * max(1, counted)}`"]
        text = file.read_text(encoding="utf-8")
        return "\n\n".join([*parts, *self._best(among), f"`{file}` says:", fenced(text, "toml")])

    def _best(self, among: Trials) -> Iterator[str]:
        best = best_trials(among.trials, self.units.objectives)
        if not best:
            return
        several = len(self.units.objectives) > 1
        yield f"## The Pareto front, {len(best)} trials" if several else "## The best"
        lines = [
            f"- {self.link(t.number)}: {self._objectives(t.user_attrs['evaluation'])}"
            for t in best[:MOST_BEST]
        ]
        yield "\n".join(lines)
        first = best[0]
        yield f"![Architecture of trial {first.number}]({IMAGES}/{first.number}/architecture.svg)"
        yield self._text(first.user_attrs["architecture"])


def best_trials(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """The complete trials that no other equals or beats in everything, best in the first one first."""
    signs = [o.sign for o in objectives]
    complete = [t for t in trials if t.state == TrialState.COMPLETE and "evaluation" in t.user_attrs]
    values = {t.number: tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in complete}
    front: list[FrozenTrial] = []
    for trial in sorted(complete, key=lambda t: (values[t.number], -t.number), reverse=True):
        mine = values[trial.number]
        kept = (values[f.number] for f in front)
        if not any(all(a >= b for a, b in zip(other, mine, strict=True)) for other in kept):
            front.append(trial)
    return front


def curve(trial: FrozenTrial) -> list[Mapping[str, float]]:
    """The rows of a trial's curve; of one that runs, what has been reported of its objective."""
    recorded = trial.user_attrs.get("evaluation", {}).get("curve")
    if recorded is not None:
        return list(recorded)
    return [{"step": step, "": value} for step, value in sorted(trial.intermediate_values.items())]


def search_curve(trial: FrozenTrial) -> list[Mapping[str, float]]:
    """The rows of the curve of a trial's inner search, as far as it is; empty where it had none."""
    said = trial.user_attrs
    steps = sorted(int(key.removeprefix(SEARCH)) for key in said if key.startswith(SEARCH))
    return [{"step": step, **said[f"{SEARCH}{step}"]} for step in steps]


def with_unit(value: float, unit: str) -> str:
    """A value as it stands in a sentence."""
    return f"{number(value)} {escaped(unit)}".rstrip()


def escaped(text: str) -> str:
    """The text on one line, with nothing in it that markdown reads as a sign."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def fenced(text: str, language: str = "text") -> str:
    """The text as a block of code, whatever is in it."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _shown(unit: str) -> str:
    return "" if unit == "1" else unit


def _command(name: str, file: Path | None) -> str:
    again = f"--study {shlex.quote(name + '-again')}"
    return f"nas search {shlex.quote(str(file) if file else 'study.toml')} {again}"


def _states(among: Trials) -> str:
    states = Counter(_kind(among.trials[number]) for number in among.numbers.values())
    return ", ".join(f"{count} {kind}" for kind, count in states.most_common()) or "none yet"


def _kind(trial: FrozenTrial) -> str:
    if "infeasible" in trial.user_attrs.get("evaluation", {}):
        return "infeasible"
    return "to retry" if trial.user_attrs.get("closed") else trial.state.name.lower()
