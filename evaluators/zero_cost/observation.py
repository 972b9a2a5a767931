"""Passes over a network, and what is observed in them: what proxies share.

A proxy states its observations; an observation states the pass that it is made in. Equal observations
are made once, and equal passes run once with all their observations watching.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar, cast, final

from torch import Tensor

from evaluators.zero_cost.subject import Inapplicable, Subject

Seen = TypeVar("Seen")


class Derivative(Enum):
    """What a pass is to differentiate: in the weights the loss, the sum of the outputs, half the sum of
    their squares; the sum of the outputs in the inputs (of tokens, in their embeddings); the square of
    the loss's gradient along the weights."""

    LOSS = "loss"
    OUTPUTS = "outputs"
    SQUARES = "squares"
    INPUTS = "inputs"
    CURVATURE = "curvature"


@final
@dataclass(eq=False)
class Step:
    """One forward pass while it is watched, and its derivatives as far as they are asked for.

    `gradients` of the loss, `output_gradients`, `square_gradients` (None where there is no dependence)
    and `curvature` have an entry for each of the subject's weights. `embedded` are the embeddings of
    tokens, where they were listened to. `backward` is what is being differentiated just now in the
    weights, if anything.
    """

    inputs: Tensor
    outputs: Tensor | None = None
    gradients: tuple[Tensor | None, ...] = ()
    curvature: tuple[float, ...] | Inapplicable = ()
    input_gradient: Tensor | None = None
    backward: Derivative | None = None
    output_gradients: tuple[Tensor | None, ...] = ()
    square_gradients: tuple[Tensor | None, ...] = ()
    embedded: list[Tensor] = field(default_factory=list)


class Pass(ABC):
    """A way to run a network: a frozen value; equal passes are one."""

    @abstractmethod
    def run(self, subject: Subject, watched: Watched) -> None:
        """Run the network, every forward pass within `watched.step`."""


class Observation(ABC, Generic[Seen]):
    """Something that hooks, outputs or derivatives of a pass show: a frozen value."""

    @property
    @abstractmethod
    def seen_in(self) -> Pass:
        """The pass that it is made in."""

    @property
    @abstractmethod
    def derivatives(self) -> frozenset[Derivative]:
        """What the pass must differentiate for it."""

    @abstractmethod
    def watch(self, subject: Subject, step: Step) -> AbstractContextManager[Callable[[], Seen]]:
        """Hooks for one step; what is given tells at the step's end what was seen.

        Either raises `Inapplicable` where there is nothing to see.
        """


@final
@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen, by observation: one value for every step of its pass."""

    _seen: Mapping[Observation[Any], Sequence[Any] | Inapplicable]  # Any: as each observation says

    def __getitem__(self, observation: Observation[Seen]) -> tuple[Seen, ...]:
        """The values, a step each; Inapplicable where there were none to see."""
        seen = self._seen[observation]
        if isinstance(seen, Inapplicable):
            raise seen
        return tuple(cast("Sequence[Seen]", seen))


@final
@dataclass(eq=False)
class Watched:
    """The observations of one pass while it runs. One that has nothing to see does not stop others."""

    subject: Subject
    observations: Sequence[Observation[Any]]  # Any: of all kinds
    seen: dict[Observation[Any], list[Any] | Inapplicable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen = {observation: [] for observation in self.observations}

    def wants(self, derivative: Derivative) -> bool:
        """Whether any observation needs that derivative."""
        return any(derivative in o.derivatives for o in self._seeing())

    def refuse(self, reason: Inapplicable) -> None:
        """The pass cannot be run: nothing is seen in it."""
        self.seen = dict.fromkeys(self.seen, reason)

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Watch one step; the values are taken at the end of the block."""
        with ExitStack() as stack:
            told: dict[Observation[Any], Callable[[], Any]] = {}
            for observation in self._seeing():
                try:
                    told[observation] = stack.enter_context(observation.watch(self.subject, step))
                except Inapplicable as reason:
                    self.seen[observation] = reason
            yield
            for observation, value in told.items():
                self._take(observation, value)

    def _take(self, observation: Observation[Any], value: Callable[[], Any]) -> None:
        values = self.seen[observation]
        assert isinstance(values, list)
        try:
            values.append(value())
        except Inapplicable as reason:
            self.seen[observation] = reason

    def _seeing(self) -> list[Observation[Any]]:
        return [o for o, seen in self.seen.items() if isinstance(seen, list)]
