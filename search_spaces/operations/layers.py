"""Layers as values, for sequences and images: each tells its shape out, its module and its cost.

Shapes are those of one example: (channels, length) of a sequence, (channels, height, width) of an
image; tensors have the batch before. A stride divides every size, rounded up. An operation is a tuple
of layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.complexity import Complexity, activation, batch_norm, convolution, pool

Shape = tuple[int, ...]

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_NORMS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_FILLS: dict[str, Callable[[Tensor], Tensor]] = {"zeros": torch.zeros_like, "noise": torch.randn_like}
_MAX_POOLS: dict[int, type[nn.MaxPool1d | nn.MaxPool2d]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


def strided(shape: Shape, stride: int) -> Shape:
    """The shape after a stride: every size divided by it, rounded up."""
    return shape[0], *(-(-size // stride) for size in shape[1:])


class Layer(ABC):
    """One layer: what it makes of a shape, the module that does, and what that costs."""

    @abstractmethod
    def infer(self, shape: Shape) -> Shape:
        """The shape out."""

    @abstractmethod
    def build(self, shape: Shape) -> nn.Module:
        """The module for inputs (batch, *shape)."""

    @abstractmethod
    def cost(self, shape: Shape) -> Complexity:
        """What the module costs."""


Layers = tuple[Layer, ...]


def shape_out(layers: Sequence[Layer], shape: Shape) -> Shape:
    """The shape after layers one after the other."""
    return reduce(lambda flow, layer: layer.infer(flow), layers, shape)


def build(layers: Sequence[Layer], shape: Shape) -> nn.Module:
    """The module of layers one after the other: (batch, *shape) -> (batch, *shape out)."""
    modules = []
    for layer in layers:
        modules.append(layer.build(shape))
        shape = layer.infer(shape)
    if len(modules) == 1:
        return modules[0]
    return nn.Sequential(*modules) if modules else nn.Identity()


def cost(layers: Sequence[Layer], shape: Shape) -> Complexity:
    """What layers cost one after the other."""
    total = Complexity()
    for layer in layers:
        total += layer.cost(shape)
        shape = layer.infer(shape)
    return total


@final
@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    def infer(self, shape: Shape) -> Shape:
        return shape

    def build(self, shape: Shape) -> nn.Module:
        return nn.ReLU()

    def cost(self, shape: Shape) -> Complexity:
        return activation(shape)


@final
@dataclass(frozen=True)
class Norm(Layer):
    """Batch norm over the channels; scale and shift are learned where it is affine."""

    affine: bool = True

    def infer(self, shape: Shape) -> Shape:
        return shape

    def build(self, shape: Shape) -> nn.Module:
        return _NORMS[len(shape) - 1](shape[0], affine=self.affine)

    def cost(self, shape: Shape) -> Complexity:
        counted = batch_norm(shape)
        return counted if self.affine else replace(counted, params=0)


@final
@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution without bias to `channels`; zeros lie around the map, as far as the kernel sees."""

    channels: int
    kernel: int = 1
    stride: int = 1

    def infer(self, shape: Shape) -> Shape:
        return self.channels, *strided(shape, self.stride)[1:]

    def build(self, shape: Shape) -> nn.Module:
        kind = CONVOLUTIONS[len(shape) - 1]
        size, pad = self.kernel, self.kernel // 2
        return kind(shape[0], self.channels, size, self.stride, padding=pad, bias=False)

    def cost(self, shape: Shape) -> Complexity:
        window = (self.kernel,) * (len(shape) - 1)
        return convolution((shape[0], self.channels), window, self.infer(shape)[1:])


@final
@dataclass(frozen=True)
class Depthwise(Layer):
    """A convolution of every channel by itself, without bias, with zeros around the map.

    y_t = sum over i < kernel of w_i x_{stride t + dilation (i - (kernel - 1) / 2)}, for an odd kernel.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1

    def infer(self, shape: Shape) -> Shape:
        return strided(shape, self.stride)

    def build(self, shape: Shape) -> nn.Module:
        channels = shape[0]
        return CONVOLUTIONS[len(shape) - 1](
            channels,
            channels,
            self.kernel,
            self.stride,
            padding=self.dilation * (self.kernel - 1) // 2,
            dilation=self.dilation,
            groups=channels,
            bias=False,
        )

    def cost(self, shape: Shape) -> Complexity:
        window = (self.kernel,) * (len(shape) - 1)
        out = self.infer(shape)[1:]
        return convolution((shape[0], shape[0]), window, out, groups=shape[0])


@final
@dataclass(frozen=True)
class Pool(Layer):
    """The largest or the mean of the values inside the map that a window of odd size sees."""

    kind: Literal["max", "avg"]
    kernel: int
    stride: int = 1

    def infer(self, shape: Shape) -> Shape:
        return strided(shape, self.stride)

    def build(self, shape: Shape) -> nn.Module:
        axes, pad = len(shape) - 1, self.kernel // 2
        if self.kind == "max":
            return _MAX_POOLS[axes](self.kernel, self.stride, padding=pad)
        if axes == 1:
            return nn.AvgPool1d(self.kernel, self.stride, padding=pad, count_include_pad=False)
        return nn.AvgPool2d(self.kernel, self.stride, padding=pad, count_include_pad=False)

    def cost(self, shape: Shape) -> Complexity:
        return pool(self.kernel ** (len(shape) - 1), self.infer(shape))


@final
@dataclass(frozen=True)
class FactorizedReduce(Layer):
    """Half of every size: ReLU, `HalvedConvolution`, `norm`."""

    channels: int
    norm: Norm = Norm()

    def infer(self, shape: Shape) -> Shape:
        return self.channels, *strided(shape, 2)[1:]

    def build(self, shape: Shape) -> nn.Module:
        out = self.norm.build(self.infer(shape))
        return nn.Sequential(nn.ReLU(), HalvedConvolution(shape, self.channels), out)

    def cost(self, shape: Shape) -> Complexity:
        out = self.infer(shape)
        window = (1,) * (len(shape) - 1)
        return (
            activation(shape) + convolution((shape[0], out[0]), window, out[1:]) + self.norm.cost(out)
        )


@final
class HalvedConvolution(nn.Module):
    """Two 1x1 convolutions of stride 2 side by side, the second one pixel on along every axis.

    (batch, *shape) -> (batch, channels, sizes / 2 rounded up); each gives half of the channels. Of odd
    sizes, the second sees zeros beyond the last place.

    Reference: Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, CVPR
    2018 (as used by Liu et al., DARTS, ICLR 2019).
    """

    def __init__(self, shape: Shape, channels: int) -> None:
        super().__init__()
        kind = CONVOLUTIONS[len(shape) - 1]
        half = channels // 2
        self.first = kind(shape[0], half, 1, 2, bias=False)
        self.second = kind(shape[0], channels - half, 1, 2, bias=False)
        # Padding by -1 drops the first place, by 1 adds a zero after the last.
        self.shift = [by for size in reversed(shape[1:]) for by in (-1, size % 2)]

    def forward(self, x: Tensor) -> Tensor:
        moved = functional.pad(x, self.shift)
        return torch.cat([self.first(x), self.second(moved)], 1)


@final
@dataclass(frozen=True)
class Fill(Layer):
    """A map that does not depend on the input, after a stride: zeros, or noise of deviation 1."""

    kind: Literal["zeros", "noise"]
    stride: int = 1

    def infer(self, shape: Shape) -> Shape:
        return strided(shape, self.stride)

    def build(self, shape: Shape) -> nn.Module:
        return Filled(len(shape) - 1, self.stride, _FILLS[self.kind])

    def cost(self, shape: Shape) -> Complexity:
        return Complexity(activations=prod(self.infer(shape)))


@final
class Filled(nn.Module):
    """`fill` of the places that a stride leaves: (batch, *shape) -> (batch, *shape out)."""

    def __init__(self, axes: int, stride: int, fill: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kept = (slice(None), slice(None), *[slice(None, None, stride)] * axes)
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        return self.fill(x[self.kept])
