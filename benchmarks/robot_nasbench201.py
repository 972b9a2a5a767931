"""RoBoT with 20 evaluations on NAS-Bench-201's table, over a pool of any metrics, with ablations.

    nas score --space nasbench201 --fold benchmark --evaluator complexity -o pool.npz
    NASGRAM_DATA=DIR python benchmarks/robot_nasbench201.py pool.npz --name pool

The table is looked for as `nas data nasbench201` does. POOL is a file of `nas score`, folded or not; a
folded one is unfolded, with parameters and the like counted anew, unless --folded is given: cells of
one class have equal scores then, and evaluations are spent on several of them. `table` and `subset` in
its place are pools of what the published tables hold: two first-version proxies beside parameters and
FLOPs for all cells, and twelve proxies for 725 cells.

Each data set is searched by its own validation accuracy after 12 epochs, and the published way by
CIFAR-10's for all three. What is reported is the chosen cell's rank and regret by the objective and
its test accuracy after 200 epochs, against a perfect optimizer of the same objective within the pool
(the mean of those that are equal), random search, evolution, the best 20 by each metric alone, by
parameters, and by all metrics together. Some minutes for 100 seeds. `robot_subsets.py` asks what to
expect of a pool that nobody chose.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.stats import rankdata

from evaluators.datasets import located
from nas import registry
from nas.evaluation import Context
from nas.pool import Pool
from nas.pool_source import Source
from nas.problem import Objective, Problem
from nas.ranking import descending, log_rank_sum, normalised, precision_at
from nas.scoring import unfolded
from nas.searcher import Searcher
from nas.searchers.regularized_evolution import RegularizedEvolution
from nas.searchers.robot import Robot
from nas.statistics import mean
from nas.task import Metric
from nas.trial import History, Trial

BUDGET = 20
DRAWN = 5000  # repeats of random search
DATA = {"CIFAR-10": "c10", "CIFAR-100": "c100", "ImageNet16-120": "im16"}
FAILED = -1e5  # at and below: published scores of networks that could not be scored
COLUMNS = {"jacov_b256": "jacov", "zen_c10": "zen", "c10_params_m": "params", "c10_flops_m": "flops"}
TRANSFORMS = ("rank", "minmax", "log")
BETTER = Objective("score", "maximize")


@dataclass(frozen=True)
class Table:
    """The published table by our own texts."""

    folder: Path

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "nb201.npz") as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def texts(self) -> list[str]:
        read = registry.make("space", "nasbench201").notation.read
        return [read(str(text)) for text in self.arrays["arch_str"]]

    @cached_property
    def rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts)}

    def values(self, column: str, texts: Sequence[str]) -> np.ndarray:
        rows = [self.rows[text] for text in texts]
        return self.arrays[column][rows].astype(float)


def read_pool(name: str, table: Table, *, folded: bool) -> Pool:
    if name == "table":
        columns = {new: table.arrays[old].astype(float) for old, new in COLUMNS.items()}
        return made(table.texts, columns)
    if name == "subset":
        with np.load(table.folder / "nb201_zero_cost_subset.npz") as file:
            texts = [table.texts[row] for row in file["zc_c10_index"]]
            names = map(str, file["proxies"])
            return made(texts, dict(zip(names, file["zc_c10_scores"].T, strict=True)))
    pool = Pool.read(Path(name))
    is_whole = folded or not pool.description.get("fold")
    return pool if is_whole else unfolded_and_counted(pool)


def made(texts: Sequence[str], columns: dict[str, np.ndarray]) -> Pool:
    kept = {name: np.where(values <= FAILED, np.nan, values) for name, values in columns.items()}
    metrics = {name: Metric(name, "", "maximize") for name in kept}
    zeros = np.zeros(len(texts))
    return Pool(tuple(texts), kept, metrics, {}, zeros, zeros, zeros)


def unfolded_and_counted(pool: Pool) -> Pool:
    """The pool of all cells; what belongs to a cell and not to its class is counted for each."""
    space = registry.make("space", "nasbench201")
    whole = unfolded(pool, Problem(space, (BETTER,)))
    counts = [space.complexity(space.parse(text)).metrics() for text in whole.texts]
    own = {n: np.array([row[n] for row in counts]) for n in counts[0] if n in whole.columns}
    return replace(whole, columns={**whole.columns, **own})


def run(searcher: Searcher, scores: dict[str, float], seed: int) -> list[Trial]:
    """The trials of a searcher, which sees the scores of what it proposes."""
    problem = Problem(registry.make("space", "nasbench201"), (BETTER,))
    history, spent, number = History(), set(), 0
    while len(spent) < BUDGET:
        proposal = searcher.propose(problem, history, Context(seed=seed, number=number))
        if proposal is None:
            break
        text = str(proposal.architecture)
        spent.add(text)
        metrics = {"score": scores[text]}
        history.add(Trial(number, proposal.architecture, metrics, notes=proposal.notes))
        number += 1
    return history.trials


@dataclass(frozen=True)
class Chosen:
    """What a run chose on a data set."""

    data: str
    objective: str
    method: str
    seed: int
    row: int
    rank: int
    regret: float
    explored: int = 0
    precision: float = float("nan")


@dataclass(frozen=True)
class Question:
    """A pool, an objective (rows,) and the parameters of the network that was trained (rows,)."""

    data: str
    objective: str
    pool: Pool
    values: np.ndarray
    params: np.ndarray

    @cached_property
    def ranks(self) -> np.ndarray:
        return rankdata(-self.values, method="min").astype(int)

    @cached_property
    def matrix(self) -> np.ndarray:
        return self.pool.matrix(list(self.pool.columns))

    def chosen(self, method: str, seed: int, rows: Sequence[int], **more: float) -> Chosen:
        """The best of some rows by the objective, the first of equals."""
        row = max(rows, key=lambda r: self.values[r])
        regret = float(self.values.max() - self.values[row])
        return Chosen(
            self.data, self.objective, method, seed, row, int(self.ranks[row]), regret, **more
        )

    def robot(self, file: Path, name: str, seed: int, **settings: Any) -> Chosen:
        """RoBoT's choice."""
        scores = dict(zip(self.pool.texts, self.values.tolist(), strict=True))
        searcher = Robot(Source(file), BUDGET, **settings)
        trials = run(searcher, scores, seed)
        rows = [self.pool.rows[str(t.architecture)] for t in trials]
        explored = [r for r, t in zip(rows, trials, strict=True) if t.notes["phase"] == "exploration"]
        weights = np.array(list(trials[-1].notes["weights"].values()))
        learned = normalised(self.matrix, searcher.transform) @ weights
        precision = precision_at(learned, self.values, BUDGET)
        return self.chosen(name, seed, rows, explored=len(explored), precision=precision)

    def evolution(self, scores: dict[str, float], seed: int) -> Chosen:
        trials = run(RegularizedEvolution(7, 3), scores, seed)
        best = max(trials, key=lambda t: t.metrics["score"])
        return self.chosen("evolution (7, 3)", seed, [self.pool.rows[str(best.architecture)]])

    def rankings(self) -> Iterator[Chosen]:
        """The best 20 of each metric, up and down, and of all ranks together."""
        for name, column in {**self.pool.columns, "params": self.params}.items():
            for sign, said in ((1, "most"), (-1, "least")):
                order = descending(np.where(np.isfinite(column), sign * column, -np.inf))
                scores = np.where(np.isfinite(column), sign * column, np.nanmin(sign * column) - 1)
                precision = precision_at(scores, self.values, BUDGET)
                rows = order[:BUDGET].tolist()
                yield self.chosen(f"{said} {name}", 0, rows, precision=precision)
        together = log_rank_sum(self.matrix)
        precision = precision_at(together, self.values, BUDGET)
        rows = descending(together)[:BUDGET].tolist()
        yield self.chosen("all ranks together", 0, rows, precision=precision)

    def random(self) -> Iterator[Chosen]:
        rng = np.random.default_rng(0)
        for seed in range(DRAWN):
            drawn = rng.choice(len(self.pool), BUDGET, replace=False).tolist()
            yield self.chosen("random", seed, drawn)

    def answers(self, file: Path, seeds: int) -> Iterator[Chosen]:
        for seed, row in enumerate(np.flatnonzero(self.values == self.values.max()).tolist()):
            yield self.chosen("perfect optimizer", seed, [row])
        scores = dict(zip(self.pool.texts, self.values.tolist(), strict=True))
        for seed in range(seeds):
            yield self.robot(file, "RoBoT", seed)
            yield self.robot(file, "RoBoT, no exploitation", seed, exploration=1.0)
            for transform in ("minmax", "log"):
                yield self.robot(file, f"RoBoT, {transform}", seed, transform=transform)
            if len(self.pool) == len(registry_texts()):
                yield self.evolution(scores, seed)
        yield from self.random()
        yield from self.rankings()


def registry_texts() -> range:
    return range(int(registry.make("space", "nasbench201").size()))


def report(name: str, pool: Pool, found: Sequence[Chosen], table: Table, seconds: float) -> str:
    num_seeds = 1 + max(c.seed for c in found if c.method == "RoBoT")
    lines = [
        f"# RoBoT on NAS-Bench-201's table: pool `{name}`",
        "",
        f"{len(pool):,} cells; metrics: {', '.join(pool.columns)}. {BUDGET} evaluations a run; RoBoT "
        f"and evolution over {num_seeds} seeds, random search over {DRAWN:,}. {seconds:,.0f} s in all.",
        "",
        "Rank and regret are by the objective within the pool (regret in % points of validation "
        "accuracy); test accuracies in % after 200 epochs: mean over seeds, its 95% bootstrap "
        "interval, and the standard deviation. Precision: the share of the 20 best by the mix or the "
        "metric that is among the 20 best by the objective. Of metrics alone (most or least of each) "
        "the three best in hindsight are shown, and parameters.",
    ]
    for data, prefix in DATA.items():
        lines += ["", *section(data, f"{prefix}_val12", [prefix], pool, found, table)]
    lines += ["", *section("CIFAR-10", "c10_val12", list(DATA.values()), pool, found, table)]
    return "\n".join(lines) + "\n"


def section(
    data: str, objective: str, tests: list[str], pool: Pool, found: Sequence[Chosen], table: Table
) -> list[str]:
    own = [c for c in found if c.objective == objective]
    columns = [table.values(f"{t}_test200", pool.texts) for t in tests]
    published = len(tests) > 1
    title = "CIFAR-10's objective for all data sets, as published" if published else data
    names = [n for n, p in DATA.items() if p in tests]
    heads = [
        "method",
        "rank, mean (median)",
        "regret",
        *(f"test {n}" for n in names),
        "explored",
        "precision",
    ]
    lines = [f"## {title}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for method in methods(own):
        runs = [c for c in own if c.method == method]
        ranks, rows = [c.rank for c in runs], [c.row for c in runs]
        cells = [
            method,
            f"{np.mean(ranks):.1f} ({np.median(ranks):.0f})",
            spread([c.regret for c in runs]),
            *(spread(column[rows].tolist()) for column in columns),
            f"{np.mean([c.explored for c in runs]):.1f}" if runs[0].explored else "",
            "" if np.isnan(runs[0].precision) else f"{np.mean([c.precision for c in runs]):.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def methods(own: Sequence[Chosen]) -> list[str]:
    """The methods to show; of metrics alone the three best in hindsight, and parameters."""
    singles = sorted(
        (c for c in own if c.method.startswith(("most ", "least "))), key=lambda c: c.regret
    )
    shown = {c.method for c in singles[:3]} | {"most params"}
    every = dict.fromkeys(c.method for c in own)
    return [m for m in every if not m.startswith(("most ", "least ")) or m in shown]


def spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    estimate = mean(values) if len(values) <= 1000 else None
    interval = f" [{estimate.low:.2f}, {estimate.high:.2f}]" if estimate else ""
    return f"{np.mean(values):.2f}{interval} ± {np.std(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pool", help="a pool's file, or: table, subset")
    parser.add_argument("--name", help="of the folder of results; default: the pool's")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--metrics", nargs="*", help="of the pool; default: all but resources")
    parser.add_argument("--folded", action="store_true", help="search the representatives alone")
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks/robot_nasbench201"))
    given = parser.parse_args()
    began = time.monotonic()
    table = Table(located("nasbench201").parent)
    pool = read_pool(given.pool, table, folded=given.folded)
    output = given.results / (given.name or Path(given.pool).stem)
    output.mkdir(parents=True, exist_ok=True)
    names = given.metrics or [n for n, m in pool.metrics.items() if not m.resource]
    pool = replace(
        pool,
        columns={n: pool.column(n) for n in names},
        metrics={n: pool.metrics[n] for n in names},
    )
    found: list[Chosen] = []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pool.npz"
        pool.write(file)
        for data, prefix in DATA.items():
            objective = f"{prefix}_val12"
            values, params = (table.values(c, pool.texts) for c in (objective, "c10_params_m"))
            question = Question(data, objective, pool, values, params)
            found += question.answers(file, given.seeds)
    text = report(output.name, pool, found, table, time.monotonic() - began)
    (output / "report.md").write_text(text, encoding="utf-8")
    with (output / "runs.csv").open("w", newline="", encoding="utf-8") as csv_file:
        writer = csv.DictWriter(csv_file, [*vars(found[0]), "architecture"])
        writer.writeheader()
        for c in found:
            if c.method != "random":
                writer.writerow({**vars(c), "architecture": pool.texts[c.row]})
    print(text)


if __name__ == "__main__":
    main()
