"""The weights' norm, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("l2_norm")
@final
@dataclass(frozen=True)
class L2Norm(Proxy):
    """Sum over layers of the Euclidean norm of the layer's weights; reads no data.

    sum_l ||w_l||_2. More is better. Layers that reach no output count too. Misleads always: it knows of
    the initialisation's scale and the layers' sizes, and of nothing else; a baseline.

    Reference: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021 (code).
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("l2_norm", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return ()

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        norms = torch._foreach_norm([w.detach() for w in subject.weights])
        return (float(torch.stack(norms).sum()),)
