"""Convolutions, pools and the sum over a cell's edges, as plain modules with their rules.

What flows is a feature map's shape, (channels, height, width).
"""

from __future__ import annotations

from torch import Tensor, nn, zeros_like

from nas.complexity import (
    Complexity,
    activation,
    adaptive_pool,
    batch_norm,
    convolution,
    linear,
    pool,
)
from nas.grammar import Rule, terminal

Shape = tuple[int, int, int]


class Zero(nn.Module):
    """Zeros of its input's shape, (batch, channels, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return zeros_like(x)


def relu_conv_bn(channels: tuple[int, int], kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU, a convolution without bias from channels[0] to channels[1], batch norm.

    (batch, channels[0], H, W) -> (batch, channels[1], ceil(H / stride), ceil(W / stride)).
    """
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(*channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels[1]),
    )


def relu_conv_bn_cost(shape: Shape, channels: int, kernel: int, stride: int = 1) -> Complexity:
    """What `relu_conv_bn` costs on a map of `shape` with `channels` out."""
    out = (channels, *strided(shape, stride)[1:])
    convolved = convolution((shape[0], channels), (kernel, kernel), out[1:])
    return activation(shape) + convolved + batch_norm(out)


def strided(shape: Shape, stride: int) -> Shape:
    """The shape after a stride: height and width divided by it, rounded up."""
    channels, height, width = shape
    return channels, -(-height // stride), -(-width // stride)


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3, the first of stride 2, beside a pooled shortcut.

    y = conv(conv(x)) + conv1x1(pool(x)), each `conv` a ReLU, a 3x3 convolution and batch norm, the
    pool 2x2 averages. (batch, C, H, W) -> (batch, channels out, ceil(H / 2), ceil(W / 2)).

    Reference: Dong and Yang, NAS-Bench-201, ICLR 2020, Section 2.1 (after He et al., CVPR 2016).
    """

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.first = relu_conv_bn(channels, 3, 2)
        self.second = relu_conv_bn((channels[1], channels[1]), 3)
        # Rounding up keeps odd sizes equal to those of the strided convolution.
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True)
        self.shortcut = nn.Conv2d(*channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut(self.pool(x)) + self.second(self.first(x))
        return y


def residual_block_cost(shape: Shape, channels: int) -> Complexity:
    """What `ResidualBlock` costs on a map of `shape` with `channels` out."""
    half = strided(shape, 2)
    out = (channels, *half[1:])
    shortcut = pool(4, half) + convolution((shape[0], channels), (1, 1), half[1:])
    main = relu_conv_bn_cost(shape, channels, 3, 2) + relu_conv_bn_cost(out, channels, 3)
    return shortcut + main


class Classifier(nn.Module):
    """Batch norm, ReLU, the mean over the map, a linear map.

    (batch, channels, H, W) -> (batch, classes).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x))
        return logits


def classifier_cost(shape: Shape, classes: int) -> Complexity:
    """What `Classifier` costs on a map of `shape`."""
    normed = batch_norm(shape) + activation(shape)
    return normed + adaptive_pool(shape) + linear(shape[0], classes)


def none_rule() -> Rule:
    """No edge: zeros."""
    return terminal("none", lambda shape: Zero(), cost=lambda shape: Complexity())


def skip_connect_rule() -> Rule:
    """The input itself."""
    return terminal("skip_connect", lambda shape: nn.Identity(), cost=lambda shape: Complexity())


def nor_conv_rule(kernel: int) -> Rule:
    """ReLU, a convolution of stride 1 that keeps the channels, batch norm."""
    return terminal(
        f"nor_conv_{kernel}x{kernel}",
        lambda shape: relu_conv_bn((shape[0], shape[0]), kernel),
        cost=lambda shape: relu_conv_bn_cost(shape, shape[0], kernel),
    )


def avg_pool_rule() -> Rule:
    """The mean over 3x3 at stride 1, of the pixels inside the map."""
    return terminal(
        "avg_pool_3x3",
        lambda shape: nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
        cost=lambda shape: pool(9, shape),
    )
