"""sharpDARTS' spaces: DARTS' two cells with one balanced separable block for every convolution.

Reference: Hundt, Jain, Hager, sharpDARTS: Faster and More Accurate Differentiable Architecture Search,
arXiv 1903.09900, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from nas import registry
from nas.errors import ConfigurationError
from nas.space import SearchSpace, Signature
from search_spaces.darts_cell import SETS
from search_spaces.operations.separable import EVALUATION, Form, Names, sharp
from search_spaces.two_input_cells import Operations, Skeleton, cell_space

Set = Literal["sharp", "sharper", "darts"]
SHARP_SETS: dict[str, Names] = {
    "sharp": (
        *(("none", 0), ("max_pool", 3), ("skip_connect", 0), ("sep_conv", 3), ("dil_conv", 3)),
        *(("flood_conv", 3), ("dil_flood_conv", 3), ("choke_conv", 3), ("dil_choke_conv", 3)),
    ),
    "sharper": (
        *(("none", 0), ("max_pool", 3), ("avg_pool", 3), ("skip_connect", 0), ("sep_conv", 3)),
        *(("sep_conv", 5), ("sep_conv", 7), ("dil_conv", 3), ("dil_conv", 5), ("flood_conv", 3)),
        *(("flood_conv", 5), ("dil_flood_conv", 3)),
    ),
    "darts": SETS["darts"].names,
}


@final
@dataclass(frozen=True)
class Blocks:
    """Which operations there are, and how many channels the middle of a choke has."""

    operations: Set = "sharp"
    choke_channels: int = 32

    def __post_init__(self) -> None:
        if self.choke_channels < 1:
            raise ConfigurationError(
                f"choke_channels is {self.choke_channels}; it takes a whole number from 1."
            )


@registry.space("sharpdarts")
def sharpdarts(
    channels: int = 16,
    cells: int = 8,
    nodes: int = 4,
    blocks: Blocks = Blocks(),
    form: Form = EVALUATION,
) -> SearchSpace:
    """sharpDARTS: DARTS' cells with SharpSepConv blocks, two depthwise stages around a middle width.

    The grammar, skeleton and settings of darts_cell. Sets of operations: `sharp` (the published 9, of
    which `none` has weight 0), `sharper` (12) and `darts` (DARTS' own names with this block). Per cell
    the product over nodes j of C(j + 2, 2) * drawn operations^2: (180 * 8^8)^2 architectures by
    default. Left out: the HyperCuboid space, and dil_flood_conv_5x5, which no set names.
    """
    skeleton = Skeleton(channels, cells, nodes, form)
    kinds = sharp(blocks.choke_channels)
    operations = Operations(SHARP_SETS[blocks.operations])
    return cell_space(skeleton, kinds, operations, Signature((3, 32, 32), (10,)))
