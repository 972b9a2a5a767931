"""Scoring architectures with weights that they inherit from one supernet, trained once for a study.

Reference: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020,
Section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evaluators.training import Training
from nas import registry
from nas.architecture import Architecture
from nas.bilevel import WeightsOnly
from nas.errors import ConfigurationError, SearchSpaceError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.learning_rates import Cosine
from nas.problem import Problem
from nas.relaxation import SinglePath
from nas.scaled import Scaled
from nas.supernet import Supernet
from nas.supernet_training import Epoch, SupernetSettings, Trainer, enough_memory, skeleton
from nas.task import Metric, Split, Task
from nas.training import evaluate, repeatable, seeded, threads, torch_device
from nas.validation import fixed_batches

FORWARD = 1 / 3  # of the cost of forward and backward


@registry.evaluator("weight_sharing")
@final
@dataclass(frozen=True)
class WeightSharing(Evaluator):
    """Validation scores with inherited weights: a supernet is trained once, and nothing after it.

    1. The first evaluation of a study trains a supernet on the training split: for every batch an
       architecture is drawn as the space draws it, and its path alone is trained. Other workers wait.
    2. An architecture takes its weights from there. The statistics of batch norm are its own: their
       mean over `calibration_batches` of the training split.
    3. The metrics are the task's scores on the whole validation split, in its units.

    Any searcher may ask; the best of a search is to be trained by itself (`--finalists`). Where the
    supernet was given `fixed` choices, architectures that differ there are infeasible. Cost counts
    epochs: those of the supernet for the trial that trained it, and for every trial the examples that
    it was measured on, a third of an example's training each. Kept in the study's folder, the
    training goes on where it was killed.

    Reference: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV
    2020, Sections 3.2 and 3.3 (recalled).
    """

    supernet: SupernetSettings = SupernetSettings()
    calibration_batches: int = 8

    def __post_init__(self) -> None:
        if self.calibration_batches < 1:
            raise ConfigurationError(
                f"calibration_batches is {self.calibration_batches}; it takes 1 or more."
            )

    @property
    def cost_unit(self) -> str:
        return "epochs"

    @property
    def needs_task(self) -> bool:
        return True

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        # not shared by equal functions: each has weights of its own in the supernet
        return tuple(replace(score.metric, shared=False) for score in _task(problem).scores)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        task = _task(problem)
        known = self._trained(problem, context)
        if known.diverged is not None:
            return Evaluation(infeasible=known.diverged, cost=known.cost_of(context.number))
        cost = known.cost_of(context.number) + FORWARD * len(task.valid) / len(task.train)
        with threads(context.threads), seeded(0, context.device):
            try:
                network = known.supernet.inherit(problem.space.parse(str(architecture)))
            except SearchSpaceError as error:  # it differs where a choice was fixed
                return Evaluation(infeasible=str(error), cost=known.cost_of(context.number))
            model = Scaled(network, task.scaling).to(torch_device(context.device))
            size, count = self.supernet.batch_size, self.calibration_batches
            calibrate(model, fixed_batches(task.train, count, size))
            scores = evaluate(model, task.valid, task.scores)
        for name, value in scores.items():
            if not math.isfinite(value):
                return Evaluation(infeasible=f"{name} is {value} with inherited weights", cost=cost)
        if self.supernet.skeleton:  # the weights are those of another network
            return Evaluation(scores, cost=cost)
        weights = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}
        return Evaluation(scores, cost=cost, weights=weights)

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return Training().test(problem, architecture, weights)

    @cached_property
    def _known(self) -> dict[tuple[int, int, str], _Trained]:
        """The supernets that this process has: by problem, which they hold, seed and device."""
        return {}

    def _trained(self, problem: Problem, context: Context) -> _Trained:
        key = id(problem), context.seed, context.device
        if key not in self._known:
            with context.common.alone(), enough_memory(self.supernet, context):
                self._known[key] = _Training(self.supernet, problem, context).run()
        return self._known[key]


@dataclass(frozen=True, eq=False)
class _Trained:
    """A supernet of a problem after its training, on which the trial at `place` spent so many `passes`.

    `diverged` says why it is of no use, where it is not.
    """

    problem: Problem
    supernet: Supernet
    place: int
    passes: float
    diverged: str | None = None

    def cost_of(self, number: int) -> float:
        """What the trial of that number spent on it."""
        return self.passes if number == self.place else 0.0


class _Training:
    """The training of a study's supernet, by the study's seed alone, from where it stands."""

    def __init__(self, settings: SupernetSettings, problem: Problem, context: Context) -> None:
        self.settings, self.problem, self.context = settings, problem, context
        task = _task(problem)
        seed = context.stream("weight_sharing", "weights").getrandbits(32)
        with seeded(seed):
            supernet = Supernet(skeleton(problem.space, settings), settings.fixed)
        if not supernet.choices:
            raise SearchSpaceError(
                f'no choice of space "{problem.space.name}" is left open, so there is nothing to share '
                "weights; fix fewer of them."
            )
        with threads(context.threads):
            self.trainer = Trainer(supernet, task, settings, SinglePath(), replace(context, number=0))
        self.trainer.give_all_to_weights()
        self.done, self.place = 0, context.number

    def run(self) -> _Trained:
        """Train for the epochs that are left."""
        state = self.context.common.load()
        if state is not None:
            self.done, self.place = state["done"], state["place"]
        noise = self.context.stream("weight_sharing", "noise").getrandbits(32)
        device = torch_device(self.context.device)
        with threads(self.context.threads), seeded(noise, self.context.device), repeatable(device):
            if state is not None:
                self.trainer.load(state["trainer"])  # and torch's random state
            while self.done < self.settings.epochs:
                loss = self._epoch()
                if not math.isfinite(loss):
                    rate = self.settings.learning_rate
                    reason = f"train_loss is {loss} in epoch {self.done} of the supernet, at {rate:g}"
                    return self._ended(reason)
                self._save()
        return self._ended(None)

    def _ended(self, reason: str | None) -> _Trained:
        trainer = self.trainer
        return _Trained(self.problem, trainer.supernet, self.place, trainer.passes, reason)

    def _epoch(self) -> float:
        settings, done = self.settings, self.done
        rates = Cosine(settings.learning_rate, settings.final_learning_rate)
        share = done / max(1, settings.epochs - 1)
        epoch = Epoch(WeightsOnly(), rates.rate(done, settings.epochs), share)

        def progress(step: int, steps: int, loss: float) -> None:
            said = f"supernet, epoch {done + 1} of {settings.epochs}: loss {loss:.3g}"
            self.context.progress(done * steps + step, settings.epochs * steps, said)

        self.done += 1
        return self.trainer.train(epoch, progress)

    def _save(self) -> None:
        state: dict[str, Any] = {"trainer": self.trainer.state()}  # Any: tensors and JSON values
        self.context.common.save(state | {"done": self.done, "place": self.place})


def calibrate(model: nn.Module, batches: Sequence[Split]) -> None:
    """Set the statistics of batch norm to their means over batches; all else is in eval mode."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    device = next(model.buffers()).device
    with torch.no_grad(), _cumulative(model, norms):
        for batch in batches:
            model(batch.inputs.to(device))


@contextmanager
def _cumulative(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Norms that begin anew and average evenly, within the block."""
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _task(problem: Problem) -> Task:
    if problem.task is None:
        raise ConfigurationError(
            'evaluator "weight_sharing" trains a supernet on a task and the problem has none; name '
            "one, such as digits."
        )
    return problem.task
