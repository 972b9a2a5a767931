"""Training-free scores of recurrent cells against the losses that they were trained to.

    NASGRAM_DATA=/path/to/data python benchmarks/recurrent_hidden_covariance.py --output scores.csv

The cells are the published recipes of NAS-Bench-NLP's runs on WikiText-2 (nasbench_nlp_wikitext2_curves
of fmsnew/nas-bench-nlp-release, 345 runs with validation losses); those that ended all their 50 epochs
count, by the validation loss of the last one. Each recipe is built by `recurrent_cell` in three layers,
tied, and scored untrained on one batch of 10 windows of 70 characters of Tiny Shakespeare, since
WikiText-2 is not at hand: the published networks took 33,278 words, 400 features and 600 hidden ones.

A column's ranks among the runs are averaged over the seeds of weights and batch, and correlated with
minus the loss; "seeds" are the correlations of single ones. A score that is missing counts as the
worst. Intervals: bootstrap over different recipes, 95%, since some were trained several times. Given
params: partial, of ranks. With --reuse the scores are read from --output, where a run left them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from evaluators.datasets import places
from evaluators.tasks.tinyshakespeare import tinyshakespeare
from evaluators.zero_cost.evaluator import ZeroCost
from nas.evaluation import Context
from nas.language import Windows
from nas.problem import Objective, Problem
from search_spaces.recurrent_cell import recurrent_cell

FILE = "nlp_nas_tables/nasbench_nlp_wikitext2_curves.json.gz"
EPOCHS = 50
LENGTH = 70
BATCH = 10
LAYERS = 3
PROXIES = (
    *("hidden_covariance", "jacob_cov", "jacob_cosine", "activation_distance"),
    *("hidden_saliency", "synaptic_saliency", "grad_norm"),
)
Values = NDArray[np.float64]
Statistic = Callable[[Values, Values, Values], float]


@dataclass(frozen=True)
class Run:
    """A published run: its cell, the number of the first run of that cell, its parameters, and its last
    validation loss in nats a word."""

    recipe: str
    recipe_id: str
    params: float
    loss: float


def runs() -> tuple[list[Run], int]:
    """The runs that ended all their epochs, and how many runs there are."""
    for folder in places("tinyshakespeare"):
        file = folder / FILE
        if file.is_file():
            break
    else:
        raise SystemExit(f"there is no {FILE} in $NASGRAM_DATA")
    with gzip.open(file, "rt") as stream:
        given = json.load(stream)
    ended = [r for r in given if len(r["val_losses"]) == EPOCHS and math.isfinite(r["val_losses"][-1])]
    ids: dict[str, str] = {}
    for run in ended:
        ids.setdefault(run["recepie"], str(run["recepie_id"]))
    found = [Run(r["recepie"], ids[r["recepie"]], r["num_params"], r["val_losses"][-1]) for r in ended]
    return found, len(given)


def scores(recipes: Mapping[str, str], seeds: int, features: int) -> list[dict[str, str | float]]:
    """A row for each recipe (by its number) and seed; a score that there is none of is left out."""
    task = tinyshakespeare(windows=Windows(context=LENGTH))
    space = recurrent_cell(features=features, hidden=features, num_layers=LAYERS, tied=True)
    problem = Problem(space, (Objective("hidden_covariance_first", "maximize"),), task)
    evaluator = ZeroCost(PROXIES, batch_size=BATCH)
    rows: list[dict[str, str | float]] = []
    for recipe_id, recipe in recipes.items():
        architecture = problem.space.parse(recipe)
        for seed in range(seeds):
            found = evaluator.evaluate(problem, architecture, Context(number=0, seed=seed))
            values = {name: float(f"{value:.9g}") for name, value in found.metrics.items()}
            rows.append({"recipe": recipe_id, "seed": seed, **values})
            for name, why in found.missing.items():
                print(f"no {name} of {recipe_id}: {why}", flush=True)
    return rows


def columns(rows: Sequence[Mapping[str, str | float]], given: Sequence[Run]) -> dict[str, Values]:
    """For each metric its values (seeds, runs), NaN where there is none."""
    seeds = sorted({int(row["seed"]) for row in rows})
    by_key = {(row["recipe"], int(row["seed"])): row for row in rows}
    names = dict.fromkeys(n for row in rows for n in row if n not in ("recipe", "seed"))
    return {
        name: np.array([[_number(by_key[r.recipe_id, s].get(name, "")) for r in given] for s in seeds])
        for name in names
    }


def _number(told: str | float) -> float:
    return math.nan if told == "" else float(told)


def mean_ranks(column: Values) -> Values:
    """The mean over seeds of a column's ranks (seeds, runs), what is missing below all else."""
    found: Values = rankdata(np.nan_to_num(column, nan=-np.inf), axis=1).mean(axis=0)
    return found


def spearman(x: Values, y: Values, control: Values) -> float:
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def kendall(x: Values, y: Values, control: Values) -> float:
    return float(kendalltau(x, y).statistic)


def partial(x: Values, y: Values, control: Values) -> float:
    """Spearman's, of what is left of the ranks after those of the control."""
    xy, xz, yz = np.corrcoef([rankdata(v) for v in (x, y, control)])[np.triu_indices(3, 1)]
    rest = (1 - xz**2) * (1 - yz**2)
    return float((xy - xz * yz) / math.sqrt(rest)) if rest > 1e-9 else math.nan


def interval(statistic: Statistic, data: Values, groups: Sequence[str], resamples: int) -> str:
    """The statistic of rows (n, 3) with its percentile interval, whole groups drawn at a time."""
    value = statistic(*data.T)
    if not math.isfinite(value):
        return "-"
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    lists = [np.array(m) for m in members.values()]
    draw = np.random.default_rng(0)
    drawn = []
    for _ in range(resamples):
        picked = np.concatenate([lists[i] for i in draw.integers(0, len(lists), len(lists))])
        drawn.append(statistic(*data[picked].T))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def report(found: Mapping[str, Values], given: Sequence[Run], resamples: int) -> None:
    """A line for each column, parameters beside."""
    better = -np.array([run.loss for run in given])
    params = np.array([run.params for run in given])
    recipes = [run.recipe for run in given]
    nodes = np.array([len(json.loads(recipe)) for recipe in recipes], float)
    print()
    print("| score | missing | Spearman | Kendall | Spearman given params | seeds |")
    print("|---|---|---|---|---|---|")
    for name, column in (found | {"params (the table's)": params[None], "nodes": nodes[None]}).items():
        data = np.stack([mean_ranks(column), better, params], axis=1)
        said = [interval(s, data, recipes, resamples) for s in (spearman, kendall, partial)]
        single = [spearman(mean_ranks(row[None]), better, params) for row in column]
        seeds = ", ".join(f"{value:.3f}" for value in single) if len(single) > 1 else ""
        missing = int(np.isnan(column).any(axis=0).sum())
        print(f"| {name} | {missing} | {' | '.join(said)} | {seeds} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--recipes", type=int, default=None, help="the first so many alone")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--output", type=Path, required=True, help="a CSV of all scores")
    parser.add_argument("--reuse", action="store_true", help="read the scores, do not compute them")
    told = parser.parse_args()
    torch.set_num_threads(1)
    given, num_runs = runs()
    recipes = dict(list({run.recipe_id: run.recipe for run in given}.items())[: told.recipes])
    given = [run for run in given if run.recipe_id in recipes]
    print(f"{num_runs} runs, {len(given)} ended, {len(recipes)} different recipes; {told.seeds} seeds")
    if not told.reuse:
        _write(told.output, recipes, told.seeds, told.features)
    with told.output.open(newline="") as stream:
        report(columns(list(csv.DictReader(stream)), given), given, told.resamples)


def _write(path: Path, recipes: Mapping[str, str], seeds: int, features: int) -> None:
    began = time.process_time()
    rows = scores(recipes, seeds, features)
    seconds = time.process_time() - began
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{seconds:.0f} CPU seconds for {len(rows)} scorings, {seconds / len(rows):.2f} each")


if __name__ == "__main__":
    main()
