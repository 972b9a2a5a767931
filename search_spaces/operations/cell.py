"""A network of two-input cells as modules: cells, the chain they stand in, and an auxiliary head.

Reference: Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, CVPR 2018;
Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from nas.complexity import Complexity, adaptive_pool, linear
from nas.regularization import Auxiliary, TaskLoss
from search_spaces.operations.layers import CONVOLUTIONS, Convolution, Norm, ReLU, Shape, build, cost

AUXILIARY_CHANNELS = (128, 768)
_MEANS: dict[int, type[nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
}


@final
class Cell(nn.Module):
    """Nodes that sum operations on earlier tensors; the output is all of the nodes side by side.

    x_0 and x_1 are the two inputs, preprocessed to one shape; x_j = sum over edges (i, j) of o_ij(x_i).
    `nodes` holds for every node its operations by the index of the tensor that they take.
    Two of (batch, channels, *sizes) in; (batch, nodes * channels, *sizes out) out.
    """

    def __init__(
        self, preprocess: tuple[nn.Module, nn.Module], nodes: Sequence[Mapping[int, nn.Module]]
    ) -> None:
        super().__init__()
        self.preprocess = nn.ModuleList(preprocess)
        self.nodes = nn.ModuleList(
            nn.ModuleDict({str(i): operation for i, operation in edges.items()}) for edges in nodes
        )
        self.sources = [tuple(edges) for edges in nodes]

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        tensors = [self.preprocess[0](before), self.preprocess[1](last)]
        for edges, sources in zip(self.nodes, self.sources, strict=True):
            outs = [edges[str(i)](tensors[i]) for i in sources]  # type: ignore[index]
            tensors.append(_sum(outs))
        return torch.cat(tensors[2:], 1)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@final
class CellNetwork(nn.Module):
    """Stem, cells of which each takes the two outputs before it, head.

    (batch, channels, *sizes) -> (batch, features). In training mode an auxiliary head, where there is
    one, sees the output of cell number `auxiliary_after`, counted from 0.
    """

    def __init__(
        self,
        stem: nn.Module,
        cells: Sequence[nn.Module],
        head: nn.Module,
        auxiliary: AuxiliaryHead | None = None,
        auxiliary_after: int = 0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.cells = nn.ModuleList(cells)
        self.head = head
        self.auxiliary = auxiliary
        self.auxiliary_after = auxiliary_after

    def forward(self, x: Tensor) -> Tensor:
        before = last = self.stem(x)
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if self.training and self.auxiliary is not None and index == self.auxiliary_after:
                self.auxiliary(last)  # whoever trains listens to it
        y: Tensor = self.head(last)
        return y


def mean_head(shape: Shape, outputs: int) -> nn.Sequential:
    """The mean over the map, then a linear map: (batch, *shape) -> (batch, outputs)."""
    mean = _MEANS[len(shape) - 1](1)
    return nn.Sequential(mean, nn.Flatten(), nn.Linear(shape[0], outputs))


def mean_head_cost(shape: Shape, outputs: int) -> Complexity:
    """What `mean_head` costs."""
    return adaptive_pool(shape) + linear(shape[0], outputs)


@final
class AuxiliaryHead(Auxiliary):
    """A classifier on a map in the middle of a network, whose loss is added with a weight.

    ReLU, means of overlapping windows to 2 places along every axis (of 8: 0 to 4 and 3 to 7), a 1x1
    convolution to 128 channels, batch norm, ReLU, a convolution of all places to 768 channels, batch
    norm, ReLU, a linear map. (batch, *shape) -> (batch, outputs).

    Reference: Szegedy et al., Going Deeper with Convolutions, CVPR 2015; this one is of Liu et al.,
    DARTS, ICLR 2019, for maps of other sizes than 8x8 too.
    """

    def __init__(self, shape: Shape, outputs: int, weight: float) -> None:
        super().__init__()
        axes = len(shape) - 1
        narrow, wide = AUXILIARY_CHANNELS
        self.layers = nn.Sequential(
            nn.ReLU(),
            _two_means(shape),
            build((Convolution(narrow), Norm(), ReLU()), (shape[0], *[2] * axes)),
            CONVOLUTIONS[axes](narrow, wide, 2, bias=False),
            build((Norm(), ReLU()), (wide, *[1] * axes)),
            nn.Flatten(),
            nn.Linear(wide, outputs),
        )
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y

    def loss(self, output: Tensor, task_loss: TaskLoss) -> Tensor:
        return self.weight * task_loss(output)


def _two_means(shape: Shape) -> nn.Module:
    """Means of two overlapping windows along every axis; a window moves by 3/8 of the size."""
    moves = [max(1, 3 * size // 8) for size in shape[1:]]
    windows = [size - move for size, move in zip(shape[1:], moves, strict=True)]
    if len(moves) == 1:
        return nn.AvgPool1d(windows[0], moves[0])
    return nn.AvgPool2d((windows[0], windows[1]), (moves[0], moves[1]))


def auxiliary_cost(shape: Shape, outputs: int) -> Complexity:
    """The weights of an `AuxiliaryHead`; a network that is not in training does not compute it."""
    narrow, wide = AUXILIARY_CHANNELS
    axes = len(shape) - 1
    first = cost((Convolution(narrow), Norm()), (shape[0], *[2] * axes))
    last = narrow * wide * 2**axes + 2 * wide + linear(wide, outputs).params
    return Complexity(params=first.params + last)
