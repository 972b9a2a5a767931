"""Small spaces and evaluators that answer at once, for tests of what surrounds them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.arrays import classification
from nas.evaluation import Context, Evaluation, Evaluator
from nas.grammar import Rule, terminal
from nas.problem import Objective, Problem
from nas.space import SearchSpace, Signature
from nas.task import Metric, Task


def letters(length: int = 6, options: str = "abcde") -> SearchSpace:
    """Words: `length` choices of a letter, each an identity; words are canonical up to order."""

    def infer(spec, *children):
        return [child(spec) for child in children][-1]

    def build(spec, *children):
        return nn.Sequential(*(child(spec)[0] for child in children))

    letter = [terminal(name, lambda spec: nn.Identity()) for name in options]
    word = Rule("word", {f"p{i}": "Letter" for i in range(length)}, infer, build)
    return SearchSpace(
        "Word",
        {"Word": [word], "Letter": letter},
        Signature((3,), (3,)),
        name="letters",
        canonical=lambda a: "".join(sorted(child.rule for child in a.children)),
    )


def score(architecture: Architecture) -> float:
    """A number that any change of the word changes, the same in every process."""
    word = "".join(sorted(child.rule for child in architecture.children))
    return int(sha256(word.encode()).hexdigest()[:8], 16) / 1e6


@dataclass(frozen=True)
class Scored(Evaluator):
    """Scores words; kills its own process within a trial when `kill_file` has counted down to 0."""

    seconds: float = 0.0
    kill_file: Path | None = None
    fail_at: int = -1
    nan_at: int = -1
    shared: bool = True

    @property
    def cost_unit(self) -> str:
        return "evaluations"

    @property
    def needs_task(self) -> bool:
        return False

    @property
    def num_steps(self) -> int:
        return 3

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (
            Metric("score", "points", "maximize", shared=self.shared),
            Metric("length", "", "minimize"),
        )

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        time.sleep(self.seconds)
        if self.kill_file is not None:
            left = int(self.kill_file.read_text())
            self.kill_file.write_text(str(left - 1))
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if context.number == self.fail_at:
            raise ZeroDivisionError("a bug in an evaluator")
        value = float("nan") if context.number == self.nan_at else score(architecture)
        length = float(sum(c.rule == "a" for c in architecture.children))
        if "score" in context.known:
            return Evaluation({"score": context.known["score"], "length": length}, cost=0.0)
        return Evaluation({"score": value, "length": length})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {"score": score(architecture) / 2}


@dataclass(frozen=True)
class Hashed(Evaluator):
    """Scores any architecture by a hash of its text and a salt: uniform in [0, 1), without meaning."""

    salt: int = 0

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
        digest = sha256(f"{self.salt}/{architecture}".encode()).hexdigest()
        return Evaluation({"score": int(digest[:12], 16) / 16**12})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}


def mixed(edges: int = 2) -> SearchSpace:
    """Edges one after the other, linear maps of kinds, an identity, or zeros: a space that relaxes."""

    def infer(spec: Signature, *children):
        for child in children:
            child(spec.input[0])
        return spec.output

    def build(spec: Signature, *children):
        made = [child(spec.input[0])[0] for child in children]
        return nn.Sequential(*made, nn.Linear(spec.input[0], spec.output[0]))

    def linear(*others):
        return lambda width: nn.Sequential(nn.Linear(width, width), *(o(width) for o in others))

    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0

    def same(name, build, weight=1.0):
        return Rule(name, {}, lambda width: width, build, weight)

    edge = [
        same("none", lambda width: Zero(), 0.0),
        same("skip_connect", lambda width: nn.Identity()),
        same("tanh", linear(lambda width: nn.Tanh())),
        same("norm", linear(lambda width: nn.BatchNorm1d(width), lambda width: nn.ReLU())),
        same("dropout", linear(lambda width: nn.Dropout(0.2))),
    ]
    roles = {f"e{i}": "Edge" for i in range(edges)}
    rules = {"Net": [Rule("net", roles, infer, build)], "Edge": edge}
    return SearchSpace("Net", rules, Signature((4,), (2,)), name="mixed")


def blobs() -> Task:
    """Two classes of points in four dimensions, 60 of them."""
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 2
    return classification("blobs", rng.normal(0, 1, (60, 4)) + classes[:, None], classes)


def problem(space: SearchSpace | None = None, **limits: float) -> Problem:
    """Words of the highest score."""
    return Problem(space or letters(), (Objective("score", "maximize"),), limits=limits)
