"""The problem a searcher solves: a space, a task, objectives to optimize and limits to keep."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nas import variation
from nas.architecture import Architecture
from nas.complexity import UNITS
from nas.errors import ConfigurationError
from nas.space import SearchSpace
from nas.task import Direction, Task
from nas.trial import Trial

DRAWS_WITHIN_LIMITS = 200


@dataclass(frozen=True)
class Objective:
    """A metric to maximize or minimize."""

    metric: str
    direction: Direction

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise ConfigurationError(
                f'"{self.direction}" is no direction for the objective {self.metric}; '
                "allowed: maximize, minimize."
            )

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True, eq=False)
class Problem:
    """Architectures of `space`, at the task's shapes, scored by `objectives` within `limits`.

    `limits` are upper bounds on metrics. Those on params, macs, flops and activation_bytes are
    checked before anything is built; the others once they are measured.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    task: Task | None = None
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ConfigurationError("a problem needs at least one objective.")
        if self.task is not None:
            object.__setattr__(self, "space", self.space.at(self.task.signature))

    def refusal(self, architecture: Architecture) -> str | None:
        """Why an architecture exceeds a limit that can be told before building; None if it does not."""
        if not UNITS.keys() & self.limits.keys():
            return None
        return self.excess(self.space.complexity(architecture).metrics())

    def excess(self, metrics: Mapping[str, float]) -> str | None:
        """The first limit that the metrics exceed, in words; None if they exceed none."""
        for name, most in self.limits.items():
            if name in metrics and metrics[name] > most:
                return f"{name} {metrics[name]:,.6g} exceeds the limit of {most:,.6g}"
        return None

    def lack(self, missing: Mapping[str, str]) -> str | None:
        """Why the first objective or limited metric that is missing is; None if none is."""
        wanted = (*(objective.metric for objective in self.objectives), *self.limits)
        return next((f"no {name}: {missing[name]}" for name in wanted if name in missing), None)

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture, drawn until it keeps the limits (at most 200 times)."""
        return self._within(lambda: variation.sample(self.space, rng))

    def mutate(self, parent: Architecture, rng: random.Random) -> Architecture:
        """A mutant of the parent, drawn until it keeps the limits (at most 200 times)."""
        return self._within(lambda: variation.mutate(self.space, parent, rng))

    def crossover(self, first: Architecture, second: Architecture, rng: random.Random) -> Architecture:
        """A child of both parents, drawn until it keeps the limits (at most 200 times)."""
        return self._within(lambda: variation.crossover(self.space, first, second, rng))

    def _within(self, draw: Callable[[], Architecture]) -> Architecture:
        architecture = draw()
        for _ in range(DRAWS_WITHIN_LIMITS - 1):
            if self.refusal(architecture) is None:
                break
            architecture = draw()
        return architecture

    def key(self, architecture: Architecture) -> str:
        """The canonical form where the space has one, else the text: equal keys, equal functions."""
        if self.space.canonical is None:
            return str(architecture)
        return self.space.canonical(architecture)

    def values(self, trial: Trial) -> tuple[float, ...]:
        """A completed trial's objectives, signed so that more is better."""
        return tuple(o.sign * trial.metrics[o.metric] for o in self.objectives)

    def better(self, first: Trial, second: Trial) -> bool:
        """Whether the first is strictly better: completed where the second is not, or dominating it."""
        if not (first.completed and second.completed):
            return first.completed and not second.completed
        pairs = list(zip(self.values(first), self.values(second), strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """The completed trials that no other one is better than, earliest of equals, best first."""
        front: list[Trial] = []
        ordered = sorted((t for t in trials if t.completed), key=self.values, reverse=True)
        for trial in ordered:
            values = self.values(trial)
            if not any(self.values(f) == values or self.better(f, trial) for f in front):
                front.append(trial)
        return front
