"""One bilevel step of DARTS on its own cell, ours in turns with the reference code: the same job.

    DARTS=/path/to/darts python benchmarks/darts_step.py [--repetitions 3] [--channels 16] [--cells 8]

DARTS is a checkout of https://github.com/quark0/darts (commit f276dd3 was used); without it, only our
own figures are measured. 8 cells, 16 channels, batches of 16, 32x32, one thread, CPU seconds: an alpha
step on a validation batch and a weight step on a training batch, first and second order, by the plain
supernet and by the fused one (`nas.fusing`). The reference needs CUDA by name only: `cuda()` is made to
do nothing. The fused one's ratios are over the others in the order in which they are named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from nas.bilevel import FirstOrder, SecondOrder, levels_of
from nas.fusing import fuse
from nas.relaxation import Draw, SoftmaxMixture
from nas.supernet import Supernet
from search_spaces.darts_cell import darts_cell
from search_spaces.operations.separable import Form

BATCH, SIZE, CLASSES = 16, 32, 10
MOMENTUM, DECAY, RATE = 0.9, 3e-4, 0.025


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
    return x, torch.randint(CLASSES, (BATCH,), generator=generator)


def ours(channels: int, cells: int, *, fused: bool) -> dict[str, Callable[[], object]]:
    supernet = Supernet(darts_cell(channels=channels, cells=cells, form=Form("search"))).train()
    if fused:
        fuse(supernet)
    sgd = torch.optim.SGD(supernet.weights(), RATE, MOMENTUM, weight_decay=DECAY)
    adam = torch.optim.Adam(supernet.alphas.parameters(), 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    levels = levels_of(supernet, sgd, adam)
    draw, criterion = Draw(torch.Generator()), nn.CrossEntropyLoss()
    batches = {"train": batch(0), "valid": batch(1)}

    def loss(name: str) -> torch.Tensor:
        SoftmaxMixture().relax(supernet, draw)
        x, y = batches[name]
        return criterion(supernet(x), y)

    def step(optimization: FirstOrder | SecondOrder) -> object:
        return optimization.step(levels, lambda: loss("train"), lambda: loss("valid"))

    return {"first order": lambda: step(FirstOrder()), "second order": lambda: step(SecondOrder())}


def reference(checkout: Path, channels: int, cells: int) -> dict[str, Callable[[], object]]:
    sys.path.insert(0, str(checkout / "cnn"))
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    from architect import Architect
    from model_search import Network

    criterion = nn.CrossEntropyLoss()
    model = Network(channels, CLASSES, cells, criterion).train()
    sgd = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    named = {"momentum": MOMENTUM, "weight_decay": DECAY}
    rates = {"arch_learning_rate": 3e-4, "arch_weight_decay": 1e-3}
    architect = Architect(model, SimpleNamespace(**named, **rates))
    train, valid = batch(0), batch(1)

    def step(*, unrolled: bool) -> None:
        architect.step(*train, *valid, RATE, sgd, unrolled=unrolled)
        sgd.zero_grad()
        criterion(model(train[0]), train[1]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        sgd.step()

    return {
        "first order": lambda: step(unrolled=False),
        "second order": lambda: step(unrolled=True),
    }


def cpu_seconds(job: Callable[[], object]) -> float:
    began = time.process_time()
    job()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sides = {
        "plain": ours(options.channels, options.cells, fused=False),
        "fused": ours(options.channels, options.cells, fused=True),
    }
    if "DARTS" in os.environ:
        found = reference(Path(os.environ["DARTS"]), options.channels, options.cells)
        sides = {"reference": found} | sides
    for order in ("first order", "second order"):
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.repetitions + 1):
            for name, jobs in sides.items():
                times[name].append(cpu_seconds(jobs[order]))
        medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
        shown = ", ".join(f"{name} {median:.2f} s" for name, median in medians.items())
        ratios = [medians[slow] / medians["fused"] for slow in medians if slow != "fused"]
        compared = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{order}: {shown}; the fused one is {compared} times faster", flush=True)


if __name__ == "__main__":
    main()
