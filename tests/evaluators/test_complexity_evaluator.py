from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from evaluators.complexity import ComplexityEvaluator
from nas.complexity import (
    Complexity,
    activation,
    adaptive_pool,
    batch_norm,
    convolution,
    linear,
    measure,
    pool,
)
from nas.evaluation import Context
from tests.evaluators.networks import cells, problem


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def attention(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(x, x, x)


ON = pytest.mark.parametrize("device", ["cpu", "meta"])


@ON
@pytest.mark.parametrize(
    ("make", "shape", "macs"),
    [
        pytest.param(
            lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 6, 7), 5 * 3 * 9 * 42, id="convolution"
        ),
        pytest.param(lambda: nn.Conv2d(3, 5, 3, stride=2), (3, 7, 7), 5 * 3 * 9 * 9, id="strided"),
        pytest.param(
            lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 5), 6 * 2 * 9 * 25, id="grouped"
        ),
        pytest.param(
            lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), (4, 5, 5), 8 * 9 * 25, id="depthwise"
        ),
        pytest.param(lambda: nn.Conv1d(4, 6, 5, groups=2), (4, 9), 6 * 2 * 5 * 5, id="one dimension"),
        pytest.param(lambda: nn.Conv3d(2, 3, 3), (2, 4, 4, 4), 3 * 2 * 27 * 8, id="three dimensions"),
        pytest.param(
            lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5), 4 * 6 * 9 * 25, id="transposed"
        ),
        pytest.param(
            lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
            (4, 5, 5),
            4 * 3 * 9 * 25,
            id="transposed groups",
        ),
        pytest.param(lambda: nn.Linear(3, 5), (3,), 15, id="linear"),
        pytest.param(lambda: nn.Linear(3, 5), (7, 3), 7 * 15, id="linear on a sequence"),
        pytest.param(lambda: Apply(lambda x: x @ x.mT), (2, 4, 5), 2 * 4 * 4 * 5, id="batched product"),
        pytest.param(
            lambda: Apply(lambda x: torch.einsum("bij,bkj->bik", x, x)), (4, 5), 4 * 4 * 5, id="einsum"
        ),
        pytest.param(lambda: Apply(lambda x: x[0] @ x[0, 0]), (4, 5), 20, id="matrix times vector"),
        pytest.param(lambda: Apply(lambda x: x[0] @ x[0]), (5,), 5, id="inner product"),
        pytest.param(
            lambda: Apply(attention), (2, 5, 4), 2 * 2 * 5 * 5 * 4, id="attention as a function"
        ),
        pytest.param(Attention, (5, 8), 4 * 5 * 64 + 2 * 5 * 5 * 8, id="attention as a module"),
        pytest.param(
            lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (5, 8),
            4 * 5 * 64 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16,
            id="transformer layer",
        ),
        pytest.param(
            lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
            (7, 3),
            7 * 2 * (4 * 4 * (3 + 4) + 4 * 4 * (8 + 4)),
            id="lstm",
        ),
        pytest.param(lambda: nn.GRU(3, 4, batch_first=True), (7, 3), 7 * 3 * 4 * (3 + 4), id="gru"),
    ],
)
def test_multiply_adds_have_their_closed_form(make, shape, macs: int, device: str) -> None:
    with torch.device(device):
        assert measure(make(), shape, device).macs == macs


@pytest.mark.parametrize(
    ("make", "shape", "formula"),
    [
        pytest.param(
            lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
            (4, 5, 7),
            convolution((4, 6), (3, 3), (5, 7), groups=2),
            id="convolution",
        ),
        pytest.param(
            lambda: nn.Conv1d(4, 6, 3, bias=False), (4, 9), convolution((4, 6), (3,), (7,)), id="conv1d"
        ),
        pytest.param(lambda: nn.Linear(3, 5), (3,), linear(3, 5), id="linear"),
        pytest.param(lambda: nn.Linear(3, 5, bias=False), (3,), linear(3, 5, bias=False), id="no bias"),
        pytest.param(lambda: nn.BatchNorm2d(4), (4, 5, 6), batch_norm((4, 5, 6)), id="batch norm"),
        pytest.param(lambda: nn.ReLU(), (4, 5, 6), activation((4, 5, 6)), id="relu"),
        pytest.param(lambda: nn.GELU(), (4,), activation((4,)), id="gelu"),
        pytest.param(lambda: nn.AvgPool2d(3, 1, 1), (4, 5, 6), pool(9, (4, 5, 6)), id="average pool"),
        pytest.param(lambda: nn.MaxPool2d((2, 1)), (4, 6, 6), pool(2, (4, 3, 6)), id="max pool"),
        pytest.param(lambda: nn.MaxPool1d(2), (4, 6), pool(2, (4, 3)), id="max pool 1d"),
        pytest.param(
            lambda: nn.AdaptiveAvgPool2d(1), (4, 5, 6), adaptive_pool((4, 5, 6)), id="global pool"
        ),
        pytest.param(lambda: nn.Identity(), (4,), Complexity(), id="identity"),
    ],
)
def test_a_formula_equals_what_is_measured(make, shape, formula: Complexity) -> None:
    assert measure(make(), shape) == formula


def test_measuring_leaves_modes_and_statistics_as_they_were() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).train()
    network[1].eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    measure(network, (3,))
    assert [m.training for m in network] == [True, False, True]
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_a_layer_used_twice_has_its_parameters_once_and_its_work_twice() -> None:
    layer = nn.Linear(3, 3)
    assert measure(nn.Sequential(layer, layer), (3,)) == Complexity(12, 18, 18, 6)


def test_layers_that_return_tuples_count_their_first_tensor() -> None:
    assert measure(nn.GRU(3, 4, batch_first=True), (7, 3)).activations == 28


def test_it_gives_what_the_space_computes_at_no_cost() -> None:
    space = cells()
    architecture = space.parse("network(nor_conv_3x3, avg_pool_3x3)")
    result = ComplexityEvaluator().evaluate(problem(space), architecture, Context())
    stem, cell, head = 40 + 8, 4 * 4 * 9 + 8, 16 * 3 + 3
    assert result.metrics["params"] == stem + cell + head
    assert result.metrics["macs"] == 64 * (36 + 144) + 48
    assert result.metrics == space.complexity(architecture).metrics()
    assert result.cost == 0


def test_bytes_are_the_unit_of_activations() -> None:
    units = {m.name: m.unit for m in ComplexityEvaluator().metrics(problem())}
    assert units == {"params": "", "macs": "", "flops": "", "activation_bytes": "B"}
