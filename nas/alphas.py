"""The strengths of a supernet's options, one table for every number of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.mixture import OpenChoice

INITIAL_SCALE = 1e-3  # of alphas, as in the reference's code


class Alphas(nn.Module):
    """The strengths of all choices: a table (choices, options) for every number of options.

    `numbers` gives for every path its table and its row in it.

    Reference: DARTS, Section 2.2, equation 2; they begin as 1e-3 times normal draws.
    """

    def __init__(self, choices: Sequence[OpenChoice]) -> None:
        super().__init__()
        self.numbers: dict[str, tuple[int, int]] = {}
        sizes = sorted({len(choice.names) for choice in choices})
        counts = [0] * len(sizes)
        for choice in choices:
            table = sizes.index(len(choice.names))
            self.numbers[choice.path] = table, counts[table]
            counts[table] += 1
        shapes = zip(counts, sizes, strict=True)
        self.tables = nn.ParameterList(INITIAL_SCALE * torch.randn(*shape) for shape in shapes)

    def rows(self, tables: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """For every path its row (options,) of the tables, or of others of their shapes."""
        given = list(self.tables) if tables is None else tables
        opened = [table.unbind(0) for table in given]
        return {path: opened[table][row] for path, (table, row) in self.numbers.items()}

    def mask(self, choices: Mapping[str, OpenChoice]) -> list[Tensor]:
        """For every table, which options are ever drawn: those of weight 0 are mixed, never chosen."""
        masks = [torch.zeros_like(table, dtype=torch.bool) for table in self.tables]
        for path, (table, row) in self.numbers.items():
            masks[table][row] = torch.tensor(choices[path].drawn)
        return masks
