"""NASWOT: how well the codes of rectifiers tell a batch's examples apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch

from evaluators.zero_cost.codes import Agreements
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.task import Metric


@registry.proxy("naswot")
@final
@dataclass(frozen=True)
class Naswot(Proxy):
    """log |det K|, K[i, j] the number of rectifiers that examples i and j switch alike.

    K = sum over the rectifiers on a path to the output of c c^T + (1 - c)(1 - c)^T, c = 1[x > 0]. More
    is better. Grows with the batch's size n, about as n log(rectifiers), so that it ranks by size as
    well. Misleads on wide networks for that reason, and tells nothing of what other activations do; it
    needs ReLU modules (ReLU6, LeakyReLU, PReLU and RReLU too).

    Reference: Mellor et al., Neural Architecture Search without Training, ICML 2021, Section 3.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("naswot", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (Agreements(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (agreements,) = observed[Agreements()]
        value = float(torch.linalg.slogdet(agreements).logabsdet)
        if value == -math.inf:
            raise Inapplicable("K is singular: its rectifiers do not tell the examples apart")
        return (value,)
