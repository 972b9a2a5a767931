"""ReLU whose gradient is quick to differentiate again.

With y = max(x, 0) and gx = gy [y > 0], a cotangent u of gx gives u [y > 0] of gy, and nothing of y,
where torch adds a map of zeros.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd import Function


@final
class _Rectify(Function):
    """y of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # Any: torch's
        y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        gx: Tensor = _Gradient.apply(gy, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return gx


@final
class _Gradient(Function):
    """gx of gy, where y is positive."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return _where_positive(gy, y)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None]:
        return _where_positive(u, *ctx.saved_tensors), None


def _where_positive(v: Tensor, y: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.threshold_backward(v, y, 0)
    return found


def is_relu(module: nn.Module) -> bool:
    """Whether it is torch's own ReLU."""
    return type(module) is nn.ReLU


def rectify(x: Tensor) -> Tensor:
    """ReLU of x, of any shape."""
    y: Tensor = _Rectify.apply(x)  # type: ignore[no-untyped-call]
    return y
