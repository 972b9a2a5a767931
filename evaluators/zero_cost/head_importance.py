"""Head importance: how much the outputs depend on the weights of what mixes positions in heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.gradients import OutputGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import terms, total, weight_saliency
from evaluators.zero_cost.sequences import mixing_weights
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("head_importance")
@final
@dataclass(frozen=True)
class HeadImportance(Proxy):
    """Sum of |w dR/dw| over the linear maps' weights in mixers of positions, R the sum of the outputs.

    Mixers are attention and whatever else mixes in heads (`TokenMixer`); convolutions within them do
    not count. With `normalized` the mean over these maps, and the metric is
    `head_importance_normalized`. More is better. In units of the outputs; grows with the batch.
    Misleads as the sum grows with depth and width. Published code leaves out maps of fewer than 128
    rows, and differentiates the last hidden state's sum (see `feed_forward_saliency`).

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code); after Michel et al., Are Sixteen Heads Really Better than One?, NeurIPS 2019.
    """

    normalized: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric(f"head_importance{'_normalized' if self.normalized else ''}", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (OutputGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        chosen = mixing_weights(subject)
        (gradients,) = observed[OutputGradient()]
        found = terms(subject, gradients, chosen, weight_saliency)
        return (total(found, normalized=self.normalized),)
