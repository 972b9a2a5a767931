"""A zero-cost proxy: a score of a network that was never trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.subject import Subject
from nas.task import Metric


class Proxy(ABC):
    """Scores a network at its initialisation. Frozen; its fields are its settings.

    Its docstring gives the equation, the source, the scale, and when the score misleads. It is right on
    every network, or raises `Inapplicable` with the reason.
    """

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """What it gives, with direction. None is shared by equal functions: weights are drawn."""

    @property
    @abstractmethod
    def observations(self) -> tuple[Observation[Any], ...]:  # Any: of all kinds
        """What must be observed for it; empty where it reads the network's weights alone."""

    @abstractmethod
    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        """The metrics' values in their order; one that is not finite counts as missing."""
