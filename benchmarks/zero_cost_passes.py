"""What zero-cost proxies cost from shared passes, in turns with a published implementation.

    ZERO_COST_NAS=/path/to/zero-cost-nas python benchmarks/zero_cost_passes.py --rounds 5

ZERO_COST_NAS is a checkout of https://github.com/SamsungLabs/zero-cost-nas (commit a43bfbc was used);
without it, only our own figures are measured. One thread, CPU seconds; every round runs everything
once, and a figure is the median over the rounds of the ratio to that round's own pass. The network is
one cell of NAS-Bench-201 in its whole skeleton (16 channels, 5 cells a stage), inputs 64x3x32x32.

What is measured of ours includes all that `measure` does: finding what is on a path, the passes, the
values. zen and swap draw their weights anew, once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import zlib
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from evaluators.zero_cost.naming import proxy
from evaluators.zero_cost.subject import Subject
from evaluators.zero_cost.suite import measure
from nas.training import seeded
from search_spaces.nasbench201 import nasbench201

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
BATCH = 64
SUITE = (
    *("grad_norm", "snip", "plain", "fisher", "jacob_cov", "naswot", "epe_nas"),
    *(f"zen(repeats=1, batch_size={BATCH})", "zico"),
)
PEERS = ("grad_norm", "snip", "plain", "fisher", "jacob_cov")  # those of the suite that they have
SWAP = f"swap(repeats=1, batch_size={BATCH - 4})"  # its largest batch is 62


def made() -> nn.Module:
    space = nasbench201(channels=16, cells=5)
    with seeded(0):
        return space.build(space.parse(CELL))


class Ours:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(BATCH, 3, 32, 32, generator=generator)
        self.y = torch.randint(10, (BATCH,), generator=generator)
        self.network = made()
        self.signature = nasbench201().spec

    def step(self) -> None:
        """One forward and backward pass."""
        loss = cross_entropy(self.network(self.x), self.y)
        torch.autograd.grad(loss, list(self.network.parameters()))

    def forward(self) -> None:
        """One forward pass without gradients."""
        with torch.no_grad():
            self.network(self.x)

    def measure(self, *names: str) -> None:
        """A fresh subject, so that nothing is kept from one measurement to the next."""
        subject = Subject(
            self.network,
            self.x,
            self.y,
            cross_entropy,
            self.signature,
            lambda key: zlib.crc32(key.encode()),
        )
        found = measure(subject, [proxy(name) for name in names])
        assert not found.missing, found.missing


class Published:
    def __init__(self, folder: str, ours: Ours) -> None:
        sys.path.insert(0, folder)
        from foresight.pruners.predictive import find_measures

        self.find, self.network = find_measures, made()
        self.loader = [(ours.x, ours.y)]

    def measure(self, *names: str) -> None:
        self.find(self.network, self.loader, ("random", 1, 10), "cpu", measure_names=list(names))


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    ours = Ours()
    jobs: dict[str, Callable[[], object]] = {
        "step": ours.step,
        "forward": ours.forward,
        "nine in one suite": lambda: ours.measure(*SUITE),
        "grasp": lambda: ours.measure("grasp"),
        "swap": lambda: ours.measure(SWAP),
        "naswot": lambda: ours.measure("naswot"),
        "five of the nine": lambda: ours.measure(*PEERS),
    }
    folder = os.environ.get("ZERO_COST_NAS")
    if folder:
        published = Published(folder, ours)
        jobs["published: those five"] = lambda: published.measure(*PEERS)
        jobs["published: grasp"] = lambda: published.measure("grasp")
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            spent = seconds(job)
            if turn:  # the first round warms up
                times[name].append(spent)
    for name, spent in times.items():
        by_step, by_forward = (
            statistics.median(a / b for a, b in zip(spent, times[base], strict=True))
            for base in ("step", "forward")
        )
        median = statistics.median(spent)
        print(f"{name:22} {median:7.3f} s  {by_step:5.2f} steps  {by_forward:5.2f} forward passes")


if __name__ == "__main__":
    main()
