"""The condition number of the neural tangent kernel: how evenly a network can be trained.

N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from evaluators.zero_cost.observation import Derivative, Observation, Observed, Pass, Step, Watched
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.errors import ConfigurationError
from nas.task import Metric
from nas.training import seeded


@registry.proxy("ntk_condition")
@final
@dataclass(frozen=True)
class NtkCondition(Proxy):
    """kappa = largest / smallest eigenvalue of Theta = G G^T.

    A row of G for each of the batch's first `batch_size` examples: the gradient of the sum of its
    outputs in all trained parameters, in training mode, so that batch norm couples the examples. Less
    is better; at least 1. Published code takes parameters named weight alone. Misleads as the smallest
    eigenvalue is near 0 and varies with the initialisation: scores of one seed are noisy.

    Reference: Chen et al., Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR
    2021, Section 3.2.1.
    """

    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigurationError(
                f"ntk_condition's batch_size is {self.batch_size}; it takes a whole number from 2."
            )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("ntk_condition", "", "minimize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Kernel(Examples(self.batch_size)),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (kernel,) = observed[Kernel(Examples(self.batch_size))]
        if not bool(kernel.isfinite().all()):
            raise Inapplicable("the gradients of single examples are not finite")
        eigenvalues = torch.linalg.eigvalsh(kernel)
        smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
        if smallest <= largest * torch.finfo(torch.float32).eps:
            raise Inapplicable("the tangent kernel is singular: examples have dependent gradients")
        return (largest / smallest,)


@final
@dataclass(frozen=True)
class Examples(Pass):
    """A forward pass of the batch's first examples, its graph kept for every example's gradient."""

    batch_size: int = 16

    def run(self, subject: Subject, watched: Watched) -> None:
        step = Step(subject.inputs[: self.batch_size].detach())
        random = seeded(subject.seeds("batch"), str(step.inputs.device))
        with random, subject.prepared(), watched.step(step), torch.enable_grad():
            step.outputs = subject.network(step.inputs)


@final
@dataclass(frozen=True)
class Kernel(Observation[Tensor]):
    """Theta (N, N), in double precision: inner products of examples' gradients in all parameters."""

    seen_in: Pass = Examples()

    @property
    def derivatives(self) -> frozenset[Derivative]:
        return frozenset()

    @contextmanager
    def watch(self, subject: Subject, step: Step) -> Iterator[Callable[[], Tensor]]:
        def seen() -> Tensor:
            assert step.outputs is not None
            trained = [p for p in subject.network.parameters() if p.requires_grad]
            rows = [_gradient(output.sum(), trained) for output in step.outputs]
            gradients = torch.stack(rows)  # (N, parameters)
            return sum(
                (part.double() @ part.double().T for part in torch.split(gradients, 2**20, 1)),
                torch.zeros(len(rows), len(rows), dtype=torch.float64, device=gradients.device),
            )

        yield seen


def _gradient(output: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    """The gradient of a scalar in all parameters: (parameters,); zeros where it has none."""
    found = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])
