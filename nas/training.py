"""The one training loop: a recipe, a network and a task in; scores of every epoch out.

It runs with explicit seeds, device and number of threads, and leaves torch's own as they were. The same
recipe, network and context give bit-identical results on one machine with a given number of threads; on
CUDA, operators that add atomically may still differ in the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.augmentation import Augmentation, augment, cutout
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.regularization import Parts, parts_of
from nas.scaled import Scaled
from nas.task import Score, Split, Task

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Recipe:
    """How to train: passes over the training split, steps, and what is done to a batch.

    `learning_rate` is reached linearly within `warmup_epochs` and falls to `final_learning_rate` as
    half a cosine by the end. `momentum` and `nesterov` are for sgd. `adam` adds the weight decay to the
    gradient, `adamw` takes it off the weights. `gradient_clip` bounds the gradient's norm over all
    weights; 0 is no bound. `augmentation` is for images, and `cutout` too: the side of a square of
    pixels that is blanked anywhere in each, 0 for none.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.1
    final_learning_rate: float = 0.0
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    gradient_clip: float = 5.0
    augmentation: Augmentation = "none"
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, (given, allowed) in self._bounds().items():
            if not given:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it takes {allowed}.")

    def _bounds(self) -> dict[str, tuple[bool, str]]:
        rate = self.learning_rate
        return {
            "epochs": (self.epochs >= 1, "a whole number from 1"),
            "batch_size": (self.batch_size >= 1, "a whole number from 1"),
            "optimizer": (self.optimizer in ("sgd", "adam", "adamw"), "sgd, adam or adamw"),
            "learning_rate": (0 < rate < math.inf, "a finite number above 0"),
            "final_learning_rate": (
                0 <= self.final_learning_rate <= rate,
                f"a number from 0 to learning_rate ({rate})",
            ),
            "warmup_epochs": (
                0 <= self.warmup_epochs < self.epochs,
                f"a number from 0 to below epochs ({self.epochs})",
            ),
            "momentum": (0 <= self.momentum < 1, "a number from 0 to below 1"),
            "nesterov": (
                not self.nesterov or self.momentum > 0 or self.optimizer != "sgd",
                "false where momentum is 0",
            ),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a finite number from 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "a number from 0 to below 1"),
            "gradient_clip": (0 <= self.gradient_clip < math.inf, "a finite number from 0 (no bound)"),
            "augmentation": (
                self.augmentation in ("none", "flip", "crop", "flip_crop"),
                "none, flip, crop or flip_crop",
            ),
            "cutout": (self.cutout >= 0, "a whole number from 0 (none)"),
        }

    def rate(self, epoch: float) -> float:
        """The learning rate when `epoch` epochs, fractions included, are done.

        l e / w while e < w, then f + (l - f) (1 + cos(pi (e - w) / (n - w))) / 2, with e epochs done,
        w of warm-up, n in all, l the learning rate and f the final one.
        """
        warm, final = self.warmup_epochs, self.final_learning_rate
        if epoch < warm:
            return self.learning_rate * epoch / warm
        done = (epoch - warm) / (self.epochs - warm)
        return final + (self.learning_rate - final) * (1 + math.cos(math.pi * done)) / 2

    def optimizer_for(self, model: nn.Module) -> Optimizer:
        """The optimizer over a model's weights."""
        weights = [p for p in model.parameters() if p.requires_grad]
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "sgd":
            return SGD(weights, rate, self.momentum, weight_decay=decay, nesterov=self.nesterov)
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(weights, rate, weight_decay=decay)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training came to: the model and its scores after so many epochs, or why there are none."""

    model: Scaled
    scores: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    infeasible: str | None = None

    def weights(self) -> dict[str, Tensor]:
        """The state of the scaled model, on the CPU."""
        return {name: t.detach().cpu().clone() for name, t in self.model.state_dict().items()}


def train(network: nn.Module, task: Task, recipe: Recipe, context: Context) -> Trained:
    """Train a network on the task's training split, scoring it on the validation split every epoch.

    Every epoch reports a row of `train_loss` and the task's scores, counted from 1, which may raise
    `Pruned`. Numbers that are not finite, a loss that no weight reaches, and too little memory on a
    CUDA device end it as infeasible; any other exception passes. The network is trained in place.
    """
    _check_images(recipe, task)
    model = Scaled(network, task.scaling)
    device = torch_device(context.device)
    noise = context.stream("training").getrandbits(32)
    with threads(context.threads), seeded(noise, context.device), repeatable(device):
        run = _Run(model, task, recipe, context, device, parts_of(network))
        try:
            return run.all_epochs()
        except _Untrainable:
            return Trained(model, infeasible="no weight of the network reaches the loss")
        except torch.OutOfMemoryError:
            reason = f"out of memory on {context.device} in epoch {run.done + 1}"
    torch.cuda.empty_cache()
    return Trained(model, epochs=run.done, infeasible=reason)


def evaluate(
    model: nn.Module, split: Split, scores: Sequence[Score], batch_size: int = EVALUATION_BATCH
) -> dict[str, float]:
    """The scores by name on a split, in eval mode and without gradients; the mode is left as it was.

    All are NaN where an output is not finite.
    """
    modes = {module: module.training for module in model.modules()}
    device = next((t.device for t in model.state_dict().values()), torch.device("cpu"))
    model.eval()
    try:
        with torch.no_grad():
            parts = [model(x.to(device)) for x in torch.split(split.inputs, batch_size)]
    finally:
        for module, mode in modes.items():
            module.training = mode
    outputs = torch.cat(parts)
    if not bool(outputs.isfinite().all()):
        return {score.metric.name: math.nan for score in scores}
    targets = split.targets.to(device)
    return {score.metric.name: float(score.of(outputs, targets)) for score in scores}


def batches(num_examples: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Indices (batch,) that visit every example once, in a random order.

    A last batch of a single example, which batch norm cannot train on, joins the one before it.
    """
    order = torch.randperm(num_examples, generator=generator)
    parts = list(torch.split(order, batch_size))
    if batch_size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class _Untrainable(Exception):
    """Nothing in the network can be trained."""


@dataclass
class _Run:
    """A training under way; `done` counts whole epochs, `parts` are those that take part in it."""

    model: Scaled
    task: Task
    recipe: Recipe
    context: Context
    device: torch.device
    parts: Parts
    done: int = 0
    generator: torch.Generator = field(default_factory=torch.Generator)

    def all_epochs(self) -> Trained:
        self.generator.manual_seed(self.context.stream("batches").getrandbits(32))
        self.model.to(self.device)
        train, valid = self._here(self.task.train), self._here(self.task.valid)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise _Untrainable
        optimizer = self.recipe.optimizer_for(self.model)
        scores: dict[str, float] = {}
        while self.done < self.recipe.epochs:
            train_loss = self._epoch(train, optimizer)
            self.done += 1
            scores = evaluate(self.model, valid, self.task.scores)
            reason = self._not_finite({"train_loss": train_loss, **scores})
            if reason is not None:
                return Trained(self.model, epochs=self.done, infeasible=reason)
            self.context.report(self.done, {"train_loss": train_loss, **scores})
        return Trained(self.model, scores, self.done)

    def _epoch(self, split: Split, optimizer: Optimizer) -> float:
        """One pass; the mean loss over its examples."""
        self.model.train()
        self.parts.advance(self.done / self.recipe.epochs)
        total = torch.zeros((), device=self.device)
        parts = batches(len(split), self.recipe.batch_size, self.generator)
        for i, index in enumerate(parts):
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.done + (i + 0.5) / len(parts))
            total += self._step(split, index, optimizer) * len(index)
            finished = self.done * len(parts) + i + 1
            self.context.progress(finished, self.recipe.epochs * len(parts), self._what())
        return float(total) / len(split)

    def _step(self, split: Split, index: Tensor, optimizer: Optimizer) -> Tensor:
        index = index.to(self.device)
        targets = split.targets[index]
        with self.parts.listen() as heard:
            outputs = self.model(self._changed(split.inputs[index]))
        loss = self._loss(outputs, targets)
        loss = heard.add_to(loss, lambda y: self._loss(self.model.in_units(y), targets))
        if not loss.requires_grad:
            raise _Untrainable
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.gradient_clip:
            clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        optimizer.step()
        return loss.detach()

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets, self.recipe.label_smoothing)

    def _changed(self, inputs: Tensor) -> Tensor:
        """Inputs (batch, *input) as the recipe changes them at random."""
        inputs = augment(inputs, self.recipe.augmentation, self.generator)
        if not self.recipe.cutout:
            return inputs
        return cutout(inputs, self.recipe.cutout, self.model.input_mean, self.generator)

    def _here(self, split: Split) -> Split:
        return Split(split.inputs.to(self.device), split.targets.to(self.device))

    def _what(self) -> str:
        return f"epoch {self.done + 1} of {self.recipe.epochs}"

    def _not_finite(self, row: Mapping[str, float]) -> str | None:
        for name, value in row.items():
            if not math.isfinite(value):
                return f"{name} is {value} in epoch {self.done}"
        return None


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Torch's random state seeded for the block, on the CPU and on `device`, and restored after it."""
    where = torch_device(device)
    cuda = [_index(where)] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch computing with that many threads for the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_device(name: str) -> torch.device:
    """The device of that name; ConfigurationError where there is none on this machine."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f'"{name}" is no device; allowed: cpu, cuda, cuda:1, ...') from None
    if device.type == "cuda" and _index(device) >= torch.cuda.device_count():
        raise ConfigurationError(
            f'device "{name}" was asked for and torch finds {torch.cuda.device_count()} CUDA devices; '
            "use cpu, or a driver and a build of torch that go with the card."
        )
    return device


def _index(device: torch.device) -> int:
    return device.index or 0


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """CuDNN held to algorithms that repeat themselves, on a CUDA device."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        yield


def _check_images(recipe: Recipe, task: Task) -> None:
    shape = task.signature.input
    if len(shape) == 3:
        return
    if recipe.augmentation != "none":
        raise ConfigurationError(
            f'augmentation "{recipe.augmentation}" is for images (channels, height, width), and an '
            f'example of task "{task.name}" has the shape {shape}; use none.'
        )
    if recipe.cutout:
        raise ConfigurationError(
            f"cutout is for images (channels, height, width), and an example of task "
            f'"{task.name}" has the shape {shape}; set it to 0.'
        )
