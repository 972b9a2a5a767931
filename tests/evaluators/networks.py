"""Tiny spaces, tasks and tables to score architectures on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture import Architecture
from nas.grammar import Rule, terminal
from nas.problem import Objective, Problem
from nas.space import Notation, SearchSpace, Signature
from nas.task import Metric, Scaling, Score, Split, Task

IMAGES = Signature((1, 8, 8), (3,))
OPERATIONS = {"none": 0, "skip_connect": 1, "nor_conv_1x1": 2, "nor_conv_3x3": 3, "avg_pool_3x3": 4}


def conv_bn(size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 4, size, padding=size // 2, bias=False), nn.BatchNorm2d(4), nn.ReLU()
    )


def _build(spec: Signature, first, second) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return nn.Sequential(stem, first((4, 8, 8))[0], second((4, 8, 8))[0], *head)


def _infer(spec: Signature, first, second) -> tuple[int, ...]:
    first((4, 8, 8))
    second((4, 8, 8))
    return spec.output


def _write(architecture: Architecture) -> str:
    """Two edges of a cell in NAS-Bench-201's text; the others are none."""
    first, second = (child.rule for child in architecture.children)
    return f"|{first}~0|+|{second}~0|none~1|+|none~0|none~1|none~2|"


def cells() -> SearchSpace:
    """Nine image classifiers with two operations each."""
    operations = (
        terminal("skip_connect", lambda spec: nn.Identity()),
        terminal("nor_conv_3x3", lambda spec: conv_bn(3)),
        terminal("avg_pool_3x3", lambda spec: nn.AvgPool2d(3, 1, 1)),
    )
    network = Rule("network", {"first": "Op", "second": "Op"}, _infer, _build)
    notation = Notation("edges", lambda text: None, _write)
    return SearchSpace(
        "Network", {"Network": (network,), "Op": operations}, IMAGES, name="cells", notation=notation
    )


def fixed(module: type[nn.Module] | object, signature: Signature) -> SearchSpace:
    """The space of one architecture, whose network is what the given function makes."""
    only = terminal("only", lambda spec: module(), infer=lambda spec: spec.output)
    return SearchSpace("Network", {"Network": (only,)}, signature, name="fixed")


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return 100 * float((outputs.argmax(1) == targets).double().mean())


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


def squares(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return (outputs - targets).square().mean()


def _bars(num_examples: int, seed: int) -> Split:
    """Noisy images (n, 1, 8, 8) with a bright third; which one is the class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(num_examples) % 3
    inputs = torch.randn(num_examples, 1, 8, 8, generator=generator)
    for i, target in enumerate(targets.tolist()):
        inputs[i, :, :, 3 * target : 3 * target + 2] += 2
    return Split(inputs, targets)


def bars() -> Task:
    """Images in three classes."""
    scores = (
        Score(Metric("accuracy", "%", "maximize", shared=True), accuracy),
        Score(
            Metric("loss", "nats", "minimize", shared=True),
            lambda y, t: float(functional.cross_entropy(y, t)),
        ),
    )
    constants = (torch.zeros(1), torch.ones(1), torch.zeros(1), torch.ones(1))
    splits = (_bars(60, 1), _bars(30, 2), _bars(30, 3))
    return Task("bars", *splits, IMAGES, cross_entropy, scores, Scaling(*constants))


def _line(num_examples: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    inputs = 5 + 2 * torch.randn(num_examples, 2, generator=generator)
    return Split(inputs, 100 + 10 * inputs.sum(1, keepdim=True))


def line() -> Task:
    """A linear function of two numbers, far from zero and of no unit scale."""

    def rmse(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs - targets).square().mean().sqrt())

    constants = (torch.full((2,), 5.0), torch.full((2,), 2.0), torch.tensor(200.0), torch.tensor(28.0))
    splits = (_line(64, 1), _line(32, 2), _line(32, 3))
    score = Score(Metric("rmse", "m", "minimize", shared=True), rmse)

    def loss(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        return squares(outputs / 28, targets / 28, label_smoothing)

    return Task("line", *splits, Signature((2,), (1,)), loss, (score,), Scaling(*constants))


def problem(space: SearchSpace | None = None, task: Task | None = None, **limits: float) -> Problem:
    return Problem(space or cells(), (Objective("accuracy", "maximize"),), task, limits)


def write_table(path: Path) -> Path:
    """All 15,625 cells in the format of nb201.npz; row i validates, made up, at i / 200 %."""
    ops = np.stack(np.meshgrid(*[np.arange(5)] * 6, indexing="ij"), -1).reshape(-1, 6).astype(np.int8)
    rows = np.arange(len(ops))
    np.savez(
        path,
        ops=ops,
        c10_valid200=rows / 200,
        c10_test200=rows / 200 + 1,
        c10_train_seconds200=rows + 0.5,
        c100_val12=rows / 300,
        c100_test12=rows / 300 + 1,
    )
    return path


def row(first: str, second: str) -> int:
    """The row of a cell of `cells` in that table."""
    return OPERATIONS[first] * 5**5 + OPERATIONS[second] * 5**4
