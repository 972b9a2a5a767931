"""Jacobian covariance: whether examples are told apart by the network's local linear maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from evaluators.zero_cost.correlation_score import correlation_score
from evaluators.zero_cost.gradients import InputGradient, correlations
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.task import Metric


@registry.proxy("jacob_cov")
@final
@dataclass(frozen=True)
class JacobCov(Proxy):
    """-sum_i (log(v_i + k) + 1 / (v_i + k)), v the eigenvalues of the correlations of input gradients.

    A row for each of n examples, the gradient of the sum of its outputs in its input; k = 1e-5. Rows of
    d numbers have at most d - 1 eigenvalues above 0: no others are summed (published code adds the same
    1e5 for each of them on every network). More is better; at most about -n, where the rows are
    uncorrelated. Depends on the batch's size: keep it the same. Misleads where one tiny eigenvalue
    rules the sum (two nearly equal examples). Of tokens it is the gradient in their embeddings; without
    a trained `nn.Embedding` it does not apply. On recurrent cells it was found to tell little.

    Reference: Mellor et al., Neural Architecture Search without Training, 2020 (first version).
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("jacob_cov", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (InputGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (rows,) = observed[InputGradient()]
        if rows.shape[1] < 3:
            raise Inapplicable("an input of two numbers has gradients that correlate by 1 or -1 alone")
        return (correlation_score(correlations(rows), rows.shape[1]),)
