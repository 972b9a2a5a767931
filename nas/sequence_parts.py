"""What parts of a network over sequences show to whoever looks into them, such as training-free scores.

A part is a module of one of the classes below, anywhere in the network. torch's own recurrent layers
(`nn.RNN`, `nn.LSTM`, `nn.GRU`) need none: what they put out is known.

B batch, L length, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn


@final
@dataclass(frozen=True)
class View:
    """A module in whose calls something is seen, and how it is read from what the module puts out."""

    module: nn.Module
    read: Callable[[Any], Tensor]  # Any: what a module may return


class Recurrence(nn.Module, ABC):
    """A recurrent layer. It puts out its first state after every step, (B, L, F); before the first
    step its states are 0."""

    @abstractmethod
    def steps(self) -> View:
        """Where the first state (B, F) is seen while it is computed: a call a step, in their order."""

    @abstractmethod
    def hidden_weights(self) -> Sequence[nn.Parameter]:
        """The matrices that multiply states and what is computed in a step, not the input's."""


class TokenMixer(nn.Module, ABC):
    """A part that mixes the positions of a sequence, in heads: (B, L, F) -> (B, L, F)."""

    @abstractmethod
    def projections(self) -> Sequence[View]:
        """What is divided among the heads, such as queries, keys and values: (B, L, F) each."""

    @abstractmethod
    def probabilities(self) -> View | None:
        """What positions are weighed by, a softmax along the last axis; None where that is fixed."""


@final
class FeedForward(nn.Sequential):
    """Linear maps and activations in turn, at every position by itself: (B, L, F) -> (B, L, F)."""
