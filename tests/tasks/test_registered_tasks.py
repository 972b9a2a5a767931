from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.tasks.function_fit import FORMULAS, named
from nas import registry
from nas.errors import ConfigurationError, DataError
from tests.tasks.idx_writing import write_images

POINTS = {
    "sin(pi x)": ((0.5,), 1.0),
    "x^2 + sin(5 pi x)/5": ((0.5,), 0.45),
    "1/(1 + 25 x^2)": ((0.2,), 0.5),
    "x y": ((0.5, -0.5), -0.25),
    "exp(sin(pi x) + y^2)": ((0.5, 1.0), math.exp(2)),
    "1 + x sin(y)": ((0.5, math.pi / 2), 1.5),
    "(x + y)/(1 + x y)": ((0.5, 0.5), 0.8),
    "cos(x) + y cos(x)^2": ((math.pi, 0.5), -0.5),
    "x/(exp(y) + exp(-y))": ((1.0, 0.0), 0.5),
    "sqrt(1 + x^2 + y^2)": ((2.0, -2.0), 3.0),
    "sqrt(1 + x^2 - 2 x cos(y - z))": ((2.0, 0.3, 0.3), 1.0),
    "exp((sin(pi (x^2 + y^2)) + sin(pi (z^2 + w^2)))/2)": ((0.5, 0.5, 0.5, -0.5), math.e),
}


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_a_formula_has_the_value_its_text_says(formula) -> None:
    at, value = POINTS[formula.name]
    assert float(formula(torch.tensor([at]))) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_every_formula_makes_a_task_within_its_ranges(formula) -> None:
    task = registry.make("task", "function_fit", {"formula": formula.name})
    low, high = torch.tensor(formula.ranges).unbind(1)
    assert task.signature.input == (len(formula.ranges),)
    assert bool(((task.train.inputs >= low) & (task.train.inputs <= high)).all())
    assert torch.equal(formula(task.test.inputs), task.test.targets[:, 0])


def test_spaces_in_a_formula_do_not_matter() -> None:
    assert named("exp(sin(pi x)+y^2)").name == "exp(sin(pi x) + y^2)"


def test_an_unknown_formula_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match=r'did you mean "sin\(pi x\)"'):
        registry.make("task", "function_fit", {"formula": "sin(2 pi x)"})


def test_noise_is_on_training_and_validation_targets_alone() -> None:
    task = registry.make("task", "function_fit", {"formula": "x y", "noise": "0.5"})
    error = {
        part: float((getattr(task, part).targets[:, 0] - getattr(task, part).inputs.prod(1)).std())
        for part in ("train", "valid", "test")
    }
    assert error == pytest.approx({"train": 0.5, "valid": 0.5, "test": 0.0}, abs=0.03)
    assert task.known_good > 0.5


def test_the_number_of_points_leaves_the_held_out_ones_alone() -> None:
    few, many = (registry.make("task", "function_fit", {"num_train": n}) for n in (10, 2000))
    assert torch.equal(few.valid.inputs, many.valid.inputs)
    assert (len(few.train), few.known_good) == (10, None)


@pytest.mark.parametrize("settings", [{"num_train": 1}, {"noise": -1}, {"noise": float("inf")}])
def test_function_fit_checks_its_numbers(settings: dict[str, float]) -> None:
    with pytest.raises(DataError, match="at least 2 and noise at least 0"):
        registry.make("task", "function_fit", settings)


def test_fashion_mnist_carves_validation_from_the_official_training_images(tmp_path: Path) -> None:
    task = registry.make("task", "fashion_mnist", {"path": str(write_images(tmp_path))})
    assert [len(s) for s in (task.train, task.valid, task.test)] == [80, 20, 20]
    assert torch.bincount(task.valid.targets).tolist() == [2] * 10
    seen = {tuple(x.flatten().tolist()) for s in (task.train, task.valid) for x in s.inputs}
    assert len(seen) == 100
    assert 0 <= float(task.train.inputs.min()) < float(task.train.inputs.max()) <= 1
    assert task.signature.input == (1, 28, 28)


def test_fewer_training_images_leave_validation_alone(tmp_path: Path) -> None:
    path = str(write_images(tmp_path, zipped=True))
    few, whole = (
        registry.make("task", "fashion_mnist", {"path": path, **more})
        for more in ({"num_train": 30}, {})
    )
    assert torch.equal(few.valid.inputs, whole.valid.inputs)
    assert torch.equal(few.train.inputs, whole.train.inputs[:30])
    assert torch.bincount(few.train.targets).tolist() == [3] * 10


@pytest.mark.parametrize("settings", [{"num_train": 0}, {"num_train": 81}, {"num_valid": 100}])
def test_fashion_mnist_checks_its_numbers(tmp_path: Path, settings: dict[str, int]) -> None:
    path = str(write_images(tmp_path))
    with pytest.raises(DataError, match="together at most the 100 official training images"):
        registry.make("task", "fashion_mnist", {"path": path, **settings})


def saved(folder: Path, **arrays: np.ndarray) -> dict[str, str]:
    np.savez(folder / "mine.npz", **arrays)
    return {"path": str(folder / "mine.npz")}


X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.arange(40) % 2


def test_whole_numbers_are_classes_and_others_values(tmp_path: Path) -> None:
    assert registry.make("task", "arrays", saved(tmp_path, x=X, y=Y)).signature.output == (2,)
    task = registry.make("task", "arrays", saved(tmp_path, x=X, y=X[:, 0]) | {"unit": "eV"})
    assert task.signature.output == (1,)
    assert task.scores[0].metric.unit == "eV"


def test_whole_numbers_can_be_values_to_predict(tmp_path: Path) -> None:
    settings = saved(tmp_path, x=X, y=Y) | {"kind": "regression"}
    assert registry.make("task", "arrays", settings).scores[0].metric.name == "rmse"


def test_the_files_own_splits_are_taken(tmp_path: Path) -> None:
    parts = {"x_train": X, "y_train": Y, "x_test": X[:8], "y_test": Y[:8]}
    task = registry.make("task", "arrays", saved(tmp_path, **parts) | {"valid": "0.25"})
    assert [len(s) for s in (task.train, task.valid, task.test)] == [30, 10, 8]
    settings = saved(tmp_path, **parts, x_valid=X[:4], y_valid=Y[:4])
    task = registry.make("task", "arrays", settings)
    assert [len(s) for s in (task.train, task.valid, task.test)] == [40, 4, 8]


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((40, 3, 4, 5), "first", (3, 4, 5)),
        ((40, 4, 5, 3), "last", (3, 4, 5)),
        ((40, 4, 5), "none", (1, 4, 5)),
    ],
)
def test_bytes_of_images_are_scaled_and_channels_found(
    tmp_path: Path, shape: tuple[int, ...], channels: str, expected: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    task = registry.make("task", "arrays", saved(tmp_path, x=x, y=Y) | {"channels": channels})
    assert task.signature.input == expected
    assert float(task.train.inputs.max()) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "lacks y; it holds x"),
        ({"images": X}, "lacks x_train, y_train; it holds images"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "lacks y_test"),
    ],
    ids=["no targets", "other names", "half a test split"],
)
def test_missing_arrays_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        registry.make("task", "arrays", saved(tmp_path, **arrays))


def test_channels_are_refused_for_vectors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'channels "none" is for images and sequences'):
        registry.make("task", "arrays", saved(tmp_path, x=X, y=Y) | {"channels": "none"})


def test_the_arrays_task_asks_for_its_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--set task\.path=data\.npz"):
        registry.make("task", "arrays")
    with pytest.raises(DataError, match="there is no file"):
        registry.make("task", "arrays", {"path": str(tmp_path / "absent.npz")})


DOCS = Path(__file__).parents[2] / "docs"


def test_a_users_file_of_few_lines_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "own-data.md").read_text(encoding="utf-8")
    source = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert len(source.splitlines()) < 15
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry, "_made", dict(registry._made))
    (tmp_path / "my_tasks.py").write_text(source, encoding="utf-8")
    registry.load(tmp_path / "my_tasks.py")
    monkeypatch.delitem(sys.modules, "_nasgram_loaded_my_tasks")
    task = registry.make("task", "two_moons", {"noise": "0.2"})
    assert registry.parts("task")["two_moons"].summary.startswith("Two half circles")
    assert (task.name, len(task.train), task.signature.output) == ("two_moons", 210, (2,))


def test_the_page_of_arrays_writes_a_file_that_is_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "tasks" / "arrays.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], {})
    assert len(registry.make("task", "arrays", {"path": "data.npz"}).train) == 350


def test_every_formula_is_on_its_page() -> None:
    page = (DOCS / "tasks" / "function_fit.md").read_text(encoding="utf-8")
    assert [f.name for f in FORMULAS if f"`{f.name}`" not in page] == []


def test_mnist1d_validates_on_official_training_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {"x_train": rng.normal(size=(1000, 40)), "y_train": np.arange(1000) % 10}
    settings = saved(tmp_path, **parts, x_test=rng.normal(size=(50, 40)), y_test=np.arange(50) % 10)
    task = registry.make("task", "mnist1d", settings)
    assert [len(s) for s in (task.train, task.valid, task.test)] == [200, 800, 50]
    assert torch.bincount(task.valid.targets).tolist() == [80] * 10
    assert task.signature.input == (1, 40)
    with pytest.raises(DataError, match="lacks x_test, y_test"):
        registry.make("task", "mnist1d", saved(tmp_path, **parts))


@pytest.mark.parametrize(
    "name", ["arrays", "digits", "fashion_mnist", "function_fit", "mnist1d", "tinyshakespeare"]
)
def test_every_setting_of_a_task_is_on_its_page(name: str) -> None:
    page = (DOCS / "tasks" / f"{name}.md").read_text(encoding="utf-8")
    assert [key for key in registry.options("task", name) if f"`{key}`" not in page] == []
