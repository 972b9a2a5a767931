"""Found files: what is saved comes back, and what is malformed is told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import registry
from nas.errors import ConfigurationError, DataError, NasgramError, SearchSpaceError
from nas.found import Found, Measured, Provenance, TaskName, load, save
from nas.grammar import Rule, terminal
from nas.scaled import Scaled
from nas.space import Notation, SearchSpace, Signature
from nas.task import Scaling

TEXT = "net(tanh)"


class Tied(nn.Module):
    """Two linear maps with one weight, so that its state names shared memory twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@registry.space("tied_toy")
def tied_toy(width: int = 4, factors: tuple[int, ...] = (1, 2)) -> SearchSpace:
    """A network with tied weights, batch norm and one choice of an activation."""

    def build(spec: Signature, activation: Any) -> nn.Module:
        inner = [nn.BatchNorm1d(width), Tied(width), activation(spec)[0]]
        return nn.Sequential(nn.Linear(*spec.input, width), *inner, nn.Linear(width, *spec.output))

    def infer(spec: Signature, activation: Any) -> tuple[int, ...]:
        activation(spec)
        return spec.output

    rules = {
        "Net": [Rule("net", {"activation": "Activation"}, infer, build)],
        "Activation": [terminal("tanh", lambda s: nn.Tanh()), terminal("relu", lambda s: nn.ReLU())],
    }
    notation = Notation(
        "arrows",
        lambda text: f"net({text[3:]})" if text.startswith("-> ") else None,
        lambda architecture: f"-> {architecture.children[0].rule}",
    )
    return SearchSpace("Net", rules, Signature((3,), (2,)), notation=notation)


def scaling() -> Scaling:
    return Scaling(torch.rand(3), torch.rand(3) + 1, torch.rand(2), torch.rand(2) + 1)


def made(**settings: Any) -> Found:
    space = registry.make("space", "tied_toy", settings)
    return Found(
        space,
        space.parse(TEXT),
        metrics={"accuracy": Measured(92.5, "%", "validation"), "loss": Measured(0, "", "test")},
        task=TaskName("digits", {"size": 8}),
        provenance=Provenance("a study", 7, 1, "nas search study.toml"),
    )


def trained(found: Found) -> Scaled:
    torch.manual_seed(1)
    model = Scaled(found.space.build(found.architecture), scaling())
    model(torch.randn(16, 3))  # moves the running statistics
    return model.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = made(width=5)
    save(found, tmp_path / "best.json", trained(found).state_dict())
    return tmp_path / "best.json"


def test_everything_saved_comes_back(path: Path) -> None:
    found, again = made(width=5), load(path)
    assert str(again.architecture) == str(found.architecture)
    assert again.space.name == "tied_toy"
    assert again.space.settings == {"width": 5}
    assert again.signature == Signature((3,), (2,))
    assert (again.metrics, again.task) == (found.metrics, found.task)
    assert again.provenance == found.provenance
    assert again.path == path


def test_a_file_names_its_format_digest_notation_and_versions(path: Path) -> None:
    data = json.loads(path.read_text())
    assert data["format"] == "nasgram-found-1"
    assert data["architecture"] == {"text": TEXT, "digest": load(path).architecture.digest}
    assert data["notation"] == {"name": "arrows", "text": "-> tanh"}
    assert data["weights"] == "best.safetensors"
    assert {"nasgram", "torch", "python", "optuna"} <= set(data["provenance"]["versions"])


def test_saving_leaves_nothing_but_the_two_files(path: Path) -> None:
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.json", "best.safetensors"]


def test_weights_are_restored_exactly(path: Path) -> None:
    model, again = trained(made(width=5)), load(path).pretrained()
    assert all(torch.equal(a, again.state_dict()[k]) for k, a in model.state_dict().items())
    x = torch.randn(4, 3)
    assert torch.equal(model(x), again(x))
    assert not again.training


def test_tied_weights_stay_tied(path: Path) -> None:
    tied = load(path).pretrained().get_submodule("network.2")
    assert isinstance(tied, Tied)
    assert tied.first.weight is tied.second.weight


def test_loading_weights_leaves_the_random_state_alone(path: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    load(path).pretrained()
    assert torch.equal(torch.rand(2), wanted)


def test_a_network_is_rebuilt_larger_and_for_other_shapes(path: Path) -> None:
    model = load(path).build(width=32, signature=Signature((7,), (4,)))
    assert model(torch.randn(5, 7)).shape == (5, 4)
    assert model.get_parameter("0.weight").shape == (32, 7)
    assert model.training


def test_a_setting_that_the_space_has_not_is_told(path: Path) -> None:
    with pytest.raises(ConfigurationError, match='did you mean "width"'):
        load(path).build(widht=3)


def test_metrics_are_added_without_the_weights_at_hand(path: Path) -> None:
    found = load(path)
    more = {**found.metrics, "test accuracy": Measured(91.0, "%", "test")}
    save(replace(found, metrics=more), path)
    again = load(path)
    assert again.metrics["test accuracy"].split == "test"
    again.pretrained()


def test_a_copy_under_another_name_takes_the_weights_along(path: Path, tmp_path: Path) -> None:
    copy = save(load(path), tmp_path / "other" / "copy.json")
    path.with_suffix(".safetensors").unlink()
    assert copy.weights == tmp_path / "other" / "copy.safetensors"
    load(tmp_path / "other" / "copy.json").pretrained()


def test_a_space_that_is_not_registered_can_be_given(path: Path) -> None:
    change(path, lambda data: data["space"].update(name="mine"))
    found = load(path, space=tied_toy(width=5))
    assert str(found.architecture) == TEXT
    found.pretrained()


def test_without_weights_the_way_to_them_is_told(tmp_path: Path) -> None:
    path = tmp_path / "untrained.json"
    save(made(), path)
    assert isinstance(load(path).build(), nn.Module)
    with pytest.raises(DataError, match=r"untrained.json\" has no weights; .*`nas train "):
        load(path).pretrained()


def change(path: Path, edit: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


MALFORMED: dict[str, tuple[Callable[[Any], object], str]] = {
    "format": (lambda d: d.update(format="other"), "reads \"nasgram-found-1\""),
    "space": (lambda d: d["space"].update(name="tied_toi"), "nas --load FILE"),
    "space settings": (lambda d: d["space"].update(settings={"widht": 3}), 'did you mean "width"'),
    "space value": (lambda d: d["space"].update(settings={"width": "big"}), "takes a whole number"),
    "text": (lambda d: d["architecture"].update(text="net(sin)"), '"sin" is not a rule'),
    "text's form": (lambda d: d["architecture"].update(text="net(tanh"), "malformed at character"),
    "text's type": (lambda d: d["architecture"].update(text=3), "is 3; it takes text"),
    "digest": (lambda d: d["architecture"].update(text="net(relu)"), "one of the two was changed"),
    "shape": (lambda d: d["signature"].update(input=[0]), "whole numbers above 0"),
    "vocabulary": (lambda d: d["signature"].update(vocabulary=0), "takes a whole number above 0"),
    "shape's type": (lambda d: d["signature"].update(output=4), "takes a list"),
    "metric": (lambda d: d["metrics"]["loss"].update(value="low"), 'is "low"; it takes a number'),
    "metric's size": (lambda d: d["metrics"]["loss"].update(value=1e400), "not JSON"),
    "metric's truth": (lambda d: d["metrics"]["loss"].update(value=True), "it takes a number"),
    "split": (lambda d: d["metrics"]["loss"].update(split="training"), "Allowed: validation, test"),
    "unit": (lambda d: d["metrics"]["loss"].pop("unit"), 'field "metrics.loss.unit" is missing'),
    "task": (lambda d: d.update(task="digits"), "takes a table"),
    "weights": (lambda d: d.update(weights="../best.safetensors"), "named without folders"),
    "seed": (lambda d: d["provenance"].update(seed="one"), "takes a whole number"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_told_in_one_sentence(
    path: Path, edit: Callable[[Any], object], message: str
) -> None:
    change(path, edit)
    with pytest.raises((DataError, SearchSpaceError)) as caught:
        load(path)
    said = str(caught.value)
    assert message in said
    assert str(path) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "field",
    ["space", "architecture", "signature", "task", "metrics", "weights", "provenance"],
)
def test_a_missing_field_is_named(path: Path, field: str) -> None:
    change(path, lambda data: data.pop(field))
    with pytest.raises(DataError, match=f'"{field}" is missing'):
        load(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null", b'{"format": NaN}']
)
def test_what_is_no_found_file_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"best\.json"):
        load(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(tmp_path / "none.json")


def test_missing_weights_are_told(path: Path) -> None:
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(DataError, match="are missing; put that file beside"):
        load(path).pretrained()


@pytest.mark.parametrize("cut", [0, 6, 40, -5])
def test_corrupt_weights_are_told(path: Path, cut: int) -> None:
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(DataError, match="do not fit"):
        load(path).pretrained()


STATES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "lacking": (lambda s: s.pop("network.0.bias"), 'lacks "network.0.bias"'),
    "more": (lambda s: s.update(more=torch.zeros(1)), 'the network lacks, "more"'),
    "shape": (lambda s: s.update({"network.0.bias": torch.zeros(9)}), r"float32 \(9,\), in the"),
    "type": (lambda s: s.update({"network.0.bias": torch.zeros(5).double()}), "torch.float64"),
    "constant": (lambda s: s.update(input_mean=torch.zeros(2, 3)), r"mean has the shape \(2, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), STATES.values(), ids=STATES)
def test_weights_of_another_form_are_told(
    path: Path, edit: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    found = made(width=5)
    state = dict(trained(found).state_dict())
    edit(state)
    save(found, path, state)
    with pytest.raises(DataError, match=message):
        load(path).pretrained()


def test_weights_of_another_architecture_are_told(path: Path) -> None:
    other = replace(made(width=5), architecture=made(width=5).space.parse("net(relu)"))
    save(other, path.with_name("other.json"), trained(other).state_dict())
    path.with_name("other.safetensors").replace(path.with_suffix(".safetensors"))
    with pytest.raises(DataError, match="it is of architecture"):
        load(path).pretrained()


def test_weights_without_constants_are_refused(tmp_path: Path) -> None:
    found = made()
    state = found.space.build(found.architecture).state_dict()
    with pytest.raises(DataError, match="the state of a Scaled network"):
        save(found, tmp_path / "a.json", state)


def test_a_space_without_a_name_is_refused(tmp_path: Path) -> None:
    space = tied_toy()
    with pytest.raises(SearchSpaceError, match="no registered name"):
        save(Found(space, space.parse(TEXT)), tmp_path / "a.json")


def test_a_metric_that_is_no_number_is_refused(tmp_path: Path) -> None:
    found = replace(made(), metrics={"loss": Measured(float("nan"), "", "test")})
    with pytest.raises(DataError, match="finite numbers"):
        save(found, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told(path: Path) -> None:
    with pytest.raises(NasgramError, match="cannot be written"):
        save(made(), path / "below" / "a.json")
