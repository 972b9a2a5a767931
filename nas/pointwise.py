"""1x1 convolutions as matrix products on channels-last tensors."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn.functional import linear


@final
class FastPointwise(nn.Module):
    """A 1x1 convolution without stride as one matrix product, on the weights of another module.

    (batch, channels, height, width) -> (batch, channels out, height, width), both channels-last.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    @staticmethod
    def replaces(module: nn.Module) -> bool:
        """Whether a module is such a convolution."""
        if not isinstance(module, nn.Conv2d) or module.groups != 1:
            return False
        return module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """The height and width are kept."""
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[b,o,h,w] = sum_c k[o,c] x[b,c,h,w] + bias[o], with k of (channels out, channels, 1, 1)."""
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
