"""Measurements that are compared in pairs: the same batches, the same noise, nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from nas.holding import evaluated
from nas.task import Split, Task
from nas.training import seeded

BatchNorm = Literal["batch", "stored"]
WORST = sys.float_info.max  # a number that JSON has


class Measurement(NamedTuple):
    """The task's first score, turned so that more is better (accuracy as it is), and the loss.

    An output that is not finite has the worst of both.
    """

    score: float
    loss: float


@final
@dataclass(frozen=True, eq=False)
class Validation:
    """A model on fixed batches of validation data.

    `batch_norm` "batch" takes each batch's own mean and variance, as the published DARTS-PT does, so
    that a masked network is not judged by another one's statistics; "stored" takes the stored ones. All
    else is in eval mode. Statistics, modes and torch's random state are afterwards what they were; the
    random state begins at `seed` each time.
    """

    model: nn.Module
    task: Task
    batches: Sequence[Split]
    batch_norm: BatchNorm = "batch"
    seed: int = 0

    def measure(self) -> Measurement:
        """Score and loss over all batches, of the model as it is now."""
        device = next((t.device for t in self.model.parameters()), torch.device("cpu"))
        batch = self.batch_norm == "batch"
        with (
            torch.no_grad(),
            seeded(self.seed, str(device)),
            evaluated(self.model, batch_statistics=batch),
        ):
            outputs = torch.cat([self.model(b.inputs.to(device)) for b in self.batches])
        targets = torch.cat([b.targets for b in self.batches]).to(device)
        return self._measurement(outputs, targets)

    def _measurement(self, outputs: Tensor, targets: Tensor) -> Measurement:
        if not bool(outputs.isfinite().all()):
            return Measurement(-WORST, WORST)
        first = self.task.scores[0]
        sign = 1 if first.metric.direction == "maximize" else -1
        loss = float(self.task.loss(outputs, targets, 0.0))
        return Measurement(sign * float(first.of(outputs, targets)), loss)


def fixed_batches(split: Split, num_batches: int, batch_size: int) -> list[Split]:
    """The first batches of a split, or as many as it has; one example is no batch beside others."""
    cut = (torch.split(t, batch_size) for t in (split.inputs, split.targets))
    parts = zip(*cut, strict=True)
    made = [Split(*part) for part in list(parts)[:num_batches]]
    return made[:-1] if len(made) > 1 and len(made[-1]) == 1 else made
