"""The fundamental operations of einspace: branching, aggregation, routing and computation on tensors.

What flows is a tensor's shape without the batch, of rank 3 in image mode (channels, height, width) and
of rank 2 in column mode (tokens, features), with the map that was last unfolded. Axes count from 1.

Reference: Ericsson et al., einspace: Searching for Neural Architectures from Fundamental Operations,
NeurIPS 2024, Section 3 and Appendix A.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from nas.complexity import Complexity, activation, linear
from nas.derivation import Choice
from nas.grammar import Misfit, Rule, terminal

Shape = tuple[int, ...]
FACTORS = (2, 4, 8)
WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
UNFOLDS = ((1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (4, 4, 0), (8, 8, 0), (16, 16, 0))
SEED_UNFOLDS = ((5, 1, 2), (7, 1, 3), (7, 2, 3))  # of published networks; never drawn
KERNELS_1D = ((1, 1, 0), (3, 1, 1), (5, 1, 2), (8, 1, 3))
WIDTHS_1D = (32, 64, 128, 256)


class Flow(NamedTuple):
    """A tensor's shape, and height and width of the map of patches that it was last unfolded to."""

    shape: Shape
    fold: tuple[int, int] | None = None


class Split(NamedTuple):
    """How a tensor is handed to `factor` branches: whole, or in equal parts along an axis."""

    factor: int
    axis: int | None = None

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """(batch, *shape) -> factor times (batch, *shape of a part)."""
        return [x] * self.factor if self.axis is None else x.tensor_split(self.factor, self.axis)


class Branches(NamedTuple):
    """What flows into each of `factor` branches; with two, they differ in what they are."""

    factor: int
    flow: Flow


class Joined(NamedTuple):
    """What flows out of the first and the last of `factor` branches."""

    factor: int
    first: Flow
    last: Flow


class Branching(nn.Module):
    """y = join(branch_1(part_1), ..., branch_b(part_b)) of the parts that x is split into."""

    def __init__(self, split: Split, branches: Sequence[nn.Module], join: nn.Module) -> None:
        super().__init__()
        self.split, self.join = split, join
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape in) -> (batch, *shape out)."""
        parts = self.split(x)
        return self.join([branch(parts[i]) for i, branch in enumerate(self.branches)])  # type: ignore[no-any-return]


class MatMul(nn.Module):
    """y = scale a b over the last two axes; `scaled`: scale is 1 / sqrt(the last axis of a), else 1."""

    def __init__(self, *, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """(batch, ..., n, k) and (batch, ..., k, m) -> (batch, ..., n, m)."""
        first, second = parts
        y = first @ second
        return y / math.sqrt(first.shape[-1]) if self.scaled else y


class Add(nn.Module):
    """The sum of tensors of one shape."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Several (batch, *shape) -> (batch, *shape)."""
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


class Concat(nn.Module):
    """Tensors side by side along an axis, counted from 1."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Several (batch, *shape) -> (batch, *shape), their sizes along the axis added."""
        return torch.cat(list(parts), self.axis)


class Permute(nn.Module):
    """The axes in another order, counted from 1: axis i of y is axis order[i] of x."""

    def __init__(self, order: Shape) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape) -> (batch, *shape permuted)."""
        return x.permute(0, *self.order)


class Unfold(nn.Module):
    """Patches of a map as tokens (im2col): (batch, C, H, W) -> (batch, H' W', C kernel^2)."""

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """A patch's numbers are in the order (channel, row, column)."""
        return unfold(x, self.kernel, padding=self.padding, stride=self.stride).transpose(1, 2)


class Fold(nn.Module):
    """Tokens as a map (col2im, a pure reshape): (batch, H' W', D) -> (batch, D, H', W')."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """The tokens are in the order of rows."""
        return x.transpose(1, 2).reshape(x.shape[0], -1, *self.size)


class PositionalEncoding(nn.Module):
    """y = x + e with a learned e of the whole shape, drawn from a normal distribution."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoding = nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape) -> (batch, *shape)."""
        return x + self.encoding


class SameConv1d(nn.Module):
    """A convolution along the last axis that keeps its length: an even kernel is padded by one more on
    the right. (batch, channels, length) -> (batch, channels out, length)."""

    def __init__(self, channels: tuple[int, int], kernel: int, padding: int) -> None:
        super().__init__()
        self.more = kernel - 1 - 2 * padding
        self.convolution = nn.Conv1d(*channels, kernel, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """The padding is with zeros."""
        return self.convolution(pad(x, (0, self.more)))  # type: ignore[no-any-return]


def convolution_of(unfold: Unfold, linear: nn.Linear) -> nn.Conv2d:
    """The convolution that unfolding, the linear map and folding back come to, on the same weights."""
    channels = linear.in_features // unfold.kernel**2
    size = (unfold.kernel, unfold.kernel)
    with torch.device("meta"):
        made = nn.Conv2d(channels, linear.out_features, size, unfold.stride, unfold.padding)
    made.weight = nn.Parameter(linear.weight.detach().view(-1, channels, *size))
    made.bias = linear.bias
    return made


def branching_rules() -> tuple[Rule, ...]:
    """Clone to b branches, or split in b parts along an axis, for b of 2, 4, 8: 12 rules."""
    clones = [_split_rule(f"clone{b}", Split(b)) for b in FACTORS]
    return (
        *clones,
        *(_split_rule(f"group{b}axis{a}", Split(b, a)) for b in FACTORS for a in (1, 2, 3)),
    )


def _split_rule(name: str, split: Split) -> Rule:
    def infer(flow: Flow) -> Branches:
        if split.axis is None:
            return Branches(split.factor, flow)
        shape, axis = flow.shape, split.axis
        if axis > len(shape):
            raise Misfit(f"{shape} has no axis {axis}")
        if shape[axis - 1] % split.factor or min(shape) < split.factor:
            raise Misfit(f"{shape} is not split in {split.factor} along axis {axis}")
        part = (*shape[: axis - 1], shape[axis - 1] // split.factor, *shape[axis:])
        return Branches(split.factor, Flow(part, flow.fold))

    return terminal(name, lambda flow: split, infer=infer, cost=_nothing)


def aggregation_rules() -> tuple[Rule, ...]:
    """Two matrix products, a sum, and concatenation of 2, 4, 8 along three axes: 12 rules."""
    concats = [_concat_rule(b, axis) for b in FACTORS for axis in (1, 2, 3)]
    return (_matmul_rule("matmul"), _matmul_rule("scaled_matmul"), _add_rule(), *concats)


def _matmul_rule(name: str) -> Rule:
    def infer(joined: Joined) -> Flow:
        a, b = joined.first.shape, joined.last.shape
        fits = len(a) == len(b) and a[-1] == b[-2] and a[:-2] == b[:-2]
        if joined.factor != 2 or not fits:
            raise Misfit(f"{a} is not multiplied with {b}")
        return Flow((*a[:-1], b[-1]), _fold(joined))

    def cost(joined: Joined) -> Complexity:
        macs = math.prod(joined.first.shape) * joined.last.shape[-1]
        return Complexity(0, macs, macs, math.prod(infer(joined).shape))

    scaled = name == "scaled_matmul"
    return terminal(name, lambda joined: MatMul(scaled=scaled), infer=infer, cost=cost)


def _add_rule() -> Rule:
    def infer(joined: Joined) -> Flow:
        if joined.first.shape != joined.last.shape:
            raise Misfit(f"{joined.first.shape} is not added to {joined.last.shape}")
        return Flow(joined.first.shape, _fold(joined))

    return terminal("add", lambda joined: Add(), infer=infer, cost=_numbers_out(infer))


def _concat_rule(factor: int, axis: int) -> Rule:
    def infer(joined: Joined) -> Flow:
        a, b = joined.first.shape, joined.last.shape
        at = axis - 1
        if joined.factor != factor or len(a) != len(b) or at >= len(a):
            raise Misfit(f"{factor} tensors are not concatenated along axis {axis}")
        if a[:at] != b[:at] or a[axis:] != b[axis:]:
            raise Misfit(f"{a} is not concatenated with {b} along axis {axis}")
        size = a[at] + b[at] if factor == 2 else factor * a[at]
        return Flow((*a[:at], size, *a[axis:]), _fold(joined))

    name = f"concat{factor}axis{axis}"
    return terminal(name, lambda joined: Concat(axis), infer=infer, cost=_numbers_out(infer))


def _fold(joined: Joined) -> tuple[int, int] | None:
    """The branches' last unfolded map, where they agree in it."""
    return joined.first.fold if joined.first.fold == joined.last.fold else None


def permute_rules() -> tuple[Rule, ...]:
    """The six orders of axes other than their own: one in column mode, five in image mode."""
    orders = [(2, 1), *(p for p in permutations((1, 2, 3)) if p != (1, 2, 3))]
    return tuple(map(_permute_rule, orders))


def _permute_rule(order: Shape) -> Rule:
    def infer(flow: Flow) -> Flow:
        if len(flow.shape) != len(order):
            raise Misfit(f"{flow.shape} has not {len(order)} axes")
        return Flow(tuple(flow.shape[axis - 1] for axis in order), flow.fold)

    name = "permute" + "".join(map(str, order))
    return terminal(name, lambda flow: Permute(order), infer=infer, cost=_numbers_out(infer))


def unfold_rules() -> tuple[Rule, ...]:
    """im2col with kernel, stride and padding as named; those of published networks have weight 0."""
    return (*map(_unfold_rule, UNFOLDS), *(_unfold_rule(seed, weight=0.0) for seed in SEED_UNFOLDS))


def _unfold_rule(sizes: tuple[int, int, int], *, weight: float = 1.0) -> Rule:
    kernel, stride, padding = sizes

    def infer(flow: Flow) -> Flow:
        if len(flow.shape) != 3 or min(flow.shape[1:]) + 2 * padding < kernel:
            raise Misfit(f"{flow.shape} has no patches of {kernel}x{kernel}")
        channels, *size = flow.shape
        height, width = ((n + 2 * padding - kernel) // stride + 1 for n in size)
        fold = height, width
        return Flow((fold[0] * fold[1], channels * kernel**2), fold)

    return terminal(
        f"im2col{kernel}k{stride}s{padding}p",
        lambda flow: Unfold(*sizes),
        infer=infer,
        cost=_numbers_out(infer),
        weight=weight,
    )


def drawn_unfolds(choice: Choice) -> Sequence[float]:
    """Equal weights, but none for patches that are larger than the map: those are never drawn."""
    shape = choice.spec.shape if isinstance(choice.spec, Flow) else ()
    least = min(shape[1:], default=0) if len(shape) == 3 else 0
    return [rule.weight * (_kernels.get(rule.name, 0) <= least) for rule in choice.options]


_kernels = {f"im2col{k}k{s}s{p}p": k for k, s, p in (*UNFOLDS, *SEED_UNFOLDS)}


def fold_rule() -> Rule:
    """col2im: tokens to the map they were last unfolded to."""

    def infer(flow: Flow) -> Flow:
        if len(flow.shape) != 2 or flow.fold is None or math.prod(flow.fold) != flow.shape[0]:
            raise Misfit(f"{flow.shape} is not folded to a map of {flow.fold}")
        return Flow((flow.shape[1], *flow.fold), flow.fold)

    return terminal("col2im", _built_fold, infer=infer, cost=_numbers_out(infer))


def _built_fold(flow: Flow) -> nn.Module:
    assert flow.fold is not None
    return Fold(flow.fold)


def identity_rule() -> Rule:
    """Its input."""
    return terminal("identity", lambda flow: nn.Identity(), cost=_nothing)


def computation_rules() -> tuple[Rule, ...]:
    """Identity, linear maps of the last axis to 8 widths, norm, leaky ReLU, softmax over the last axis,
    learned positional encoding: 13 rules."""
    return (
        identity_rule(),
        *map(_linear_rule, WIDTHS),
        terminal("norm", _norm, cost=_norm_cost),
        terminal("relu", lambda flow: nn.LeakyReLU(), cost=lambda flow: activation(flow.shape)),
        terminal("softmax", lambda flow: nn.Softmax(-1), cost=_numbers_out(lambda flow: flow)),
        terminal("pos_enc", lambda flow: PositionalEncoding(flow.shape), cost=_encoding_cost),
    )


def _linear_rule(width: int) -> Rule:
    def cost(flow: Flow) -> Complexity:
        one, vectors = linear(flow.shape[-1], width), math.prod(flow.shape[:-1])
        return Complexity(one.params, one.macs * vectors, one.flops * vectors, width * vectors)

    return terminal(
        f"linear{width}",
        lambda flow: nn.Linear(flow.shape[-1], width),
        infer=lambda flow: Flow((*flow.shape[:-1], width), flow.fold),
        cost=cost,
    )


def _norm(flow: Flow) -> nn.Module:
    """Batch norm over the channels of a map, layer norm over the features of tokens."""
    return nn.BatchNorm2d(flow.shape[0]) if len(flow.shape) == 3 else nn.LayerNorm(flow.shape[-1])


def _norm_cost(flow: Flow) -> Complexity:
    normed = flow.shape[0] if len(flow.shape) == 3 else flow.shape[-1]
    numbers = math.prod(flow.shape)
    return Complexity(2 * normed, 0, 2 * numbers, numbers)


def _encoding_cost(flow: Flow) -> Complexity:
    return Complexity(params=math.prod(flow.shape), activations=math.prod(flow.shape))


def convolution_1d_rules() -> tuple[Rule, ...]:
    """Convolutions along the last axis that keep its length, four kernels to four widths: 16 rules."""
    return tuple(_convolution_1d_rule(k, p, d) for k, _, p in KERNELS_1D for d in WIDTHS_1D)


def _convolution_1d_rule(kernel: int, padding: int, width: int) -> Rule:
    def infer(flow: Flow) -> Flow:
        if len(flow.shape) != 2:
            raise Misfit(f"{flow.shape} is no sequence (channels, length)")
        return Flow((width, flow.shape[1]), flow.fold)

    def cost(flow: Flow) -> Complexity:
        weights = flow.shape[0] * kernel * width
        macs = weights * flow.shape[1]
        return Complexity(weights + width, macs, macs, width * flow.shape[1])

    return terminal(
        f"conv1d{kernel}k1s{padding}p{width}",
        lambda flow: SameConv1d((flow.shape[0], width), kernel, padding),
        infer=infer,
        cost=cost,
    )


def _nothing(flow: object) -> Complexity:
    return Complexity()


def _numbers_out(infer: Callable[..., Flow]) -> Callable[..., Complexity]:
    return partial(_numbers, infer)


def _numbers(infer: Callable[..., Flow], spec: object) -> Complexity:
    return Complexity(activations=math.prod(infer(spec).shape))
