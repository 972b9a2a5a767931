"""Relaxations: how the strengths of a supernet's options become the weights of a forward pass."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from nas.errors import ConfigurationError
from nas.supernet import Supernet


@dataclass(frozen=True, eq=False)
class Draw:
    """What a relaxation may draw by: a generator on the CPU, and the share of the search that is done,
    from 0 in its first epoch to 1 in its last.
    """

    generator: torch.Generator
    done: float = 0.0


class Relaxation(ABC):
    """Sets the weights of a supernet's open choices for one forward and backward pass.

    Called before every forward pass, within the block where gradients of alphas are on or off. Choices
    that are decided stay as they are.
    """

    @abstractmethod
    def relax(self, supernet: Supernet, draw: Draw) -> None:
        """Weigh every open choice, or take one option of it."""


@final
@dataclass(frozen=True)
class SoftmaxMixture(Relaxation):
    """Every option by its share: w = softmax(alpha), over all options, those of weight 0 too.

    Reference: Liu, Simonyan, Yang, DARTS, ICLR 2019, Section 2.2, equation 2.
    """

    def relax(self, supernet: Supernet, draw: Draw) -> None:
        tables = [table.softmax(-1) for table in supernet.alphas.tables]
        supernet.open()
        supernet.mix(supernet.alphas.rows(tables))


@final
@dataclass(frozen=True)
class MaxWMixture(Relaxation):
    """The strongest option in full, the others by how near they come: 1 - max_j w_j + w_o.

    With w = softmax(alpha) and the maximum over a choice's options. "differentiated" sends gradients
    through the maximum, as the published code does: the strongest option's own coefficient, always 1,
    then has none. "constant" does not, as a comment in that code says it should be.

    Reference: Hundt, Jain, Hager, sharpDARTS, arXiv 1903.09900, 2019, and its code.
    """

    maximum: Literal["differentiated", "constant"] = "differentiated"

    def relax(self, supernet: Supernet, draw: Draw) -> None:
        tables = [self._coefficients(table) for table in supernet.alphas.tables]
        supernet.open()
        supernet.mix(supernet.alphas.rows(tables))

    def _coefficients(self, table: Tensor) -> Tensor:
        weights = table.softmax(-1)
        largest = weights.amax(-1, keepdim=True)
        return 1 - (largest.detach() if self.maximum == "constant" else largest) + weights


@final
@dataclass(frozen=True)
class GumbelSample(Relaxation):
    """One option of each choice, drawn by its probability; its alphas learn through a softer draw.

    With g = -log(-log u), u uniform: p = softmax((log softmax(alpha) + g) / tau), the option is
    argmax p, its weight 1 with the gradient of its p. tau falls linearly from `first_temperature` to
    `last_temperature`. Only the drawn option is computed, so that it alone has a gradient.

    Reference: Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019,
    Section 3.2; written from memory of paper and code. Ours: options of weight 0 are not drawn, and the
    options that were not drawn add nothing to the gradient (the published code adds their weights, 0,
    to the output).
    """

    first_temperature: float = 10.0
    last_temperature: float = 0.1

    def __post_init__(self) -> None:
        if not self.first_temperature >= self.last_temperature > 0:
            raise ConfigurationError(
                f"gumbel sampling was given temperatures from {self.first_temperature} to "
                f"{self.last_temperature}; both are above 0, and the first is not below the last."
            )

    def temperature(self, done: float) -> float:
        """Tau when a share of the search is done."""
        return self.first_temperature + done * (self.last_temperature - self.first_temperature)

    def relax(self, supernet: Supernet, draw: Draw) -> None:
        tau = self.temperature(draw.done)
        tables: list[Tensor] = []
        active: list[list[list[int]]] = []  # of every table and row, the options
        for table, mask in zip(supernet.alphas.tables, supernet.drawn, strict=True):
            noise = gumbel(table.shape, draw.generator).to(table)
            strengths = table.masked_fill(~mask.to(table.device), -torch.inf)
            soft = ((strengths.log_softmax(-1) + noise) / tau).softmax(-1)
            index = soft.detach().argmax(-1, keepdim=True)
            hard = torch.zeros_like(soft).scatter_(-1, index, 1.0)
            tables.append(hard + (soft - soft.detach()))
            active.append(index.tolist())
        supernet.open()
        rows = supernet.alphas.numbers
        supernet.mix(
            supernet.alphas.rows(tables), {path: active[t][row] for path, (t, row) in rows.items()}
        )


@final
@dataclass(frozen=True)
class SinglePath(Relaxation):
    """One architecture at a time, drawn as the space draws them: uniformly, where rules weigh alike.

    Elements of a pick are drawn with it. No alpha has a gradient.

    Reference: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV
    2020, Section 3.2; recalled.
    """

    def relax(self, supernet: Supernet, draw: Draw) -> None:
        seed = int(torch.randint(2**62, (), generator=draw.generator))
        supernet.select(supernet.sample(random.Random(seed)))


@final
@dataclass(frozen=True)
class FixedUniform(Relaxation):
    """Every option by the same share, 1 / options, whatever the alphas are: none is trained.

    Reference: Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021, Section
    5.2 (the search with fixed alphas).
    """

    def relax(self, supernet: Supernet, draw: Draw) -> None:
        supernet.open()


def gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draws of the standard Gumbel distribution, on the CPU: -log of exponential ones."""
    return -torch.empty(shape).exponential_(generator=generator).log()
