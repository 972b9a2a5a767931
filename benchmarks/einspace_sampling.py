"""Drawing, mutating and building architectures of einspace, in turns with the published code.

    EINSPACE=/path/to/einspace python benchmarks/einspace_sampling.py

EINSPACE is a checkout of https://github.com/linusericsson/einspace (commit d6b84fe was used), whose
imports (einops, positional-encodings, psutil, seaborn, sympy, scipy) must be installed; without it,
only our own figures are measured. One thread, CPU seconds.

Both sides draw at p(C) = 0.32 for 3x32x32, ours with at most 200 nodes and 5,000 instances. The
published sampler has no such limits: it is begun anew after 2,000 nodes, wasted ones included, or 20
seconds, and where it drew more than 200 nodes, which makes it faster. Its messages are not printed.
What Python holds when all is imported is frozen, so that collecting garbage does not walk through it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import torch

from nas.architecture import Architecture
from nas.variation import mutate, sample
from search_spaces.einspace import einspace

SHAPE = (3, 32, 32)
MAX_NODES, MAX_INSTANCES = 200, 5000
LONGEST_SECONDS = 20.0
SEEDS = {  # by name, the published dictionaries
    "resnet18": "einspace_resnet18_no_maxpool_architecture_dict",
    "wide_resnet16_4": "einspace_wideresnet16_4_architecture_dict",
    "transformer": "einspace_transformer_d4_architecture_dict",
    "mlp_mixer": "einspace_mlp_mixer_architecture_dict",
}


class Ours:
    def __init__(self) -> None:
        self.space = einspace(max_nodes=MAX_NODES, max_instances=MAX_INSTANCES)
        self.rng = random.Random(0)
        self.seeds = {name: self.space.parse(name) for name in SEEDS}
        self.unlimited = einspace(max_nodes=1000)  # a seed has more nodes than are drawn

    def draw(self) -> int:
        """The size of an architecture that was drawn, in the paper's count of nodes."""
        return size(sample(self.space, self.rng))

    def mutate(self, name: str) -> None:
        mutate(self.unlimited, self.seeds[name], self.rng)

    def build(self, name: str) -> None:
        self.space.build(self.seeds[name])


def size(architecture: Architecture) -> int:
    return sum(node.rule not in ("network", "each") for _, node in architecture.nodes())


class TooLarge(Exception):
    pass


class Published:
    def __init__(self, checkout: Path) -> None:
        sys.path.insert(0, str(checkout))
        from einspace import seed_architectures
        from einspace.compiler import Compiler
        from einspace.search_spaces import EinSpace

        class Limited(EinSpace):  # type: ignore[misc]
            left = 0
            until = 0.0

            def instantiate_fn(self, *args: object, **kwargs: object) -> object:
                self.left -= 1
                if self.left < 0 or time.process_time() > self.until:
                    raise TooLarge
                return super().instantiate_fn(*args, **kwargs)

        self.limited = Limited((1, *SHAPE), "im")
        self.space = EinSpace((1, *SHAPE), "im")
        self.compiler = Compiler()
        self.seeds = {}
        for name, published in SEEDS.items():
            self.space.start_time = time.time()
            seed = getattr(seed_architectures, published)
            self.seeds[name] = self.space.recurse_state(seed, (1, *SHAPE))

    def draw(self) -> int:
        while True:
            self.limited.left = 10 * MAX_NODES
            self.limited.until = time.process_time() + LONGEST_SECONDS
            self.limited.start_time = time.time()
            try:
                drawn = self.limited.recurse_sample(None, "network", (1, *SHAPE), None, "im", None)
            except TooLarge:
                continue
            if nodes(drawn) <= MAX_NODES:
                return nodes(drawn)

    def mutate(self, name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.space.mutate(self.seeds[name])

    def build(self, name: str) -> None:
        self.compiler.compile(self.seeds[name])


def nodes(tree: dict) -> int:  # type: ignore[type-arg]
    """Nodes of a published dictionary, one of equal branches counted as in ours."""
    count = 1
    for child in tree.get("children", {}).values():
        if isinstance(child, list):
            count += sum(map(nodes, child[: 2 if len(child) == 2 else 1]))
        else:
            count += nodes(child)
    return count


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def draws(side: Ours | Published, for_seconds: float) -> Iterator[tuple[float, int]]:
    """(CPU seconds, nodes) of draws until the time is over; the one that runs is finished."""
    spent = 0.0
    while spent < for_seconds:
        began = time.process_time()
        drawn = side.draw()
        taken = time.process_time() - began
        spent += taken
        yield taken, drawn


def report_draws(name: str, rows: list[tuple[float, int]]) -> float:
    times, sizes = sorted(t for t, _ in rows), sorted(n for _, n in rows)
    rate = len(rows) / sum(times)
    p99 = times[int(0.99 * (len(times) - 1))]
    print(
        f"{name}: {len(rows)} draws, {rate:,.2f}/s, {sum(sizes) / sum(times):,.0f} nodes/s; "
        f"CPU seconds median {statistics.median(times):.5f}, p99 {p99:.4f}, longest {times[-1]:.4f}"
    )
    edges = (0, 5, 10, 20, 50, 100, 200)
    shares = {
        f"{low + 1}-{high}": sum(low < n <= high for n in sizes) / len(sizes)
        for low, high in pairwise(edges)
    }
    print("  nodes: " + ", ".join(f"{span}: {share:.1%}" for span, share in shares.items()))
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of drawing a round and side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides: dict[str, Ours | Published] = {"ours": Ours()}
    if "EINSPACE" in os.environ:
        random.seed(0)
        sides["published"] = Published(Path(os.environ["EINSPACE"]))
    gc.collect()
    gc.freeze()

    drawn: dict[str, list[tuple[float, int]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            drawn[name] += draws(side, options.seconds)
    rates = [report_draws(name, rows) for name, rows in drawn.items()]
    if len(rates) == 2:
        print(f"drawing: {rates[0] / rates[1]:,.0f} times the published rate")

    jobs = [("mutate", "resnet18"), *(("build", name) for name in SEEDS)]
    for verb, seed in jobs:
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(2 * options.rounds + 1):
            for name, side in sides.items():
                times[name].append(seconds(lambda s=side, v=verb, n=seed: getattr(s, v)(n)))  # type: ignore[misc]
        medians = {name: statistics.median(t) for name, t in times.items()}
        shown = ", ".join(f"{name} {1000 * m:.1f} ms" for name, m in medians.items())
        ratio = (
            f"; {medians['published'] / medians['ours']:.1f} times faster" if len(sides) == 2 else ""
        )
        print(f"{verb} {seed}: median {shown}{ratio}")


if __name__ == "__main__":
    main()
