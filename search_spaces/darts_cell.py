"""DARTS' space: a normal and a reduction cell whose nodes have two inputs, for images or sequences.

Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Sections 2.1, 3.1.
The reduced sets are those of Zela et al., Understanding and Robustifying Differentiable Architecture
Search, ICLR 2020; s1's pairs as the code of Wang et al. (ICLR 2021, ruocwang/darts-pt) lists them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from nas import registry
from nas.space import SearchSpace, Signature
from search_spaces.operations.separable import DARTS, EVALUATION, Form, Names
from search_spaces.two_input_cells import Operations, Skeleton, cell_space

_DARTS7 = (
    *(("max_pool", 3), ("avg_pool", 3), ("skip_connect", 0), ("sep_conv", 3), ("sep_conv", 5)),
    *(("dil_conv", 3), ("dil_conv", 5)),
)
_MAX, _AVG, _SKIP = ("max_pool", 3), ("avg_pool", 3), ("skip_connect", 0)
_SEP, _DIL, _DIL5 = ("sep_conv", 3), ("dil_conv", 3), ("dil_conv", 5)
_S1_NORMAL: tuple[Names, ...] = (
    *((_SKIP, _DIL), (_SKIP, _DIL5)),
    *((_SKIP, _DIL5), (_SKIP, _SEP), (_SKIP, _DIL)),
    *((_MAX, _SKIP), (_SKIP, _SEP), (_SKIP, _SEP), (_SKIP, _DIL)),
    *((_SKIP, _SEP), (_MAX, _SKIP), (_SKIP, _DIL), (_DIL, _DIL5), (_DIL, _DIL5)),
)
_S1_REDUCTION: tuple[Names, ...] = (
    *((_MAX, _AVG), (_MAX, _DIL)),
    *((_MAX, _AVG), (_MAX, _AVG), (_SKIP, _DIL5)),
    *((_MAX, _AVG), (_MAX, _SEP), (_SKIP, _DIL), (_SKIP, _DIL5)),
    *((_MAX, _AVG), (_MAX, _AVG), (_SKIP, _DIL5), (_SKIP, _DIL5), (_SKIP, _DIL5)),
)
SETS: dict[str, Operations] = {
    "darts": Operations((("none", 0), *_DARTS7)),
    "darts7": Operations(_DARTS7),
    "s1": Operations((_MAX, _AVG, _SKIP, _SEP, _DIL, _DIL5), _S1_NORMAL, _S1_REDUCTION),
    "s2": Operations((_SKIP, _SEP)),
    "s3": Operations((("none", 0), _SKIP, _SEP)),
    "s4": Operations((("noise", 0), _SEP)),
}
Set = Literal["darts", "darts7", "s1", "s2", "s3", "s4"]
EXAMPLES = {
    "DARTS_V1": "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('skip_connect', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=range(2, 6))",
    "DARTS_V2": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))",
}


@registry.space("darts_cell")
def darts_cell(
    channels: int = 16,
    cells: int = 8,
    nodes: int = 4,
    operations: Set = "darts",
    form: Form = EVALUATION,
) -> SearchSpace:
    """DARTS: a normal and a reduction cell for images, each node with two of the tensors before it.

    Per cell the product over nodes j of C(j + 2, 2) * operations^2, so 1,037,664,180^2 architectures by
    default (180 * 7^8 a cell; `none` is an operation of weight 0: it is relaxed and read, never drawn).
    The skeleton is a 3x3 stem, `cells` cells of which those after one and two thirds are reductions
    that double the channels, and a linear classifier. In the set s1 every edge has two operations of
    its own.
    """
    skeleton = Skeleton(channels, cells, nodes, form)
    space = cell_space(skeleton, DARTS, SETS[operations], Signature((3, 32, 32), (10,)))
    published = nodes == 4 and operations in ("darts", "darts7")
    return replace(space, examples=EXAMPLES if published else {})


@registry.space("darts_cell_1d")
def darts_cell_1d(
    channels: int = 8,
    cells: int = 5,
    nodes: int = 4,
    operations: Set = "darts",
    form: Form = EVALUATION,
) -> SearchSpace:
    """DARTS' cells for sequences of numbers: convolutions and pools along the length alone.

    The rules, sizes and settings of darts_cell on inputs (channels, length); operations are named by
    their one side, as sep_conv_3.
    """
    skeleton = Skeleton(channels, cells, nodes, form)
    return cell_space(skeleton, DARTS, SETS[operations], Signature((1, 40), (10,)))
