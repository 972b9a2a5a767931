"""A task of predicting the next token, from one long sequence of tokens in one call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nas.errors import ConfigurationError, DataError
from nas.space import Signature
from nas.task import Metric, Scaling, Score, Split, Task


@dataclass(frozen=True)
class Windows:
    """How a sequence of tokens is split and cut into examples of `context` tokens.

    The last `test` share of the sequence is the test part, the `valid` share before it validates, the
    rest trains. Each part is cut by itself into windows side by side; with a `stride` training windows
    begin that many tokens apart, so that they overlap (or leave some out) and an epoch is longer.
    """

    context: int = 64
    stride: int | None = None
    valid: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        for name, given in (("context", self.context), ("stride", self.stride)):
            if given is not None and given < 1:
                raise ConfigurationError(f"{name} is {given}; it takes a whole number from 1.")
        if not (0 < self.valid < 1 and 0 < self.test < 1 and self.valid + self.test < 1):
            raise ConfigurationError(
                f"valid is {self.valid} and test {self.test}; they take shares of the text above 0 "
                "that leave some to train on."
            )


def language_modelling(name: str, tokens: Any, vocabulary: int, windows: Windows = Windows()) -> Task:
    """A task of predicting every next token of a sequence, in its order, scored in nats a token.

    `tokens` are whole numbers (n,) below `vocabulary`. An example's inputs are `context` tokens
    (length,), its targets the same moved on by one; outputs are logits (length, vocabulary), of which
    those at a position may depend on the tokens up to it alone. A position near the start of a window
    has little before it, and counts like the others. Any: an array or tensor.
    """
    sequence = _checked(tokens, vocabulary)
    num_test, num_valid = (round(share * len(sequence)) for share in (windows.test, windows.valid))
    sizes = [len(sequence) - num_valid - num_test, num_valid, num_test]
    parts = torch.split(sequence, sizes)
    stride = windows.stride or windows.context
    train = _windows("training", parts[0], windows.context, stride)
    valid, test = (
        _windows(what, part, windows.context, windows.context)
        for what, part in zip(("validation", "test"), parts[1:], strict=True)
    )
    zero, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    return Task(
        name=name,
        train=train,
        valid=valid,
        test=test,
        signature=Signature((windows.context,), (windows.context, vocabulary), vocabulary),
        loss=_smoothed_cross_entropy,
        scores=(
            Score(Metric("loss", "nats", "minimize", shared=True), cross_entropy),
            Score(Metric("perplexity", "1", "minimize", shared=True), perplexity),
        ),
        scaling=Scaling(zero, one, torch.zeros(1), torch.ones(1)),
    )


def cross_entropy(outputs: Tensor, targets: Tensor) -> float:
    """Mean negative log-likelihood in nats of tokens (n, length) by logits (n, length, vocabulary)."""
    return float(_smoothed_cross_entropy(outputs.detach(), targets, 0.0))


def perplexity(outputs: Tensor, targets: Tensor) -> float:
    """The exponential of the cross-entropy: how many equally likely tokens it is as hard as."""
    nats = cross_entropy(outputs, targets)
    return math.exp(nats) if nats < math.log(torch.finfo(torch.float64).max) else math.inf


def _smoothed_cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    logits = outputs.flatten(0, 1)  # (n length, vocabulary)
    return functional.cross_entropy(logits, targets.flatten(), label_smoothing=label_smoothing)


def _checked(tokens: Any, vocabulary: int) -> Tensor:  # Any: as in language_modelling
    array = np.asarray(tokens)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"the tokens are {array.dtype} of shape {array.shape}; give whole numbers (n,), such as "
            "numpy.unique(list(text), return_inverse=True)[1]."
        )
    if array.size and not (array.min() >= 0 and array.max() < vocabulary):
        raise DataError(
            f"the tokens go from {array.min()} to {array.max()}; with a vocabulary of {vocabulary} "
            f"they are numbers from 0 to {vocabulary - 1}."
        )
    return torch.from_numpy(array.astype(np.int64))


def _windows(what: str, part: Tensor, context: int, stride: int) -> Split:
    """Views of the part: inputs (n, context), and targets one token on."""
    if len(part) <= context:
        raise DataError(
            f"the {what} part has {len(part):,} tokens, and a window takes {context:,} and one to "
            "predict; give a longer text, a larger share or a smaller context."
        )
    inputs, targets = (side.unfold(0, context, stride) for side in (part[:-1], part[1:]))
    return Split(inputs, targets)
