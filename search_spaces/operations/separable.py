"""The operations of DARTS' and sharpDARTS' cells: separable convolutions, pools and skips as layers.

What flows along an edge is a map's shape and a stride (`Edge`); every operation keeps the channels. In
the search form batch norm is affine-free and pools are followed by one; in the evaluation form it is
affine and pools are bare (`Form`).

Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 3.1; for
`noise`, Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020; for
`sharp`, Hundt, Jain, Hager, sharpDARTS, arXiv 1903.09900, 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from nas.complexity import Complexity
from nas.errors import ConfigurationError
from nas.grammar import Misfit, Rule, terminal
from nas.regularization import Scheduled
from search_spaces.operations.layers import (
    Convolution,
    Depthwise,
    FactorizedReduce,
    Fill,
    Layer,
    Layers,
    Norm,
    Pool,
    ReLU,
    Shape,
    build,
    cost,
    shape_out,
)

NONE = "none"


class Edge(NamedTuple):
    """What flows into an operation: the map's shape, and the stride it has to take.

    `allowed` are the names of the operations that the edge may have; none named: any.
    """

    shape: Shape
    stride: int = 1
    allowed: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Form:
    """How a cell's network is made: to be searched or to be trained fully, and what training adds.

    `auxiliary_weight` is the weight of the auxiliary head's loss, 0 for no head;
    `drop_path_probability` what the probability of dropping an edge grows to over the epochs.
    """

    form: Literal["evaluation", "search"] = "evaluation"
    auxiliary_weight: float = 0.0
    drop_path_probability: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.drop_path_probability < 1 and self.auxiliary_weight >= 0):
            raise ConfigurationError(
                f"auxiliary_weight is {self.auxiliary_weight} and drop_path_probability "
                f"{self.drop_path_probability}; both are numbers from 0, and the second below 1."
            )

    @property
    def norm(self) -> Norm:
        """The batch norm of this form."""
        return Norm(affine=self.form == "evaluation")

    @property
    def after_pool(self) -> Layers:
        """What follows a pool in this form."""
        return (self.norm,) if self.form == "search" else ()


EVALUATION = Form()

Kind = Callable[[Edge, int, Form], Layers]  # of an edge, a kernel and a form
Names = Sequence[tuple[str, int]]  # kinds of operations with their kernels, 0 for none


def separable(edge: Edge, kernel: int, norm: Norm, dilation: int = 1) -> Layers:
    """ReLU, a depthwise convolution, one of 1x1, batch norm."""
    depthwise = Depthwise(kernel, edge.stride, dilation)
    return ReLU(), depthwise, Convolution(edge.shape[0]), norm


def _sep_conv(edge: Edge, kernel: int, form: Form) -> Layers:
    """`separable` twice, the second without stride."""
    once = separable(edge, kernel, form.norm)
    return once + separable(edge._replace(stride=1), kernel, form.norm)


def _dil_conv(edge: Edge, kernel: int, form: Form) -> Layers:
    """`separable` once, dilated by 2."""
    return separable(edge, kernel, form.norm, dilation=2)


def _max_pool(edge: Edge, kernel: int, form: Form) -> Layers:
    return Pool("max", kernel, edge.stride), *form.after_pool


def _avg_pool(edge: Edge, kernel: int, form: Form) -> Layers:
    return Pool("avg", kernel, edge.stride), *form.after_pool


def _skip_connect(edge: Edge, kernel: int, form: Form) -> Layers:
    """The input itself, or a factorized reduction where there is a stride."""
    return () if edge.stride == 1 else (FactorizedReduce(edge.shape[0], form.norm),)


def _none(edge: Edge, kernel: int, form: Form) -> Layers:
    return (Fill("zeros", edge.stride),)


def _noise(edge: Edge, kernel: int, form: Form) -> Layers:
    return (Fill("noise", edge.stride),)


PASSING: dict[str, Kind] = {
    NONE: _none,
    "skip_connect": _skip_connect,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
}
DARTS: dict[str, Kind] = {**PASSING, "noise": _noise, "sep_conv": _sep_conv, "dil_conv": _dil_conv}


@final
@dataclass(frozen=True)
class Sharp:
    """SharpSepConv: two separable convolutions through a middle of its own width.

    ReLU, depthwise (stride, dilation), 1x1 to the middle, batch norm, ReLU, depthwise (neither), 1x1
    back, batch norm. The middle has `multiple` times the edge's channels, or `middle` of them where
    that is above 0.

    Reference: Hundt, Jain, Hager, sharpDARTS, arXiv 1903.09900, 2019.
    """

    multiple: int = 1
    middle: int = 0
    dilation: int = 1

    def __call__(self, edge: Edge, kernel: int, form: Form) -> Layers:
        channels = edge.shape[0]
        middle = self.middle or channels * self.multiple
        first = (ReLU(), Depthwise(kernel, edge.stride, self.dilation), Convolution(middle), form.norm)
        return (*first, ReLU(), Depthwise(kernel), Convolution(channels), form.norm)


def sharp(choke_channels: int) -> dict[str, Kind]:
    """The operations of sharpDARTS: a choke's middle is `choke_channels`, a flood's 4 times as wide."""
    middles = {"sep_conv": Sharp(), "flood_conv": Sharp(4), "choke_conv": Sharp(middle=choke_channels)}
    dilated = {
        f"dil_{'conv' if name == 'sep_conv' else name}": Sharp(s.multiple, s.middle, dilation=2)
        for name, s in middles.items()
    }
    return {**PASSING, **middles, **dilated}


def operation_rules(kinds: Mapping[str, Kind], names: Names, axes: int, form: Form) -> list[Rule]:
    """The rules of the named operations on maps of so many axes; `none` has weight 0."""
    return [_rule(written(kind, size, axes), kinds[kind], size, form) for kind, size in names]


def written(kind: str, kernel: int, axes: int) -> str:
    """The name of an operation, such as sep_conv_3x3 (on two axes), sep_conv_3 or skip_connect."""
    return f"{kind}_{'x'.join([str(kernel)] * axes)}" if kernel else kind


def _rule(name: str, kind: Kind, kernel: int, form: Form) -> Rule:
    def layers(edge: Edge) -> Layers:
        found = kind(edge, kernel, form)
        return (*found, DropPath(form.drop_path_probability)) if _dropped(found, form) else found

    def infer(edge: Edge) -> Shape:
        if edge.allowed and name not in edge.allowed:
            raise Misfit(f"this edge has {' or '.join(edge.allowed)} alone")
        return shape_out(layers(edge), edge.shape)

    return terminal(
        name,
        lambda edge: build(layers(edge), edge.shape),
        infer=infer,
        cost=lambda edge: cost(layers(edge), edge.shape),
        weight=0.0 if name == NONE else 1.0,
    )


def _dropped(layers: Layers, form: Form) -> bool:
    """Whether an operation's path is dropped now and then: all but the input itself are."""
    return bool(layers) and form.drop_path_probability > 0


@final
@dataclass(frozen=True)
class DropPath(Layer):
    """The map, or zeros in its place: see `DroppedPath`."""

    probability: float

    def infer(self, shape: Shape) -> Shape:
        return shape

    def build(self, shape: Shape) -> nn.Module:
        return DroppedPath(self.probability)

    def cost(self, shape: Shape) -> Complexity:
        return Complexity(activations=prod(shape))


@final
class DroppedPath(Scheduled):
    """y = m x / (1 - p) in training mode, m 0 with probability p for each example, or 1; else y = x.

    p grows with the share of the epochs that are done, from 0 to `probability`: p = probability e / n.
    (batch, ...) in and out.

    Reference: Larsson, Maire, Shakhnarovich, FractalNet, ICLR 2017; the schedule is that of Zoph et
    al., Learning Transferable Architectures for Scalable Image Recognition, CVPR 2018.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.now = 0.0

    def advance(self, done: float) -> None:
        self.now = self.probability * done

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.now == 0:
            return x
        of_each = (len(x), *[1] * (x.dim() - 1))
        kept = torch.rand(of_each, device=x.device) >= self.now
        return x * kept / (1 - self.now)
