"""The best architecture of every run of a comparison, scored by further evaluators at no cost.

A search trains briefly; whether its order holds after a full training, or in a published table, is
told here. `scores.csv` has a row for each run, score, split and metric, written when it is known.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from nas import configuration as config
from nas.configuration import Made, PartConfiguration, SearchConfiguration
from nas.conversion import plain
from nas.errors import ConfigurationError
from nas.evaluation import Context

SPLITS = ("validation", "test")
KEYS = ("searcher", "seed", "score", "split", "metric")
Rows = Sequence[Mapping[str, Any]]  # Any: CSV cells


@dataclass(frozen=True)
class Scoring:
    """An architecture to be scored for the runs (searcher, seed) that found it; all have one seed."""

    label: str
    search: SearchConfiguration
    architecture: str
    runs: tuple[tuple[str, int], ...]
    device: str
    threads: int

    def rows(self) -> list[dict[str, Any]]:  # Any: CSV cells
        """The rows of its runs: a metric on a split each; nan where it has none."""
        found = _scored(self)
        return [
            {"searcher": s, "seed": seed, "score": self.label, "split": split, "metric": m, "value": v}
            for s, seed in self.runs
            for (split, m), v in found.items()
        ]


def read(listed: Any) -> dict[str, PartConfiguration]:  # Any: checked here
    """The evaluators of a protocol's [[score]] tables by label."""
    if not isinstance(listed, list):
        raise ConfigurationError("scores are [[score]] tables, each with the name of an evaluator.")
    found: dict[str, PartConfiguration] = {}
    for table in listed:
        part = PartConfiguration.read(table, "score")
        label = str(part.settings.get("label", part.name))
        if label in found:
            raise ConfigurationError(
                f'two scores are called "{label}"; give one another label = "...".'
            )
        found[label] = PartConfiguration(
            part.name, {k: v for k, v in part.settings.items() if k != "label"}
        )
    return found


def searched(search: SearchConfiguration, score: PartConfiguration) -> SearchConfiguration:
    """The search whose evaluator is the score's, without objectives, limits and pruning."""
    return SearchConfiguration(
        search.space,
        PartConfiguration("random"),
        (score,),
        search.task,
        load=search.load,
    )


def missing(
    scores: Mapping[str, SearchConfiguration], runs: Rows, known: Rows, machine: tuple[str, int]
) -> Iterator[Scoring]:
    """What is to be scored: every architecture of a seed once, for the runs that lack the score."""
    have = Counter((row["searcher"], int(row["seed"]), row["score"]) for row in known)
    for label, search in scores.items():
        whole = len(SPLITS) * len(_metrics(search))  # fewer rows: a kill cut the writing short
        wanted: dict[tuple[int, str], list[tuple[str, int]]] = {}
        for row in runs:
            key = row["searcher"], int(row["seed"])
            if row["architecture"] and have[*key, label] < whole:
                wanted.setdefault((key[1], row["architecture"]), []).append(key)
        for (_, architecture), found_by in wanted.items():
            yield Scoring(label, search, architecture, tuple(found_by), *machine)


def last(rows: Rows, runs: Rows, labels: Sequence[str]) -> list[dict[str, Any]]:  # Any: CSV cells
    """The rows of these runs and scores in their order, the last one of each."""
    found = {tuple(row[key] for key in KEYS): dict(row) for row in rows}
    every = ((r["searcher"], r["seed"], label) for r in runs for label in labels)
    places = {key: number for number, key in enumerate(every)}
    kept = [row for key, row in found.items() if key[:3] in places]
    return sorted(kept, key=lambda row: places[row["searcher"], row["seed"], row["score"]])


def _scored(scoring: Scoring) -> dict[tuple[str, str], float]:
    made = _made(json.dumps(plain(scoring.search.tables())))
    problem, evaluator = made.problem, made.evaluator
    architecture = problem.space.parse(scoring.architecture)
    seed = scoring.runs[0][1]
    context = Context(seed, device=scoring.device, threads=scoring.threads)
    evaluation = evaluator.evaluate(problem, architecture, context)
    tested: Mapping[str, float] = {}
    if evaluation.infeasible is None:
        tested = evaluator.test(problem, architecture, evaluation.weights)
    found = {"validation": evaluation.metrics, "test": tested}
    names = _metrics(scoring.search)
    return {(split, n): found[split].get(n, math.nan) for split in SPLITS for n in names}


def _metrics(search: SearchConfiguration) -> list[str]:
    made = _made(json.dumps(plain(search.tables())))
    return [metric.name for metric in made.evaluator.metrics(made.problem)]


@cache
def _made(tables: str) -> Made:
    return config.make(SearchConfiguration.read(json.loads(tables)))
