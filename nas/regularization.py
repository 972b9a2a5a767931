"""What parts of a network ask of whoever trains it: to add to the loss, to know how far training is.

A part is a module of one of the two classes below, anywhere in the network. The training loop looks for
them once; a network without them trains as if this file did not exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

TaskLoss = Callable[[Tensor], Tensor]  # of outputs (batch, *output) as the network gives them


class Auxiliary(nn.Module, ABC):
    """A part that adds to the loss: its outputs in a forward pass are listened to.

    It is called for that alone, in training mode; nothing is kept between calls.
    """

    @abstractmethod
    def loss(self, output: Tensor, task_loss: TaskLoss) -> Tensor:
        """What one output of this part adds to the loss of the batch; `task_loss` is the task's own for
        outputs in the network's scale.
        """


class Scheduled(nn.Module, ABC):
    """A part that changes as training goes on."""

    @abstractmethod
    def advance(self, done: float) -> None:
        """Take the share of the epochs that are done, from 0 to below 1; told before every epoch."""


@final
@dataclass(frozen=True)
class Parts:
    """The parts of a network that ask something of its training."""

    auxiliaries: Sequence[Auxiliary]
    scheduled: Sequence[Scheduled]

    def advance(self, done: float) -> None:
        """Tell every scheduled part the share of the epochs that are done."""
        for part in self.scheduled:
            part.advance(done)

    @contextmanager
    def listen(self) -> Iterator[Heard]:
        """What the auxiliary parts put out within the block."""
        heard = Heard()

        def hear(part: nn.Module, inputs: object, output: Tensor) -> None:
            assert isinstance(part, Auxiliary)
            heard.outputs.append((part, output))

        handles = [part.register_forward_hook(hear) for part in self.auxiliaries]
        try:
            yield heard
        finally:
            for handle in handles:
                handle.remove()


@final
@dataclass
class Heard:
    """Outputs of auxiliary parts, in the order they were made."""

    outputs: list[tuple[Auxiliary, Tensor]] = field(default_factory=list)

    def add_to(self, loss: Tensor, task_loss: TaskLoss) -> Tensor:
        """The loss with what the parts add."""
        for part, output in self.outputs:
            loss = loss + part.loss(output, task_loss)
        return loss


def parts_of(network: nn.Module) -> Parts:
    """The parts of a network that ask something of its training."""
    modules = list(network.modules())
    return Parts(
        [m for m in modules if isinstance(m, Auxiliary)],
        [m for m in modules if isinstance(m, Scheduled)],
    )
