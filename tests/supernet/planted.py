"""Small spaces of which it is known what each option is worth, and data to tell by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.grammar import Pick, Rule, terminal
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from nas.task import Metric, Score, Split, Task
from nas.validation import Validation


class Scale(nn.Module):
    """Every feature times a number of its own; counts its calls."""

    def __init__(self, factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.factors


class Fold(nn.Module):
    """Edges one after the other, then the pairs of features summed: (batch, features) -> (batch, 2)."""

    def __init__(self, edges: Sequence[nn.Module]) -> None:
        super().__init__()
        self.edges = nn.Sequential(*edges)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.edges(x)
        return y.unflatten(1, (-1, 2)).sum(1)


class Node(nn.Module):
    """The sum of operations, each on its own pair of features: (batch, features) -> (batch, 2)."""

    def __init__(self, operations: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.operations = nn.ModuleDict({str(i): o for i, o in operations.items()})

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.unflatten(1, (-1, 2))
        return torch.stack([o(pairs[:, int(i)]) for i, o in self.operations.items()]).sum(0)


def _infer(spec, *children):
    for child in children:
        child(spec.input)
    return spec.output


def edges(options: Mapping[str, Sequence[float]], count: int = 1) -> SearchSpace:
    """`count` edges one after the other, each one of the options, which scale the features."""

    def build(spec, *children):
        return Fold([child(spec.input)[0] for child in children])

    features = len(next(iter(options.values())))
    roles = {f"e{i}": "Edge" for i in range(count)}
    return SearchSpace(
        "Net",
        {"Net": [Rule("net", roles, _infer, build)], "Edge": scales(options)},
        Signature((features,), (2,)),
        name="edges",
    )


def scales(options: Mapping[str, Sequence[float]]) -> list[Rule]:
    def rule(name, factors):
        return terminal(name, lambda spec: Scale(factors))

    return [rule(name, factors) for name, factors in options.items()]


def nodes(*inputs: int) -> SearchSpace:
    """Nodes with so many inputs each, of which two are picked, each whole or halved; their sum."""

    def infer(spec, *children):
        for child, count in zip(children, inputs, strict=True):
            child((2,) * count)
        return spec.output

    def build(spec, *children):
        made = [Node(c((2,) * n)[0]) for c, n in zip(children, inputs, strict=True)]
        return made[0] if len(made) == 1 else Sides(made)

    roles = {f"n{i}": Pick(2, "Edge") for i in range(len(inputs))}
    options = scales({"whole": (1.0, 1.0), "half": (0.5, 0.5)})
    return SearchSpace(
        "Net",
        {"Net": [Rule("net", roles, infer, build)], "Edge": options},
        Signature((2 * max(inputs),), (2,)),
        name="nodes",
    )


class Sides(nn.Module):
    """Nodes side by side on the first of the features, summed."""

    def __init__(self, made: Sequence[Node]) -> None:
        super().__init__()
        self.made = nn.ModuleList(made)

    def forward(self, x: Tensor) -> Tensor:
        outs = [node(x[:, : 2 * len(node.operations)]) for node in self.made]  # type: ignore[arg-type]
        return torch.stack(outs).sum(0)


def nested() -> SearchSpace:
    """An edge that is plain, or a wrapped edge with a choice of its own."""
    inner = scales({"plus": (1.0, 1.0), "minus": (-1.0, -1.0)})

    def wrap(spec, child):
        return child(spec)

    def build_wrap(spec, child):
        return nn.Sequential(child(spec)[0])

    outer = [
        *scales({"zero": (0.0, 0.0)}),
        Rule("wrapped", {"inner": "Inner"}, wrap, build_wrap),
        Rule("doubled", {"inner": "Inner"}, wrap, build_wrap),
    ]

    def build(spec, child):
        return Fold([child(spec.input)[0]])

    return SearchSpace(
        "Net",
        {"Net": [Rule("net", {"e": "Edge"}, _infer, build)], "Edge": outer, "Inner": inner},
        Signature((2,), (2,)),
        name="nested",
    )


def task(inputs: Tensor, targets: Tensor) -> Task:
    """Classes, scored by accuracy in percent."""

    def accuracy(outputs, targets):
        return float((outputs.argmax(1) == targets).double().mean()) * 100

    def loss(outputs, targets, smoothing):
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=smoothing)

    split = Split(inputs, targets)
    shapes = Signature(tuple(inputs.shape[1:]), (int(targets.max()) + 1,))
    scores = (Score(Metric("accuracy", "%", "maximize"), accuracy),)
    return Task("planted", split, split, split, shapes, loss, scores, None)  # type: ignore[arg-type]


def validation(supernet: Supernet, inputs: Tensor, targets: Tensor) -> Validation:
    given = task(inputs, targets)
    return Validation(supernet, given, [given.valid])


def set_alphas(supernet: Supernet, values: Mapping[str, Sequence[float]]) -> None:
    """Give alphas, by path, by hand."""
    with torch.no_grad():
        for path, row in supernet.alphas.rows().items():
            if path in values:
                row.copy_(torch.tensor(values[path]))
