"""Pools for tests: of a space's architectures, with columns that are given or mean nothing."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from nas.pool import Pool
from nas.task import Metric
from nas.variation import sample


@cache
def folder():
    return tempfile.TemporaryDirectory(prefix="nasgram-pools-")


def pool_of(texts, columns, **directions):
    """A pool of columns by name; of each more is better where no direction is given."""
    metrics = {n: Metric(n, "", directions.get(n, "maximize")) for n in columns}
    zeros = np.zeros(len(texts))
    values = {n: np.asarray(column, float) for n, column in columns.items()}
    return Pool(tuple(texts), values, metrics, {}, zeros, zeros, zeros)


def written(pool, path):
    pool.write(path)
    return path


def meaningless(space, size=60) -> Path:
    """The file of a pool of random architectures whose two metrics are hashes of their texts."""
    rng = random.Random(0)
    texts = list(dict.fromkeys(str(sample(space, rng)) for _ in range(size)))
    columns = {n: [_hashed(f"{n}/{text}") for text in texts] for n in ("first", "second")}
    path = Path(folder().name) / f"{sha256(repr(texts).encode()).hexdigest()}.npz"
    return path if path.exists() else written(pool_of(texts, columns), path)


def _hashed(text):
    return int(sha256(text.encode()).hexdigest()[:12], 16) / 16**12
