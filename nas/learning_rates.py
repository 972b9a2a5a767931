"""Learning rates by epoch, for searches that train a supernet."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from nas.errors import ConfigurationError


class LearningRate(ABC):
    """A learning rate for every epoch of a training."""

    @abstractmethod
    def rate(self, done: int, epochs: int) -> float:
        """The learning rate of the epoch that begins when `done` of `epochs` are done."""


@final
@dataclass(frozen=True)
class Constant(LearningRate):
    """The same learning rate throughout."""

    value: float = 0.025

    def rate(self, done: int, epochs: int) -> float:
        return self.value


@final
@dataclass(frozen=True)
class Cosine(LearningRate):
    """Half a cosine: l_e = f + (l - f) (1 + cos(pi e / n)) / 2 with e of n epochs done.

    Reference: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts; DARTS' for its weights.
    """

    first: float = 0.025
    last: float = 0.001

    def __post_init__(self) -> None:
        _check(self.first, self.last)

    def rate(self, done: int, epochs: int) -> float:
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * done / epochs)) / 2


@final
@dataclass(frozen=True)
class CosinePower(LearningRate):
    """Cosine power annealing: between a cosine (power 1) and an exponential fall (large powers).

        c_t = (1 + cos(pi t / T)) / 2,   u_t = p^(c_t + 1),   u_t = c_t if p = 1
        l_t = last + (first - last) (u_t - u_T) / (u_1 - u_T),   t = 1..T

    so that l_1 = first and l_T = last. With W epochs of warm-up the curve is that of t - W and T - W,
    and l_t = first t / (W + 1) up to t = W + 1. In a single epoch the rate is `first`.

    Reference: Hundt, Jain, Hager, sharpDARTS, arXiv 1903.09900, 2019, and its code (p is 2 for CIFAR-10
    and 10 for ImageNet there).
    """

    first: float = 0.025
    last: float = 1e-4
    power: float = 2.0
    warmup_epochs: int = 5

    def __post_init__(self) -> None:
        _check(self.first, self.last)
        if not 1 <= self.power < math.inf or self.warmup_epochs < 0:
            raise ConfigurationError(
                f"cosine power annealing was given power={self.power} and "
                f"warmup_epochs={self.warmup_epochs}; the power is at least 1, the epochs at least 0."
            )

    def rate(self, done: int, epochs: int) -> float:
        t, span = done + 1 - self.warmup_epochs, epochs - self.warmup_epochs
        if t <= 1 or span <= 1:
            return self.first * min(1.0, (done + 1) / (self.warmup_epochs + 1))
        highest, lowest = self._height(1, span), self._height(span, span)
        share = (self._height(t, span) - lowest) / (highest - lowest)
        return self.last + (self.first - self.last) * share

    def _height(self, t: int, epochs: int) -> float:
        c = (1 + math.cos(math.pi * t / epochs)) / 2
        return c if self.power == 1 else math.exp((c + 1) * math.log(self.power))


def _check(first: float, last: float) -> None:
    if not 0 <= last <= first < math.inf or first == 0:
        raise ConfigurationError(
            f"a learning rate was to fall from {first} to {last}; both are finite, the first above 0 "
            "and not below the last."
        )
