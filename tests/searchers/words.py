"""Words and trees with scores that mean something, for tests of searchers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nas.architecture import Architecture
from nas.evaluation import Context, Evaluation, Evaluator
from nas.grammar import Rule, terminal
from nas.problem import Objective, Problem
from nas.space import SearchSpace, Signature
from nas.task import Metric
from tests.toys import letters

TARGET = "abcdeabcde"


def word(architecture: Architecture) -> str:
    """The letters of a word, or the rules of a tree."""
    if not architecture.children:
        return architecture.rule
    return "".join(word(child) for child in architecture.children)


@dataclass(frozen=True)
class Matches(Evaluator):
    """How many letters stand where they do in a target word, and how many are an "a".

    `refused`, where given, is the letter that must not come first.
    """

    refused: str = ""

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
        return (
            Metric("matches", "letters", "maximize"),
            Metric("size", "letters", "minimize"),
            Metric("first", "1", "minimize"),
        )

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        text = word(architecture)
        if text[0] == self.refused:
            return Evaluation(infeasible=f"it begins with {self.refused}")
        matches = sum(a == b for a, b in zip(text, TARGET, strict=False))
        size = sum(a == "a" for a in text)
        found = {"matches": matches, "size": size, "first": "abcde".find(text[0])}
        return Evaluation({name: float(value) for name, value in found.items()})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}


def words(num_objectives: int = 1, length: int = 10, **limits: float) -> Problem:
    """Words near the target; with two objectives, with few letters "a" too."""
    space = replace(letters(length), canonical=None)
    objectives = (Objective("matches", "maximize"), Objective("size", "minimize"))
    return Problem(space, objectives[:num_objectives], limits=limits)


def trees() -> SearchSpace:
    """Binary trees with letters at their leaves, without end; a branch is less likely than a leaf."""

    def both(spec, first, second):
        return second(first(spec))

    leaves = [terminal(name, lambda spec: nn.Identity()) for name in "abcde"]
    branch = Rule("branch", {"left": "Tree", "right": "Tree"}, both, None, weight=2.0)
    return SearchSpace("Tree", {"Tree": [branch, *leaves]}, Signature((3,), (3,)), name="trees")
