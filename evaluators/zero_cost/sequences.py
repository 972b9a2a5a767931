"""What networks over sequences show: states of recurrent layers, heads and probabilities of mixers.

Which modules these are they say themselves (`nas.sequence_parts`), torch's recurrent layers aside.
B batch, L length, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, final

from torch import Tensor, nn

from evaluators.zero_cost.convolution import CONVOLUTIONS
from evaluators.zero_cost.observation import Derivative, Observation, Pass, Step
from evaluators.zero_cost.passes import Batch
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked
from nas.sequence_parts import FeedForward, Recurrence, TokenMixer, View

Parts = TypeVar("Parts", bound=Sequence[nn.Module])


def recurrent_layers(subject: Subject) -> tuple[nn.Module, ...]:
    """The recurrent layers on a path to the output; Inapplicable where there is none."""
    return _some(subject.live(Recurrence, nn.RNNBase), "recurrent layer")


def mixers(subject: Subject) -> tuple[TokenMixer, ...]:
    """What mixes positions in heads, on a path to the output; Inapplicable where there is none."""
    return _some(_mixers(subject), "attention or other mixer of positions in heads")


def mixing_weights(subject: Subject) -> list[nn.Parameter]:
    """The matrices in mixers, (rows, columns) or (heads, rows, columns); convolutions' do not count."""
    inner = [m for mixer in mixers(subject) for m in mixer.modules() if not isinstance(m, CONVOLUTIONS)]
    return [p for m in inner for p in m.parameters(recurse=False) if p.dim() >= 2]


def feed_forwards(subject: Subject) -> tuple[nn.Module, ...]:
    """The feed-forward parts on a path to the output; Inapplicable where there is none."""
    return _some(subject.live(FeedForward), "feed-forward part of a layer over a sequence")


def _mixers(subject: Subject) -> tuple[TokenMixer, ...]:
    return tuple(m for m in subject.live(TokenMixer) if isinstance(m, TokenMixer))


def _some(found: Parts, named: str) -> Parts:
    if not found:
        raise Inapplicable(f"no {named} is on a path from the input to the output")
    return found


@final
@dataclass(frozen=True)
class FirstStates(Observation[list[Tensor]]):
    """The first state after every step, (B, L, F), of each recurrent layer in the order of the calls.

    Of torch's layers it is the hidden state of the last of their inner layers, forward in time.
    """

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], list[Tensor]]]:
        batch, states = len(step.inputs), list[Tensor]()
        refused: list[str] = []

        def hear(module: nn.Module, inputs: object, output: Any) -> None:  # Any: as torch's layers
            found = _first_states(module, output)
            if found is None:
                refused.append("a recurrent layer takes packed sequences, or one without a batch")
            elif len(found) != batch:
                refused.append(f"a recurrent layer sees {len(found)} sequences for {batch} examples")
            else:
                states.append(found)

        def seen() -> list[Tensor]:
            if refused:
                raise Inapplicable(refused[0])
            return states

        with hooked([m.register_forward_hook(hear) for m in recurrent_layers(subject)]):
            yield seen


def _first_states(module: nn.Module, output: Any) -> Tensor | None:  # Any: as torch's layers
    """(B, L, F); None where there is no batch of sequences of one length."""
    states = output[0] if isinstance(module, nn.RNNBase) else output
    if not isinstance(states, Tensor) or states.dim() != 3:
        return None
    states = states.detach()
    if not isinstance(module, nn.RNNBase):
        return states
    forward = states[..., : module.proj_size or module.hidden_size]
    return forward if module.batch_first else forward.transpose(0, 1)


@final
@dataclass(frozen=True)
class Projections(Observation[list[float]]):
    """For each of the mixers' projections the mean over B and F of its largest value over L."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], list[float]]]:
        views = [view for mixer in mixers(subject) for view in mixer.projections()]
        with _largest(views, 1) as found:
            yield lambda: found


@final
@dataclass(frozen=True)
class Probabilities(Observation[list[float]]):
    """For each softmax of a mixer, or as a module, the mean of the largest number along its axis."""

    seen_in: Pass = Batch()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], list[float]]]:
        views = [view for m in _mixers(subject) if (view := m.probabilities()) is not None]
        seen = {view.module for view in views}
        views += [View(m, _as_it_is) for m in subject.live(nn.Softmax) if m not in seen and m.dim == -1]
        if not views:
            raise Inapplicable("no softmax is on a path from the input to the output")
        with _largest(views, -1) as found:
            yield lambda: found


def _as_it_is(x: Tensor) -> Tensor:
    return x


@contextmanager
def _largest(views: Sequence[View], axis: int) -> Iterator[list[float]]:
    """In each call the mean of the largest values along an axis, in the order of the calls."""
    found: list[float] = []

    def hearing(view: View) -> Callable[[nn.Module, object, Any], None]:  # Any: of any module
        def hear(module: nn.Module, inputs: object, output: Any) -> None:
            read = view.read(output).detach()
            found.append(float(read.amax(axis).double().mean()))

        return hear

    with hooked([view.module.register_forward_hook(hearing(view)) for view in views]):
        yield found
