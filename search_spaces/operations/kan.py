"""Kolmogorov-Arnold layers: every edge is a learned function of one variable, a sum of a basis.

Reference: Liu et al., KAN: Kolmogorov-Arnold Networks, arXiv 2404.19756, 2024, Section 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.complexity import Complexity, extra_flops
from nas.errors import ConfigurationError


@dataclass(frozen=True)
class Basis(ABC):
    """A set of `size` functions of one variable on [-1, 1]: a value that layers evaluate.

    `grid_size` intervals and `degree` set the size for every kind of basis, grid_size + degree, so that
    edges of different kinds have equally many parameters.
    """

    grid_size: int = 5
    degree: int = 3

    def __post_init__(self) -> None:
        if self.grid_size < 1 or self.degree < 1:
            raise ConfigurationError(
                f"a basis was given grid_size={self.grid_size} and degree={self.degree}; "
                "both are at least 1."
            )

    @property
    def size(self) -> int:
        """How many functions there are."""
        return self.grid_size + self.degree

    @property
    @abstractmethod
    def flops(self) -> int:
        """Element-wise operations to evaluate every function at one point."""

    @abstractmethod
    def grid(self) -> Tensor:
        """The numbers that place the functions, (points,); empty where nothing does."""

    @abstractmethod
    def evaluate(self, u: Tensor, grid: Tensor) -> Tensor:
        """The functions at u: (batch, inputs), with (inputs, points) -> (batch, inputs, size)."""

    @abstractmethod
    def adapted(self, grid: Tensor, samples: Tensor, uniform: float) -> Tensor:
        """The grid, (inputs, points), for samples (batch, inputs); itself where it is fixed."""


@final
@dataclass(frozen=True)
class BSpline(Basis):
    """B-splines of degree k on G intervals, by the recursion of Cox and de Boor.

    B_{j,0}(u) = [t_j <= u < t_{j+1}], B_{j,d}(u) = (u - t_j) / (t_{j+d} - t_j) B_{j,d-1}(u)
    + (t_{j+d+1} - u) / (t_{j+d+1} - t_{j+1}) B_{j+1,d-1}(u), on the knots t_j = -1 + (j - k) 2/G,
    j = 0..G+2k. They sum to one on [-1, 1].

    Reference: de Boor, A Practical Guide to Splines, 1978, Chapter IX.
    """

    @property
    def flops(self) -> int:
        """Two comparisons an interval of knots; the five operations of each step of the recursion."""
        intervals = self.size + self.degree
        return 2 * intervals + sum(5 * (intervals - d) + 3 for d in range(1, self.degree + 1))

    def grid(self) -> Tensor:
        steps = torch.arange(-self.degree, self.grid_size + self.degree + 1)
        return 2 * steps / self.grid_size - 1

    def evaluate(self, u: Tensor, grid: Tensor) -> Tensor:
        u, t = u.unsqueeze(-1), grid
        values = ((u >= t[:, :-1]) & (u < t[:, 1:])).to(u.dtype)
        for d in range(1, self.degree + 1):
            rising = (u - t[:, :-d]) / (t[:, d:] - t[:, :-d]) * values
            values = rising[..., :-1] + values[..., 1:] - rising[..., 1:]
        return values

    def adapted(self, grid: Tensor, samples: Tensor, uniform: float) -> Tensor:
        """Knots at the samples' quantiles, mixed with even ones, and even steps past both ends."""
        shares = torch.linspace(0, 1, self.grid_size + 1, dtype=samples.dtype, device=samples.device)
        quantiles = torch.quantile(samples, shares, dim=0).T  # (inputs, G + 1)
        margin = 0.01  # keeps the knots apart where all samples are equal
        low, high = quantiles[:, :1] - margin, quantiles[:, -1:] + margin
        inner = torch.cat([low, quantiles[:, 1:-1], high], 1)
        inner = uniform * (low + shares * (high - low)) + (1 - uniform) * inner
        steps = torch.arange(1, self.degree + 1, device=samples.device)
        step = (high - low) / self.grid_size
        return torch.cat([low - step * steps.flip(0), inner, high + step * steps], 1)


@final
@dataclass(frozen=True)
class Chebyshev(Basis):
    """Chebyshev polynomials of the first kind: T_0 = 1, T_1 = u, T_n = 2 u T_{n-1} - T_{n-2}.

    Reference: Sidharth et al., Chebyshev Polynomial-Based Kolmogorov-Arnold Networks, arXiv 2405.07200.
    """

    @property
    def flops(self) -> int:
        """A doubling, and a multiply-add for every polynomial after the second."""
        return self.size - 1

    def grid(self) -> Tensor:
        return torch.empty(0)

    def evaluate(self, u: Tensor, grid: Tensor) -> Tensor:
        values = [torch.ones_like(u), u]
        for _ in range(self.size - 2):
            values.append(2 * u * values[-1] - values[-2])
        return torch.stack(values, -1)

    def adapted(self, grid: Tensor, samples: Tensor, uniform: float) -> Tensor:
        return grid


@final
@dataclass(frozen=True)
class RadialGaussian(Basis):
    """Gaussians at even centers: exp(-((u - c_g) / h)^2), h = 2 / (size - 1) their distance.

    Reference: Li, Kolmogorov-Arnold Networks are Radial Basis Function Networks, arXiv 2405.06721.
    """

    @property
    def flops(self) -> int:
        """A difference, a scaling, a square and an exponential for every center."""
        return 4 * self.size

    def grid(self) -> Tensor:
        return torch.linspace(-1, 1, self.size)

    def evaluate(self, u: Tensor, grid: Tensor) -> Tensor:
        return torch.exp(-(((u.unsqueeze(-1) - grid) * ((self.size - 1) / 2)) ** 2))

    def adapted(self, grid: Tensor, samples: Tensor, uniform: float) -> Tensor:
        return grid


class BasisFunctions(nn.Module):
    """A basis at every input, with its grid: (batch, inputs) -> (batch, inputs, basis size)."""

    def __init__(self, basis: Basis, inputs: int) -> None:
        super().__init__()
        self.basis = basis
        self.grid: Tensor
        self.register_buffer("grid", basis.grid().to(torch.get_default_dtype()).repeat(inputs, 1))

    def forward(self, u: Tensor) -> Tensor:
        return self.basis.evaluate(u, self.grid)


class KANLayer(nn.Module):
    """A dense layer of learned functions on its edges.

    y_o = sum_i w_b[o,i] silu(x_i) + w_s[o,i] sum_g c[o,i,g] B_g(u_i), u = tanh(x / input_range), with
    (batch, inputs) -> (batch, outputs). Deviation from the paper: inputs are squashed to (-1, 1) by
    tanh for the basis, not for w_b, so that they never leave the grid; no normalisation is needed.

    `kinds` are the bases in use and `kind` gives for each edge, (outputs, inputs), the index of its
    own; without it every edge has the one kind. With several, every kind is evaluated on every input
    and one matrix product with the packed coefficients, zero at kinds an edge does not have, serves
    all edges. Parameters: basis size + 2 an edge. In a supernet `kind` is a function that gives weights
    (outputs * inputs, kinds) in place of indices: an edge's kinds share its coefficients.
    """

    def __init__(
        self,
        size: tuple[int, int],
        kinds: Sequence[Basis],
        kind: Sequence[int] | Callable[[], Tensor] | None = None,
        *,
        input_range: float = 2.0,
    ) -> None:
        super().__init__()
        inputs, outputs = size
        self.inputs, self.outputs, self.input_range = inputs, outputs, input_range
        self.functions = nn.ModuleList(BasisFunctions(basis, inputs) for basis in kinds)
        self.base_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.spline_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.coefficients = nn.Parameter(torch.empty(outputs, inputs, kinds[0].size))
        self._weigh = kind if callable(kind) else None
        chosen = torch.tensor([0] * (inputs * outputs) if kind is None or callable(kind) else kind)
        mask = functional.one_hot(chosen, len(kinds)).to(self.base_weight.dtype)
        mask = mask.reshape(outputs, inputs, len(kinds))
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)  # (outputs, inputs, kinds)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Base weights drawn so that outputs keep the inputs' scale, splines small beside them."""
        nn.init.normal_(self.base_weight, std=1.5 * self.inputs**-0.5)  # 1.5 makes up for silu
        nn.init.ones_(self.spline_weight)
        nn.init.normal_(self.coefficients, std=0.3 * self.coefficients[0].numel() ** -0.5)

    def squash(self, x: Tensor) -> Tensor:
        """Where the basis is evaluated: (batch, inputs), within (-1, 1)."""
        return torch.tanh(x / self.input_range)

    def weight(self) -> Tensor:
        """w_s c with zeros at the kinds an edge does not have: (outputs, inputs, kinds * size)."""
        scaled = self.spline_weight.unsqueeze(-1) * self.coefficients
        mask = self.mask if self._weigh is None else self._weigh().to(scaled).view_as(self.mask)
        return (mask.unsqueeze(-1) * scaled.unsqueeze(-2)).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        u = self.squash(x)
        values = torch.cat([f(u) for f in self.functions], -1)  # (batch, inputs, kinds * size)
        splines = functional.linear(values.flatten(1), self.weight().flatten(1))
        return functional.linear(functional.silu(x), self.base_weight) + splines


@extra_flops(BasisFunctions)
def _basis_flops(functions: BasisFunctions, u: Tensor, values: Tensor) -> int:
    return functions.basis.flops * u.numel()


@extra_flops(KANLayer)
def _layer_flops(layer: KANLayer, x: Tensor, y: Tensor) -> int:
    return 3 * x.numel()  # silu, and the quotient and tanh of the squashed input


def edge_cost(basis: Basis) -> Complexity:
    """The parameters of one edge: its coefficients, base weight and spline weight."""
    return Complexity(params=basis.size + 2)


def layer_cost(size: tuple[int, int], kinds: Sequence[Basis]) -> Complexity:
    """What `KANLayer` computes beside holding its edges' parameters.

    Multiply-adds: inputs * outputs * (kinds * basis size + 1). The product w_s c is formed once for any
    number of examples and is not counted.
    """
    inputs, outputs = size
    functions = sum(basis.size for basis in kinds)
    macs = inputs * outputs * (functions + 1)
    flops = macs + inputs * (3 + sum(basis.flops for basis in kinds))
    return Complexity(0, macs, flops, outputs + inputs * functions)


@torch.no_grad()
def update_grid(layer: KANLayer, x: Tensor, *, uniform: float = 0.02) -> None:
    """Place the layer's knots by the quantiles of samples x, (batch, inputs), and refit its splines.

    New knots are `uniform` parts even and 1 - `uniform` parts quantiles; coefficients are fitted by
    least squares, so that the layer's outputs on the samples stay. Bases with fixed grids are kept.

    Reference: Liu et al., KAN, arXiv 2404.19756, Section 2.5, after the grid update of its code.
    """
    u = layer.squash(x)
    for index, functions in enumerate(layer.functions):
        assert isinstance(functions, BasisFunctions)
        grid = functions.basis.adapted(functions.grid, u, uniform)
        if grid is functions.grid:
            continue
        before = functions(u)  # (batch, inputs, size)
        functions.grid.copy_(grid)
        fitted = _refit(functions(u), before, layer.coefficients)
        edges = layer.mask[..., index].unsqueeze(-1) > 0
        layer.coefficients.copy_(torch.where(edges, fitted, layer.coefficients))


def _refit(values: Tensor, before: Tensor, coefficients: Tensor) -> Tensor:
    """Coefficients, (outputs, inputs, size), for `values` that give what they gave for `before`."""
    wanted = torch.einsum("big,oig->ibo", before, coefficients)
    # gelsd: samples may leave functions untouched, and the matrix then has no full rank.
    inputs = values.transpose(0, 1).cpu()
    solution: Tensor = torch.linalg.lstsq(inputs, wanted.cpu(), driver="gelsd").solution
    return solution.permute(2, 0, 1).to(coefficients.device)
