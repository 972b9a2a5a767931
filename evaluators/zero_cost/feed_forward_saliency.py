"""Synaptic saliency of transformers: the weights of the feed-forward parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import nn

from evaluators.zero_cost.gradients import OutputGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import terms, total, weight_saliency
from evaluators.zero_cost.sequences import feed_forwards
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("feed_forward_saliency")
@final
@dataclass(frozen=True)
class FeedForwardSaliency(Proxy):
    """Sum of |w dR/dw| over the linear maps' weights in feed-forward parts, R the sum of the outputs.

    With `normalized` the mean over these maps, and the metric is `feed_forward_saliency_normalized`.
    More is better. In units of the outputs; grows with the batch. Misleads as the sum grows with depth
    and width, which is nearly all that it tells: normalized it was found to correlate negatively.
    Published code differentiates the last hidden state's sum, which behind a layer norm is constant, so
    that its gradient is rounding alone; here R is of the outputs behind the head.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code); after Tanaka et al., NeurIPS 2020.
    """

    normalized: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        end = "_normalized" if self.normalized else ""
        return (Metric(f"feed_forward_saliency{end}", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (OutputGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        parts = feed_forwards(subject)
        (gradients,) = observed[OutputGradient()]
        maps = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]
        chosen = [p for m in maps for p in m.parameters(recurse=False)]  # biases are no weights
        found = terms(subject, gradients, chosen, weight_saliency)
        return (total(found, normalized=self.normalized),)
