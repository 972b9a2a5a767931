"""Convolution whose gradient is quick to differentiate again.

With y = x * w, gx = gy *T w and gw = x # gy (correlation), cotangents u of gx and v of gw give

    of gy: u * w + x * v        of x: gy *T v        of w: u # gy,

each by the operators of the first derivative. Torch forms u # gy as a convolution with the whole map as
its kernel, which takes twice as long.
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
    """y of x and w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, window: Window) -> Tensor:  # Any: torch's own
        ctx.save_for_backward(x, w)
        ctx.window = window
        return window.forward(x, w)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, w = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        gx, gw = _Gradient.apply(gy, x, w, ctx.window, wanted)  # type: ignore[no-untyped-call]
        return gx if wanted[0] else None, gw if wanted[1] else None, None


@final
class _Gradient(Function):
    """gx and gw of gy; an empty tensor for what is not wanted."""

    @staticmethod
    def forward(
        ctx: Any, gy: Tensor, x: Tensor, w: Tensor, window: Window, wanted: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(gy, x, w)
        ctx.window = window
        ctx.set_materialize_grads(False)
        gx, gw = window.backward(gy, x, w, wanted)
        return gx if wanted[0] else gy.new_empty(0), gw if wanted[1] else gy.new_empty(0)

    @staticmethod
    def backward(
        ctx: Any, u: Tensor | None, v: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        gy, x, w = ctx.saved_tensors
        window, needs = ctx.window, ctx.needs_input_grad
        of_gy = of_x = of_w = None
        if u is not None:
            of_gy = window.forward(u, w) if needs[0] else None
            of_w = window.backward(gy, u, w, (False, True))[1] if needs[2] else None
        if v is not None:
            more = window.forward(x, v) if needs[0] else None
            of_gy = more if of_gy is None or more is None else of_gy.add_(more)
            of_x = window.backward(gy, x, v, (True, False))[0] if needs[1] else None
        return of_gy, of_x, of_w, None, None


def convolve(module: Any, x: Tensor) -> Tensor:  # Any: a convolution of any dimension
    """The module's output, its bias without a gradient."""
    window = Window(module.stride, module.padding, module.dilation, module.groups)
    y: Tensor = _Convolve.apply(x, module.weight, window)  # type: ignore[no-untyped-call]
    if module.bias is None:
        return y
    shifted: Tensor = y + module.bias.detach().view(-1, *[1] * (y.dim() - 2))
    return shifted


def is_plain(module: nn.Module) -> bool:
    """Whether it is one of torch's convolutions with zeros around the map, a fixed number of them."""
    if type(module) not in CONVOLUTIONS:
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)
