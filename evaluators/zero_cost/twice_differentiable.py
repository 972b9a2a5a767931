"""Layers that are quick to differentiate twice, in the place of torch's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from evaluators.zero_cost.batch_norm import BATCH_NORMS, normalize
from evaluators.zero_cost.convolution import convolve, is_plain
from evaluators.zero_cost.rectifier import is_relu, rectify


@contextmanager
def twice_differentiable(network: nn.Module) -> Iterator[dict[Tensor, Tensor]]:
    """Convolutions, ReLUs, and batch norms in training mode, compute so within the block.

    Given are scales (), 1, by convolutions' weights: second derivatives in a scale are those along the
    weight, which has none itself. Running statistics stay; biases and norms' scales have no gradient.
    """
    scales: dict[Tensor, Tensor] = {}
    replaced: list[nn.Module] = []
    try:
        for module in network.modules():
            if type(module) in BATCH_NORMS:
                module.forward = partial(normalize, module)
            elif is_relu(module):
                module.forward = rectify
            elif is_plain(module):
                weight = module.weight
                assert isinstance(weight, Tensor)
                scale = scales.setdefault(weight, weight.new_ones((), requires_grad=True))
                module.forward = partial(convolve, module, scale)
            else:
                continue
            replaced.append(module)
        yield scales
    finally:
        for module in replaced:
            del module.forward
