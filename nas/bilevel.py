"""Steps of a search by gradient: weights on training data, alphas on validation data.

    min_alpha L_val(w*(alpha), alpha)   where   w*(alpha) = argmin_w L_train(w, alpha)

Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 2.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Optimizer

from nas.errors import ConfigurationError
from nas.holding import assign, restored, untrained
from nas.supernet import Supernet

Loss = Callable[[], Tensor]  # a scalar: on one batch, anew for the weights and alphas as they are


@dataclass(frozen=True, eq=False)
class Levels:
    """The two levels: weights and alphas, each with the optimizer of its own.

    `buffers` are the network's (batch norm's statistics); made after the network was moved to its
    device. `gradient_clip` bounds the norm of the weights' gradient; 0 is no bound.
    """

    weights: Sequence[Tensor]
    alphas: Sequence[Tensor]
    optimizer: Optimizer
    alpha_optimizer: Optimizer | None = None
    buffers: Sequence[Tensor] = ()
    gradient_clip: float = 5.0

    def step_weights(self, loss: Loss) -> Tensor:
        """One step of the weights; nothing is computed for the alphas. The loss before it."""
        with untrained(self.alphas):
            value = loss()
            _set(self.weights, gradients(value, self.weights))
        self.move_weights()
        return value.detach()

    def move_weights(self) -> None:
        """One step of the weights by the gradients that they have."""
        if self.gradient_clip:
            clip_grad_norm_(self.weights, self.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def move_alphas(self) -> None:
        """One step of the alphas by the gradients that they have."""
        if self.alpha_optimizer is None:
            raise ConfigurationError("no optimizer was given for the alphas, which are to be trained.")
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad(set_to_none=True)


def levels_of(
    supernet: Supernet,
    optimizer: Optimizer,
    alpha_optimizer: Optimizer | None = None,
    gradient_clip: float = 5.0,
) -> Levels:
    """The levels of a supernet; alphas of decided choices stay what they are at every step."""
    if alpha_optimizer is not None:
        alpha_optimizer.register_step_post_hook(lambda *_: supernet.keep_decided())
    weights = [weight for weight in supernet.weights() if weight.requires_grad]
    return Levels(
        weights,
        list(supernet.alphas.parameters()),
        optimizer,
        alpha_optimizer,
        list(supernet.network.buffers()),
        gradient_clip,
    )


class Losses(NamedTuple):
    """What a step's losses were before it: scalars without gradient; `valid` where one was computed."""

    train: Tensor
    valid: Tensor | None = None


class Optimization(ABC):
    """One step of the search: of the alphas, then of the weights.

    `train` and `valid` give the loss of a batch of their data each; they are called as often as needed,
    the last call of `train` being the weights' own step.
    """

    @abstractmethod
    def step(self, levels: Levels, train: Loss, valid: Loss) -> Losses:
        """Take the step; the losses that were seen."""


@final
@dataclass(frozen=True)
class FirstOrder(Optimization):
    """Alphas by grad_alpha L_val(w, alpha), as if the weights did not depend on them.

    Reference: DARTS, Section 2.3, with xi = 0.
    """

    def step(self, levels: Levels, train: Loss, valid: Loss) -> Losses:
        with untrained(levels.weights):
            value = valid()
            _set(levels.alphas, gradients(value, levels.alphas))
        levels.move_alphas()
        return Losses(levels.step_weights(train), value.detach())


@final
@dataclass(frozen=True)
class SecondOrder(Optimization):
    """Alphas by the gradient of L_val after one step of the weights, its second part by differences.

        w' = w - xi (mu m + grad_w L_train(w, alpha) + d w)
        g  = grad_w' L_val(w', alpha),   w+- = w +- eps g,   eps = `difference` / ||g||
        grad_alpha L_val(w', alpha)
            - xi [grad_alpha L_train(w+, alpha) - grad_alpha L_train(w-, alpha)] / (2 eps)

    xi, mu, d and m are the learning rate, momentum, weight decay and momentum buffer of the weights'
    SGD. As published, the step w' is neither clipped nor Nesterov's. Ours: weights and buffers are put
    back from copies, so that they are what they were to the last bit, and the forward passes above
    leave no trace in the batch norms.

    Reference: DARTS, Section 2.3, equations 7 and 8, and its code.
    """

    difference: float = 0.01

    def step(self, levels: Levels, train: Loss, valid: Loss) -> Losses:
        value, found = self.alpha_gradient(levels, train, valid)
        _set(levels.alphas, found)
        levels.move_alphas()
        return Losses(levels.step_weights(train), value)

    def alpha_gradient(
        self, levels: Levels, train: Loss, valid: Loss
    ) -> tuple[Tensor, list[Tensor | None]]:
        """L_val(w', alpha), and the gradient for every tensor of alphas, weights and buffers kept."""
        weights, alphas = levels.weights, levels.alphas
        with restored([*weights, *levels.buffers]) as before:
            xi = _unroll(levels, train)
            value = valid()
            found = gradients(value, [*alphas, *weights])
            first, direction = found[: len(alphas)], found[len(alphas) :]
            norm = _norm(direction)
            if xi == 0 or float(norm) == 0:
                return value.detach(), first
            eps = float(self.difference / norm)
            sides = []
            for sign in (eps, -eps):
                assign(weights, before[: len(weights)])
                _add(weights, direction, sign)
                with untrained(weights):
                    sides.append(gradients(train(), alphas))
        second = [_difference(*pair) for pair in zip(*sides, strict=True)]
        return value.detach(), [
            _plus(a, b, -xi / (2 * eps)) for a, b in zip(first, second, strict=True)
        ]


@final
@dataclass(frozen=True)
class SingleLevel(Optimization):
    """Weights and alphas together, on the training loss alone."""

    def step(self, levels: Levels, train: Loss, valid: Loss) -> Losses:
        value = train()
        found = gradients(value, [*levels.alphas, *levels.weights])
        _set(levels.alphas, found[: len(levels.alphas)])
        _set(levels.weights, found[len(levels.alphas) :])
        levels.move_alphas()
        levels.move_weights()
        return Losses(value.detach())


@final
@dataclass(frozen=True)
class WeightsOnly(Optimization):
    """The weights alone, on the training loss: alphas stay what they are."""

    def step(self, levels: Levels, train: Loss, valid: Loss) -> Losses:
        return Losses(levels.step_weights(train))


def gradients(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient for every tensor; None for those that do not reach the loss."""
    if not loss.requires_grad:
        return [None] * len(tensors)
    return list(torch.autograd.grad(loss, tensors, allow_unused=True))


@torch.no_grad()
def _unroll(levels: Levels, train: Loss) -> float:
    """Step the weights as their SGD would, but for clipping; the learning rate."""
    group = _sgd(levels.optimizer)
    xi, momentum, decay = (float(group[name]) for name in ("lr", "momentum", "weight_decay"))
    with torch.enable_grad(), untrained(levels.alphas):
        found = gradients(train(), levels.weights)
    for weight, gradient in zip(levels.weights, found, strict=True):
        if gradient is None:
            continue  # as SGD does
        change = gradient + decay * weight
        buffer = levels.optimizer.state[weight].get("momentum_buffer")
        if buffer is not None:
            change += momentum * buffer
        weight.sub_(change, alpha=xi)
    return xi


def _sgd(optimizer: Optimizer) -> dict[str, float]:
    if not isinstance(optimizer, SGD) or len(optimizer.param_groups) != 1:
        raise ConfigurationError(
            f"second-order steps unroll a step of SGD with one learning rate, and the weights have "
            f"{type(optimizer).__name__} with {len(optimizer.param_groups)}; give one SGD, or take "
            "first-order steps."
        )
    return optimizer.param_groups[0]


def _norm(parts: Sequence[Tensor | None]) -> Tensor:
    norms = [part.norm() for part in parts if part is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


@torch.no_grad()
def _add(weights: Sequence[Tensor], direction: Sequence[Tensor | None], factor: float) -> None:
    for weight, step in zip(weights, direction, strict=True):
        if step is not None:
            weight.add_(step, alpha=factor)


def _plus(a: Tensor | None, b: Tensor | None, factor: float) -> Tensor | None:
    """A + factor b, where None is zero."""
    if b is None:
        return a
    return factor * b if a is None else a + factor * b


def _difference(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return _plus(a, b, -1.0)


def _set(tensors: Sequence[Tensor], found: Sequence[Tensor | None]) -> None:
    for tensor, gradient in zip(tensors, found, strict=True):
        tensor.grad = gradient
