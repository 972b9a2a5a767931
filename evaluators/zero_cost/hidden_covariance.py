"""Hidden covariance: whether a recurrent layer's states tell a batch's sequences apart.

B batch, L length, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from evaluators.zero_cost.correlation_score import correlation_score
from evaluators.zero_cost.gradients import correlations
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.sequences import FirstStates
from evaluators.zero_cost.subject import Subject
from nas import registry
from nas.task import Metric

LAYERS = ("first", "middle", "last")


@registry.proxy("hidden_covariance")
@final
@dataclass(frozen=True)
class HiddenCovariance(Proxy):
    """-sum_i (log(v_i + k) + 1 / (v_i + k)), v the eigenvalues of the correlations of hidden states.

    A row for each of n examples: a recurrent layer's first state BEFORE each step, all steps one after
    the other; k = 1e-5. A metric each for the first, the middle (of four, the third) and the last
    recurrent layer, in the order of their calls; of one layer they are equal. The state before the
    first step is 0 and stays in the row, as in the published code: it has part in the row's mean. A
    constant row (one step, or a cell that stays at 0) has no correlation and is refused; each row that
    says the same as others costs 1e5. No gradients. More is better; at most about -n, where the rows
    are uncorrelated. Depends on the batch's size and the sequences' length: keep them the same.
    Misleads where cells that cannot be trained, such as ones whose states grow without bound, tell
    examples apart, and where two examples are nearly equal: one tiny eigenvalue rules the sum. Needs
    recurrent layers: torch's, or ones that are a `Recurrence`.

    Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
    ACL 2023 (its code; there a batch of 10 sequences of 70 tokens, in evaluation mode).
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(Metric(f"hidden_covariance_{name}", "", "maximize") for name in LAYERS)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (FirstStates(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (layers,) = observed[FirstStates()]
        return tuple(_score(layers[i]) for i in (0, len(layers) // 2, -1))


def _score(states: Tensor) -> float:
    """Of a layer's first state after each step, (B, L, F)."""
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1).flatten(1)
    return correlation_score(correlations(before, "sequence of hidden states"), before.shape[1])
