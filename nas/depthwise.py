"""Depthwise convolutions whose gradients are as quick as their forward pass, on a CPU.

On channels-last tensors oneDNN runs the forward pass of a depthwise convolution and the weight gradient
of a 3x3 one by quick kernels, and all else by slow ones. So here the input's gradient is a forward pass
with the kernel turned round, and the weight's gradient is put together from 3x3 blocks: each is that of
a 3x3 kernel on a shifted map, and a dilated kernel is a plain one on each of the interleaved parts of
the map (with a dilation of 2, the even and the odd rows and columns), put side by side in the batch.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad

BLOCK = 3


@final
class FastDepthwise(nn.Module):
    """A convolution of every channel with a filter of its own, on the weights of another module.

    y[b,c,h,w] = sum_ij k[c,i,j] x[b,c,h + d (i - r),w + d (j - r)] with an odd side 2 r + 1, zeros
    beyond the rim and dilation d: (batch, channels, height, width) in and out. It has no second
    derivatives.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.dilation = int(convolution.dilation[0])

    @staticmethod
    def replaces(module: nn.Module) -> bool:
        """Whether a module is such a convolution."""
        if not isinstance(module, nn.Conv2d) or module.bias is not None:
            return False
        (side, other), d = module.kernel_size, module.dilation[0]
        even = (side % 2 == 1) and side == other and side >= BLOCK and module.dilation == (d, d)
        same = module.stride == (1, 1) and module.padding == (d * (side // 2),) * 2
        alike = module.groups == module.in_channels == module.out_channels
        return even and same and alike and module.padding_mode == "zeros"

    def forward(self, x: Tensor) -> Tensor:
        """The height and width are kept."""
        y: Tensor = _Depthwise.apply(x, self.weight, self.dilation)  # type: ignore[no-untyped-call]
        return y


class _Depthwise(torch.autograd.Function):
    """Without stride, the size kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, dilation: int
    ) -> Tensor:  # Any: autograd's context
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _plain(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:  # Any: as above
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = _plain(gradient, weight.flip(2, 3), ctx.dilation)
        if ctx.needs_input_grad[1]:
            for_weight = weight_gradient(x, gradient, weight.shape[-1], ctx.dilation)
        return for_x, for_weight, None


def _plain(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return conv2d(x, weight, padding=padding, dilation=dilation, groups=weight.shape[0])


def weight_gradient(x: Tensor, gradient: Tensor, side: int, dilation: int) -> Tensor:
    """The gradient (channels, 1, side, side) for the filters, from x and that of the output."""
    if dilation > 1:
        return weight_gradient(apart(x, dilation), apart(gradient, dilation), side, 1)
    if side == BLOCK:
        return _block(x, gradient, 1)
    radius = side // 2
    padded = pad(x, (radius, radius, radius, radius))
    height, width = x.shape[2:]
    found = x.new_zeros(x.shape[1], 1, side, side)
    starts = _starts(side)
    for top in starts:
        for left in starts:
            shifted = padded[:, :, top : top + height + 2, left : left + width + 2]
            block = _block(shifted.contiguous(memory_format=torch.channels_last), gradient, 0)
            found[:, :, top : top + BLOCK, left : left + BLOCK] = block
    return found


def _starts(side: int) -> list[int]:
    """Where blocks of 3 begin that cover a side; the last two may overlap."""
    return [*range(0, side - BLOCK, BLOCK), side - BLOCK]


def _block(x: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """The gradient for 3x3 filters."""
    channels = x.shape[1]
    empty = x.new_empty(channels, 1, BLOCK, BLOCK)
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        x,
        empty,
        None,
        (1, 1),
        (padding, padding),
        (1, 1),
        False,
        (0, 0),
        channels,
        (False, True, False),
    )[1]
    return found


def apart(x: Tensor, factor: int) -> Tensor:
    """The interleaved parts of a map: (batch, C, H, W) -> (f^2 batch, C, ceil(H / f), ceil(W / f))."""
    below, beside = (-size % factor for size in x.shape[2:])
    if below or beside:
        x = pad(x, (0, beside, 0, below))
    steps = range(factor)
    return torch.cat([x[:, :, row::factor, column::factor] for row in steps for column in steps])
