"""RoBoT's regret on random subsets of a pool's metrics: what to expect of a pool that nobody chose.

    NASGRAM_DATA=DIR python benchmarks/robot_subsets.py pool.npz --subsets 60 --output subsets.md

Pool, table and objectives are those of `robot_nasbench201.py`; subsets are of 3 to 10 of the pool's
metrics and parameters. By each transform, beside random search: means over the data sets and seeds, and
below them the differences from ranks, over the subsets, with their 95% bootstrap intervals.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from robot_nasbench201 import BUDGET, DATA, TRANSFORMS, Question, Table, read_pool

from evaluators.datasets import located
from nas.pool import Pool
from nas.statistics import mean
from nas.task import Metric


def subsets(pool: Pool, table: Table, count: int, seeds: int) -> str:
    """Mean regrets over the data sets, for random subsets of metrics; a row each, and over all."""
    params = {"params": table.values("c10_params_m", pool.texts)}
    columns = {**{n: c for n, c in pool.columns.items() if not pool.metrics[n].resource}, **params}
    metrics = {**pool.metrics, "params": Metric("params", "", "maximize")}
    rng, lines, regrets = np.random.default_rng(0), [], []
    for _ in range(count):
        size = int(rng.integers(3, min(10, len(columns)) + 1))
        names = [str(name) for name in rng.choice(list(columns), size, replace=False)]
        part = replace(
            pool, columns={n: columns[n] for n in names}, metrics={n: metrics[n] for n in names}
        )
        found = []
        with TemporaryDirectory() as folder:
            part.write(Path(folder) / "pool.npz")
            for data, prefix in DATA.items():
                objective = f"{prefix}_val12"
                values = table.values(objective, pool.texts)
                question = Question(data, objective, part, values, params["params"])
                for seed in range(seeds):
                    runs = [
                        question.robot(Path(folder) / "pool.npz", "RoBoT", seed, transform=transform)
                        for transform in TRANSFORMS
                    ]
                    drawn = rng.choice(len(pool), BUDGET, replace=False).tolist()
                    runs.append(question.chosen("random", seed, drawn))
                    found.append([run.regret for run in runs])
        regrets.append(np.mean(found, axis=0))
        lines.append(row(", ".join(names), regrets[-1]))
        print(lines[-1], flush=True)
    for said, of in (("mean", np.mean), ("median", np.median)):
        lines.append(row(said, of(regrets, axis=0)))
    for i, said in enumerate([*TRANSFORMS[1:], "random"], 1):
        away = mean([r[i] - r[0] for r in regrets])
        lines.append(f"\n{said} minus rank: {away.value:.2f} [{away.low:.2f}, {away.high:.2f}]")
    head = [
        f"Regrets of {BUDGET} evaluations in points, means over the data sets and {seeds} seeds.\n",
        f"| metrics | {' | '.join(f'RoBoT, {t}' for t in TRANSFORMS)} | random |",
        "|---|" + "---|" * (1 + len(TRANSFORMS)),
    ]
    return "\n".join([*head, *lines]) + "\n"


def row(name: str, values: np.ndarray) -> str:
    return f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pool", help="a pool's file, or: table, subset")
    parser.add_argument("--subsets", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folded", action="store_true", help="search the representatives alone")
    parser.add_argument("--output", type=Path, required=True, help="a report, .md")
    given = parser.parse_args()
    table = Table(located("nasbench201").parent)
    pool = read_pool(given.pool, table, folded=given.folded)
    text = subsets(pool, table, given.subsets, given.seeds)
    given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
