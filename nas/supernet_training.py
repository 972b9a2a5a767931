"""Training a supernet on two halves of the training split: one for its weights, one for its alphas.

Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from nas import registry
from nas.augmentation import Augmentation, augment
from nas.bilevel import Loss, Optimization, levels_of
from nas.distillation import Distillation, VotingTeachers
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.fusing import fuse
from nas.regularization import parts_of
from nas.relaxation import Draw, Relaxation
from nas.scaled import Scaled
from nas.space import SearchSpace
from nas.supernet import Supernet
from nas.task import Split, Task
from nas.training import batches, torch_device
from nas.validation import Measurement, Validation, fixed_batches

SHOWN_EVERY = 10  # steps: the loss on the progress bar
SMALLEST = 4  # training examples: two in each half, for batch norm


@dataclass(frozen=True)
class SupernetSettings:
    """How a supernet is made and trained; the defaults are those of DARTS' published code.

    The weights have SGD, whose rate falls from `learning_rate` to `final_learning_rate` as half a
    cosine, epoch by epoch; the alphas have Adam with betas (0.5, 0.999). `fixed` maps paths or roles to
    the rules that are taken there. `skeleton` are settings of the space in which the supernet differs
    from what is evaluated, such as {"cells": "8", "form": "search"}. `measured_batches` is how many
    batches of the alphas' half scores are measured on, in every epoch and by selections. `fused`
    computes the same more quickly (`nas.fusing`), equal up to rounding.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    alpha_learning_rate: float = 3e-4
    alpha_weight_decay: float = 1e-3
    augmentation: Augmentation = "none"
    measured_batches: int = 8
    fused: bool = True
    fixed: Mapping[str, str] = field(default_factory=dict)
    skeleton: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (given, allowed) in self._bounds().items():
            if not given:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it takes {allowed}.")

    def _bounds(self) -> dict[str, tuple[bool, str]]:
        rate = self.learning_rate
        counts = ("epochs", "batch_size", "measured_batches")
        decays = ("weight_decay", "alpha_weight_decay", "gradient_clip")
        positive = ("learning_rate", "alpha_learning_rate")
        return {
            **{n: (getattr(self, n) >= 1, "a whole number from 1") for n in counts},
            **{n: (0 <= getattr(self, n) < math.inf, "a finite number from 0") for n in decays},
            **{n: (0 < getattr(self, n) < math.inf, "a finite number above 0") for n in positive},
            "final_learning_rate": (
                0 <= self.final_learning_rate <= rate,
                f"a number from 0 to learning_rate ({rate})",
            ),
            "momentum": (0 <= self.momentum < 1, "a number from 0 to below 1"),
            "augmentation": (
                self.augmentation in ("none", "flip", "crop", "flip_crop"),
                "none, flip, crop or flip_crop",
            ),
        }


class Epoch(NamedTuple):
    """How to train for an epoch: the step, the weights' learning rate, the share of the search done."""

    optimization: Optimization
    rate: float
    done: float


class Trainer:
    """A supernet in training: data, optimizers and random streams, all of which `state` tells.

    The halves are drawn, as everything else, by the study's seed and the trial's number. `examples`
    counts those that went forward and backward, of either half, as often as they did; `size` are those
    that there are.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: Task,
        settings: SupernetSettings,
        relaxation: Relaxation,
        context: Context,
    ) -> None:
        self.supernet, self.task, self.settings = supernet, task, settings
        self.relaxation, self.context = relaxation, context
        self.device = torch_device(context.device)
        self.model = Scaled(supernet, task.scaling).to(self.device)
        if settings.fused:
            fuse(supernet)
        self.parts = parts_of(supernet.network)
        first, second = halves(task.train, self._generator("halves"))
        self.data = Split(task.train.inputs.to(self.device), task.train.targets.to(self.device))
        self.halves, self.size = (first, second), 2 * len(first)
        self.order, self.noise = self._generator("batches"), self._generator("relaxation")
        self.teachers: VotingTeachers | None = None
        self.examples = 0
        self.renew_optimizers()

    def give_all_to_weights(self) -> None:
        """Train the weights on the whole split, where the alphas need no half of it."""
        self.size = len(self.data.inputs)
        self.halves = torch.arange(self.size), torch.arange(self.size)

    def renew_optimizers(self) -> None:
        """Fresh optimizers, whose momenta are gone."""
        given = self.settings
        weights = [weight for weight in self.supernet.weights() if weight.requires_grad]
        self.optimizer = SGD(
            weights, given.learning_rate, given.momentum, weight_decay=given.weight_decay
        )
        self.alpha_optimizer = Adam(
            self.supernet.alphas.parameters(),
            given.alpha_learning_rate,
            betas=(0.5, 0.999),
            weight_decay=given.alpha_weight_decay,
        )
        self.levels = levels_of(
            self.supernet, self.optimizer, self.alpha_optimizer, given.gradient_clip
        )

    def distill(self, distillation: Distillation) -> None:
        """Let earlier states of the supernet teach the weights."""
        size = self.settings.batch_size
        steps = max(1, len(self.halves[0]) // size) * distillation.every_epochs
        self.teachers = VotingTeachers(self.model, lambda: self.relax(0.0), distillation, steps)

    def train(self, epoch: Epoch, progress: Callable[[int, int, float], None]) -> float:
        """Train for an epoch; the mean training loss. `progress` takes steps done, of all, the loss."""
        self.model.train()
        self.parts.advance(min(epoch.done, 1 - 1e-6))
        for group in self.optimizer.param_groups:
            group["lr"] = epoch.rate
        size = self.settings.batch_size
        first, second = (
            [half[order] for order in batches(len(half), size, self.order)] for half in self.halves
        )
        total, seen, shown = torch.zeros((), device=self.device), 0, math.nan
        steps = min(len(first), len(second))
        for step, (mine, others) in enumerate(zip(first, second, strict=False), 1):
            losses = epoch.optimization.step(
                self.levels,
                self.loss(mine, epoch.done, taught=True),
                self.loss(others, epoch.done),
            )
            if self.teachers is not None:
                self.teachers.stepped()
            total += losses.train * len(mine)
            seen += len(mine)
            if step % SHOWN_EVERY == 1:
                shown = float(losses.train)  # which waits for a GPU
            progress(step, steps, shown)
        return float(total) / seen

    def loss(self, index: Tensor, done: float, *, taught: bool = False) -> Loss:
        """The loss of a batch of the training split, by its numbers (batch,), augmented once."""
        index = index.to(self.device)
        inputs = augment(self.data.inputs[index], self.settings.augmentation, self.order)
        targets = self.data.targets[index]

        def value() -> Tensor:
            self.examples += len(index)
            lesson = self._lesson(inputs) if taught else None
            self.relax(done)
            with self.parts.listen() as heard:
                outputs = self.model(inputs)
            found = self.task.loss(outputs, targets, 0.0)
            found = heard.add_to(found, lambda y: self.task.loss(self.model.in_units(y), targets, 0.0))
            if self.teachers is not None and taught:
                found = found + self.teachers.distillation.loss(outputs, lesson)
            return found

        return value

    def measure(self, done: float) -> Measurement:
        """Score and loss on fixed batches of the alphas' half, as the supernet is relaxed there.

        Random relaxations draw the same at every call, and what follows is as if it had not been.
        """
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.relaxation.relax(self.supernet, Draw(generator, done))
            return self.validation().measure()

    def validation(self) -> Validation:
        """The fixed batches of the alphas' half."""
        index = self.halves[1].to(self.device)
        split = Split(self.data.inputs[index], self.data.targets[index])
        size, count = self.settings.batch_size, self.settings.measured_batches
        return Validation(self.model, self.task, fixed_batches(split, count, size))

    def measured_index(self) -> Tensor:
        """The numbers (batch,) of the first of these batches."""
        return self.halves[1][: self.settings.batch_size]

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Random streams are put back after the block; what it computes is no part of the cost."""
        order, noise, examples = self.order.get_state(), self.noise.get_state(), self.examples
        try:
            yield
        finally:
            self.order.set_state(order)
            self.noise.set_state(noise)
            self.examples = examples

    @property
    def passes(self) -> float:
        """How often the training split went forward and backward."""
        return self.examples / self.size

    def state(self) -> dict[str, Any]:  # Any: JSON values and tensors
        """All that the next epoch depends on, but for what was decided."""
        state: dict[str, Any] = {  # Any: as above
            "network": dict(self.supernet.network.state_dict()),
            "alphas": [table.detach() for table in self.supernet.alphas.tables],
            "optimizer": _moments(self.optimizer),
            "alpha_optimizer": _moments(self.alpha_optimizer),
            "order": self.order.get_state(),
            "noise": self.noise.get_state(),
            "torch": torch.get_rng_state(),
            "examples": self.examples,
        }
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.teachers is not None:
            state["teachers"] = self.teachers.state()
        return state

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:  # Any: as above
        """Take over what `state` told."""
        self.supernet.network.load_state_dict(state["network"])
        for table, values in zip(self.supernet.alphas.tables, state["alphas"], strict=True):
            table.copy_(values)
        _take_moments(self.optimizer, state["optimizer"])
        _take_moments(self.alpha_optimizer, state["alpha_optimizer"])
        self.order.set_state(state["order"])
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["torch"])
        self.examples = state["examples"]
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
        if self.teachers is not None:
            self.teachers.load(state["teachers"])

    def relax(self, done: float) -> None:
        """Set the weights of what is open, for one forward pass."""
        self.relaxation.relax(self.supernet, Draw(self.noise, done))

    def _lesson(self, inputs: Tensor) -> Tensor | None:
        return None if self.teachers is None else self.teachers.probabilities(inputs)

    def _generator(self, what: str) -> torch.Generator:
        seed = self.context.stream("supernet", self.context.number, what).getrandbits(32)
        return torch.Generator().manual_seed(seed)


def skeleton(space: SearchSpace, settings: SupernetSettings) -> SearchSpace:
    """The space of the supernet: the problem's, with other settings of its skeleton."""
    if not settings.skeleton:
        return space
    other: SearchSpace = registry.make("space", space.name, {**space.settings, **settings.skeleton})
    return other.at(space.spec)


@contextmanager
def enough_memory(settings: SupernetSettings, context: Context) -> Iterator[None]:
    """ConfigurationError where a supernet does not fit."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        raise ConfigurationError(
            f"there is too little memory on {context.device} to train the supernet, which holds all "
            f"options at once, in batches of {settings.batch_size}; take a smaller batch_size, fewer "
            "channels or cells (skeleton), or fix some choices."
        ) from None


def halves(split: Split, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The numbers (n / 2,) of the examples in each half of a split, drawn at random.

    Of an odd number one is in neither.
    """
    if len(split) < SMALLEST:
        raise ConfigurationError(
            f"a supernet trains on two halves of the training split, which has {len(split)} examples; "
            f"take a task with {SMALLEST} or more."
        )
    order = torch.randperm(len(split), generator=generator)
    half = len(split) // 2
    return order[:half], order[half : 2 * half]


def _moments(optimizer: Optimizer) -> list[dict[str, Any]]:  # Any: tensors, or None
    """What an optimizer keeps for each of its tensors, in their order."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [dict(optimizer.state[p]) if p in optimizer.state else {} for p in parameters]


def _take_moments(optimizer: Optimizer, moments: list[dict[str, Any]]) -> None:  # Any: as above
    state = {number: kept for number, kept in enumerate(moments) if kept}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
