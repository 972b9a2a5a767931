"""GraSP: how much taking weights away changes the gradient's flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.gradients import WeightCurvature
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("grasp")
@final
@dataclass(frozen=True)
class Grasp(Proxy):
    """Sum over all weights of -(H g) w, with H the Hessian of the loss and g its gradient.

    More is better, by the sign of the zero-cost work, opposite to the pruning paper's. In units of the
    loss squared by weights squared. The dearest of those on the batch: it differentiates twice.
    Misleads as single layers with large negative values rule the sum; between shallow networks it
    ranked the wrong way round.

    Reference: Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR
    2020, Equation 8; summed over the network by Abdelfattah et al., ICLR 2021.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("grasp", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (WeightCurvature(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (along,) = observed[WeightCurvature()]
        return (-sum(along),)
