"""How much faster several workers are than one, on evaluations that keep a core busy.

    python benchmarks/workers.py [--workers 2] [--trials 32] [--repetitions 3] [--write]

Runs the same searches (random draws, so that every run evaluates the same architectures) by one
worker and by several, in turns, each a `nas search` of its own with one thread an evaluation and a
journal: "training" trains cells on handwritten digits, "busy" hashes bytes in plain Python. Prints a
line a run and the medians. "seconds" go from the first trial's beginning to the last one's end; "with
start" is the whole command; "CPU" is what the command took of the cores, start included; "others" is
how many cores other processes kept busy meanwhile: where that is not near 0, the ratio is not ours.
`--write` keeps what is printed in results/benchmarks/workers/report.md. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nas import registry
from nas.architecture import Architecture
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.storage import open_storage
from nas.task import Metric
from nas.workers import cores

ROOT = Path(__file__).resolve().parent.parent
SEARCHES = {
    "training": ["--task", "digits", "--evaluator", "training", "--set", "epochs=15"],
    "busy": ["--evaluator", "busy"],
}
TICKS = os.sysconf("SC_CLK_TCK")


@registry.evaluator("busy")
@dataclass(frozen=True)
class Busy(Evaluator):
    """Keeps one core busy with the same work for every architecture."""

    rounds: int = 2_000_000

    @property
    def cost_unit(self) -> str:
        return "evaluations"

    @property
    def needs_task(self) -> bool:
        return False

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (Metric("score", "", "maximize"),)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        digest = str(architecture).encode()
        for _ in range(self.rounds):
            digest = sha256(digest).digest()
        return Evaluation({"score": digest[0] / 255})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class Ran:
    """One search: its seconds, those of the whole command, and whose work the cores did."""

    seconds: float
    with_start: float
    cpu: float
    others: float
    load: float


def run(kind: str, workers: int, trials: int) -> Ran:
    with tempfile.TemporaryDirectory() as folder:
        url = f"journal:{folder}/s.journal"
        command = [sys.executable, "-m", "nas", "--load", __file__, "search", *SEARCHES[kind]]
        command += ["--space", "nasbench201", "--set", "channels=8", "--set", "cells=1"]
        command += ["--searcher", "random", "--trials", str(trials), "--workers", str(workers)]
        command += ["--threads", "1", "--study", "s", "--storage", url, "--results", folder]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        busy, cpu, began = machine_seconds(), children_seconds(), time.perf_counter()
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True)
        whole, cpu = time.perf_counter() - began, children_seconds() - cpu
        others = (machine_seconds() - busy - cpu) / whole
        [study] = open_storage(url).get_all_studies()
        made = [t for t in open_storage(url).get_all_trials(study._study_id) if t.values is not None]
        assert len(made) == trials
        first = min(t.datetime_start for t in made)
        last = max(t.datetime_complete for t in made)
        return Ran((last - first).total_seconds(), whole, cpu, max(0.0, others), os.getloadavg()[0])


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine_seconds() -> float:
    """Seconds that all cores of this machine were at work since it started."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    return (int(user) + int(nice) + int(system) + sum(map(int, interrupts[:2]))) / TICKS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    header = ["evaluation", "workers", "seconds", "with start", "CPU", "others", "load", "ratio"]
    lines = [f"{cores()} cores; {options.trials} trials a search.", ""]
    lines += ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    print("\n".join(lines), flush=True)

    def say(*cells: object) -> None:
        lines.append("| " + " | ".join(map(str, cells)) + " |")
        print(lines[-1], flush=True)

    for kind in SEARCHES:
        ratios = []
        for _ in range(options.repetitions):
            runs = [run(kind, workers, options.trials) for workers in (1, options.workers)]
            ratios.append(runs[0].seconds / runs[1].seconds)
            for workers, ran in zip((1, options.workers), runs, strict=True):
                cells = [f"{v:.1f}" for v in (ran.seconds, ran.with_start, ran.cpu)]
                shown = f"{ratios[-1]:.2f}" if workers > 1 else ""
                say(kind, workers, *cells, f"{ran.others:.2f}", f"{ran.load:.1f}", shown)
        say(f"**{kind}**", "median", "", "", "", "", "", f"**{statistics.median(ratios):.2f}**")
    if options.write:
        write(lines, options)


def write(lines: list[str], options: argparse.Namespace) -> None:
    folder = ROOT / "results" / "benchmarks" / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/workers.py --workers {options.workers} --trials {options.trials}"
    head = [
        "# Several workers against one",
        "",
        "The same searches by one worker and by several, in turns, on evaluations that keep a core",
        "busy; `benchmarks/workers.py` says what the columns are. The ratio is that of the seconds.",
        "",
        f"Regenerate with `{command} --repetitions {options.repetitions} --write`.",
        "",
    ]
    (folder / "report.md").write_text("\n".join(head + lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
