"""Recurrent cells that are written as programs, and layers that run them over a sequence.

A cell is a list of nodes. Each computes one vector from the layer's input x, the states h0, h1, ... of
the step before, and earlier nodes n0, n1, ...; some of the nodes are the new states. With a, b, c for a
node's inputs in their order:

    linear      W_a a + W_b b + ... + bias
    sum, prod   a + b + ..., a * b * ..., element by element
    blend       a * b + (1 - a) * c, element by element
    tanh, sigmoid, leaky_relu   of a, element by element

Where to look, for scores that need no training: a forward hook on a `RecurrentLayer` sees the sequence
of its first state (batch, length, features), after every step; one on its submodule `states` sees all
states (batch, length, states, features); one on `cell` sees the new states of one step. In a cell,
`maps` holds the weights by what they multiply ("x": input side; "h0", "n3": hidden side; one matrix
for all linear nodes that read it, in the order of `readers`) and `activations` one module a node.

B batch, L length, I features of the input, F features of the states, S states.

Reference: Klyuchnikov et al., NAS-Bench-NLP: Neural Architecture Search Benchmark for Natural Language
Processing, IEEE Access 2022 (the operations; its published code indexes a third input of `blend`
and of the sums and products by the wrong variable, here each is its equation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, itemgetter, mul
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.complexity import Complexity, activation
from nas.sequence_parts import Recurrence, View

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
}
TIED_RANGE = 0.1  # of an embedding that is the last map, too, as AWD-LSTM draws it (recalled)
INPUT = "x"


class Size(NamedTuple):
    """What a layer runs over: steps, features of its input, features of each state."""

    length: int
    inputs: int
    features: int


@dataclass(frozen=True)
class Node:
    """One vector of a cell: an operation, and the names of what it takes."""

    operation: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A cell: nodes in an order in which they can be computed; the names of the new states."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def named(self) -> Iterable[tuple[str, Node]]:
        """The nodes with their names, n0, n1, ..."""
        return ((f"n{i}", node) for i, node in enumerate(self.nodes))

    def early(self) -> tuple[str, ...]:
        """The nodes that depend on x alone, so that they are computed for all steps at once."""
        found: list[str] = []
        for name, node in self.named():
            if all(i == INPUT or i in found for i in node.inputs):
                found.append(name)
        return tuple(found)


Step = tuple[dict[str, Tensor], dict[str, Tensor]]  # values, and sums begun, of one step: (B, F) each


class RecurrentCell(nn.Module):
    """One step of a program: states (B, F) -> new states (B, F), with what `early` made of x."""

    def __init__(self, size: Size, program: Program) -> None:
        super().__init__()
        self.program = program
        self.features = size.features
        linear = [(n, node) for n, node in program.named() if node.operation == "linear"]
        self.readers: dict[str, list[str]] = {}
        for name, node in linear:
            for source in node.inputs:
                self.readers.setdefault(source, []).append(name)
        self.maps = nn.ModuleDict({s: _map(size, s, len(names)) for s, names in self.readers.items()})
        bound = size.features**-0.5
        unbiased = [name for name, node in linear if INPUT not in node.inputs]
        self.biases = nn.ParameterDict(
            {n: nn.Parameter(torch.empty(size.features).uniform_(-bound, bound)) for n in unbiased}
        )
        self.activations = nn.ModuleDict(
            {n: ACTIVATIONS[k.operation]() for n, k in program.named() if k.operation in ACTIVATIONS}
        )
        before = program.early()
        self.before = [(n, node) for n, node in program.named() if n in before]
        self.after = [(n, node) for n, node in program.named() if n not in before]

    def early(self, x: Tensor) -> list[Step]:
        """What depends on x (B, L, I) alone, computed for all steps at once; one entry a step."""
        values: dict[str, Tensor] = {}
        sums: dict[str, Tensor] = {}
        self._spread(INPUT, x, sums)
        for name, node in self.before:
            self._compute(name, node, values, sums)
        steps: list[Step] = [({}, {}) for _ in range(x.shape[1])]
        for kind, tensors in enumerate((values, sums)):
            for name, tensor in tensors.items():
                for step, part in zip(steps, tensor.unbind(1), strict=True):
                    step[kind][name] = part
        return steps

    def forward(self, step: Step, states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        values, sums = dict(step[0]), dict(step[1])
        for i, state in enumerate(states):
            values[f"h{i}"] = state
            self._spread(f"h{i}", state, sums)
        for name, node in self.after:
            self._compute(name, node, values, sums)
        return tuple(values[name] for name in self.program.outputs)

    def _compute(
        self, name: str, node: Node, values: dict[str, Tensor], sums: dict[str, Tensor]
    ) -> None:
        """Put the value of a node into `values`, and what linear nodes make of it into `sums`."""
        if node.operation == "linear":
            value = sums.pop(name)
            value = value + self.biases[name] if name in self.biases else value
        elif name in self.activations:
            value = self.activations[name](values[node.inputs[0]])
        else:
            value = _elementwise(node.operation, [values[i] for i in node.inputs])
        values[name] = value
        self._spread(name, value, sums)

    def _spread(self, source: str, value: Tensor, sums: dict[str, Tensor]) -> None:
        """Add the linear maps of a value to the sums of the nodes that read it."""
        if source not in self.maps:
            return
        parts = self.maps[source](value).split(self.features, -1)
        for reader, part in zip(self.readers[source], parts, strict=True):
            sums[reader] = sums[reader] + part if reader in sums else part


def _map(size: Size, source: str, readers: int) -> nn.Linear:
    """The maps of one source for all nodes that read it; the input's have the nodes' biases."""
    inputs = size.inputs if source == INPUT else size.features
    return nn.Linear(inputs, readers * size.features, bias=source == INPUT)


def _elementwise(operation: str, inputs: list[Tensor]) -> Tensor:
    if operation == "blend":
        gate, one, other = inputs
        return torch.lerp(other, one, gate)
    return reduce({"sum": add, "prod": mul}[operation], inputs)


class RecurrentLayer(Recurrence):
    """A cell run from the first position on, its states 0 before: (B, L, I) -> (B, L, F).

    Put out is the first state after every step.
    """

    def __init__(self, size: Size, program: Program) -> None:
        super().__init__()
        self.size = size
        self.cell = RecurrentCell(size, program)
        self.states = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        states: Sequence[Tensor] = [x.new_zeros(x.shape[0], self.size.features)] * len(
            self.cell.program.outputs
        )
        seen: list[Tensor] = []
        for step in self.cell.early(x):
            states = self.cell(step, states)
            seen.append(torch.stack(list(states), 1))
        every: Tensor = self.states(torch.stack(seen, 1))  # (B, L, S, F)
        return every[:, :, 0]

    def steps(self) -> View:
        return View(self.cell, itemgetter(0))

    def hidden_weights(self) -> Sequence[nn.Parameter]:
        return [m.weight for source, m in self.cell.maps.items() if source != INPUT]  # type: ignore[misc]


def node_cost(size: Size, node: Node) -> Complexity:
    """What one node costs over a sequence; sums, products and blends are counted as nothing.

    A linear node has one matrix an input and one bias.
    """
    if node.operation in ACTIVATIONS:
        return activation((size.features, size.length))
    if node.operation != "linear":
        return Complexity()
    inputs = sum(size.inputs if i == INPUT else size.features for i in node.inputs)
    weights = inputs * size.features
    macs = weights * size.length
    outputs = len(node.inputs) * size.features * size.length
    return Complexity(weights + size.features, macs, macs, outputs)


def tied_embedding(vocabulary: int, features: int) -> nn.Embedding:
    """A learned vector for every token, drawn evenly from -0.1 to 0.1: (B, L) -> (B, L, F)."""
    lift = nn.Embedding(vocabulary, features)
    nn.init.uniform_(lift.weight, -TIED_RANGE, TIED_RANGE)
    return lift


def tied_decoder(lift: nn.Module) -> nn.Linear:
    """A linear map to the tokens whose matrix is the embedding's: (B, L, F) -> (B, L, tokens).

    Reference: Press and Wolf, Using the Output Embedding to Improve Language Models, EACL 2017.
    """
    assert isinstance(lift, nn.Embedding)
    decoder = nn.Linear(lift.embedding_dim, lift.num_embeddings)
    decoder.weight = lift.weight
    nn.init.zeros_(decoder.bias)
    return decoder
