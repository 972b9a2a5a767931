"""Head confidence: how high the queries, keys and values of attention reach along a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import total
from evaluators.zero_cost.sequences import Projections
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("head_confidence")
@final
@dataclass(frozen=True)
class HeadConfidence(Proxy):
    """Sum over projections P (queries, keys, values, ...) of mean_bf max_t P_btf.

    The largest value over the positions t of each feature, and its mean over examples and features: of
    the raw projections, as in the published code, and not of attention's probabilities, which
    `softmax_confidence` takes. With `normalized` the mean over projections, and the metric is
    `head_confidence_normalized`. More is better. In units of the projections; reads no gradient.
    Misleads as the sum counts projections, so layers: that is most of its correlation. It knows of the
    initialisation's scale, and of the sequence's length (more positions, a higher maximum).

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code); after Voita et al., Analyzing Multi-Head Self-Attention, ACL 2019.
    """

    normalized: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric(f"head_confidence{'_normalized' if self.normalized else ''}", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Projections(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (found,) = observed[Projections()]
        return (total(found, normalized=self.normalized),)
