"""A searcher whose inner work is adding up random draws: long, watched, and to be resumed."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

from nas.evaluation import Context
from nas.problem import Problem
from nas.searcher import Failed, InnerSearch, Proposal, Searcher
from nas.trial import History
from nas.variation import sample


@dataclass(frozen=True)
class Adding(Searcher):
    """Draws for some epochs, and samples by their sum.

    Kills its process, or is interrupted, before an epoch, as often as the file counts down; fails at a
    place.
    """

    epochs: int = 5
    kill_before: int = -1
    kill_file: Path | None = None
    by: str = "kill"
    fail_at: int = -1
    unit: str = "evaluations"

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        def run(context: Context) -> Proposal | Failed:
            rng = context.rng
            state = context.checkpoint.load() or {"epoch": 0, "total": 0.0, "random": None}
            if state["random"] is not None:
                version, numbers, rest = state["random"]
                rng.setstate((version, tuple(numbers), rest))
            total = state["total"]
            for epoch in range(state["epoch"], self.epochs):
                if epoch == self.kill_before:
                    self._die()
                total += rng.random()
                context.progress(epoch + 1, self.epochs, "adding")
                context.report(epoch + 1, {"total": total, "odd": float("nan")})
                context.note(f"half/{epoch + 1}", total / 2)
                state = {"epoch": epoch + 1, "total": total, "random": rng.getstate()}
                context.checkpoint.save(state)
            if context.number == self.fail_at:
                return Failed("the total is odd", {self.unit: 7.0})
            drawn = sample(problem.space, random.Random(total))
            return Proposal(drawn, {"total": total}, cost={self.unit: float(self.epochs)})

        return InnerSearch(run)

    def _die(self) -> None:
        assert self.kill_file is not None
        left = int(self.kill_file.read_text())
        self.kill_file.write_text(str(left - 1))
        if left > 0 and self.by == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if left > 0:
            raise KeyboardInterrupt
