"""SWAP: how many different ways of switching over a batch a network's rectifiers have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.codes import Patterns
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.passes import Noise
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.errors import ConfigurationError
from nas.task import Metric

MOST_EXAMPLES = 62  # a pattern is a whole number of 64 bits


@registry.proxy("swap")
@final
@dataclass(frozen=True)
class Swap(Proxy):
    """The number of distinct patterns of rectifiers, a pattern being one's on or off for each example.

    Weights and the `batch_size` inputs are drawn from N(0, 1); the mean over `repeats` drawings. More
    is better; at most the number of rectifiers, and 2^batch_size, towards either of which it saturates.
    With a `deviation`, regularized: times exp(-(params - target)^2 / deviation) for the number of
    parameters, `target` the size that is wanted. Misleads where it saturates, and tells nothing of
    other activations; it needs ReLU modules.

    Reference: Peng et al., SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS, ICLR 2024,
    Definitions 3.2 and 3.3 (there 32 repeats).
    """

    repeats: int = 4
    batch_size: int = 16
    target: float = 0.0
    deviation: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MOST_EXAMPLES:
            raise ConfigurationError(
                f"swap's batch_size is {self.batch_size}; it takes a whole number from 1 to "
                f"{MOST_EXAMPLES}."
            )
        if not self.deviation >= 0:
            raise ConfigurationError(
                f"swap's deviation is {self.deviation}; it takes a number from 0 (not regularized)."
            )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("swap", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (self._patterns(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        counts = [len(patterns) for patterns in observed[self._patterns()]]
        mean = sum(counts) / len(counts)
        if self.deviation == 0:
            return (mean,)
        params = sum(p.numel() for p in subject.network.parameters())
        return (mean * math.exp(-((params - self.target) ** 2) / self.deviation),)

    def _patterns(self) -> Patterns:
        return Patterns(Noise(self.batch_size, self.repeats, "normal"))
