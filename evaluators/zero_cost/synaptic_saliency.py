"""Synaptic saliency of recurrent networks: the weights of states, and the decoder's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from evaluators.zero_cost.gradients import SquareGradient
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.saliency import terms, weight_saliency
from evaluators.zero_cost.sequences import recurrent_layers
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.sequence_parts import Recurrence
from nas.task import Metric


@registry.proxy("synaptic_saliency")
@final
@dataclass(frozen=True)
class SynapticSaliency(Proxy):
    """Sum of |w dR/dw| over the weights of hidden states and the decoder's, R half the squared outputs.

    The weights are those that multiply states and what is computed in a step (`hidden_weights`; of
    torch's layers `weight_hh`), and those of the last linear map outside recurrent layers. More is
    better by convention; on NAS-Bench-NLP's cells it was found to correlate negatively. In units of
    the outputs squared; grows with the batch, the length and the number of weights. Misleads as it
    grows with what a cell amplifies; and a decoder tied to the embedding counts with both.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code); after Tanaka et al., NeurIPS 2020.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("synaptic_saliency", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (SquareGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        layers = recurrent_layers(subject)
        (gradients,) = observed[SquareGradient()]
        chosen = [w for layer in layers for w in _hidden(layer)]
        return (sum(terms(subject, gradients, [*chosen, *_decoder(subject, layers)], weight_saliency)),)


def _hidden(layer: nn.Module) -> Sequence[nn.Parameter]:
    if isinstance(layer, Recurrence):
        return layer.hidden_weights()
    return [p for name, p in layer.named_parameters() if name.startswith("weight_hh")]


def _decoder(subject: Subject, layers: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    """The weight of the last linear map on a path to the output, outside recurrent layers."""
    inner = {m for layer in layers for m in layer.modules()}
    outside = [m for m in subject.live(nn.Linear) if m not in inner]
    for last in outside[-1:]:
        assert isinstance(last.weight, nn.Parameter)
        yield last.weight
