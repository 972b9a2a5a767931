from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluators.tasks.array_files import read_idx, read_images, read_npz
from nas.errors import DataError
from tests.tasks.idx_writing import idx_bytes, write_images

ARRAYS = {
    "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "signed": np.array([-1, 5], np.int8),
    "short": np.array([-300, 300], np.int16),
    "whole": np.array([[70000, -1]], np.int32),
    "float": np.array([0.5, -2.25], np.float32),
    "double": np.array([[1e-9], [3.0]], np.float64),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_an_idx_file_is_read_back(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "a"
    file.write_bytes(pack(idx_bytes(ARRAYS[name])))
    found = read_idx(file)
    assert found.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(found, ARRAYS[name])


CONTENT = idx_bytes(ARRAYS["bytes"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"not idx at all", "is no IDX file"),
        (b"\0\0\x77\x01" + CONTENT[4:], "is no IDX file"),
        (CONTENT[:-1], "cut short or damaged"),
        (CONTENT + b"\0", "cut short or damaged"),
        (CONTENT[:9], "cut short or damaged"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"ab", "cut short or damaged"),
        (gzip.compress(CONTENT)[:-9], "cannot be read"),
        (gzip.compress(CONTENT)[:12] + b"\0" * 20, "cannot be read"),
    ],
    ids=["empty", "text", "type", "short", "long", "header", "huge", "gzip cut", "gzip damaged"],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "a")


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_a_folder_of_idx_files_is_read(tmp_path: Path, zipped: bool) -> None:
    images = read_images(write_images(tmp_path, zipped=zipped))
    assert images.x_train.shape == (100, 28, 28)
    assert images.y_test.tolist() == [n % 10 for n in range(20)]


def test_an_npz_file_or_its_folder_is_read(tmp_path: Path) -> None:
    x, y = np.zeros((4, 28, 28), np.uint8), np.arange(4)
    np.savez(tmp_path / "some.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert read_images(tmp_path).x_train.shape == read_images(tmp_path / "some.npz").x_test.shape


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte"):
        read_images(tmp_path)


def test_labels_that_do_not_match_their_images_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(99, np.uint8)))
    with pytest.raises(DataError, match=r"labels \(99,\)"):
        read_images(tmp_path)


def test_an_empty_folder_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 0 npz files and none of train-images-idx3-ubyte"):
        read_images(tmp_path)


def test_absent_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3))
    with pytest.raises(DataError, match="lacks y_train, x_test, y_test; it holds x_train"):
        read_images(tmp_path / "a.npz")


@pytest.mark.parametrize("cut", [0, 40, 300], ids=["empty", "head", "most"])
def test_a_cut_npz_file_is_refused(tmp_path: Path, cut: int) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(100))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:cut])
    with pytest.raises(DataError, match="no npz file or is cut short"):
        read_npz(tmp_path / "a.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        read_npz(tmp_path / "a.npz")
