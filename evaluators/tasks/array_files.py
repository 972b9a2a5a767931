"""Data on disk: numpy's npz, the IDX format of MNIST, image sets kept in either, and texts.

IDX: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values in C order. Reference: LeCun, Cortes, Burges, The MNIST database (1998).
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

Values = NDArray[Any]  # Any: the file says of which type
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images (n, height, width) uint8 and labels (n,), in the official two parts."""

    x_train: Values
    y_train: Values
    x_test: Values
    y_test: Values

    def __post_init__(self) -> None:
        for part, x, y in (
            ("training", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            if x.ndim != 3 or x.dtype != np.uint8 or y.shape != x.shape[:1]:
                raise DataError(
                    f"the {part} part has images {x.dtype} {x.shape} and labels {y.shape}; "
                    "they have to be uint8 (n, height, width) and (n,)."
                )


def read_idx(path: Path) -> Values:
    """The array in an IDX file, gzipped or not."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f'"{path}" cannot be read ({error}); fetch it again.') from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise DataError(
            f'"{path}" is no IDX file: it begins with {content[:4].hex(" ") or "nothing"}, not with '
            "00 00, a type code and the number of dimensions; fetch it again."
        )
    dtype, start = np.dtype(IDX_TYPES[content[2]]), 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else (0,)
    size = start + dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(content) != size:
        raise DataError(
            f'"{path}" has {len(content):,} bytes where its header {shape} tells of {size:,}; '
            "it is cut short or damaged, so fetch it again."
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_npz(path: Path) -> dict[str, Values]:
    """Every array of an npz file by its name."""
    if not path.is_file():
        raise DataError(f'there is no file "{path}"; give the path of an npz file.')
    if not zipfile.is_zipfile(path):
        raise DataError(f'"{path}" is no npz file or is cut short; write one with numpy.savez.')
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f'"{path}" cannot be read as an npz file ({error}).') from None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, gzipped or not."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f'"{path}" cannot be read as a text ({error}); fetch it again.') from None


def read_images(path: Path) -> Images:
    """Images from a folder of four IDX files, gzipped or not, or from an npz file (or its folder)."""
    files = [_idx_file(path, name) for name in IDX_NAMES]
    if path.is_dir() and any(files):
        missing = [name for name, file in zip(IDX_NAMES, files, strict=True) if file is None]
        if missing:
            raise DataError(f'"{path}" lacks {", ".join(missing)} (or the same ending in .gz).')
        return Images(*(read_idx(file) for file in files if file))
    found = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if len(found) != 1:
        raise DataError(
            f'"{path}" has {len(found)} npz files and none of {", ".join(IDX_NAMES)}; '
            "give a folder with those four, or one npz file."
        )
    arrays = read_npz(found[0])
    absent = [name for name in NPZ_NAMES if name not in arrays]
    if absent:
        raise DataError(f'"{found[0]}" lacks {", ".join(absent)}; it holds {", ".join(arrays)}.')
    return Images(*(arrays[name] for name in NPZ_NAMES))


def _idx_file(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or gzipped, if it is there."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
