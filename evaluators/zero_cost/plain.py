"""Plain: gradient times weight, with its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.gradients import LossGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import summed
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("plain")
@final
@dataclass(frozen=True)
class Plain(Proxy):
    """Sum over all weights of g w, signed.

    More is better by convention; correlations with accuracy are about 0. In units of the loss. Misleads
    on networks with batch norm: over the weights of a layer that is normed and has no bias the sum is 0
    (its output does not change with their scale), so that only the other layers count.

    Reference: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021 (code).
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("plain", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (LossGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (gradients,) = observed[LossGradient()]
        return (summed(subject.weights, gradients),)
