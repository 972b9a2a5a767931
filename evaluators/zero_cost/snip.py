"""SNIP: how much the loss changes when weights are taken away, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.gradients import LossGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import absolute, summed
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("snip")
@final
@dataclass(frozen=True)
class Snip(Proxy):
    """Sum over all weights of |g w|, the gradient of the loss in a mask of ones.

    More is better. In units of the loss; grows with depth and width. Misleads like every sum over
    layers: it favours deep networks, tells little beyond size, and nothing between shallow networks.

    Reference: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019;
    summed over the network by Abdelfattah et al., ICLR 2021.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("snip", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (LossGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (gradients,) = observed[LossGradient()]
        return (summed(subject.weights, gradients, absolute),)
