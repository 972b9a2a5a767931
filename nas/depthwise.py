"""Depthwise convolutions whose gradients are as quick as their forward pass, on a CPU.

On channels-last tensors oneDNN runs the forward pass of a depthwise convolution and, where a filter is
at most three columns wide and not dilated, its gradients by quick kernels, and all else by slow ones.
So here the input's gradient is a forward pass with the filters turned round, and the weight's is put
together from blocks of at most three columns, each that of a narrow filter on a shifted map. A dilated
filter is a plain one on each of the interleaved parts of the map (with a dilation of 2, the even and
the odd rows and columns), put side by side in the batch; where the stride is equal to the dilation, it
sees the first of these parts only.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad

COLUMNS = 3  # of a filter that has a quick gradient


@final
class FastDepthwise(nn.Module):
    """A convolution of every channel with a filter of its own, on the weights of another module.

    (batch, channels, height, width) in and out, see `depthwise`.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.moves = Moves(convolution.stride[0], convolution.dilation[0])

    @staticmethod
    def replaces(module: nn.Module) -> bool:
        """Whether a module is a convolution that `depthwise` computes."""
        if not isinstance(module, nn.Conv2d) or module.bias is not None:
            return False
        (side, other), s, d = module.kernel_size, module.stride[0], module.dilation[0]
        even = side % 2 == 1 and side == other and side > 1
        known = module.stride == (s, s) and module.dilation == (d, d) and (d == 1 or s in {1, d})
        kept = module.padding == (d * (side // 2),) * 2 and module.padding_mode == "zeros"
        return even and known and kept and module.groups == module.in_channels == module.out_channels

    @staticmethod
    def pays(module: nn.Conv2d) -> bool:
        """Whether one that it replaces has slow gradients of its own."""
        return module.kernel_size[0] > COLUMNS or module.dilation[0] > 1

    def forward(self, x: Tensor) -> Tensor:
        """The size is divided by the stride, rounded up."""
        return depthwise(x, self.weight, self.moves)


class Moves(NamedTuple):
    """How far filters move from place to place, and how far their own places lie apart."""

    stride: int = 1
    dilation: int = 1


ONE = Moves()


def depthwise(x: Tensor, weight: Tensor, moves: Moves = ONE) -> Tensor:
    """y[b,c,h,w] = sum_ij k[c,i,j] x[b,c,s h + d (i - r),s w + d (j - r)], with zeros beyond the rim.

    The filters k, (channels, 1, 2 r + 1, 2 r + 1), have an odd side; of the stride s and the dilation d
    one is 1, or both are equal. (batch, channels, height, width) -> (batch, channels,
    ceil(height / s), ceil(width / s)). It has no second derivatives.
    """
    if moves.stride == moves.dilation > 1:
        return depthwise(x[:, :, :: moves.stride, :: moves.stride], weight)
    y: Tensor = _Depthwise.apply(x, weight, moves)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    """With a stride, or with a dilation, or with neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, moves: Moves) -> Tensor:  # Any: autograd's context
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.moves = moves
        return _plain(x, weight, moves)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:  # Any: as above
        x, weight = ctx.saved_tensors
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = _input_gradient(x, gradient, weight, ctx.moves)
        if ctx.needs_input_grad[1]:
            for_weight = _weight_gradient(x, gradient, weight.shape[-1], ctx.moves)
        return for_x, for_weight, None


def _plain(x: Tensor, weight: Tensor, moves: Moves) -> Tensor:
    padding = moves.dilation * (weight.shape[-1] // 2)
    return conv2d(x, weight, None, moves.stride, padding, moves.dilation, weight.shape[0])


def _input_gradient(x: Tensor, gradient: Tensor, weight: Tensor, moves: Moves) -> Tensor:
    """The gradient (batch, channels, height, width) for x, from that of the output."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    if moves.stride == 1:
        return _plain(gradient, weight.flip(2, 3), moves)
    around = (weight.shape[-1] // 2,) * 2
    return _backward(gradient, (x, weight), moves.stride, around, 0)


def _weight_gradient(x: Tensor, gradient: Tensor, side: int, moves: Moves = ONE) -> Tensor:
    """The gradient (channels, 1, side, side) for the filters, from x and that of the output."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    if moves.dilation > 1:
        return _weight_gradient(apart(x, moves.dilation), apart(gradient, moves.dilation), side)
    radius = side // 2
    if side <= COLUMNS:
        return _narrow(x, gradient, (side, side), moves.stride, radius)
    reach, found = moves.stride * (gradient.shape[3] - 1), []
    for left in range(0, side, COLUMNS):
        columns = min(COLUMNS, side - left)
        end = reach + left + columns - radius  # of what the block sees, in columns of x
        shifted = pad(x, (radius - left, end - x.shape[3]))
        found.append(_narrow(shifted, gradient, (side, columns), moves.stride, 0))
    return torch.cat(found, 3)


def _narrow(x: Tensor, gradient: Tensor, sides: tuple[int, int], stride: int, beside: int) -> Tensor:
    """The gradient for filters of few columns, with so many columns of zeros beside x."""
    filters = x.new_empty(x.shape[1], 1, *sides)
    return _backward(gradient, (x, filters), stride, (sides[0] // 2, beside), 1)


def _backward(
    gradient: Tensor, given: tuple[Tensor, Tensor], stride: int, padding: tuple[int, int], wanted: int
) -> Tensor:
    """The gradient for what is `wanted` of the given input (0) and filters (1); without dilation."""
    x, weight = given
    mask = [wanted == 0, wanted == 1, False]
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (stride,) * 2, padding, (1, 1), False, (0, 0), len(weight), mask
    )
    return found[wanted]


def apart(x: Tensor, factor: int) -> Tensor:
    """The interleaved parts of a map: (batch, C, H, W) -> (f^2 batch, C, ceil(H / f), ceil(W / f))."""
    below, beside = (-size % factor for size in x.shape[2:])
    if below or beside:
        x = pad(x, (0, beside, 0, below))
    steps = range(factor)
    return torch.cat([x[:, :, row::factor, column::factor] for row in steps for column in steps])
