"""The file of a pool: read as it was written, refused where it is anything else."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from nas.errors import DataError
from nas.pool import Pool
from nas.task import Metric


def made(n=4):
    rng = np.random.default_rng(0)
    metrics = {"first": Metric("first", "ms", "minimize"), "second": Metric("second", "", "maximize")}
    columns = {name: rng.normal(size=n) for name in metrics}
    columns["second"][1] = np.nan
    texts = tuple(f'word("ü {i}", b)' for i in range(n))
    description = {"identity": {"space": {"name": "words"}}}
    reasons = {1: "second is\nnan"}
    return Pool(texts, columns, metrics, reasons, rng.random(n), rng.random(n), np.ones(n), description)


@pytest.fixture
def file(tmp_path):
    made().write(tmp_path / "pool.npz")
    return tmp_path / "pool.npz"


def altered(file, **arrays):
    with np.load(file) as old:
        kept = {name: old[name] for name in old.files} | arrays
    np.savez(file, **{name: array for name, array in kept.items() if array is not None})
    return file


def text(value):
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def test_what_is_read_is_what_was_written(file):
    pool, before = Pool.read(file), made()
    assert (pool.texts, pool.metrics, pool.reasons) == (before.texts, before.metrics, before.reasons)
    assert pool.description == before.description
    np.testing.assert_equal(dict(pool.columns), dict(before.columns))
    np.testing.assert_equal(
        (pool.seconds, pool.cpu_seconds, pool.costs), (before.seconds, before.cpu_seconds, before.costs)
    )


def test_the_same_pool_is_the_same_bytes(file, tmp_path):
    Pool.read(file).write(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


def test_a_column_is_read_by_numpy_alone(file):
    np.testing.assert_equal(np.load(file)["metric/first"], made().columns["first"])


def test_a_pool_without_rows_is_read(tmp_path):
    made(2).write(tmp_path / "p.npz")
    empty = Pool(
        (), {"first": np.zeros(0)}, {"first": Metric("first", "", "maximize")}, {}, *[np.zeros(0)] * 3
    )
    empty.write(tmp_path / "p.npz")
    assert len(Pool.read(tmp_path / "p.npz")) == 0


def test_an_unknown_metric_is_told_with_the_nearest(file):
    with pytest.raises(DataError, match=r'"secnd" .* did you mean "second"'):
        Pool.read(file).column("secnd")


@pytest.mark.parametrize(
    "arrays",
    [
        {"architectures": None},
        {"description": None},
        {"metric/first": None},
        {"metric/first": np.zeros(3)},
        {"metric/first": np.zeros(4, np.float32)},
        {"metric/first": np.array([0, 1, np.inf, 2])},
        {"seconds": np.zeros((4, 1))},
        {"architectures": np.array(["a", "b", "c", "d"])},
        {"architectures": np.frombuffer(b"\xff\n" * 4, np.uint8)},
        {"architectures": np.frombuffer(b"a\n" * 4, np.uint8)},
        {"reasons": text({"4": "beyond"})},
        {"reasons": text([1])},
        {"description": text({"format": "other", "metrics": []})},
        {"description": text({"format": "nasgram pool 2", "metrics": [{"name": "first"}]})},
    ],
    ids=lambda arrays: "-".join(arrays),
)
def test_a_file_that_is_not_whole_is_refused_in_a_sentence(file, arrays):
    with pytest.raises(DataError, match=r"pool.npz.*nas score`\.$"):
        Pool.read(altered(file, **arrays))


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x93NUMPY", b"{}"], ids=["empty", "zip", "npy", "json"]
)
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an npz"):
        Pool.read(tmp_path / "p.npz")


def test_a_cut_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read as an npz"):
        Pool.read(file)


def test_a_flipped_byte_is_noticed(file):
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        content[archive.getinfo("metric/second.npy").header_offset + 70] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError):
        Pool.read(file)


def test_no_pickle_is_loaded(file):
    with pytest.raises(DataError, match="cannot be read as an npz"):
        Pool.read(altered(file, **{"metric/first": np.array([{}, 1, 2, 3], object)}))


def test_a_missing_file_is_told_with_the_way_to_make_it(tmp_path):
    with pytest.raises(DataError, match="made with `nas score"):
        Pool.read(tmp_path / "none.npz")
