"""Training-free scores of FlexiBERT's encoders against the GLUE scores that they were trained to.

    NASGRAM_DATA=/path/to/data python benchmarks/transformer_glue.py --output scores.csv

The encoders are the 500 published ones of aaronserianni/training-free-nas (pretrained in 100,000 steps,
then GLUE: the mean over its tasks). Each is built by `transformer` and scored untrained on one batch of
32 windows of 64 characters of Tiny Shakespeare, the next character being the class: OpenWebText and a
vocabulary of words are not at hand. Published scores took 128 texts of OpenWebText.

Parameters are counted here, with 65 characters in the place of 30,522 word pieces, and beside them the
layers, whose number explains most of many a score. "within" is the mean of Spearman's over the four
classes of equal width and depth. Intervals: bootstrap over encoders, 95%. A score that is missing is
left out. With --reuse the scores are read from --output, where a run left them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from evaluators.datasets import places
from evaluators.tasks.tinyshakespeare import tinyshakespeare
from evaluators.zero_cost.evaluator import ZeroCost
from nas import registry
from nas.correlation import correlations
from nas.evaluation import Context
from nas.language import Windows
from nas.problem import Objective, Problem
from nas.space import Signature
from nas.statistics import Estimate
from nas.task import Split, Task

FILE = "nlp_nas_tables/flexibert_500.json.gz"
LENGTH, BATCH = 64, 32
PROXIES = (
    *("head_confidence", "head_confidence(normalized=true)"),
    *("softmax_confidence", "softmax_confidence(normalized=true)"),
    *("head_importance", "head_importance(normalized=true)"),
    *("feed_forward_distance", "feed_forward_distance(normalized=true)"),
    *("feed_forward_saliency", "feed_forward_saliency(normalized=true)"),
    *("synaptic_diversity", "synaptic_diversity(normalized=true)"),
    *("jacob_cov", "grad_norm", "synflow", "zico", "l2_norm"),
)
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Encoder:
    """A published encoder: its recipe, its mean GLUE score, and its width and depth."""

    recipe: str
    glue: float
    size: tuple[int, int]


def encoders() -> list[Encoder]:
    for folder in places("tinyshakespeare"):
        if (folder / FILE).is_file():
            break
    else:
        raise SystemExit(f"there is no {FILE} in $NASGRAM_DATA")
    with gzip.open(folder / FILE, "rt") as stream:
        given = json.load(stream)
    recipes = [row["hparams"]["model_hparam_overrides"] for row in given]
    return [
        Encoder(
            json.dumps(recipe),
            float(row["scores"]["glue"]),
            (recipe["hidden_size"], len(recipe["nas_config"]["encoder_layers"])),
        )
        for row, recipe in zip(given, recipes, strict=True)
    ]


def next_character() -> Task:
    """Tiny Shakespeare with one output: the character after each window."""
    task = tinyshakespeare(windows=Windows(context=LENGTH))
    characters = task.signature.vocabulary
    assert characters is not None

    def last(split: Split) -> Split:
        return Split(split.inputs, split.targets[:, -1])

    def loss(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    return replace(
        task,
        train=last(task.train),
        valid=last(task.valid),
        test=last(task.test),
        signature=Signature((LENGTH,), (characters,), characters),
        loss=loss,
    )


def scores(given: Sequence[Encoder], seeds: int) -> list[dict[str, Any]]:  # Any: numbers
    """A row for each encoder and seed; a score that there is none of is left out."""
    problem = Problem(
        registry.make("space", "transformer"), (Objective("grad_norm", "maximize"),), next_character()
    )
    evaluator = ZeroCost(PROXIES, batch_size=BATCH)
    notation = problem.space.notation
    assert notation is not None
    rows = []
    for number, encoder in enumerate(given):
        text = notation.read(encoder.recipe)
        assert text is not None
        architecture = problem.space.parse(text)
        params = problem.space.complexity(architecture).metrics()["params"]
        for seed in range(seeds):
            found = evaluator.evaluate(problem, architecture, Context(number=0, seed=seed))
            values = {name: float(f"{value:.9g}") for name, value in found.metrics.items()}
            rows.append({"encoder": number, "seed": seed, "params": params, **values})
            for name, why in found.missing.items():
                print(f"no {name} of {number}: {why}", flush=True)
    return rows


def columns(rows: Sequence[Mapping[str, Any]], count: int) -> dict[str, Values]:
    """For each score its mean over seeds (encoders,), NaN where a seed has none."""
    names = dict.fromkeys(n for row in rows for n in row if n not in ("encoder", "seed"))
    found = {}
    for name in names:
        told: list[list[float]] = [[] for _ in range(count)]
        for row in rows:
            told[int(row["encoder"])].append(float(row.get(name) or "nan"))
        found[name] = np.array([np.mean(values) for values in told])
    return found


def within(column: Values, glue: Values, sizes: Sequence[tuple[int, int]]) -> str:
    """The mean of Spearman's over the classes of one width and depth."""
    found = []
    for size in sorted(set(sizes)):
        rows = np.array([s == size for s in sizes]) & np.isfinite(column)
        if rows.sum() > 2 and np.ptp(column[rows]) > 0:
            found.append(spearmanr(column[rows], glue[rows]).statistic)
    return f"{np.mean(found):.3f}" if found else "-"


def report(found: dict[str, Values], given: Sequence[Encoder], resamples: int) -> None:
    glue, sizes = np.array([e.glue for e in given]), [e.size for e in given]
    found = found | {"layers": np.array([depth for _, depth in sizes], float)}
    print("\n| score | missing | Spearman | Kendall | Spearman given params | within |")
    print("|---|---|---|---|---|---|")
    every = correlations(found, glue, found["params"], resamples=resamples)
    for c in sorted(every, key=lambda c: -np.nan_to_num(c.spearman.value)):
        told = " | ".join(said(e) for e in (c.spearman, c.kendall, c.partial))
        print(f"| {c.metric} | {c.missing} | {told} | {within(found[c.metric], glue, sizes)} |")


def said(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return "-"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--encoders", type=int, default=None, help="the first so many alone")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--output", type=Path, required=True, help="a CSV of all scores")
    parser.add_argument("--reuse", action="store_true", help="read the scores, do not compute them")
    told = parser.parse_args()
    torch.set_num_threads(1)
    given = encoders()[: told.encoders]
    if not told.reuse:
        began = time.process_time()
        rows = scores(given, told.seeds)
        seconds = time.process_time() - began
        print(f"{len(given)} encoders, {told.seeds} seeds: {seconds:.0f} CPU seconds")
        with told.output.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
    with told.output.open(newline="") as stream:
        report(columns(list(csv.DictReader(stream)), len(given)), given, told.resamples)


if __name__ == "__main__":
    main()
