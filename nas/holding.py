"""Blocks within which tensors are tried out and then are what they were, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def restored(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Their numbers are given, as copies, and put back after the block.

    A graph that was recorded in the block must be used up within it.
    """
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield before
    finally:
        assign(tensors, before)


@torch.no_grad()
def assign(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Put numbers into tensors of the same shapes, in place."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@contextmanager
def untrained(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Nothing is recorded for their gradients within the block, so that none is computed."""
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, trained in zip(parameters, before, strict=True):
            parameter.requires_grad_(trained)


@contextmanager
def evaluated(model: nn.Module, *, batch_statistics: bool) -> Iterator[None]:
    """The model in eval mode within the block, its modes and buffers put back after it.

    With `batch_statistics` batch norm alone stays in training mode: it takes each batch's own mean and
    variance.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    if batch_statistics:
        for module in modes:
            if isinstance(module, _BatchNorm):
                module.train()
    try:
        with restored(list(model.buffers())):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
