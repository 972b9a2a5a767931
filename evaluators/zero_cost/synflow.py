"""SynFlow: how much flows from input to output along paths of weights, without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step, Watched
from evaluators.zero_cost.passes import NORMS
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject, hooked, substituted
from nas import registry
from nas.task import Metric
from nas.training import seeded


@registry.proxy("synflow")
@final
@dataclass(frozen=True)
class Synflow(Proxy):
    """log of sum over all weights of |w dR/dw|, R = 1^T f(1) with every parameter's absolute value.

    The input is one example of ones (of tokens: 0, 1, 2, ... in turn). Double precision, as R overflows
    float32. Norms (batch, layer, group and instance) are passed by, since they cancel the scale that is
    measured; published code passes by batch norm alone. With `batch_norm` all norms stay, in training
    mode, and the metric is another one, `synflow_batch_norm`. More is better. A logarithm: it grows by
    log of a factor on any layer. Misleads on softmax, SiLU, GELU and splines, where flow is not a
    product of weights along paths, and favours deep and wide networks.

    Reference: Tanaka et al., Pruning neural networks without any data by iteratively conserving
    synaptic flow, NeurIPS 2020, Section 6; summed over the network by Abdelfattah et al., ICLR 2021.
    """

    batch_norm: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("synflow_batch_norm" if self.batch_norm else "synflow", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Flow(Ones(self.batch_norm)),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (flow,) = observed[Flow(Ones(self.batch_norm))]
        if flow == 0:
            raise Inapplicable("nothing flows from the input to the output")
        return (math.log(flow),)


@final
@dataclass(frozen=True)
class Ones(Pass):
    """One example of ones through the network of absolute weights in double precision; R's gradient."""

    batch_norm: bool = False

    def run(self, subject: Subject, watched: Watched) -> None:
        network = subject.network
        parts = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
        held = set(network.parameters())
        values = [p.data.double().abs() if p in held else p.data.double() for p in parts]
        step = Step(_ones(subject))
        with ExitStack() as stack:
            stack.enter_context(seeded(subject.seeds("ones"), str(step.inputs.device)))
            stack.enter_context(watched.step(step))
            stack.enter_context(subject.prepared(training=self.batch_norm))
            stack.enter_context(substituted(parts, values))
            if not self.batch_norm:
                stack.enter_context(_passed_by(network))
            with torch.enable_grad():
                try:
                    outputs = network(step.inputs)
                except ValueError as error:  # batch norm of a single value
                    raise Inapplicable(f"it does not run on one example: {error}") from None
                step.gradients = torch.autograd.grad(outputs.sum(), subject.weights, allow_unused=True)


@final
@dataclass(frozen=True)
class Flow(Observation[float]):
    """Sum over the weights of |w dR/dw|."""

    seen_in: Pass = Ones()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], float]]:
        def flow() -> float:
            pairs = zip(subject.weights, step.gradients, strict=True)
            return sum(float((w.detach() * g).abs().sum()) for w, g in pairs if g is not None)

        yield flow


def _ones(subject: Subject) -> Tensor:
    shape, vocabulary = subject.signature.input, subject.signature.vocabulary
    device = subject.inputs.device
    if vocabulary is None:
        return torch.ones(1, *shape, dtype=torch.float64, device=device)
    return torch.arange(math.prod(shape), device=device).remainder(vocabulary).reshape(1, *shape)


@contextmanager
def _passed_by(network: nn.Module) -> Iterator[None]:
    """Norms give what they take, within the block."""

    def same(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return inputs[0]

    norms = [m for m in network.modules() if isinstance(m, NORMS)]
    with hooked([m.register_forward_hook(same) for m in norms]):
        yield
