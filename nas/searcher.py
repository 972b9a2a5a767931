"""A searcher proposes the next architecture from the problem and the history, and keeps no state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
    """

    architecture: Architecture
    notes: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    system_attributes: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values


class Searcher(ABC):
    """A function of history. Frozen; its fields are its configuration."""

    @abstractmethod
    def propose(self, problem: Problem, history: History, context: Context) -> Proposal | None:
        """The next architecture to try; None where there is nothing left to try.

        Every random draw comes from `context.rng` or `context.stream`, so that a study that was
        stopped and resumed goes on as if it had not been.
        """
