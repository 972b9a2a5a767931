"""A searcher proposes the next architecture from the problem and the history, and keeps no state.

Where that takes long inner work, such as training a supernet, what it proposes is an `InnerSearch`: the
study opens the trial, takes its lease, and then lets the work begin, so that it can be watched, its
curve is on that trial, and a killed worker's trial is noticed and retried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.architecture import Architecture
from nas.evaluation import Context
from nas.problem import Problem
from nas.trial import History


@dataclass(frozen=True)
class Proposal:
    """An architecture to try, and JSON notes that are kept on its trial.

    `system_attributes` is what a sampler of Optuna's writes on its trial to find it there again.
    `cost` is what inner work took to find it, by unit; what is in the evaluator's unit counts.
    """

    architecture: Architecture
    notes: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    system_attributes: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """Inner work that came to no architecture, and why: a result, not a bug. `cost` is by unit."""

    reason: str
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class InnerSearch:
    """Long work that finds an architecture; it begins when its trial is open.

    `run` is given the trial's context. Killed and run anew for the same place, it goes on from
    `context.checkpoint` and comes to the identical architecture.
    """

    run: Callable[[Context], Proposal | Failed]


class Searcher(ABC):
    """A function of history. Frozen; its fields are its configuration."""

    @abstractmethod
    def propose(
        self, problem: Problem, history: History, context: Context
    ) -> Proposal | InnerSearch | None:
        """The next architecture to try, or the work that finds it; None where nothing is left to try.

        What cannot be searched is refused here, before a trial is opened: a NasgramError says why.
        Every random draw comes from `context.rng` or `context.stream`, so that a study that was
        stopped and resumed goes on as if it had not been.
        """
