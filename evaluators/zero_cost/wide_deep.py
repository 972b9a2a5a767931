"""What classifier an infinitely wide and deep network is, told by its activation alone.

Reference: Radhakrishnan, Belkin, Uhler, Wide and Deep Neural Networks Achieve Optimality for
Classification, arXiv 2204.14126, 2022 (its theorems as we recall and re-derived them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from evaluators.zero_cost.observation import Observation, Observed
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject
from nas import registry
from nas.task import Metric

POINTS = 180  # of the quadrature: exact for polynomials of degree 359
TOLERANCE = 1e-5  # below it a quadrature's value is taken for 0
SHAPES = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)
ELEMENTWISE: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
    *(nn.LogSigmoid, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink),
)

Activation = Callable[[Tensor], Tensor]


@registry.proxy("wide_deep")
@final
@dataclass(frozen=True)
class WideDeep(Proxy):
    """|log(alpha / d)|, alpha of the singular kernel that infinite width and depth come to.

    `Limit` gives alpha from the activation; the classifier is consistent, the best there is for any
    data, where alpha is d, the dimension of the sphere of inputs (their number less 1). Less is better,
    0 the best. Applies to linear maps with one activation between them, which must not be one that
    comes to a majority vote or to the nearest neighbor (the reason says so). Misleads, as it says
    nothing of finite width and depth, and holds for inputs of one length.

    Reference: Radhakrishnan, Belkin, Uhler, arXiv 2204.14126, 2022.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("wide_deep", "", "minimize"),)

    @property
    def observations(self) -> tuple[Observation[Any], ...]:
        return ()

    def values(self, subject: Subject, observed: Observed) -> tuple[float, ...]:
        activation = _activation(subject)
        limit = Limit.of(activation)
        if limit.kind != "singular":
            names = {
                "majority": "a majority vote",
                "nearest": "the nearest neighbor",
                "none": "no limit",
            }
            raise Inapplicable(f"wide and deep networks of {activation} come to {names[limit.kind]}")
        dimension = math.prod(subject.signature.input) - 1
        if dimension < 1:
            raise Inapplicable("inputs of one number have no sphere")
        return (abs(math.log(limit.alpha / dimension)),)


@final
@dataclass(frozen=True)
class Limit:
    """The classifier that a fully connected network with one activation is at infinite width and depth.

    With phi scaled to E phi(u)^2 = 1 for u ~ N(0, 1), and f(z) = E phi(u) phi(v) for correlation z:
    f(0) = (E phi)^2, A = f'(0) = (E u phi)^2, B = f'(1) = E phi'^2. f(0) > 0 gives a majority vote;
    f(0) = A = 0 the nearest neighbor; f(0) = 0 < A < 1 < B the kernel ||x - x'||^-alpha with
    alpha = 2 |log A| / log B; a linear activation nothing of them.
    """

    kind: Literal["majority", "nearest", "singular", "none"]
    constant: float
    slope: float
    steepness: float

    @property
    def alpha(self) -> float:
        """The exponent of a singular kernel."""
        return 2 * abs(math.log(self.slope)) / math.log(self.steepness)

    @staticmethod
    def of(activation: Activation) -> Limit:
        """The limit for an element-wise function, by Gauss-Hermite quadrature."""
        points, weights = np.polynomial.hermite_e.hermegauss(POINTS)
        u = torch.from_numpy(points).requires_grad_()
        w = torch.from_numpy(weights / weights.sum())
        with torch.enable_grad():
            phi = activation(u)
            (slopes,) = torch.autograd.grad(phi.sum(), u)
        phi, u = phi.detach(), u.detach()
        square = float(w @ phi.square())
        constant = float(w @ phi) ** 2 / square
        slope = float(w @ (u * phi)) ** 2 / square
        return Limit(_kind(constant, slope), constant, slope, float(w @ slopes.square()) / square)


def _kind(constant: float, slope: float) -> Literal["majority", "nearest", "singular", "none"]:
    if constant > TOLERANCE:
        return "majority"
    if slope < TOLERANCE:
        return "nearest"
    return "singular" if slope < 1 - TOLERANCE else "none"


@final
class OptimalActivation(nn.Module):
    """`optimal_activation(dimension)` as a module, element by element."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.function = optimal_activation(dimension)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        """The dimension."""
        return str(self.dimension)


def optimal_activation(dimension: int) -> Activation:
    """An activation whose limit has alpha = dimension: a sum of normalized Hermite polynomials h.

    (h_1 + h_7) / sqrt(2) for 1; else 2^(-d/4) h_1 + sqrt(1 - 2^(1 - d/2)) h_2 + 2^(-d/4) h_3. Inputs
    should have deviation 1: it grows as a power of them.
    """
    if dimension == 1:
        parts = {1: math.sqrt(0.5), 7: math.sqrt(0.5)}
    else:
        outer = 2 ** (-dimension / 4)
        parts = {1: outer, 2: math.sqrt(max(0.0, 1 - 2 * outer**2)), 3: outer}
    series = np.zeros(max(parts) + 1)
    for degree, share in parts.items():
        series[degree] = share / math.sqrt(math.factorial(degree))
    return partial(_polynomial, tuple(np.polynomial.hermite_e.herme2poly(series)))


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + float(coefficient)
    return total


def singular_vote(examples: Tensor, labels: Tensor, queries: Tensor, alpha: float) -> Tensor:
    """Sign of sum_i y_i / ||x - x_i||^alpha: the singular kernel's classifier.

    Examples (n, d) and labels (n,) of -1 and 1, queries (m, d): (m,) of -1 and 1.
    """
    distances = torch.cdist(queries, examples).clamp(min=torch.finfo(examples.dtype).tiny)
    logs = -alpha * distances.log()
    weights = (logs - logs.max(1, keepdim=True).values).exp()
    return torch.where(weights @ labels.to(weights.dtype) >= 0, 1, -1)


def _activation(subject: Subject) -> nn.Module:
    """The one activation between linear maps; Inapplicable where the network is another."""
    leaves = [m for m in subject.live(nn.Module) if not list(m.children())]
    others = [m for m in leaves if not isinstance(m, (nn.Linear, *SHAPES))]
    for module in others:
        if not isinstance(module, (*ELEMENTWISE, OptimalActivation)):
            raise Inapplicable(
                f"{type(module).__name__} is no linear map and no known function of one number"
            )
    kinds = {repr(module) for module in others}
    if len(kinds) != 1:
        raise Inapplicable(f"it has {len(kinds)} kinds of activation as modules, not one")
    if len(leaves) == len(others):
        raise Inapplicable("it has no linear maps")
    return others[0]
