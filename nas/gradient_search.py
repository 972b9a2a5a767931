"""A search by gradient: a supernet is trained, epoch by epoch, and an architecture read off it.

Searchers are products: a relaxation x an optimization x a selection (`Method`). All of them run here,
as the inner search of a trial: with a row of the curve and a checkpoint for every epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch

from nas.bilevel import Optimization
from nas.distillation import Distillation, check_task
from nas.errors import ConfigurationError, SearchSpaceError
from nas.evaluation import Context
from nas.learning_rates import Cosine, LearningRate
from nas.problem import Problem
from nas.relaxation import Relaxation
from nas.searcher import Failed, InnerSearch, Proposal
from nas.selection import Decisions, Magnitude, Probe, Selection, decide, shares
from nas.space import SearchSpace
from nas.stopping import Seen, Stopping
from nas.supernet import Supernet
from nas.supernet_training import Epoch, SupernetSettings, Trainer, enough_memory, skeleton
from nas.task import Task
from nas.training import repeatable, seeded, threads, torch_device
from nas.validation import WORST

MOST_NOTED = 4096  # alphas, whose history is kept on the trial


@final
@dataclass(frozen=True)
class Method:
    """What a searcher by gradient is made of.

    `learning_rate` is that of the weights, by default the settings' cosine. Between two steps of the
    selection the supernet is trained for `tuning_epochs`, by fresh optimizers at `tuning_rate` times
    the learning rate. `trains_alphas` says whether the alphas mean anything in the end. With
    `candidates` the best of so many random architectures by inherited weights is taken, and nothing
    selected.
    """

    relaxation: Relaxation
    optimization: Optimization
    selection: Selection = Magnitude()
    learning_rate: LearningRate | None = None
    tuning_epochs: int = 0
    tuning_rate: float = 1.0
    trains_alphas: bool = True
    candidates: int = 0
    stopping: Stopping = Stopping()
    distillation: Distillation | None = None


def gradient_search(
    problem: Problem, settings: SupernetSettings, method: Method, context: Context
) -> InnerSearch:
    """The search of a trial; refused, with the reason, where the problem has no such supernet."""
    task = _task(problem)
    if settings.fused and method.stopping.eigenvalue_ratio is not None:
        settings = replace(settings, fused=False)
    if method.distillation is not None:
        check_task(task)
    seed = context.stream("supernet", context.number, "weights").getrandbits(32)
    with seeded(seed), enough_memory(settings, context):
        supernet = Supernet(skeleton(problem.space, settings), settings.fixed)
    _check(problem.space, supernet)

    def run(context: Context) -> Proposal | Failed:
        noise = context.stream("supernet", context.number, "noise").getrandbits(32)
        device = torch_device(context.device)
        with (
            threads(context.threads),
            seeded(noise, context.device),
            repeatable(device),
            enough_memory(settings, context),
        ):
            trainer = Trainer(supernet, task, settings, method.relaxation, context)
            if method.distillation is not None:
                trainer.distill(method.distillation)
            return _Search(problem, trainer, method, context).run()

    return InnerSearch(run)


@dataclass
class _Search:
    """A search under way.

    `epoch` and `tuned` count whole epochs, the latter since the last decision.
    """

    problem: Problem
    trainer: Trainer
    method: Method
    context: Context
    epoch: int = 0
    tuned: int = 0
    total: int = 0  # epochs of either kind
    decisions: Decisions | None = None
    seen: Seen = field(default_factory=Seen)
    stopped: str | None = None

    def run(self) -> Proposal | Failed:
        self._resume()
        try:
            while self.epoch < self.trainer.settings.epochs and self.stopped is None:
                self._train()
            return self._selected() if self.method.candidates == 0 else self._best_candidate()
        except _Diverged as diverged:
            rate = self.trainer.settings.learning_rate
            reason = f"{diverged} in epoch {self.total + 1} of the supernet, at learning_rate {rate:g}"
            return Failed(reason, self._cost())

    def _train(self) -> None:
        """One epoch of the search."""
        settings, done = self.trainer.settings, self.epoch
        rates = self.method.learning_rate or Cosine(
            settings.learning_rate, settings.final_learning_rate
        )
        share = done / max(1, settings.epochs - 1)
        epoch = Epoch(self.method.optimization, rates.rate(done, settings.epochs), share)
        row = self._epoch(epoch, (done, settings.epochs), "supernet")
        self.epoch += 1
        alphas = [table.detach().clone() for table in self.trainer.supernet.alphas.tables]
        self.stopped, back = self.method.stopping.after(self.seen, row, alphas)
        if back is not None:
            with torch.no_grad():
                for table, values in zip(self.trainer.supernet.alphas.tables, back, strict=True):
                    table.copy_(values)
        self._save()

    def _selected(self) -> Proposal:
        supernet, selection = self.trainer.supernet, self.method.selection
        if self.decisions is None:
            rng = self.context.stream("supernet", self.context.number, "selection")
            self.decisions = selection.begin(supernet, rng)
            self.trainer.renew_optimizers()
            self.tuned = self.method.tuning_epochs
            self._save()
        supernet.decide(self.decisions.rules)
        self._tune()
        probe = Probe(supernet, self._relax, self.trainer.validation().measure)
        self.decisions = decide(selection, probe, self.decisions, self._after_decision)
        return self._proposal(self.decisions)

    def _best_candidate(self) -> Proposal | Failed:
        """The best of some random architectures within the limits, by the weights they inherit."""
        supernet, every = self.trainer.supernet, self.method.candidates
        rng = self.context.stream("supernet", self.context.number, "candidates")
        drawn = [supernet.sample(rng) for _ in range(every)]
        validation, best, score = self.trainer.validation(), None, (-math.inf, -math.inf)
        for number, architecture in enumerate(dict.fromkeys(drawn), 1):
            mine = self.problem.space.parse(str(architecture))
            if self.problem.refusal(mine) is None:
                supernet.select(architecture)
                measured = validation.measure()
                if best is None or (measured.score, -measured.loss) > score:
                    best, score = mine, (measured.score, -measured.loss)
            self.context.progress(number, every, f"candidate {number} of {every}")
        if best is None:
            reason = f"none of {every} architectures that were drawn keeps the limits"
            return Failed(reason, self._cost())
        notes = {"epochs": self.total, "supernet_score": score[0], "supernet_loss": -score[1]}
        return Proposal(best, notes, cost=self._cost())

    def _after_decision(self, decisions: Decisions) -> None:
        self.decisions, self.tuned = decisions, 0
        self._save()
        self._tune()

    def _tune(self) -> None:
        """The epochs that are left between the last decision and the next one."""
        settings, method = self.trainer.settings, self.method
        assert self.decisions is not None
        if not method.selection.pending(self.trainer.supernet, self.decisions):
            return
        first = settings.learning_rate * method.tuning_rate
        rates = Cosine(first, min(first, settings.final_learning_rate))
        every = max(1, (method.selection.num_steps(self.trainer.supernet) - 1) * method.tuning_epochs)
        while self.tuned < method.tuning_epochs:
            done = min(self.total - self.epoch, every - 1)
            epoch = Epoch(method.optimization, rates.rate(done, every), 1.0)
            self._epoch(epoch, (done, every), "tuning")
            self.tuned += 1
            self._save()

    def _epoch(self, epoch: Epoch, place: tuple[int, int], what: str) -> dict[str, float]:
        """Train for an epoch, report its row; _Diverged where a number is not finite."""
        done, every = place

        def progress(step: int, steps: int, loss: float) -> None:
            said = f"{what}, epoch {done + 1} of {every}: loss {loss:.3g}{self._last()}"
            self.context.progress(done * steps + step, every * steps, said)

        loss = self.trainer.train(epoch, progress)
        if not math.isfinite(loss):
            raise _Diverged(f"train_loss is {loss}")
        row = {"train_loss": loss, **self._measured(epoch.done)}
        self.total += 1
        self.seen.rows.append(row)
        self.context.report(self.total, row)
        self._note()
        return row

    def _last(self) -> str:
        if not self.seen.rows:
            return ""
        metric = self.trainer.task.scores[0].metric
        value = self.seen.rows[-1][metric.name]
        return f", {metric.name} {value:.4g} {metric.unit if metric.unit != '1' else ''}".rstrip()

    def _measured(self, done: float) -> dict[str, float]:
        """Scores on the alphas' half and, where alphas are trained, what they would derive now."""
        measured, metric = self.trainer.measure(done), self.trainer.task.scores[0].metric
        if measured.loss == WORST:
            raise _Diverged("an output is not finite")
        sign = 1 if metric.direction == "maximize" else -1
        row = {"valid_loss": measured.loss, metric.name: sign * measured.score}
        if self.method.trains_alphas:
            row |= self.method.stopping.diagnose(self.trainer, self.total, done)
        return row

    def _note(self) -> None:
        """Keep the shares of all options on the trial, of an epoch each."""
        count = sum(table.numel() for table in self.trainer.supernet.alphas.tables)
        if not self.method.trains_alphas or count > MOST_NOTED:
            return
        found = shares(self.trainer.supernet)
        rounded = {path: [round(share, 4) for share in row] for path, row in found.items()}
        self.context.note(f"alphas/{self.total}", rounded)

    def _relax(self) -> None:
        """Relax as in the last epoch; relaxations of probes draw nothing."""
        self.trainer.relax(1.0)

    def _proposal(self, decisions: Decisions) -> Proposal:
        architecture = self.method.selection.architecture(self.trainer.supernet, decisions)
        notes: dict[str, Any] = {"epochs": self.total}  # Any: JSON values
        if self.stopped is not None:
            notes["stopped"] = self.stopped
        if decisions.made:
            notes["decisions"] = [f"{d.path}: {d.rule}" for d in decisions.made]
        mine = self.problem.space.parse(str(architecture))
        return Proposal(mine, notes, cost=self._cost())

    def _cost(self) -> dict[str, float]:
        return {"epochs": round(self.trainer.passes, 6)}

    def _save(self) -> None:
        self.context.checkpoint.save(
            {
                "trainer": self.trainer.state(),
                "epoch": self.epoch,
                "tuned": self.tuned,
                "total": self.total,
                "decisions": None if self.decisions is None else self.decisions.to_json(),
                "seen": self.seen.state(),
                "stopped": self.stopped,
            }
        )

    def _resume(self) -> None:
        state = self.context.checkpoint.load()
        if state is None:
            return
        self.epoch, self.tuned, self.total = (state[k] for k in ("epoch", "tuned", "total"))
        decisions = state["decisions"]
        self.decisions = None if decisions is None else Decisions.from_json(decisions)
        self.seen = Seen.of(state["seen"])
        self.stopped = state["stopped"]
        if self.decisions is not None:
            self.trainer.renew_optimizers()
        self.trainer.load(state["trainer"])


class _Diverged(Exception):
    """A number of the supernet's is not finite."""


def _task(problem: Problem) -> Task:
    if problem.task is None:
        raise ConfigurationError(
            "a search by gradient trains a supernet on a task and the problem has none; name one, such "
            "as digits."
        )
    return problem.task


def _check(space: SearchSpace, supernet: Supernet) -> None:
    name = space.name or str(space.start)
    if not list(supernet.alphas.parameters()):
        raise SearchSpaceError(
            f'no choice of space "{name}" is left open, so nothing can be searched by gradient; fix '
            "fewer of them, or take another searcher, such as random."
        )
    if not any(weight.requires_grad for weight in supernet.weights()):
        raise SearchSpaceError(
            f'the supernet of space "{name}" has no weights to train; take a searcher that trains '
            "none, such as random."
        )
