from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from evaluators import datasets
from evaluators.tasks.array_files import read_npz
from nas.errors import ConfigurationError, DataError
from tests.tasks.idx_writing import write_images


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$NASGRAM_DATA as an empty folder, and no system folders."""
    monkeypatch.setenv("NASGRAM_DATA", str(tmp_path))
    own = datasets.places
    monkeypatch.setattr(
        datasets, "places", lambda name: [p for p in own(name) if p.is_relative_to(tmp_path)]
    )
    return tmp_path


@pytest.mark.parametrize("dataset", datasets.all_datasets(), ids=lambda d: d.name)
def test_every_data_set_says_where_it_is_from(dataset: datasets.DataSet) -> None:
    assert all((dataset.what, dataset.source, dataset.licence, dataset.how))


def test_an_unknown_data_set_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match='did you mean "fashion_mnist"'):
        datasets.find("fashion_minst")


def test_what_is_missing_says_where_it_was_looked_for_and_how_to_get_it(nowhere: Path) -> None:
    assert datasets.find("fashion_mnist") is None
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist") as error:
        datasets.located("fashion_mnist")
    assert str(nowhere / "fashion_mnist") in str(error.value)


def test_without_the_variable_its_name_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NASGRAM_DATA", raising=False)
    with pytest.raises(DataError, match=r"\$NASGRAM_DATA \(not set\)"):
        datasets.located("nasbench201")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        datasets.check("fashion_mnist", tmp_path / "absent")


@pytest.mark.parametrize("folder", ["", "fashion_mnist", "fashion_mnist_small"])
def test_idx_files_are_found_in_the_variables_folder(nowhere: Path, folder: str) -> None:
    write_images(nowhere / folder, zipped=True)
    assert datasets.find("fashion_mnist") == nowhere / folder


def test_the_table_is_found_in_its_folder(nowhere: Path) -> None:
    (nowhere / "nasbench201").mkdir()
    np.savez(nowhere / "nasbench201" / "nb201.npz", ops=np.zeros((2, 6)))
    assert datasets.find("nasbench201") == nowhere / "nasbench201" / "nb201.npz"
    with pytest.raises(DataError, match="lacks c10_params_m"):
        datasets.check("nasbench201")


def test_scikit_learns_digits_are_sound() -> None:
    assert all(fact.ok for fact in datasets.check("digits"))


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist1d", "nasbench201", "tinyshakespeare"])
def test_the_shared_data_are_sound(shared_data: Path, name: str) -> None:
    if datasets.find(name) is None:
        pytest.skip(f"{name} is not in {shared_data}")
    assert [fact for fact in datasets.check(name) if not fact.ok] == []


def test_noise_for_images_fails_the_check(tmp_path: Path) -> None:
    failed = {
        fact.fact for fact in datasets.check("fashion_mnist", write_images(tmp_path)) if not fact.ok
    }
    assert "mean of training values / 255" in failed
    assert "training images" in failed


def test_a_changed_character_fails_the_check(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x" * 1_115_394, encoding="utf-8")
    failed = [f.fact for f in datasets.check("tinyshakespeare", tmp_path / "text.txt") if not f.ok]
    assert failed == ["different characters", "SHA-256"]


def test_changed_sequences_fail_the_check(shared_data: Path, tmp_path: Path) -> None:
    found = datasets.find("mnist1d")
    if found is None:
        pytest.skip(f"mnist1d is not in {shared_data}")
    arrays = read_npz(found)
    arrays["x_train"] = arrays["x_train"][:, ::2].repeat(2, axis=1)
    np.savez(tmp_path / "mnist1d.npz", **arrays)
    failed = [f.fact for f in datasets.check("mnist1d", tmp_path / "mnist1d.npz") if not f.ok]
    assert "train mean product of neighbors" in failed


def test_a_tampered_table_fails_the_check(shared_data: Path, tmp_path: Path) -> None:
    found = datasets.find("nasbench201")
    if found is None:
        pytest.skip(f"nasbench201 is not in {shared_data}")
    table = read_npz(found)
    table["c10_test200"] = table["c10_test200"][::-1]
    np.savez(tmp_path / "nb201.npz", **table)
    failed = [
        fact.fact for fact in datasets.check("nasbench201", tmp_path / "nb201.npz") if not fact.ok
    ]
    assert failed == ["its row in c10_test200", "rank correlation of parameters"]


def test_ones_own_arrays_are_checked(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    np.savez(tmp_path / "good.npz", x=x, y=np.arange(30) % 3)
    np.savez(tmp_path / "bad.npz", x=np.where(x > 2, np.nan, x) + np.nan, y=np.arange(30) % 3)
    assert all(fact.ok for fact in datasets.check("arrays", tmp_path / "good.npz"))
    failed = {
        fact.fact: fact.found for fact in datasets.check("arrays", tmp_path / "bad.npz") if not fact.ok
    }
    assert set(failed) == {"train values finite", "makes a task"}
    assert zipfile.is_zipfile(tmp_path / "good.npz")


def test_arrays_without_a_path_say_so() -> None:
    with pytest.raises(DataError, match="name your npz file"):
        datasets.check("arrays")
