"""Plain source of a module: run by a Python that has torch alone, it computes the same."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import ConfigurationError
from nas.source import constructor, source


class Residual(nn.Module):
    """Convolutions in containers, a sum, a pool that leaves the padding out, and a dead branch."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.GELU())
        self.ops = nn.ModuleDict({"a": conv, "1x1": nn.Conv2d(3, 6, 1)})
        self.layers = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, groups=g) for g in (1, 2, 3))
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.self = nn.PReLU(6)
        self.dead = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = sum(op(x) for op in self.ops.values())
        for layer in self.layers:
            y = y + functional.silu(self.pool(layer(y))) * math.sqrt(2)
        return self.self(y).mean((2, 3))


class Spline(nn.Module):
    """Parameters in an einsum, a buffer that is not saved, shapes, slices, masks and infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 5))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.scales = nn.ParameterDict({"of all": torch.rand(3), "lambda": torch.rand(1)})
        self.register_buffer("grid", torch.linspace(-1, 1, 5), persistent=False)
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.register_buffer("scalar", torch.tensor(0.5))
        self.plain = torch.arange(3.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, _ = x.shape
        x = x[:, self.order] * self.scales["lambda"] + self.plain * self.scales["of all"]
        basis = torch.exp(-((x[..., None] - self.grid) ** 2))
        y = torch.einsum("bif,oif->bo", basis, self.weight)
        y = torch.where(y > self.scalar, y, torch.zeros_like(y))
        y = y.masked_fill(y > 3, float("inf")).clamp(max=5).reshape(batch, -1)
        return torch.cat([y[:, 1:3], y.flatten(1)[:, ::2], x * self.frozen], 1).to(torch.float32)


class InPlace(nn.Module):
    """Operations that change their arguments, so that their order matters."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        before = y * 2
        y += 1
        y.mul_(3)
        self.relu(y)
        return before + y


class Tied(nn.Module):
    """Two layers with one weight, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(torch.tanh(self.first(x)))))


class ByValue(nn.Module):
    """Decides by what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


MODULES = [
    (Residual, (3, 8, 8)),
    (Spline, (3,)),
    (InPlace, (3,)),
    (Tied, (3,)),
]

LAYERS = [
    nn.Conv1d(2, 4, 3, padding="same", padding_mode="circular"),
    nn.Conv2d(2, 4, (3, 5), stride=(2, 1), dilation=2, bias=False),
    nn.ConvTranspose2d(2, 4, 2, stride=2),
    nn.BatchNorm2d(4, eps=1e-3, affine=False),
    nn.BatchNorm1d(4, track_running_stats=False),
    nn.LayerNorm((3, 4), elementwise_affine=False),
    nn.LayerNorm(4, bias=False),
    nn.GroupNorm(2, 4),
    nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
    nn.MaxPool2d(3, 2, 1),
    nn.AdaptiveAvgPool2d((None, 2)),
    nn.GELU("tanh"),
    nn.LeakyReLU(0.2),
    nn.Softmax(dim=-1),
    nn.Dropout(0.3),
    nn.Embedding(5, 3, padding_idx=0),
    nn.Flatten(2),
    nn.Upsample(scale_factor=2, mode="nearest"),
    nn.LSTM(3, 4, num_layers=2, batch_first=True),
    nn.MultiheadAttention(4, 2, batch_first=True),
    nn.Identity(),
]


def run_alone(folder: Path, code: str) -> None:
    """Run code by a Python that sees its installed packages but neither this project nor its path."""
    command = [sys.executable, "-I", "-W", "ignore", "-c", dedent(code)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ALONE = """
    import sys
    sys.path.insert(0, ".")
    import torch
    torch.set_num_threads(1)
    for name in {names}:
        x, wanted = torch.load(name + "_data.pt")
        model = __import__(name).Model().eval()
        model.load_state_dict(torch.load(name + ".pt", weights_only=True))
        torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-6)
    assert not any(m == "nas" or m.startswith("nas.") for m in sys.modules)
"""


def test_source_computes_the_same_with_torch_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for made, shape in MODULES:
        module = made().eval()
        written = source(module)
        x = torch.randn(4, *shape)
        name = made.__name__.lower()
        (tmp_path / f"{name}.py").write_text(written.text)
        torch.save(dict(written.state), tmp_path / f"{name}.pt")
        torch.save((x, module(x.clone()).detach()), tmp_path / f"{name}_data.pt")
    run_alone(tmp_path, ALONE.format(names=[made.__name__.lower() for made, _ in MODULES]))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_constructor_makes_the_same_layer(layer: nn.Module) -> None:
    made = eval(constructor(layer), {"nn": nn, "torch": torch})
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in layer.state_dict().items()
    }
    assert getattr(made, "count_include_pad", None) == getattr(layer, "count_include_pad", None)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Conv2d(3, 8, 3, padding=1, bias=False), "nn.Conv2d(3, 8, 3, padding=1, bias=False)"),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "nn.AvgPool2d(3, stride=1, padding=1, "),
        (nn.Linear(2, 3, dtype=torch.float64), "nn.Linear(2, 3, dtype=torch.float64)"),
    ],
)
def test_a_constructor_leaves_defaults_out(layer: nn.Module, text: str) -> None:
    assert constructor(layer).startswith(text)


def test_a_layer_of_another_form_is_refused() -> None:
    layer = nn.Linear(3, 3)
    nn.utils.parametrizations.orthogonal(layer)
    with pytest.raises(ConfigurationError, match="torch-export"):
        constructor(layer, "head")


def test_dead_branches_are_left_out() -> None:
    written = source(Residual())
    assert "dead" not in written.text
    assert not any("dead" in name for name in written.state)


def test_statements_are_joined_to_lines_that_fit() -> None:
    written = source(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    assert "return self.layer_2(self.layer_1(self.layer_0(input)))" in written.text


def test_statements_that_change_their_arguments_stay_in_order() -> None:
    text = source(InPlace()).text
    assert text.index("norm * 2") < text.index("mul_(3)") < text.index("self.relu(")


def test_a_decision_by_value_names_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match=r"ByValue cannot be written .* \"torch-export\""):
        source(ByValue())


def test_a_docstring_cannot_end_the_string_it_stands_in() -> None:
    written = source(nn.Linear(2, 2), docstring='a """ b \\')
    names: dict[str, type[nn.Module]] = {}
    exec(written.text, names)
    assert (names["Model"].__doc__ or "").startswith("a '''")
