"""What a network costs to store and run: by formula from its layers' shapes, or measured on it.

One vocabulary for both ways, per example (a batch of one):

- `params`: numbers that are trained;
- `macs`: multiply-adds of convolutions, linear maps and matrix products;
- `flops`: the count of NAS-Bench-201's accuracy tables: a multiply-add is one, batch norm is two and
  an activation one per element, a pool its window per output (an adaptive pool (h + 1)(w + 1));
- `activations`: numbers put out by layers, which training keeps; 4 bytes each in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

BYTES = 4  # of a float32


@dataclass(frozen=True, slots=True)
class Complexity:
    """Counts for one example; see the module's docstring for what each counts."""

    params: int = 0
    macs: int = 0
    flops: int = 0
    activations: int = 0

    def __add__(self, other: Complexity) -> Complexity:
        return Complexity(
            self.params + other.params,
            self.macs + other.macs,
            self.flops + other.flops,
            self.activations + other.activations,
        )

    def __mul__(self, times: int) -> Complexity:
        return Complexity(
            self.params * times, self.macs * times, self.flops * times, self.activations * times
        )

    def metrics(self) -> dict[str, float]:
        """The counts by metric name; activations as `activation_bytes`."""
        counts = (self.params, self.macs, self.flops, self.activations * BYTES)
        return dict(zip(UNITS, map(float, counts), strict=True))


UNITS = {"params": "", "macs": "", "flops": "", "activation_bytes": "B"}


def convolution(
    channels: tuple[int, int], kernel: tuple[int, ...], out: tuple[int, ...], groups: int = 1
) -> Complexity:
    """A convolution without bias from channels[0] to channels[1]; `out` is its spatial size out."""
    params = channels[1] * (channels[0] // groups) * prod(kernel)
    macs = params * prod(out)
    return Complexity(params, macs, macs, channels[1] * prod(out))


def linear(inputs: int, outputs: int, *, bias: bool = True) -> Complexity:
    """A linear map of one vector."""
    macs = inputs * outputs
    return Complexity(macs + outputs * bias, macs, macs, outputs)


def batch_norm(shape: tuple[int, ...]) -> Complexity:
    """Batch norm with scale and shift over (channels, ...)."""
    return Complexity(2 * shape[0], 0, 2 * prod(shape), prod(shape))


def activation(shape: tuple[int, ...]) -> Complexity:
    """An element-wise function such as ReLU."""
    return Complexity(0, 0, prod(shape), prod(shape))


def pool(window: int, out: tuple[int, ...]) -> Complexity:
    """A pool with `window` elements a window; `out` is (channels, ...) out."""
    return Complexity(0, 0, window * prod(out), prod(out))


def adaptive_pool(shape: tuple[int, ...]) -> Complexity:
    """A global average pool over (channels, height, width), counted as the tables do."""
    return Complexity(0, 0, shape[0] * prod(n + 1 for n in shape[1:]), shape[0])


Counter = Callable[[Any, Tensor, Tensor], int]  # Any: a module of the counter's own class

_ELEMENTWISE = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Hardswish,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d, nn.MaxPool2d)
_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_extra_flops: dict[type[nn.Module], Counter] = {}


def extra_flops(kind: type[nn.Module]) -> Callable[[Counter], Counter]:
    """Register what a module class adds to `flops` beyond its multiply-adds: (module, x, y) -> int,
    for a batch of one."""

    def register(counter: Counter) -> Counter:
        _extra_flops[kind] = counter
        return counter

    return register


def measure(
    module: nn.Module,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
) -> Complexity:
    """The complexity of a module on `device` for an input of (1, *shape), counted while it runs.

    Multiply-adds are counted at the operators: grouped and transposed convolutions, attention,
    recurrent layers and functional calls included. The rest is counted by hooks on the modules without
    children, so that functional activations and pools add nothing. Modes and buffers are as before.
    """
    counts = {"flops": 0, "activations": 0}
    leaves = [m for m in module.modules() if type(m) in _extra_flops or not list(m.children())]

    def hook(leaf: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:  # Any: of any module
        tensors = [t for t in (output if isinstance(output, tuple) else (output,)) if _is_tensor(t)]
        if tensors and not isinstance(leaf, nn.Identity | nn.Flatten):
            counts["activations"] += tensors[0].numel()
            if inputs and _is_tensor(inputs[0]):
                counts["flops"] += _flops_beside_macs(leaf, inputs[0], tensors[0])

    handles = [leaf.register_forward_hook(hook) for leaf in leaves]
    try:
        macs = _macs(module, torch.zeros(1, *shape, device=device, dtype=dtype))
    finally:
        for handle in handles:
            handle.remove()
    params = sum(p.numel() for p in module.parameters())
    return Complexity(params, macs, macs + counts["flops"], counts["activations"])


def _macs(module: nn.Module, x: Tensor) -> int:
    """Multiply-adds of module(x) in eval mode, at the operators that torch and `_uncounted` know.

    Attention is made to run as its matrix products: its fused kernels are not counted on a CPU.
    """
    modes = {m: m.training for m in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False, custom_mapping=_uncounted())
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            module(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for m, mode in modes.items():
            m.training = mode
    return int(counter.get_total_flops()) // 2


Shape = tuple[int, ...]


def _uncounted() -> dict[Any, Callable[..., int]]:  # Any: torch's operators
    """Formulas, two for a multiply-add, of operators from shapes, that torch's counter leaves out."""
    aten = torch.ops.aten
    return {
        aten.mv: lambda matrix, vector, **_: 2 * prod(matrix),
        aten.dot: lambda first, second, **_: 2 * prod(first),
        aten._trilinear: lambda x, weight, z, *_, **__: 2 * x[0] * prod(weight),
        aten.mkldnn_rnn_layer: _recurrent_flops,
    }


def _recurrent_flops(x: Shape, of_input: Shape, of_state: Shape, *_: object, **__: object) -> int:
    """X (steps, batch, inputs); weights (gates * units, inputs) and (gates * units, units)."""
    return 2 * x[0] * x[1] * (prod(of_input) + prod(of_state))


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _flops_beside_macs(leaf: nn.Module, x: Tensor, y: Tensor) -> int:
    if type(leaf) in _extra_flops:
        return _extra_flops[type(leaf)](leaf, x, y)
    if isinstance(leaf, _ELEMENTWISE):
        return y.numel()
    if isinstance(leaf, _NORMS):
        return 2 * y.numel()
    if isinstance(leaf, _POOLS):
        size = leaf.kernel_size
        dims = y.dim() - 2
        return y.numel() * (prod(size) if isinstance(size, tuple) else size**dims)
    if isinstance(leaf, _ADAPTIVE):
        return y.numel() * prod(n // o + 1 for n, o in zip(x.shape[2:], y.shape[2:], strict=True))
    return 0
