"""Synaptic diversity: the rank of what mixes positions in heads, by nuclear norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from evaluators.zero_cost.gradients import OutputGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import terms, total
from evaluators.zero_cost.sequences import mixing_weights
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric


@registry.proxy("synaptic_diversity")
@final
@dataclass(frozen=True)
class SynapticDiversity(Proxy):
    """Sum of ||W||_* ||dR/dW||_* over the linear maps in mixers of positions, R the sum of the outputs.

    The nuclear norm is the sum of the singular values; a map with a matrix for each head adds the
    product of each. Mixers are attention and whatever else mixes in heads (`TokenMixer`); convolutions
    within them do not count. With `normalized` the mean over these maps, and the metric is
    `synaptic_diversity_normalized`. More is better: collapsed attention has rank one. In units of the
    outputs; grows with the batch. Misleads as it grows with depth and width, and with the scale of the
    gradient. Published code differentiates the last hidden state's sum (see `feed_forward_saliency`).

    Reference: Zhou et al., Training-free Transformer Architecture Search, CVPR 2022 (recalled);
    Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers, ACL 2023
    (its code).
    """

    normalized: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric(f"synaptic_diversity{'_normalized' if self.normalized else ''}", "", "maximize"),
        )

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (OutputGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        chosen = mixing_weights(subject)
        (gradients,) = observed[OutputGradient()]
        found = terms(subject, gradients, chosen, _diversity)
        return (total(found, normalized=self.normalized),)


def _diversity(weight: Tensor, gradient: Tensor) -> Tensor:
    """Of matrices (..., rows, columns): a scalar."""
    norms = [torch.linalg.matrix_norm(x.double(), "nuc") for x in (weight, gradient)]
    product: Tensor = (norms[0] * norms[1]).sum()
    return product
