"""A user's own arrays, from an npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from evaluators.tasks.array_files import Values, read_npz
from nas import registry
from nas.arrays import Holdout, classification, regression
from nas.errors import DataError
from nas.task import Task

Kind = Literal["auto", "classification", "regression"]
Channels = Literal["first", "last", "none"]
SPLIT = Holdout()


@registry.task("arrays")
def arrays(
    path: Path | None = None,
    kind: Kind = "auto",
    channels: Channels = "first",
    holdout: Holdout = SPLIT,
    unit: str = "target unit",
) -> Task:
    """Your own npz file with x and y, or x_train, y_train, x_test, y_test (and x_valid, y_valid).

    `kind` auto: whole numbers in y are classes, others are values to predict. `channels`: where the
    inputs have that axis; "last" is (n, height, width, channels), "none" (n, height, width) or
    (n, length). Images of bytes (uint8, three axes or more) are divided by 255. What the file does not
    split is split by `valid`, `test` and `seed`: 15% each and 0.
    """
    if path is None:
        raise DataError(
            'the task "arrays" needs a file: --set task.path=data.npz, with arrays x and y.'
        )
    path = path.expanduser()
    given = read_pairs(path)
    pairs = {part: (_inputs(path, x, channels), y) for part, (x, y) in given.items()}
    holdout = Holdout(
        valid=pairs.get("valid", holdout.valid),
        test=pairs.get("test", holdout.test),
        seed=holdout.seed,
    )
    x, y = pairs["train"]
    if (kind == "auto" and y.dtype.kind in "biu") or kind == "classification":
        return classification(path.stem, x, y, holdout)
    return regression(path.stem, x, y, holdout, unit)


def read_pairs(path: Path) -> dict[str, tuple[Values, Values]]:
    """Inputs and targets by split, "train" and where they are given "valid" and "test"."""
    found = read_npz(path)
    names = {"train": ("x", "y")} if "x" in found else {"train": ("x_train", "y_train")}
    for part in ("valid", "test"):
        pair = (f"x_{part}", f"y_{part}")
        if any(name in found for name in pair):
            names[part] = pair
    missing = [name for pair in names.values() for name in pair if name not in found]
    if missing:
        raise DataError(
            f'"{path}" lacks {", ".join(missing)}; it holds {", ".join(found) or "nothing"}. Give x '
            "and y, or x_train and y_train, and with them x_test and y_test, x_valid and y_valid."
        )
    return {part: (found[x], found[y]) for part, (x, y) in names.items()}


def _inputs(path: Path, x: Values, channels: Channels) -> Values:
    """Inputs with their channels on axis 1; bytes of images as values 0 to 1."""
    if channels != "first" and x.ndim < 3:
        raise DataError(
            f'channels "{channels}" is for images and sequences, but inputs in "{path}" have shape '
            f"{x.shape}; leave it out for (n, features)."
        )
    if x.dtype == np.uint8 and x.ndim >= 3:
        x = x.astype(np.float32) / 255
    if channels == "none":
        return x[:, None]
    return np.moveaxis(x, -1, 1) if channels == "last" else x
