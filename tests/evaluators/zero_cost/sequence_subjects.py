"""Networks over sequences with data, ready to be scored."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evaluators.zero_cost.subject import Subject
from nas.sequence_parts import Recurrence, View
from nas.space import Signature
from nas.training import seeded
from search_spaces.recurrent_cell import recurrent_cell
from search_spaces.sequence_mixer import sequence_mixer
from search_spaces.transformer import transformer
from tests.evaluators.zero_cost.subjects import subject

VOCABULARY, LENGTH, BATCH = 11, 9, 6
SIGNATURE = Signature((LENGTH,), (LENGTH, VOCABULARY), VOCABULARY)
WHOLE = Signature((LENGTH,), (3,), VOCABULARY)


def tokens(batch: int = BATCH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (batch, LENGTH), generator=generator)


def each_position(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs.flatten(0, -2), targets.flatten())


def of_tokens(network: nn.Module, x: Tensor | None = None) -> Subject:
    x = tokens() if x is None else x
    return subject(network, x, x.roll(1, 1), each_position, VOCABULARY)


def of_classes(network: nn.Module) -> Subject:
    return subject(network, tokens(), vocabulary=VOCABULARY)


class Lstm(nn.Module):
    """Embedding, layers of torch.nn.LSTM, decoder."""

    def __init__(self, layers: int = 3, *, batch_first: bool = True, scale: float = 1.0) -> None:
        super().__init__()
        self.batch_first = batch_first
        with seeded(0):
            self.lift = nn.Embedding(VOCABULARY, 5)
            widths = [5, *[4] * layers]
            self.layers = nn.ModuleList(nn.LSTM(i, 4, batch_first=batch_first) for i in widths[:layers])
            self.head = nn.Linear(4, VOCABULARY)
        with torch.no_grad():
            for layer in self.layers:
                layer.weight_hh_l0.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lift(x)
        y = y if self.batch_first else y.transpose(0, 1)
        for layer in self.layers:
            y = layer(y)[0]
        return self.head(y if self.batch_first else y.transpose(0, 1))


class Kept(Recurrence):
    """h_t = h_{t-1} + leak x_t: with leak 0 a cell that stays at 0."""

    def __init__(self, leak: float = 0.0) -> None:
        super().__init__()
        self.leak, self.step = leak, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h, seen = torch.zeros_like(x[:, 0]), []
        for part in x.unbind(1):
            h = self.step(h + self.leak * part)
            seen.append(h)
        return torch.stack(seen, 1)

    def steps(self) -> View:
        return View(self.step, lambda x: x)

    def hidden_weights(self) -> list[nn.Parameter]:
        return []


def with_cell(cell: nn.Module) -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Embedding(VOCABULARY, 5), cell, nn.Linear(5, VOCABULARY))


def recurrent(name: str = "lstm", layers: int = 3) -> nn.Module:
    """A cell of the space's examples."""
    space = recurrent_cell(features=6, hidden=5, num_layers=layers).at(SIGNATURE)
    with seeded(0):
        return space.build(space.parse(space.examples[name]))


def encoder(*layers: str, normalization: str = "post", seed: int = 0) -> nn.Module:
    """Layers of the transformer space, such as layer(dot_product, 2, 6, 1), of 8 features."""
    space = transformer((8,), (1, 2, 3, 4), (2, 4), (6,), (1, 2), (3,), normalization=normalization).at(
        WHOLE
    )
    text = f"network(8, {len(layers)}, chain({', '.join(layers)}))"
    with seeded(seed):
        return space.build(space.parse(text))


def mixer(name: str, layers: int = 1) -> nn.Module:
    """A mixer of the sequence space, such as gru or attention(2)."""
    space = sequence_mixer(widths=(8,), depths=(layers,), expansions=(1,)).at(SIGNATURE)
    chain = ", ".join([f"layer({name}, 1)"] * layers)
    with seeded(0):
        return space.build(space.parse(f"network(8, pre, {layers}, chain({chain}))"))
