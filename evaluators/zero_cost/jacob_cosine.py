"""Jacobian cosine: whether the gradients in the examples point in different directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from evaluators.zero_cost.gradients import InputGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.task import Metric

POWER = 1 / 20


@registry.proxy("jacob_cosine")
@final
@dataclass(frozen=True)
class JacobCosine(Proxy):
    """1 - 1/(n^2 - n) 1/2 sum_ij |cos_ij - delta_ij|^(1/20), cosines of n examples' input gradients.

    A row for each example, the gradient of the sum of its outputs in its input, or in the embeddings of
    its tokens. More is better: from 1/2 (all in one direction) to 1 (all orthogonal). The root lifts
    small cosines: at a cosine of 0.01 it is still 0.6. Misleads where gradients are orthogonal by their
    number of dimensions alone. The outputs are the network's own; published code takes those of the
    last recurrent layer, in evaluation mode.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (code); after Celotti et al., Improving Zero-Shot Neural Architecture Search with
    Parameters Scoring, 2020 (recalled).
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("jacob_cosine", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (InputGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (rows,) = observed[InputGradient()]
        n, norms = len(rows), rows.double().norm(dim=1, keepdim=True)
        if not bool((norms > 0).all()):
            raise Inapplicable("an example's gradient in the input is 0")
        unit = rows.double() / norms
        apart = unit @ unit.T - torch.eye(n, dtype=unit.dtype, device=unit.device)
        apart.fill_diagonal_(0)  # what rounding leaves there, lifted by the root, is no score
        return (1 - float(apart.abs().pow(POWER).sum()) / (2 * (n * n - n)),)
