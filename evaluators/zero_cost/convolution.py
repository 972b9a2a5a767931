"""Convolution whose gradient is quick to differentiate again along its own weights.

With y = s (x * w), s = 1 a scale, gx = s (gy *T w) and gw = x # gy (correlation), cotangents u of gx,
v of gw and c of y give

    of gy: s (u * w) + x * v        of x: gy *T v, and s (c *T w)        of s: (u * w) . gy + c . y.

The last is w . (d/dw): two products of maps in the place of the two correlations that the gradient in w
takes, which has none here; u . gx is the first too, but gx would have to be kept. In the first
derivative w has its gradient as ever.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.autograd import Function

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Window(NamedTuple):
    """How the kernel moves: an entry for each axis, and the groups of channels."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """X * w: (B, C, *places) and (C out, C / groups, *kernel) -> (B, C out, *places out)."""
        none = [0] * len(self.stride)
        return torch.convolution(
            x, w, None, self.stride, self.padding, self.dilation, False, none, self.groups
        )

    def backward(
        self, gy: Tensor, x: Tensor, w: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        """Gy *T w and x # gy, as far as they are wanted."""
        none = [0] * len(self.stride)
        window = (self.stride, self.padding, self.dilation, False, none, self.groups)
        found = torch.ops.aten.convolution_backward(gy, x, w, None, *window, [*wanted, False])
        return found[0], found[1]


@final
class _Convolve(Function):
    """y of x, w and s."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, s: Tensor, window: Window) -> Tensor:  # Any: torch's
        y = window.forward(x, w)
        ctx.save_for_backward(x, w, s, y)
        ctx.window = window
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, w, s, y = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        if torch.is_grad_enabled():  # the first derivative, which is to be differentiated
            gx, gw = _Gradient.apply(gy, x, w, s, ctx.window, wanted)  # type: ignore[no-untyped-call]
            return gx if wanted[0] else None, gw if wanted[1] else None, None, None
        gx = ctx.window.backward(gy, x, w, (True, False))[0] if wanted[0] else None
        return gx, None, _dot(gy, y), None


@final
class _Gradient(Function):
    """gx and gw of gy; an empty tensor for what is not wanted."""

    @staticmethod
    def forward(
        ctx: Any,
        gy: Tensor,
        x: Tensor,
        w: Tensor,
        s: Tensor,  # noqa: ARG004  backward gives its derivative
        window: Window,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        found = window.backward(gy, x, w, wanted)
        gx, gw = (one if want else gy.new_empty(0) for one, want in zip(found, wanted, strict=True))
        ctx.save_for_backward(gy, x, w)
        ctx.window = window
        return gx, gw

    @staticmethod
    def backward(
        ctx: Any, u: Tensor | None, v: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, Tensor | None, None, None]:
        gy, x, w = ctx.saved_tensors
        window, of_gy, of_x, of_s = ctx.window, None, None, None
        if u is not None:
            of_gy = window.forward(u, w)
            of_s = _dot(of_gy, gy)
        if v is not None:
            of_gy = window.forward(x, v) if of_gy is None else of_gy.add_(window.forward(x, v))
            of_x = window.backward(gy, x, v, (True, False))[0] if ctx.needs_input_grad[1] else None
        return of_gy, of_x, None, of_s, None, None


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """The sum of the products of two maps, a scalar.

    Rows are summed in their own precision: a whole map in double is dearer than the products.
    """
    rows: Tensor = torch.linalg.vecdot(first.flatten(2), second.flatten(2))
    return rows.sum(dtype=torch.float64).to(first.dtype)


def convolve(module: Any, scale: Tensor, x: Tensor) -> Tensor:  # Any: a convolution of any dimension
    """The module's output times a scale of 1 that stands for its weights; its bias has no gradient."""
    window = Window(module.stride, module.padding, module.dilation, module.groups)
    y: Tensor = _Convolve.apply(x, module.weight, scale, window)  # type: ignore[no-untyped-call]
    if module.bias is None:
        return y
    shifted: Tensor = y + module.bias.detach().view(-1, *[1] * (y.dim() - 2))
    return shifted


def is_plain(module: nn.Module) -> bool:
    """Whether it is one of torch's convolutions with zeros around the map, a fixed number of them."""
    if type(module) not in CONVOLUTIONS:
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)
