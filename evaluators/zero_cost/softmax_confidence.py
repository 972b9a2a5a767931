"""Softmax confidence: how much of its attention a head gives to one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import total
from evaluators.zero_cost.sequences import Probabilities
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("softmax_confidence")
@final
@dataclass(frozen=True)
class SoftmaxConfidence(Proxy):
    """Sum over softmaxes of the mean over examples, heads and positions of the largest probability.

    The largest along the axis that sums to 1: of the places that a position attends to, or of the taps
    of a dynamic convolution. (Published code takes it along the second axis of what the softmax gives,
    whatever that is.) A softmax is a mixer's own (`TokenMixer`), or an `nn.Softmax` along its last
    axis. With `normalized` the mean over softmaxes, and the metric is `softmax_confidence_normalized`:
    from 1 / places to 1. More is better. Reads no gradient. Misleads as the sum counts layers; and at
    the initialisation attention is nearly even, whatever the architecture. A causal position has as
    many places as there are before it, so that the first one's probability is always 1.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code); after Voita et al., Analyzing Multi-Head Self-Attention, ACL 2019.
    """

    normalized: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric(f"softmax_confidence{'_normalized' if self.normalized else ''}", "", "maximize"),
        )

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Probabilities(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (found,) = observed[Probabilities()]
        return (total(found, normalized=self.normalized),)
