"""The gradient's norm, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from evaluators.zero_cost.gradients import LossGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("grad_norm")
@final
@dataclass(frozen=True)
class GradNorm(Proxy):
    """Sum over layers of the Euclidean norm of the loss's gradient in the layer's weights.

    sum_l ||g_l||_2, a sum of norms and not the norm of the whole. More is better. In units of the loss;
    grows with the number of layers. Misleads between networks of different depth, and where batch norm
    scales the gradient by the inverse of the weights' size; between shallow networks it told nothing
    (NAS-Bench-201 with one cell a stage, where it ranks well with five).

    Reference: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, Section 3.1.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("grad_norm", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (LossGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (gradients,) = observed[LossGradient()]
        norms = torch._foreach_norm([g for g in gradients if g is not None])
        return (float(torch.stack(norms).sum()),)
