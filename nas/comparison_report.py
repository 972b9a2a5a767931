"""The report of a comparison: what each searcher found, against random sampling and each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.problem import Objective
from nas.statistics import mean, paired_difference, relative_improvement

if TYPE_CHECKING:
    from nas.comparison import Comparison
    from nas.study import Budget

SAMPLING = "random_sampling"
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)
Rows = Sequence[Mapping[str, Any]]  # Any: CSV cells


def write_report(comparison: Comparison, objective: Objective, unit: str, cost_unit: str) -> None:
    """Write report.md, and anytime.svg where matplotlib is installed."""
    report = _Report(comparison, objective, unit, cost_unit)
    drawn = report.draw(comparison.folder / "anytime.svg")
    parts = [report.head(), report.found(), report.pairs(), report.scores(), report.anytime(drawn)]
    text = "\n".join(line for part in parts for line in part)
    (comparison.folder / "report.md").write_text(text + "\n", encoding="utf-8")


class _Report:
    def __init__(self, comparison: Comparison, objective: Objective, unit: str, cost_unit: str) -> None:
        self.comparison = comparison
        self.objective = objective
        self.unit = f" ({unit})" if unit not in ("", "1") else ""
        self.cost_unit = cost_unit
        self.labels = list(comparison.protocol.searchers)
        self.by = {label: _of(comparison.runs, label) for label in (SAMPLING, *self.labels)}
        tested = all(not math.isnan(float(r["test"])) for r in comparison.runs)
        self.column = "test" if tested else objective.metric
        spent = max((float(r["cost"]) for r in comparison.runs), default=0.0)
        self.axis = "cost" if spent > 0 else "trials"  # where nothing costs anything
        self.axis_unit = cost_unit if spent > 0 else "trials"
        self.most = max((float(r[self.axis]) for r in comparison.runs), default=1.0)

    def values(self, label: str, column: str) -> list[float]:
        """The finite values of a column, a run each."""
        found = [float(row[column]) for row in self.by[label]]
        return [value for value in found if math.isfinite(value)]

    def head(self) -> list[str]:
        """What was compared, and how to do it again."""
        protocol = self.comparison.protocol
        words = {"trials": "trials", "seconds": "seconds", "cost": self.cost_unit}

        def told(budget: Budget) -> str:
            given = vars(budget).items()
            return ", ".join(f"{v:g} {words[k]}" for k, v in given if v is not None)

        own = "".join(f"; {label}: {told(b)}" for label, b in protocol.budgets.items())
        parts = [f"space `{_part(protocol.search.space)}`"]
        if protocol.search.task:
            parts.append(f"task `{_part(protocol.search.task)}`")
        parts += [f"evaluator `{_part(e)}`" for e in protocol.search.evaluators]
        limits = [f"{name} <= {most:g}" for name, most in protocol.search.limits.items()]
        return [
            f"# Comparison {protocol.name}",
            "",
            f"{', '.join([*parts, *limits])}. Objective: {self.objective.metric}{self.unit}, "
            f"{self.objective.direction}. Each searcher: {len(protocol.seeds)} seeds, "
            f"{told(protocol.budget)} a run{own}.",
            "",
            f"Regenerate with `nas compare {self.comparison.folder / 'protocol.toml'}`.",
            "",
        ]

    def found(self) -> list[str]:
        """A row a searcher: validation, test, and relative improvement over random sampling."""
        sampled = self.values(SAMPLING, self.column)
        rows = [
            f"| searcher | n | mean cost | mean seconds | validation {self.objective.metric} "
            f"| {self.column} | std | relative improvement % |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for label in (SAMPLING, *self.labels):
            scores = self.values(label, self.column)
            improvement = (
                ""
                if label == SAMPLING
                else str(relative_improvement(scores, sampled, sign=self.objective.sign))
            )
            spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
            cells = [
                label,
                str(len(scores)),
                f"{np.mean(self.values(label, 'cost')):.4g}" if scores else "",
                f"{np.mean(self.values(label, 'seconds')):.4g}" if scores else "",
                str(mean(self.values(label, self.objective.metric))),
                str(mean(scores)),
                f"{spread:.4g}",
                improvement,
            ]
            rows.append("| " + " | ".join(cells) + " |")
        what = "test score" if self.column == "test" else "validation score (there is no test score)"
        return [
            "## What was found",
            "",
            *rows,
            "",
            f"`{SAMPLING}` are random architectures without any selection. Means with 95% percentile "
            f"bootstrap intervals over runs. Relative improvement is that of the {what} over the mean "
            f"of `{SAMPLING}`; an interval that holds 0 is no evidence of one.",
            "",
        ]

    def pairs(self) -> list[str]:
        """Differences to the first searcher named random, else to the first, seed by seed."""
        if len(self.labels) < 2:
            return []
        base = "random" if "random" in self.labels else self.labels[0]
        lines = [f"## Against {base}, seed by seed", ""]
        lines += [
            f"| searcher | {self.column} minus that of {base} | better on |",
            "| --- | --- | --- |",
        ]
        others = {int(r["seed"]): float(r[self.column]) for r in self.by[base]}
        for label in (x for x in self.labels if x != base):
            own = {int(r["seed"]): float(r[self.column]) for r in self.by[label]}
            seeds = [s for s in own if s in others and math.isfinite(own[s] - others[s])]
            difference = paired_difference([own[s] for s in seeds], [others[s] for s in seeds])
            wins = sum(self.objective.sign * (own[s] - others[s]) > 0 for s in seeds)
            lines.append(f"| {label} | {difference} | {wins} of {len(seeds)} |")
        return [*lines, ""]

    def scores(self) -> list[str]:
        """A row a searcher: what further evaluators say of the architectures that were found."""
        rows = [r for r in self.comparison.scores if math.isfinite(float(r["value"]))]
        if not rows:
            return []
        columns = list(dict.fromkeys((r["score"], r["split"], r["metric"]) for r in rows))
        heads = [f"{score}: {split} {metric}" for score, split, metric in columns]
        lines = ["## What was found, scored anew", "", f"| searcher | {' | '.join(heads)} |"]
        lines.append("| --- |" + " --- |" * len(columns))
        for label in (SAMPLING, *self.labels):
            of = [r for r in rows if r["searcher"] == label]
            cells = [
                [float(r["value"]) for r in of if (r["score"], r["split"], r["metric"]) == column]
                for column in columns
            ]
            means = [str(mean(cell)) for cell in cells]
            lines.append(f"| {label} | " + " | ".join(means) + " |")
        parts = [f"`{n}`: `{_part(p)}`" for n, p in self.comparison.protocol.scores.items()]
        return [*lines, "", f"Not counted as cost. {'; '.join(parts)}. Means as above.", ""]

    def anytime(self, drawn: bool) -> list[str]:
        """The mean of the best so far at parts of the cost."""
        costs = [self.most * fraction for fraction in FRACTIONS]
        column = self._curve_column()
        lines = ["## Best so far", ""]
        lines += [f"| {self.axis_unit} | " + " | ".join(f"{c:g}" for c in costs) + " |"]
        lines += ["| --- |" + " --- |" * len(costs)]
        for label in self.labels:
            cells = [f"{np.mean(v):.5g}" if (v := self.at(label, c, column)) else "" for c in costs]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        what = "test score of the best by validation" if column == "test" else "best validation score"
        lines += ["", f"Mean over seeds of the {what}."]
        lines.append(
            "\n![best so far](anytime.svg)"
            if drawn
            else '\nA picture is drawn where matplotlib is installed: `pip install "nasgram[plot]"`.'
        )
        return lines

    def _curve_column(self) -> str:
        rows = self.comparison.anytime
        tested = bool(rows) and all(not math.isnan(float(r["test"])) for r in rows)
        return "test" if tested else self.objective.metric

    def at(self, label: str, cost: float, column: str) -> list[float]:
        """Each run's best so far when so much was spent; runs that had nothing yet are left out."""
        best: dict[int, float] = {}
        for row in _of(self.comparison.anytime, label):
            if float(row[self.axis]) <= cost + 1e-9:
                best[int(row["seed"])] = float(row[column])
        return list(best.values())

    def draw(self, path: Path) -> bool:
        """Draw the curves; False where matplotlib is not installed."""
        try:
            from matplotlib import rc_context
            from matplotlib.figure import Figure
        except ImportError:
            return False
        grid = np.linspace(self.most / 100, self.most, 100)
        column = self._curve_column()
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for label in self.labels:
            found = [self.at(label, c, column) for c in grid]
            points = [(c, v) for c, v in zip(grid, found, strict=True) if v]
            means = np.array([np.mean(v) for _, v in points])
            errors = np.array([np.std(v) / math.sqrt(len(v)) for _, v in points])
            xs = [c for c, _ in points]
            axes.plot(xs, means, label=label)
            axes.fill_between(xs, means - errors, means + errors, alpha=0.2)
        axes.set_xscale("log")
        axes.set_xlabel(self.axis_unit)
        axes.set_ylabel(f"{column} of the best so far{self.unit}")
        axes.legend(title="mean, standard error")
        axes.grid(alpha=0.3)
        with rc_context({"svg.hashsalt": "nasgram"}):  # the same picture is the same file
            figure.savefig(path, metadata={"Date": None})
        return True


def _of(rows: Rows, label: str) -> list[Mapping[str, Any]]:  # Any: CSV cells
    return [row for row in rows if row["searcher"] == label]


def _part(part: Any) -> str:  # Any: a PartConfiguration
    settings = ", ".join(f"{k}={v}" for k, v in part.settings.items() if k != "path")
    return f"{part.name}({settings})" if settings else str(part.name)
