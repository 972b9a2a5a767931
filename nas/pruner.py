"""A pruner gives up trials whose curve looks poor beside those of the others, and keeps no state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.curves import Curves


@dataclass(frozen=True)
class Point:
    """Where a trial's curve has come to: its step, and the objectives' values there.

    `values` are signed so that more is better. `previous` is the step reported before (-1: none), and
    `last` the one that a whole evaluation ends with.
    """

    trial_id: int
    place: int
    step: int
    values: tuple[float, ...]
    previous: int
    last: int


class Pruner(ABC):
    """Decides from the curves of a study's trials alone. Frozen; its fields are its configuration."""

    @abstractmethod
    def refusal(self, num_objectives: int, num_steps: int) -> str | None:
        """Why it cannot prune studies of so many objectives and steps of a curve; None if it can."""

    @abstractmethod
    def prunes(self, point: Point, curves: Curves) -> bool:
        """Whether the trial is given up at a point before its last step."""


def no_curve(num_steps: int) -> str | None:
    """The refusal of a study whose evaluator reports no curve; None where it reports one."""
    if num_steps > 0:
        return None
    return (
        "a pruner gives up trials while they train, and this evaluator reports no curve; use the "
        "evaluator training, or leave the pruner out."
    )


def one_objective(num_objectives: int) -> str | None:
    """The refusal of a study of several objectives; None where there is one."""
    if num_objectives == 1:
        return None
    return (
        f"Optuna's pruners take one objective and this study has {num_objectives}; use the pruner "
        "successive_halving, which ranks by all of them, or leave the pruner out."
    )
