"""How long a network takes to answer, measured on the machine at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import final

import torch
from torch import Tensor, nn

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.space import Signature
from nas.task import Metric
from nas.training import seeded, threads, torch_device

REFERENCE_WIDTH = 256
REFERENCE_BATCH = 32


@registry.evaluator("latency")
@final
@dataclass(frozen=True)
class Latency(Evaluator):
    """Median milliseconds of a forward pass, and their ratio to a reference network's.

    After `warmup` passes, `repeats` passes of the network alternate with passes of a fixed perceptron
    (three layers of 256 units, 32 vectors) on the same device and threads. `latency_ms` is the median
    over the network's, `latency_ratio` the median of network over reference, pass by pass, which takes
    out the drift of the machine. Not deterministic: a clock is read. Cost counts seconds.
    """

    batch_size: int = 1
    repeats: int = 50
    warmup: int = 5

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("repeats", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; it takes a whole number from {least}."
                )

    @property
    def cost_unit(self) -> str:
        return "seconds"

    @property
    def needs_task(self) -> bool:
        return False

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (
            Metric("latency_ms", "ms", "minimize", resource=True),
            Metric("latency_ratio", "", "minimize", resource=True),
        )

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        began = time.perf_counter()
        signature = _signature(problem)
        device = torch_device(context.device)
        with threads(context.threads), torch.no_grad():
            with seeded(context.seed):
                network = problem.space.build(architecture).eval()
                reference = _reference().eval()
                x = signature.random(self.batch_size)
                z = torch.randn(REFERENCE_BATCH, REFERENCE_WIDTH)
            try:
                pairs = self._pairs(
                    (network.to(device), x.to(device)), (reference.to(device), z.to(device))
                )
            except torch.OutOfMemoryError:
                spent = time.perf_counter() - began
                return Evaluation(infeasible=f"out of memory on {context.device}", cost=spent)
        own = median(first for first, _ in pairs)
        ratio = median(first / second for first, second in pairs)
        metrics = {"latency_ms": 1000 * own, "latency_ratio": ratio}
        return Evaluation(metrics, cost=time.perf_counter() - began)

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}

    def _pairs(
        self, own: tuple[nn.Module, Tensor], reference: tuple[nn.Module, Tensor]
    ) -> list[tuple[float, float]]:
        """Seconds of the network and of the reference, one pass after the other."""
        for _ in range(self.warmup):
            _seconds(*own)
            _seconds(*reference)
        return [(_seconds(*own), _seconds(*reference)) for _ in range(self.repeats)]


def _seconds(network: nn.Module, x: Tensor) -> float:
    """Seconds of one pass, to its end on the device."""
    _wait(x.device)
    began = time.perf_counter()
    network(x)
    _wait(x.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reference() -> nn.Module:
    layers = [nn.Linear(REFERENCE_WIDTH, REFERENCE_WIDTH) for _ in range(3)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _signature(problem: Problem) -> Signature:
    spec = problem.space.spec
    if not isinstance(spec, Signature):
        raise ConfigurationError(
            f'evaluator "latency" runs a network on random inputs and the space takes {spec!r}; '
            "give it a Signature, the shapes in and out."
        )
    return spec
