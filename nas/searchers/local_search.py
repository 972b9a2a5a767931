"""Local search: walk to the first better neighbor, begin anew where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.problem import Problem
from nas.searcher import Proposal, Searcher
from nas.starting import Start
from nas.trial import History, Trial
from nas.variation import apply_move, moves

DRAWS = 1000


@registry.searcher("local_search")
@final
@dataclass(frozen=True)
class LocalSearch(Searcher):
    """First-improvement local search with random restarts, over architectures folded by function.

    1. Draw an architecture whose function was not tried yet; it is the center.
    2. Try the center's neighbors (one choice changed) in random order, leaving out functions that
       were tried; the first that is strictly better becomes the center.
    3. When no neighbor is left, go to 1. Stop when no new function can be drawn (1,000 draws).

    `initial_size` draws come before the walk, which then starts from the best of them. With `start`,
    architectures by their texts or the names of the space's examples, or with `start_pool`, the
    `start_size` best of a pool, those come in place of draws, and the walk after them. Notes on a
    trial: `center` (a trial's number) and `next` (the position in the shuffled moves of that center).

    Reference: White, Nolen, Savani, Exploring the Loss Landscape in Neural Architecture Search,
    UAI 2021 [recalled].
    """

    initial_size: int = 1
    start: Start = Start()

    def __post_init__(self) -> None:
        if self.initial_size < 1:
            raise ConfigurationError(f"initial_size is {self.initial_size}; it is at least 1.")

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal | None:
        given = self.start.texts(problem)
        if context.number < len(given):
            return Proposal(problem.space.parse(given[context.number]))
        initial_size = max(self.initial_size, len(given))
        if len(history) < initial_size:
            return self._draw(problem, history, context)
        center, position = _center(problem, history, initial_size)
        if center is not None:
            step = _step(problem, history, context, center, position)
            if step is not None:
                return step
        return self._draw(problem, history, context)

    def _draw(self, problem: Problem, history: History, context: Context) -> Proposal | None:
        rng = context.rng
        for _ in range(DRAWS):
            architecture = problem.sample(rng)
            if _is_new(architecture, history):
                return Proposal(architecture)
        return None


def _center(problem: Problem, history: History, initial_size: int) -> tuple[Trial | None, int]:
    """Where the walk stands after the last trial, and how many of its moves were looked at."""
    last = history.trials[-1]
    if "center" in last.notes:
        center = history.number(last.notes["center"])
        return (last, 0) if problem.better(last, center) else (center, last.notes["next"])
    if len(history) > initial_size:
        return (last, 0) if last.completed else (None, 0)
    front = problem.front(history.trials)
    return (front[0], 0) if front else (None, 0)


def _step(
    problem: Problem, history: History, context: Context, center: Trial, position: int
) -> Proposal | None:
    """The next untried neighbor in the center's own random order."""
    rng = context.stream("neighbors", center.number)
    options = moves(problem.space, center.architecture)
    rng.shuffle(options)
    for index in range(position, len(options)):
        fill = context.stream("neighbors", center.number, index)
        neighbor = apply_move(problem.space, center.architecture, options[index], fill)
        if neighbor is None or not _is_new(neighbor, history):
            continue
        if problem.refusal(neighbor) is None:
            return Proposal(neighbor, {"center": center.number, "next": index + 1})
    return None


def _is_new(architecture: Architecture, history: History) -> bool:
    return history.equal(architecture) is None
