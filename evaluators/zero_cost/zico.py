"""ZiCo: gradients that are large and steady over batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from evaluators.zero_cost.gradients import Gradient, LossGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.passes import Batch
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.errors import ConfigurationError
from nas.task import Metric


@registry.proxy("zico")
@final
@dataclass(frozen=True)
class Zico(Proxy):
    """Sum over layers of log sum_w (mean_b |g_wb| / std_b g_wb), over equal parts b of the batch.

    The standard deviation is that of the population; weights of deviation 0 are dropped, and layers
    with nothing left. More is better. Free of units: the loss's scale cancels. Misleads between
    networks of different depth (a sum over layers), and with two parts, as by default, the ratio is
    noisy.

    Reference: Li et al., ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients, ICLR
    2023, Equation 16. There a part is a batch of its own.
    """

    parts: int = 2

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise ConfigurationError(
                f"zico's parts are {self.parts}; gradients vary over a whole number of parts from 2."
            )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("zico", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (LossGradient(Batch(self.parts)),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        layers = list(zip(*observed[LossGradient(Batch(self.parts))], strict=True))
        logs = [value for layer in layers if (value := _log_ratios(layer)) is not None]
        if not logs:
            raise Inapplicable("no weight's gradient differs between the parts of the batch")
        return (sum(logs),)


def _log_ratios(layer: Gradient) -> float | None:
    """Log of the layer's sum of ratios; None where there is nothing to sum."""
    parts = [g for g in layer if g is not None]
    if not parts:
        return None
    gradients = torch.stack(parts).double()
    deviation = gradients.std(0, correction=0)
    ratios = torch.where(deviation > 0, gradients.abs().mean(0) / deviation, 0.0)
    total = ratios.sum()
    return float(total.log()) if total > 0 else None
