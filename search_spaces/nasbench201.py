"""The cell space of NAS-Bench-201: 15,625 cells of six edges in a residual skeleton.

Reference: Dong and Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search,
ICLR 2020, Section 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn, zeros_like

from nas import registry
from nas.architecture import Architecture
from nas.complexity import Complexity, batch_norm, convolution
from nas.errors import ConfigurationError, SearchSpaceError
from nas.grammar import Misfit, Rule
from nas.space import Notation, SearchSpace, Signature
from search_spaces.operations.convolution import (
    Classifier,
    ResidualBlock,
    Shape,
    Zero,
    avg_pool_rule,
    classifier_cost,
    none_rule,
    nor_conv_rule,
    residual_block_cost,
    skip_connect_rule,
    strided,
)

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to), in the benchmark's order
STAGES = 3
_INTO = (((0, 0),), ((1, 0), (2, 1)), ((3, 0), (4, 1), (5, 2)))  # for nodes 1, 2, 3: (edge, from)
_TERM = r"\|(\w+)~{}"
_TEXT = re.compile(r"\|\+".join("".join(_TERM.format(s) for _, s in node) for node in _INTO) + r"\|")

CellFactory = Callable[[Shape], tuple[nn.Module, Shape]]
CellCall = Callable[..., Shape]


@registry.space("nasbench201")
def nasbench201(channels: int = 16, cells: int = 5) -> SearchSpace:
    """NAS-Bench-201: one cell of six edges, five operations an edge, repeated in a residual skeleton.

    15,625 architectures. The skeleton is a 3x3 stem of `channels`, three stages of `cells` cells at
    1, 2 and 4 times `channels` with a residual block of stride 2 before the second and third, and a
    linear classifier. Odd sizes are rounded up at a stride. Nothing of the benchmark is left out.
    """
    if channels < 1 or cells < 1:
        raise ConfigurationError(
            f"nasbench201 was given channels={channels} and cells={cells}; both are at least 1."
        )
    operations = (none_rule(), skip_connect_rule(), nor_conv_rule(1), nor_conv_rule(3), avg_pool_rule())
    return SearchSpace(
        start="Network",
        rules={
            "Network": (_network_rule(_Skeleton(channels, cells)),),
            "Cell": (_cell_rule(),),
            "Op": operations,
        },
        spec=Signature((3, 32, 32), (10,)),
        canonical=function_class,
        equivalences={"benchmark": benchmark_class},
        notation=Notation("nasbench201", read, write),
    )


@dataclass(frozen=True)
class _Skeleton:
    channels: int
    cells: int

    def stages(self, signature: Signature) -> list[Shape]:
        """The shape in each stage; Misfit where the signature is no image classifier's."""
        if signature.vocabulary is not None:
            raise Misfit("the input is tokens, not an image; give (channels, height, width)")
        if len(signature.input) != 3 or min(signature.input) < 1:
            raise Misfit(f"the input {signature.input} is not an image; give (channels, height, width)")
        if len(signature.output) != 1:
            raise Misfit(f"the output {signature.output} is not one vector; give (classes,)")
        shapes: list[Shape] = [(self.channels, signature.input[1], signature.input[2])]
        for _ in range(STAGES - 1):
            channels, height, width = strided(shapes[-1], 2)
            shapes.append((2 * channels, height, width))
        return shapes


def _network_rule(skeleton: _Skeleton) -> Rule:
    def infer(signature: Signature, cell: CellCall) -> tuple[int, ...]:
        for shape in skeleton.stages(signature):
            cell(shape, times=skeleton.cells)
        return signature.output

    def build(signature: Signature, cell: CellFactory) -> nn.Module:
        return _network(signature, skeleton, cell)

    def cost(signature: Signature, cell: CellCall) -> Complexity:
        return _network_cost(signature, skeleton)

    return Rule("network", {"cell": "Cell"}, infer, build, cost=cost)


def _network(signature: Signature, skeleton: _Skeleton, cell: CellFactory) -> nn.Sequential:
    """Stem, the benchmark's 17 units (15 cells, 2 residual blocks), classifier.

    (batch, *input) -> (batch, classes).
    """
    stages = skeleton.stages(signature)
    units: list[nn.Module] = [
        nn.Sequential(
            nn.Conv2d(signature.input[0], stages[0][0], 3, padding=1, bias=False),
            nn.BatchNorm2d(stages[0][0]),
        )
    ]
    for stage, shape in enumerate(stages):
        if stage:
            units.append(ResidualBlock((stages[stage - 1][0], shape[0])))
        units += [cell(shape)[0] for _ in range(skeleton.cells)]
    return nn.Sequential(*units, Classifier(stages[-1][0], signature.output[0]))


def _network_cost(signature: Signature, skeleton: _Skeleton) -> Complexity:
    stages = skeleton.stages(signature)
    total = convolution((signature.input[0], stages[0][0]), (3, 3), stages[0][1:])
    total += batch_norm(stages[0]) + classifier_cost(stages[-1], signature.output[0])
    for before, shape in pairwise(stages):
        total += residual_block_cost(before, shape[0])
    return total


class Cell(nn.Module):
    """Four nodes, each the sum of its incoming edges; node 0 is the input and node 3 the output.

    x_j = sum over i < j of o_ij(x_i). (batch, channels, height, width) in and out. Edges that give
    zeros are left out of the sums; a node without any other is zero.
    """

    def __init__(self, edges: Sequence[nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)
        self.live = [[(e, s) for e, s in node if not isinstance(edges[e], Zero)] for node in _INTO]

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for terms in self.live:
            outs = [self.edges[edge](nodes[source]) for edge, source in terms]
            nodes.append(_sum(outs) if outs else zeros_like(x))
        return nodes[-1]


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _cell_rule() -> Rule:
    def infer(shape: Shape, *edges: CellCall) -> Shape:
        for edge in edges:
            edge(shape)
        return shape

    def build(shape: Shape, *edges: CellFactory) -> nn.Module:
        return Cell([edge(shape)[0] for edge in edges])

    roles = {f"{source}-{target}": "Op" for source, target in EDGES}
    return Rule("cell", roles, infer, build, cost=lambda shape, *edges: Complexity())


def operations(architecture: Architecture) -> tuple[str, ...]:
    """The operations of the six edges, in the order of `EDGES`."""
    return tuple(edge.rule for edge in architecture.children[0].children)


def write(architecture: Architecture) -> str:
    """The benchmark's own string, such as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
    a, b, c, d, e, f = operations(architecture)
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def read(text: str) -> str | None:
    """The space's own text for a benchmark's string; None where the text does not start like one."""
    if not text.lstrip().startswith("|"):
        return None
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise SearchSpaceError(
            f'"{text}" is not a cell of NAS-Bench-201; write |op~0|+|op~0|op~1|+|op~0|op~1|op~2|.'
        )
    return f"network(cell({', '.join(match.groups())}))"


def function_class(architecture: Architecture) -> str:
    """One text for cells of equal function: 4,930 classes.

    The output's expression with zero terms dropped everywhere and sums flattened through skips, so
    that edges that do not reach the output play no part. Cells of one class give equal outputs where
    their convolutions have matched weights and batch norm's shift is 0 (as drawn): a trained shift
    makes a convolution of zeros a constant. That average pools are linear is not used.
    """
    ops = operations(architecture)
    nodes: list[list[str]] = [["0"]]
    for incoming in _INTO:
        terms: list[str] = []
        for edge, source in incoming:
            op, value = ops[edge], nodes[source]
            if op == "skip_connect":
                terms += value
            elif op != "none" and value:
                terms.append(f"({'+'.join(value)})@{op}")
        terms.sort()
        nodes.append(terms)
    return "+".join(nodes[3]) or "#"


def benchmark_class(architecture: Architecture) -> str:
    """The benchmark's own text for isomorphic cells: 6,466 classes, a finer partition.

    A zero term is "#", a skip is its source's text, and sums are not flattened.
    """
    return isomorphism_class(architecture, zero=True)


def isomorphism_class(architecture: Architecture, *, zero: bool) -> str:
    """The benchmark's text with skips merged and, if `zero`, zeros too (12,751 and 6,466 classes)."""
    ops = operations(architecture)
    nodes = ["0"]
    for incoming in _INTO:
        nodes.append("+".join(sorted(_terms(ops, nodes, incoming, zero))))
    return nodes[3]


def _terms(
    ops: Sequence[str], nodes: Sequence[str], incoming: Sequence[tuple[int, int]], zero: bool
) -> Iterator[str]:
    for edge, source in incoming:
        if zero and (ops[edge] == "none" or nodes[source] == "#"):
            yield "#"
        elif ops[edge] == "skip_connect":
            yield nodes[source]
        else:
            yield f"({nodes[source]})@{ops[edge]}"
