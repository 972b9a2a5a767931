"""Activation distance: how well the codes of all activations tell a batch's examples apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch

from evaluators.zero_cost.codes import ALL_UNITS, Agreements
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.task import Metric

AGREEMENTS = Agreements(units=ALL_UNITS)


@registry.proxy("activation_distance")
@final
@dataclass(frozen=True)
class ActivationDistance(Proxy):
    """log |det K|, K[i, j] the number of activations' units that examples i and j switch alike.

    As `naswot`, of every activation that is a module: rectifiers, tanh, sigmoid, GELU and their kind,
    on where what they take is above 0 (for a sigmoid that is 1/2 of what it gives; published code, for
    recurrent cells, takes what they give, which of a sigmoid is always above 0). In a recurrent cell
    every step counts. More is better. Grows with the batch's size n, about as n log(units). Misleads on
    large networks for that reason; and the codes of smooth activations say little of what they do.

    Reference: Mellor et al., Neural Architecture Search without Training, ICML 2021, Section 3; for
    recurrent cells Serianni and Kalita, Training-free Neural Architecture Search for RNNs and
    Transformers, ACL 2023.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("activation_distance", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (AGREEMENTS,)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (agreements,) = observed[AGREEMENTS]
        value = float(torch.linalg.slogdet(agreements).logabsdet)
        if value == -math.inf:
            raise Inapplicable("K is singular: its activations do not tell the examples apart")
        return (value,)
