"""Regression on closed-form functions, whose structure is known: the usual ground of KANs.

References: Liu et al., KAN: Kolmogorov-Arnold Networks, ICLR 2025 (toy functions, section 3.1, and the
dimensionless Feynman equations, section 3.3); Udrescu, Tegmark, AI Feynman, Science Advances 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nas import registry
from nas.arrays import Holdout, regression
from nas.errors import ConfigurationError, DataError, unknown
from nas.task import Task

NUM_VALID = 1000
NUM_TEST = 1000
KNOWN_GOOD_POINTS = 1000

PI = math.pi
Range = tuple[float, float]
UNIT: Range = (-1.0, 1.0)


@dataclass(frozen=True)
class Formula:
    """A function of inputs (n,) each, drawn evenly from its range; named by its own text.

    `sound` is the error, in standard deviations of the targets, that a perceptron with two layers of
    32 and 100 epochs keeps below on 1,000 points.
    """

    name: str
    source: str
    of: Callable[..., Tensor]
    ranges: tuple[Range, ...]
    sound: float = 0.1

    def __call__(self, inputs: Tensor) -> Tensor:
        """Values (n,) at inputs (n, variables)."""
        return self.of(*inputs.unbind(1))


FORMULAS = (
    Formula("sin(pi x)", "", lambda x: torch.sin(PI * x), (UNIT,)),
    Formula("x^2 + sin(5 pi x)/5", "", lambda x: x**2 + torch.sin(5 * PI * x) / 5, (UNIT,), 0.5),
    Formula("1/(1 + 25 x^2)", "Runge", lambda x: 1 / (1 + 25 * x**2), (UNIT,)),
    Formula("x y", "KAN", lambda x, y: x * y, (UNIT, UNIT)),
    Formula(
        "exp(sin(pi x) + y^2)",
        "KAN",
        lambda x, y: torch.exp(torch.sin(PI * x) + y**2),
        (UNIT, UNIT),
    ),
    Formula(
        "1 + x sin(y)",
        "Feynman I.12.11",
        lambda x, y: 1 + x * torch.sin(y),
        (UNIT, (-PI, PI)),
    ),
    Formula(
        "(x + y)/(1 + x y)",
        "Feynman I.16.6",
        lambda x, y: (x + y) / (1 + x * y),
        ((-0.8, 0.8), (-0.8, 0.8)),
    ),
    Formula(
        "cos(x) + y cos(x)^2",
        "Feynman I.50.26",
        lambda x, y: torch.cos(x) + y * torch.cos(x) ** 2,
        ((-PI, PI), UNIT),
    ),
    Formula(
        "x/(exp(y) + exp(-y))",
        "Feynman II.35.18",
        lambda x, y: x / (torch.exp(y) + torch.exp(-y)),
        ((0.0, 1.0), (-2.0, 2.0)),
    ),
    Formula(
        "sqrt(1 + x^2 + y^2)",
        "Feynman III.10.19",
        lambda x, y: torch.sqrt(1 + x**2 + y**2),
        ((-2.0, 2.0), (-2.0, 2.0)),
    ),
    Formula(
        "sqrt(1 + x^2 - 2 x cos(y - z))",
        "Feynman I.29.16",
        lambda x, y, z: torch.sqrt(1 + x**2 - 2 * x * torch.cos(y - z)),
        ((0.0, 2.0), UNIT, UNIT),
    ),
    Formula(
        "exp((sin(pi (x^2 + y^2)) + sin(pi (z^2 + w^2)))/2)",
        "KAN",
        lambda x, y, z, w: torch.exp(
            (torch.sin(PI * (x**2 + y**2)) + torch.sin(PI * (z**2 + w**2))) / 2
        ),
        (UNIT, UNIT, UNIT, UNIT),
        sound=0.5,
    ),
)


@registry.task("function_fit")
def function_fit(
    formula: str = "exp(sin(pi x) + y^2)", num_train: int = 1000, noise: float = 0.0, seed: int = 0
) -> Task:
    """Points of a closed-form function of 1 to 4 inputs; the error of fitting it.

    `num_train` training points and 1,000 each for validation and test, drawn evenly from the ranges
    of `evaluators.tasks.function_fit.FORMULAS`, most of them [-1, 1]. `noise` is the standard
    deviation of normal noise on training and validation targets; test targets are exact. Inputs
    (n, variables), targets (n, 1), without unit. The mean predicts with an error of the targets'
    standard deviation, a small perceptron with a tenth of it (half, for the two wiggly ones).
    """
    function = named(formula)
    if num_train < 2 or not 0 <= noise < math.inf:
        raise DataError(
            f"num_train is {num_train} and noise {noise}; num_train is at least 2 and noise at least 0."
        )
    generator = torch.Generator().manual_seed(seed)
    test = _points(function, NUM_TEST, 0.0, generator)
    valid = _points(function, NUM_VALID, noise, generator)
    train = _points(function, num_train, noise, generator)
    task = regression("function_fit", *train, Holdout(valid=valid, test=test), unit="1")
    if num_train < KNOWN_GOOD_POINTS:
        return task
    return replace(task, known_good=math.hypot(function.sound * float(test[1].std()), noise))


def named(text: str) -> Formula:
    """The formula of that text, spaces aside."""
    found = {f.name.replace(" ", ""): f for f in FORMULAS}.get(text.replace(" ", ""))
    if found is None:
        raise ConfigurationError(unknown(text, "a formula of function_fit", (f.name for f in FORMULAS)))
    return found


def _points(
    function: Formula, num_points: int, noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (n, variables) and targets (n,)."""
    low, high = torch.tensor(function.ranges).unbind(1)
    inputs = low + (high - low) * torch.rand(num_points, len(low), generator=generator)
    return inputs, function(inputs) + noise * torch.randn(num_points, generator=generator)
