"""Truths that every space's networks must hold, as assertions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.space import SearchSpace, Signature


def example_input(space: SearchSpace, batch: int = 4) -> Tensor:
    """Random numbers or tokens of the shape that flows into a space of whole networks."""
    assert isinstance(space.spec, Signature)
    return space.spec.random(batch, torch.Generator().manual_seed(0))


def assert_admissible(space: SearchSpace, architecture: Architecture) -> None:
    """The architecture is in the space, its text reads back, and its network has the stated output."""
    assert space.contains(architecture)
    assert space.parse(str(architecture)) == architecture
    x = example_input(space)
    y = space.build(architecture)(x)
    assert tuple(y.shape) == (len(x), *space.spec_out(architecture))
    assert space.spec_out(architecture) == space.spec.output


def assert_gradients_reach_live_parameters(network: nn.Module, x: Tensor) -> None:
    """Every parameter has a gradient, or does not change the output (it is on a dead branch)."""
    y = network(x)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    dead = [p for p in network.parameters() if p.grad is None or not p.grad.any()]
    before = network(x)
    with torch.no_grad():
        for parameter in dead:
            parameter.add_(torch.randn_like(parameter))
    torch.testing.assert_close(network(x), before)


def assert_causal(network: nn.Module, x: Tensor) -> None:
    """Outputs (batch, length, ...) up to a position are those of any inputs that agree up to there."""
    network.eval()
    with torch.no_grad():
        y = network(x)
        for t in range(1, x.shape[-1]):
            other = x.clone()
            other[..., t:] = x[..., t:].roll(1, 0)
            torch.testing.assert_close(network(other)[:, :t], y[:, :t], rtol=0, atol=1e-5)


def match_weights(module: nn.Module, seed: int) -> None:
    """Draw every parameter anew from a seed, batch norm aside."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                for parameter in layer.parameters(recurse=False):
                    parameter.normal_(0, 0.3, generator=generator)
