"""A column to hold a pool against: of another pool, or of a table that names architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas import registry
from nas.errors import ConfigurationError, DataError, unknown
from nas.pool import Column, Pool, read_arrays
from nas.space import SearchSpace

Locate = Callable[[str], Path]  # the file of a data set by its name


def column(pool: Pool, told: str, locate: Locate) -> Column:
    """For each row of a pool the value of FILE:COLUMN, or NaN; DATA:COLUMN for a data set's name.

    FILE is a pool, or any npz with one array of texts that are architectures in a notation of the
    pool's space, and COLUMN an array of as many numbers.
    """
    file, _, name = told.rpartition(":")
    if not file or not name:
        raise ConfigurationError(f'"{told}" is not FILE:COLUMN, such as table.npz:accuracy.')
    path = Path(file) if Path(file).is_file() or "." in file else locate(file)
    values = _values(pool, path, name)
    found = np.array([values.get(text, np.nan) for text in pool.texts], float)
    if not np.isfinite(found).any():
        raise DataError(f'"{path}" has a value of {name} for none of the {len(pool):,} architectures.')
    return found


def space_of(pool: Pool) -> SearchSpace:
    """The space that a pool was scored in, at its task's shapes."""
    identity = pool.description.get("identity", {})
    for file in identity.get("load", ()):
        registry.load(Path(file))
    if "space" not in identity:
        raise DataError("the pool does not say what space it is of; make one with `nas score`.")
    space: SearchSpace = _made("space", identity["space"])
    return space.at(_made("task", identity["task"]).signature) if "task" in identity else space


def _made(kind: str, table: Mapping[str, Any]) -> Any:  # Any: JSON values, a part
    settings = {k: v for k, v in table.items() if k != "name"}
    return registry.make(kind, table["name"], settings)


def _values(pool: Pool, path: Path, name: str) -> Mapping[str, float]:
    arrays = read_arrays(path)
    if "description" in arrays:
        other = Pool.read(path)
        return dict(zip(other.texts, other.column(name).tolist(), strict=True))
    numbers = {n: a for n, a in arrays.items() if a.dtype.kind in "fiu" and a.ndim == 1}
    if name not in numbers:
        raise DataError(unknown(name, f'a column of numbers in "{path}"', numbers))
    size = numbers[name].shape
    texts = [a for a in arrays.values() if a.dtype.kind == "U" and a.shape == size]
    if len(texts) != 1:
        raise DataError(
            f'"{path}" has {len(texts)} arrays of texts as long as {name}; it takes one, which names '
            "the architectures."
        )
    notation = space_of(pool).notation
    names = [str(text) for text in texts[0]]
    if notation is not None:
        names = [notation.read(text) or text for text in names]
    return dict(zip(names, numbers[name].astype(float).tolist(), strict=True))
