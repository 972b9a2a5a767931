"""Networks with data, ready to be scored."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evaluators.zero_cost.naming import proxy
from evaluators.zero_cost.subject import Subject
from evaluators.zero_cost.suite import Measured, measure
from nas.space import Signature
from nas.training import seeded

CLASSES = 3


def subject(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    vocabulary: int | None = None,
) -> Subject:
    if targets is None:
        targets = torch.arange(len(inputs)) % CLASSES
    signature = Signature(tuple(inputs.shape[1:]), (CLASSES,), vocabulary)
    return Subject(network, inputs, targets, loss, signature, lambda key: zlib.crc32(key.encode()))


def images(batch: int = 12, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2, side, side, generator=torch.Generator().manual_seed(seed))


def convolutional(seed: int = 0, *, in_place: bool = False) -> nn.Module:
    """A small network with batch norm, dropout, a skip connection and an adaptive pool."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    with seeded(seed):
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)),
            Residual(),
            nn.Sequential(nn.ReLU(in_place), nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6)),
            nn.Dropout(0.2),
            nn.Sequential(nn.ReLU(in_place), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        )


def measured(given: Subject, *texts: str) -> Measured:
    return measure(given, [proxy(text) for text in texts])


def score(given: Subject, text: str) -> float:
    """The only value of a proxy that applies."""
    found = measured(given, text)
    assert not found.missing, found.missing
    (value,) = found.values.values()
    return value


def reason(given: Subject, text: str) -> str:
    """Why a proxy does not apply."""
    found = measured(given, text)
    assert not found.values, found.values
    return next(iter(found.missing.values()))
