"""Exports: written whole, the same as the network, and used without this project."""

from __future__ import annotations

import importlib.util
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import Tensor, nn

from nas import exporting, registry
from nas.errors import ConfigurationError, DataError, NasgramError
from nas.exporting import export
from nas.found import Found, Measured, load, save
from nas.grammar import Rule
from nas.scaled import Scaled
from nas.space import SearchSpace, Signature
from nas.task import Scaling
from nas.variation import sample

KINDS = ("torch-export", "onnx", "state-dict")
SPACES = {
    "nasbench201": ({"channels": 4, "cells": 1}, Signature((3, 8, 8), (10,))),
    "kan": ({"widths": [4], "depths": [1]}, Signature((3,), (2,))),
}


class Choosy(nn.Module):
    """Decides by value, in a way that no exporter can follow, or is another function every time."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.inner(x))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": torch.tanh,
    "by_value": lambda x: x if x.sum().item() > 0 else -x,
    "noise": lambda x: x + torch.randn_like(x),
}


@registry.space("choosy_toy")
def choosy_toy(function: str = "plain") -> SearchSpace:
    """One network of a function named by a setting."""
    rule = Rule("net", {}, lambda spec: spec.output, lambda spec: Choosy(FUNCTIONS[function]))
    return SearchSpace("Net", {"Net": [rule]}, Signature((3,), (2,)))


def trained(name: str, folder: Path, stem: str = "best", **settings: object) -> Found:
    """A found file of a registered space with weights that are no longer those of a fresh network."""
    given, signature = SPACES.get(name, ({}, Signature((3,), (2,))))
    space = registry.make("space", name, {**given, **settings}).at(signature)
    architecture = sample(space, random.Random(3))
    torch.manual_seed(0)
    constant = (signature.input[0], *(1 for _ in signature.input[1:]))
    scaling = Scaling(
        torch.rand(constant) * 100,
        torch.rand(constant) * 50 + 1,
        torch.rand(signature.output),
        torch.rand(()) + 5,
    )
    model = Scaled(space.build(architecture), scaling)
    with torch.no_grad():
        model(torch.randn(32, *signature.input) * 50 + 100)  # moves running statistics
    metrics = {"accuracy": Measured(91.25, "%", "validation")}
    return save(Found(space, architecture, metrics), folder / f"{stem}.json", model.state_dict())


ALONE = """
    import sys
    sys.path.insert(0, ".")
    import torch
    torch.set_num_threads(1)
    import onnxruntime
    for name in {names}:
        x, wanted = torch.load(name + "_data.pt")
        program = torch.export.load(name + ".pt2").module()
        session = onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
        model = __import__(name).Model().eval()
        model.load_state_dict(torch.load(name + ".pt", weights_only=True))
        for of in (x, x[:1]):
            run = torch.tensor(session.run(None, {{"input": of.numpy()}})[0])
            for y in (program(of), run, model(of)):
                torch.testing.assert_close(y, wanted[: len(of)], rtol=1e-5, atol=2e-5)
    assert not any(m.partition(".")[0] in ("nas", "search_spaces") for m in sys.modules)
"""


def trained_on_tokens(mixer: str, path: Path) -> Found:
    """A found file of a network that takes tokens."""
    space = registry.make("space", "sequence_mixer").at(Signature((9,), (9, 6), 6))
    architecture = space.parse(f"network(16, pre, 1, chain(layer({mixer}, 2)))")
    zero, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    model = Scaled(space.build(architecture), Scaling(zero, one, torch.zeros(1), torch.ones(1)))
    return save(Found(space, architecture), path, model.state_dict())


@pytest.mark.parametrize(
    "kind", ["state-dict", "torch-export", pytest.param("onnx", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("mixer", ["convolution(5, 2)", "attention(2)", "gru"])
def test_networks_of_tokens_are_exported(tmp_path: Path, mixer: str, kind: str) -> None:
    found = trained_on_tokens(mixer, tmp_path / "best.json")
    again = load(tmp_path / "best.json")
    assert again.signature == found.signature
    assert again.pretrained()(found.signature.random(2)).shape == (2, 9, 6)
    assert all(file.is_file() for file in export(again, kind))


def test_exports_run_without_this_project(tmp_path: Path) -> None:
    for name in SPACES:
        found = trained(name, tmp_path, name)
        for kind in KINDS:
            assert all(file.is_file() for file in export(found, kind))
        x = torch.randn(5, *found.signature.input) * 50 + 100
        torch.save((x, found.pretrained()(x).detach()), tmp_path / f"{name}_data.pt")
    command = [sys.executable, "-I", "-W", "ignore", "-c", dedent(ALONE.format(names=list(SPACES)))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not any(file.suffix == ".data" or file.name[0] == "." for file in tmp_path.iterdir())


def test_files_stand_beside_the_found_file_under_its_name(tmp_path: Path) -> None:
    trained("choosy_toy", tmp_path, "2fc3")
    assert export(str(tmp_path / "2fc3.json"), "torch-export") == (tmp_path / "2fc3.pt2",)
    files = export(tmp_path / "2fc3.json", "state-dict")
    assert files == (tmp_path / "model_2fc3.py", tmp_path / "model_2fc3.pt")


@pytest.mark.parametrize("out", ["net", "net.py", "net.pt", ".", "new/net.py"])
def test_files_stand_where_they_are_asked_for(tmp_path: Path, out: str) -> None:
    found = trained("choosy_toy", tmp_path, "net")
    source, weights = export(found, "state-dict", tmp_path / out)
    folder = tmp_path / "new" if out.startswith("new") else tmp_path
    assert (source, weights) == (folder / "net.py", folder / "net.pt")


def test_plain_source_tells_what_it_is(tmp_path: Path) -> None:
    found = trained("kan", tmp_path)
    text = export(found, "state-dict")[0].read_text()
    assert str(found.architecture) in text
    assert "accuracy = 91.25 % (validation)" in text
    assert "import nas" not in text


def test_a_name_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"such as my_net\.py"):
        export(trained("choosy_toy", tmp_path), "state-dict", tmp_path / "my-net.py")


def test_a_found_file_without_weights_is_sent_to_training(tmp_path: Path) -> None:
    found = trained("choosy_toy", tmp_path)
    path = tmp_path / "bare.json"
    save(replace(found, weights=None), path)
    with pytest.raises(
        DataError, match=r"has no weights; train it first, with `nas train .*bare\.json`"
    ):
        export(path, "torch-export")


def test_an_unknown_kind_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='did you mean "onnx"'):
        export(tmp_path / "best.json", "onxx")


def test_a_missing_onnx_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "onnxscript" else there(name, package)

    found = trained("choosy_toy", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ConfigurationError, match=r'pip install "nasgram\[onnx\]"'):
        export(found, "onnx")


def test_without_onnxruntime_onnx_itself_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "onnxruntime" else there(name, package)

    found = trained("choosy_toy", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert export(found, "onnx") == (tmp_path / "best.onnx",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_cannot_be_exported_leaves_no_file(tmp_path: Path, kind: str) -> None:
    found = trained("choosy_toy", tmp_path, function="by_value")
    with pytest.raises(NasgramError) as caught:
        export(found, kind)
    assert "\n" not in str(caught.value)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_export_that_is_another_function_is_refused(tmp_path: Path) -> None:
    found = trained("choosy_toy", tmp_path, function="noise")
    with pytest.raises(NasgramError, match="is not the network: on a batch of 1"):
        export(found, "torch-export")
    assert len(list(tmp_path.iterdir())) == 2


def test_an_export_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    found = trained("choosy_toy", tmp_path)
    first = export(found, "state-dict")
    first[0].write_text("old")
    assert export(load(tmp_path / "best.json"), "state-dict") == first
    assert "class Model" in first[0].read_text()


def test_nothing_of_the_exporters_is_left_changed(tmp_path: Path) -> None:
    before = logging.getLogger("torch.onnx").level
    with exporting._quiet():
        pass
    assert logging.getLogger("torch.onnx").level == before
