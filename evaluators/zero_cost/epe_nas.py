"""EPE-NAS: correlations of input gradients within each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from evaluators.zero_cost.gradients import InputGradient, correlations
from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.task import Metric

EPSILON = 1e-5
MANY_CLASSES = 100


@registry.proxy("epe_nas")
@final
@dataclass(frozen=True)
class EpeNas(Proxy):
    """Sum over classes c of |E_c|, E_c = sum of log(|C_c| + 1e-5) over the correlations within c.

    C_c are the correlations of the input gradients of the batch's examples of class c. With more than
    100 classes E_c is divided by the number of its examples, and the score is the sum over ordered
    pairs of classes of |E_i - E_j|, divided by the number of classes seen. More is better: examples of
    a class are told apart. Depends on the batch. Misleads where the batch has few examples of a class;
    it needs two of one and whole classes as targets. Of tokens it is the gradient in their embeddings.

    Reference: Lopes et al., EPE-NAS: Efficient Performance Estimation Without Training, 2021.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("epe_nas", "", "maximize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return (InputGradient(),)

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        (rows,) = observed[InputGradient()]
        targets = subject.targets
        if targets.is_floating_point() or targets.dim() != 1:
            raise Inapplicable("the task has no class for an example to belong to")
        classes, counts = torch.unique(targets, return_counts=True)
        if int(counts.max()) < 2:
            raise Inapplicable(f"no two of the {len(targets)} examples are of one class")
        sums = torch.stack([_within(rows[targets == c]) for c in classes])
        if subject.signature.output[0] <= MANY_CLASSES:
            return (float(sums.abs().sum()),)
        means = sums / counts
        return (float((means - means.unsqueeze(1)).abs().sum()) / len(classes),)


def _within(rows: Tensor) -> Tensor:
    """E_c of the input gradients (examples, numbers) of a class."""
    return (correlations(rows).abs() + EPSILON).log().sum()
