"""What a Pareto front is worth (its hypervolume), where it bends (its knee), and what fits a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nas.complexity import UNITS
from nas.errors import ConfigurationError, unknown
from nas.problem import Problem
from nas.task import Metric
from nas.trial import Trial

MARGIN = 0.1  # of the range of the trials' values, by which the reference point is worse than the worst
Point = Mapping[str, float]  # a value for each objective's metric


@dataclass(frozen=True)
class Worth:
    """A front's hypervolume beyond a reference point, and its knee.

    `hypervolume` is the volume of what the front dominates and what dominates `reference`, in the
    product of the objectives' units; `share` is its part of the box from there to `ideal`, the best
    value of each objective. A hypervolume is comparable only at one reference point.

    Reference: Zitzler, Thiele, Multiobjective Evolutionary Algorithms: A Comparative Case Study and the
    Strength Pareto Approach, IEEE Transactions on Evolutionary Computation 3(4), 1999 [recalled].
    """

    hypervolume: float
    reference: Point
    ideal: Point
    knee: Trial | None

    @property
    def share(self) -> float:
        """The hypervolume as a part of the box between the reference and the ideal point: 0 to 1."""
        sides = (abs(self.ideal[name] - self.reference[name]) for name in self.reference)
        box = math.prod(sides)
        return self.hypervolume / box if box else 0.0

    def sentences(self, metrics: Mapping[str, Metric]) -> list[str]:
        """The hypervolume with its reference point, and the knee, in words."""
        said = [
            f"Hypervolume {self.hypervolume:,.6g}: {self.share:.1%} of the box between the reference "
            f"point ({_told(self.reference, metrics)}) and the ideal point "
            f"({_told(self.ideal, metrics)})."
        ]
        if self.knee is not None:
            at = {name: self.knee.metrics[name] for name in self.reference}
            said.append(f"Knee of the front: trial {self.knee.number} ({_told(at, metrics)}).")
        return said


def worth(problem: Problem, trials: Sequence[Trial], given: Point | None = None) -> Worth | None:
    """The worth of the trials' front; None for one objective, and where no trial is completed.

    The reference point is worse than the worst completed trial in every objective by a tenth of the
    trials' range, or the value that is given for an objective.
    """
    completed = [t for t in trials if t.completed]
    if len(problem.objectives) < 2 or not completed:
        return None
    import moocore  # takes a moment, and most studies have one objective

    names = [o.metric for o in problem.objectives]
    reference = _reference(problem, completed) | _checked(names, given or {})
    front = problem.front(completed)
    volume = moocore.hypervolume(
        [[t.metrics[n] for n in names] for t in front],
        ref=[reference[n] for n in names],
        maximise=[o.sign > 0 for o in problem.objectives],
    )
    ideal = {o.metric: _best(o.sign, [t.metrics[o.metric] for t in front]) for o in problem.objectives}
    return Worth(float(volume), reference, ideal, knee(problem, front))


def _reference(problem: Problem, completed: Sequence[Trial]) -> dict[str, float]:
    """The point that is worse than the worst of each objective by a margin."""
    found = {}
    for objective in problem.objectives:
        values = [t.metrics[objective.metric] for t in completed]
        worst, best = _best(-objective.sign, values), _best(objective.sign, values)
        span = abs(best - worst) or abs(worst) or 1.0
        found[objective.metric] = worst - objective.sign * MARGIN * span
    return found


def _checked(names: Sequence[str], given: Point) -> dict[str, float]:
    for name in given:
        if name not in names:
            raise ConfigurationError(unknown(name, "an objective, given a reference", names))
    return dict(given)


def _best(sign: int, values: Sequence[float]) -> float:
    return max(values) if sign > 0 else min(values)


def knee(problem: Problem, front: Sequence[Trial]) -> Trial | None:
    """The trial of a front that lies farthest beyond the plane through its ends; None where none does.

    With each objective scaled to the front's range (0 its worst value there, 1 its best), it has the
    largest sum g_1 + ... + g_m, above 1. For two objectives the ends of the front have the sum 1, and
    the distance from the line through them is (sum - 1) / sqrt(2). Scaling by the range weighs the
    objectives alike; a front that bulges inwards has no knee.

    Reference: Das, On Characterizing the Knee of the Pareto Curve Based on Normal-Boundary
    Intersection, Structural Optimization 18, 1999 [recalled].
    """
    values = {t.number: problem.values(t) for t in front}
    if len(values) < 3:
        return None
    columns: list[tuple[float, ...]] = list(zip(*values.values(), strict=True))
    lows, highs = [min(c) for c in columns], [max(c) for c in columns]

    def gained(trial: Trial) -> float:
        scaled = zip(values[trial.number], lows, highs, strict=True)
        return sum((v - low) / (high - low) for v, low, high in scaled if high > low)

    best = max(front, key=gained)
    return best if gained(best) > 1 + 1e-12 else None


def within(problem: Problem, trials: Sequence[Trial], budgets: Point) -> list[Trial]:
    """The completed trials whose metrics are at most so large, in their order.

    Parameters, multiply-adds and activation bytes need not have been measured: they are computed, and
    stand among the metrics of what is returned. ConfigurationError where a metric is not known, or
    nothing fits.
    """
    completed = [t for t in trials if t.completed]
    measured = {name for t in completed for name in t.metrics}
    for name in budgets:
        if completed and name not in measured | UNITS.keys():
            raise ConfigurationError(
                unknown(name, "a metric of the trials", sorted(measured | UNITS.keys()))
            )
    completed = [_computed(problem, t, budgets) for t in completed]
    fitting = [
        t for t in completed if all(t.metrics.get(n, math.inf) <= most for n, most in budgets.items())
    ]
    if not fitting:
        raise ConfigurationError(_nothing(completed, budgets))
    return fitting


def added_metrics(metrics: Mapping[str, Metric], budgets: Point) -> dict[str, Metric]:
    """The metrics of a study and those that a budget is on without being among them."""
    added = {
        n: Metric(n, UNITS[n], "minimize", resource=True)
        for n in budgets
        if n in UNITS and n not in metrics
    }
    return {**metrics, **added}


def _computed(problem: Problem, trial: Trial, budgets: Point) -> Trial:
    missing = [n for n in budgets if n not in trial.metrics]
    if not missing:
        return trial
    found = problem.space.complexity(trial.architecture).metrics()
    return replace(trial, metrics={**trial.metrics, **{n: found[n] for n in missing if n in found}})


def _nothing(completed: Sequence[Trial], budgets: Point) -> str:
    asked = " and ".join(f"{name} at most {_figure(most)}" for name, most in budgets.items())
    if not completed:
        return f"no trial is completed, so none has {asked}."
    least = ", ".join(
        f"{n} {_figure(min(t.metrics.get(n, math.inf) for t in completed))}" for n in budgets
    )
    return f"no completed trial has {asked}; the least there is: {least}."


def _told(point: Point, metrics: Mapping[str, Metric]) -> str:
    said = []
    for name, value in point.items():
        unit = metrics[name].unit if name in metrics else ""
        said.append(f"{name} {_figure(value)}" + (f" {unit}" if unit not in ("", "1") else ""))
    return ", ".join(said)


def _figure(value: float) -> str:
    """Whole numbers in full, others to six digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.6g}"
