"""A task: fixed data splits, a loss, scores with units, and the shapes that go in and come out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from nas.space import Signature

DIGITS = 16  # of a digest
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """A named quantity: its unit, and which way is better.

    `shared`: the computed function alone determines it, so that equal functions have equal values, as
    accuracy and loss do. `resource`: what the architecture takes and not how good it is, as parameters
    and latency are.
    """

    name: str
    unit: str
    direction: Direction
    shared: bool = False
    resource: bool = False


@dataclass(frozen=True)
class Score:
    """A metric of a task, computed from outputs (batch, *output) and targets (batch, ...)."""

    metric: Metric
    of: Callable[[Tensor, Tensor], float]


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split: inputs (n, *input shape), and targets (n, *output shape) or classes.

    Classes are (n,), or (n, length) where there is one at every position; they and tokens are int64.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class Scaling:
    """Constants fixed on the training split: inputs are shifted and divided, outputs the reverse.

    Tensors that broadcast against one example: (channels, 1, 1) for images, (features,) for vectors.
    Tokens are not scaled: their mean is the whole number 0 and their deviation 1, int64 of shape (1,).
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """Data and what to make of it. Search trains on `train` and is scored on `valid`; `test` is for
    the end. The first score is the default objective. `loss(outputs, targets, label_smoothing)` is
    a scalar tensor. `known_good` is a value of the first score that a sound small model reaches.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    signature: Signature
    loss: Callable[[Tensor, Tensor, float], Tensor]
    scores: tuple[Score, ...]
    scaling: Scaling
    known_good: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values

    @cached_property
    def digest(self) -> str:
        """What tells the data from others of the same name, of the training and validation splits."""
        found = hashlib.sha256()
        for part in (self.train, self.valid):
            for tensor in (part.inputs, part.targets):
                found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(tensor.contiguous().cpu().numpy().tobytes())
        return found.hexdigest()[:DIGITS]
