"""Kolmogorov-Arnold networks: depth, widths, and the basis of each layer or of each edge.

Reference: Liu et al., KAN: Kolmogorov-Arnold Networks, arXiv 2404.19756, 2024.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nas import registry
from nas.complexity import Complexity
from nas.derivation import Limits
from nas.errors import ConfigurationError, unknown
from nas.grammar import Chain, Each, Misfit, Rule, Symbol, terminal, values
from nas.mixture import Soft
from nas.space import SearchSpace, Signature
from search_spaces.operations.kan import (
    Basis,
    BSpline,
    Chebyshev,
    KANLayer,
    RadialGaussian,
    edge_cost,
    layer_cost,
)

KINDS: dict[str, type[Basis]] = {"b_spline": BSpline, "chebyshev": Chebyshev, "rbf": RadialGaussian}

Features = tuple[int]  # what flows between layers: (features,)
Size = tuple[int, int]  # (inputs, outputs) of a layer
Child = Callable[..., Any]  # Any: a spec out, or a product and its spec out


@dataclass(frozen=True)
class Splines:
    """The functions on a KAN's edges: intervals, degree, kinds, and the inputs' expected range.

    Inputs of every layer are squashed by tanh(x / input_range) for the basis; 2 suits inputs within
    [-1, 1] and standardised ones.
    """

    grid_size: int = 5
    degree: int = 3
    bases: tuple[str, ...] = tuple(KINDS)
    input_range: float = 2.0

    def __post_init__(self) -> None:
        for name in self.bases:
            if name not in KINDS:
                raise ConfigurationError(unknown(name, "a basis", KINDS))
        if not self.bases or self.input_range <= 0:
            raise ConfigurationError(
                f"kan was given bases={self.bases} and input_range={self.input_range}; "
                "name at least one basis, and a range above 0."
            )
        self.kinds()

    def kinds(self) -> dict[str, Basis]:
        """The bases by name."""
        return {name: KINDS[name](self.grid_size, self.degree) for name in self.bases}


@registry.space("kan")
def kan(
    widths: tuple[int, ...] = (4, 8, 16, 32),
    depths: tuple[int, ...] = (1, 2, 3),
    basis_per: Literal["layer", "edge"] = "layer",
    splines: Splines = Splines(),
) -> SearchSpace:
    """Dense Kolmogorov-Arnold networks: depth, widths, and a basis for each layer or each edge.

    For any numbers, flattened, and an output of one vector. Hidden layers choose a width and a basis,
    the output layer its basis: sum over depths d of (widths * bases)^d * bases architectures with
    basis_per="layer" (5,652 by default); with "edge", bases^edges in place of bases. Left out: grid
    size and degree as choices (they are settings), pruning, symbolic edges.
    """
    if not widths or not depths or min(widths) < 1 or min(depths) < 1:
        raise ConfigurationError(
            f"kan was given widths={widths} and depths={depths}; each needs numbers of at least 1."
        )
    edges: _Edges = _PerLayer(splines) if basis_per == "layer" else _PerEdge(splines)
    return SearchSpace(
        start="Network",
        rules={
            "Network": (_network_rule(),),
            "Depth": values(*depths),
            "Width": values(*widths),
            "Layer": (_hidden_rule(edges),),
            "OutputLayer": (_output_rule(edges),),
            "Basis": [_basis_rule(name, basis, edges) for name, basis in splines.kinds().items()],
        },
        spec=Signature((2,), (1,)),
        limits=Limits(max_nodes=1_000_000),
    )


def _network_rule() -> Rule:
    def infer(signature: Signature, depth: Child, hidden: Child, output: Child) -> tuple[int, ...]:
        if signature.vocabulary is not None:
            raise Misfit("the input is tokens; give a task whose inputs are numbers")
        if len(signature.output) != 1:
            raise Misfit(f"the output {signature.output} is not one vector; give (features,)")
        outs = hidden(((prod(signature.input),), depth(signature)))
        output((*outs[-1], signature.output[0]))
        return signature.output

    def build(signature: Signature, depth: Child, hidden: Child, output: Child) -> nn.Module:
        stages, outs = hidden(((prod(signature.input),), depth(signature)[0]))
        return nn.Sequential(nn.Flatten(), stages, output((*outs[-1], signature.output[0]))[0])

    children: dict[str, Symbol] = {"depth": "Depth", "hidden": Chain("Layer"), "output": "OutputLayer"}
    return Rule("kan", children, infer, build, cost=lambda signature, *children: Complexity())


class _Edges(ABC):
    """How the edges of a layer get their bases: the symbol, what flows into it, its product."""

    symbol: Symbol

    @abstractmethod
    def spec(self, size: Size) -> Any:  # Any: the spec of the symbol's own form
        """What flows into the symbol."""

    @abstractmethod
    def product(self, size: Size, basis: Basis) -> Any:  # Any: a basis, or a layer of it
        """What a chosen basis builds for what flows into it."""

    @abstractmethod
    def layer(self, size: Size, product: Any) -> nn.Module:  # Any: the product of the symbol
        """The layer of the chosen bases."""

    @abstractmethod
    def cost(self, size: Size) -> Complexity:
        """What a layer costs beside its bases."""

    @abstractmethod
    def basis_cost(self, basis: Basis, size: Size) -> Complexity:
        """What one chosen basis costs for what flows into it."""


@final
@dataclass(frozen=True)
class _PerLayer(_Edges):
    """One basis for all edges of a layer."""

    splines: Splines
    symbol: Symbol = "Basis"

    def spec(self, size: Size) -> Size:
        return size

    def product(self, size: Size, basis: Basis) -> nn.Module:
        return KANLayer(size, [basis], input_range=self.splines.input_range)

    def layer(self, size: Size, product: nn.Module) -> nn.Module:
        return product

    def cost(self, size: Size) -> Complexity:
        return Complexity()

    def basis_cost(self, basis: Basis, size: Size) -> Complexity:
        return layer_cost(size, [basis]) + edge_cost(basis) * prod(size)


@final
@dataclass(frozen=True)
class _PerEdge(_Edges):
    """A basis of its own for every edge, those into the first output first."""

    splines: Splines
    symbol: Symbol = Each("Basis")

    def spec(self, size: Size) -> tuple[Size, ...]:
        return ((1, 1),) * prod(size)

    def product(self, size: Size, basis: Basis) -> Basis:
        return basis

    def layer(self, size: Size, product: Sequence[Basis | Soft]) -> nn.Module:
        kinds, given = list(self.splines.kinds().values()), self.splines.input_range
        chosen = [None if isinstance(basis, Soft) else kinds.index(basis) for basis in product]
        settled = [kind for kind in chosen if kind is not None]
        if len(settled) == len(product):
            return KANLayer(size, kinds, settled, input_range=given)
        rows = one_hot(torch.tensor([kind or 0 for kind in chosen]), len(kinds)).float()

        def weights() -> Tensor:
            return torch.stack(
                [e.weights() if isinstance(e, Soft) else r for e, r in zip(product, rows, strict=True)]
            )

        return KANLayer(size, kinds, weights, input_range=given)

    def cost(self, size: Size) -> Complexity:
        return layer_cost(size, list(self.splines.kinds().values()))

    def basis_cost(self, basis: Basis, size: Size) -> Complexity:
        return edge_cost(basis)


def _hidden_rule(edges: _Edges) -> Rule:
    """A layer that chooses its width: (inputs,) -> (width,)."""

    def infer(features: Features, width: Child, basis: Child) -> Features:
        outputs: int = width(features)
        basis(edges.spec((features[0], outputs)))
        return (outputs,)

    def build(features: Features, width: Child, basis: Child) -> nn.Module:
        size = (features[0], width(features)[0])
        return edges.layer(size, basis(edges.spec(size))[0])

    def cost(features: Features, width: Child, basis: Child) -> Complexity:
        return edges.cost((features[0], width(features)))

    children: dict[str, Symbol] = {"width": "Width", "basis": edges.symbol}
    return Rule("layer", children, infer, build, cost=cost, soft=("basis",))


def _output_rule(edges: _Edges) -> Rule:
    """The last layer, its width given: (inputs, outputs) -> (outputs,)."""

    def infer(size: Size, basis: Child) -> Features:
        basis(edges.spec(size))
        return (size[1],)

    def build(size: Size, basis: Child) -> nn.Module:
        return edges.layer(size, basis(edges.spec(size))[0])

    def cost(size: Size, basis: Child) -> Complexity:
        return edges.cost(size)

    return Rule("output", {"basis": edges.symbol}, infer, build, cost=cost, soft=("basis",))


def _basis_rule(name: str, basis: Basis, edges: _Edges) -> Rule:
    def cost(size: Size) -> Complexity:
        return edges.basis_cost(basis, size)

    return terminal(name, lambda size: edges.product(size, basis), cost=cost)
