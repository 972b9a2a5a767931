"""No pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.curves import Curves
from nas.pruner import Point, Pruner


@registry.pruner("none")
@final
@dataclass(frozen=True)
class Never(Pruner):
    """Never gives up a trial."""

    def refusal(self, num_objectives: int, num_steps: int) -> str | None:
        return None

    def prunes(self, point: Point, curves: Curves) -> bool:
        return False
