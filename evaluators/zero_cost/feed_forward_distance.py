"""Activation distance of a transformer: how alike examples switch its feed-forward parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.codes import FEED_FORWARD_UNITS, Agreements
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric

AGREEMENTS = Agreements(units=FEED_FORWARD_UNITS)


@registry.proxy("feed_forward_distance")
@final
@dataclass(frozen=True)
class FeedForwardDistance(Proxy):
    """Sum of the entries of K, K[i, j] the number of units that examples i and j switch alike.

    As `activation_distance`, of the activations in `FeedForward` parts alone, summed and not by the
    determinant. With `normalized` it is divided by the number of activations, and the metric is
    `feed_forward_distance_normalized`. More is better by convention, though K is large where examples
    are alike: from n^2 / 2 to n^2 for each unit of a batch of n. Misleads as it grows with depth and
    width, which is nearly all that it tells; normalized it was found to tell nothing. Published code
    compares the tokens of one example; here examples are compared, as everywhere else.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code).
    """

    normalized: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        end = "_normalized" if self.normalized else ""
        return (Metric(f"feed_forward_distance{end}", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (AGREEMENTS,)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (agreements,) = observed[AGREEMENTS]
        terms = len(FEED_FORWARD_UNITS.modules(subject)) if self.normalized else 1
        return (float(agreements.sum()) / terms,)
