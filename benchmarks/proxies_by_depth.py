"""Zero-cost proxies of one sample of NAS-Bench-201's classes in two skeletons, against the table.

    NASGRAM_DATA=DIR python benchmarks/proxies_by_depth.py deep.npz shallow.npz --again six.npz

Pools are files of `nas score`; the classes of `deep` are looked up in `shallow`, whatever cell stands
for them there. With --again, how far a pool of the same setup that was scored elsewhere agrees with
`deep` on the cells that both hold: the median and the largest relative difference of each metric.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from evaluators.datasets import located
from nas import registry
from nas.correlation import correlations
from nas.pool import Pool
from nas.statistics import Estimate
from nas.truth import column

DATA = {"c10": "CIFAR-10", "c100": "CIFAR-100", "im16": "ImageNet16-120"}
SMALLEST = 1e-12


def in_classes(shallow: Pool, deep: Pool) -> np.ndarray:
    """The rows of the shallow pool that stand for the deep one's classes."""
    space = registry.make("space", "nasbench201")
    classes = space.classes("benchmark")
    rows = {classes(space.parse(text)): row for row, text in enumerate(shallow.texts)}
    return np.array([rows[classes(space.parse(text))] for text in deep.texts])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    known = np.isfinite(x) & np.isfinite(y)
    return float(spearmanr(x[known], y[known])[0])


def said(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def table(deep: Pool, shallow: Pool) -> list[str]:
    """A row for each metric, the most correlated with CIFAR-10's accuracy first."""
    truths = {p: column(deep, f"nasbench201:{p}_test200", located) for p in DATA}
    found = {
        p: {c.metric: c for c in correlations(deep.columns, truth, deep.column("params"))}
        for p, truth in truths.items()
    }
    rows = in_classes(shallow, deep)
    lines = []
    for name in sorted(deep.columns, key=lambda n: -found["c10"][n].spearman.value):
        other = shallow.column(name)[rows]
        cells = [said(found[p][name].spearman) for p in DATA]
        cells.append(f"{correlation(other, truths['c10']):.3f}")
        cells.append(f"{correlation(other, deep.column(name)):.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {found['c10'][name].missing} |")
    heads = [f"Spearman {DATA['c10']}", *list(DATA.values())[1:]]
    heads += ["the same cells, shallow, CIFAR-10", "Spearman with its value there", "missing"]
    return [f"| metric | {' | '.join(heads)} |", "|---" * (2 + len(cells)) + "|", *lines]


def agreement(deep: Pool, again: Pool) -> list[str]:
    """How far two pools agree, a line for each metric of both."""
    shared = [text for text in deep.texts if text in again.rows]
    lines = [f"{len(shared):,} cells in both:"]
    for name in deep.columns:
        if name in again.columns:
            x = again.column(name)[[again.rows[text] for text in shared]]
            y = deep.column(name)[[deep.rows[text] for text in shared]]
            away = np.abs(x - y) / np.maximum(np.abs(y), SMALLEST)
            lines.append(f"{name}: median {np.nanmedian(away):.1e}, largest {np.nanmax(away):.1e}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("deep", type=Path)
    parser.add_argument("shallow", type=Path)
    parser.add_argument("--again", type=Path)
    given = parser.parse_args()
    deep = Pool.read(given.deep)
    print("\n".join(table(deep, Pool.read(given.shallow))))
    if given.again:
        print("\n".join(["", *agreement(deep, Pool.read(given.again))]))


if __name__ == "__main__":
    main()
