"""Which rectifiers, or other activations, are on for which example, as observations.

A rectifier is an `nn.ReLU`, `ReLU6`, `LeakyReLU`, `PReLU` or `RReLU` on a path to the output; it is on
where its input is above 0, and so is any other activation. Functional calls are not seen. B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.observation import Derivative, Observation, Pass, Step
from evaluators.zero_cost.passes import Batch, Noise
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas.sequence_parts import FeedForward

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *RECTIFIERS,
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softplus),
)
WORD_BITS = 24  # whole numbers up to 2^24 are exact in float32


@final
@dataclass(frozen=True)
class Units:
    """Which modules' units are looked at: those of some kinds, anywhere or in feed-forward parts."""

    kinds: tuple[type[nn.Module], ...] = RECTIFIERS
    named: str = "ReLU"
    feed_forward: bool = False

    def modules(self, subject: Subject) -> tuple[nn.Module, ...]:
        """Those on a path to the output; Inapplicable where there is none."""
        found = subject.live(*self.kinds)
        if self.feed_forward:
            inner = {m for part in subject.live(FeedForward) for m in part.modules()}
            found = tuple(m for m in found if m in inner)
        if not found:
            where = "in a feed-forward part on" if self.feed_forward else "on"
            raise Inapplicable(f"no {self.named} is {where} a path from the input to the output")
        return found


RECTIFIER_UNITS = Units()
ALL_UNITS = Units(ACTIVATIONS, "activation")
FEED_FORWARD_UNITS = Units(ACTIVATIONS, "activation", feed_forward=True)


class _Input(NamedTuple):
    """What an activation takes, its version, its code (B, neurons), and how many took it in a row."""

    x: Tensor
    version: int
    code: Tensor
    times: int


@contextmanager
def _heard(
    subject: Subject, step: Step, take: Callable[[Tensor, int], None], units: Units = RECTIFIER_UNITS
) -> Iterator[Callable[[], None]]:
    """Codes of modules (B, neurons) go to `take`, with the number of modules in a row that see one
    tensor; what is given ends that, or raises where examples are mixed."""
    batch, mixed = len(step.inputs), list[int]()
    last: list[_Input] = []

    def hear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        if len(x) != batch:
            mixed.append(len(x))
        elif last and last[0].x is x and last[0].version == x._version:
            last[0] = last[0]._replace(times=last[0].times + 1)
        else:
            flush()
            last[:] = [_Input(x, x._version, (x.detach() > 0).flatten(1), 1)]

    def flush() -> None:
        for seen in last:
            take(seen.code, seen.times)
        last.clear()

    def check() -> None:
        flush()
        if mixed:
            raise Inapplicable(
                f"one {units.named} sees {mixed[0]} rows for {batch} examples: they are mixed"
            )

    with hooked([m.register_forward_hook(hear) for m in units.modules(subject)]):
        yield check


@final
@dataclass(frozen=True)
class Agreements(Observation[Tensor]):
    """K[i, j]: how many units are both on or both off for examples i and j, (B, B) in double.

    K = sum over modules of c c^T + (1 - c)(1 - c)^T, c = 1[x > 0] their code, (B, neurons).
    """

    seen_in: Pass = Batch()
    units: Units = RECTIFIER_UNITS

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Tensor]]:
        batch = len(step.inputs)
        agreements = torch.zeros(batch, batch, dtype=torch.float64, device=step.inputs.device)

        def add(on: Tensor, times: int) -> None:
            agreements.add_(_agreements(on), alpha=times)

        def seen() -> Tensor:
            check()
            return agreements

        with _heard(subject, step, add, self.units) as check:
            yield seen


def _agreements(on: Tensor) -> Tensor:
    """With both = c c^T and alone = c 1, K = 2 both - alone - alone^T + neurons."""
    if on.device.type == "cpu":
        code = on.view(torch.int8)  # whole numbers: exact, and five times as quick as float32
        both = torch._int_mm(code, code.T).double()
    else:
        both = (on.float() @ on.float().T).double()
    alone = both.diagonal()
    return 2 * both - alone - alone.unsqueeze(1) + on.shape[1]


@final
@dataclass(frozen=True)
class Patterns(Observation[Tensor]):
    """The distinct patterns of rectifiers over the batch, whole numbers: bit b is on for example b."""

    seen_in: Pass = Noise(16, weights="normal")

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Tensor]]:
        words: list[Tensor] = []

        def seen() -> Tensor:
            check()
            found: Tensor = torch.unique(torch.cat(words))
            return found

        with _heard(subject, step, lambda code, times: words.append(_words(code))) as check:
            yield seen


def _words(on: Tensor) -> Tensor:
    """Codes (B, neurons) over the batch, B at most 62, as whole numbers (neurons,)."""
    code = on.to(torch.float32)
    total = torch.zeros(code.shape[1], dtype=torch.int64, device=on.device)
    for first in range(0, len(code), WORD_BITS):
        part = code[first : first + WORD_BITS]
        bits = 2.0 ** torch.arange(len(part), device=on.device)
        total += (bits @ part).long() << first
    return total


@final
@dataclass(frozen=True)
class Regions(Observation[int]):
    """How many distinct codes of all rectifiers the examples of a step have."""

    seen_in: Pass = Noise(256)

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], int]]:
        codes: list[Tensor] = []

        def seen() -> int:
            check()
            rows = torch.cat(codes, 1).cpu().numpy()
            return len({row.tobytes() for row in rows})

        with _heard(subject, step, lambda code, times: codes.append(code)) as check:
            yield seen
