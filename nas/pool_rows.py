"""The rows of a pool while it is scored: a line of JSON each, on a file that is only appended to.

The first line says what is scored. A row that was written is kept whatever happens to the process; one
that was cut short by a kill is dropped when the file is opened again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, final

from nas.errors import StorageError
from nas.journal import drop_torn_end
from nas.storage import locked

Identity = Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Row:
    """What came of one architecture: its metrics, and why some or all of them are missing."""

    text: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    cost: float = 0.0
    seconds: float = 0.0  # of the clock
    cpu_seconds: float = 0.0


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """The rows so far by their texts, and the file that further ones are appended to."""

    file: FileIO
    done: dict[str, Row]

    def append(self, row: Row) -> None:
        """Write a row; kept from then on."""
        left = memoryview(json.dumps(asdict(row)).encode() + b"\n")
        while left:
            left = left[self.file.write(left) :]
        self.done[row.text] = row


@contextmanager
def opened(path: Path, identity: Identity) -> Iterator[Rows]:
    """The rows in a file, for one process alone; StorageError where they are of something else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path), path.open("ab+", buffering=0) as file:
        drop_torn_end(file)
        file.seek(0)
        head, *lines = file.read().splitlines() or [b""]
        try:
            if lines:
                check(path, json.loads(head)["identity"], identity)
            else:
                file.truncate(0)
                file.write(json.dumps({"identity": identity}).encode() + b"\n")
            rows = [Row(**json.loads(line)) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f'"{path}" is damaged ({error}); remove it to begin anew.') from None
        yield Rows(file, {row.text: row for row in rows})


def remove(path: Path) -> None:
    """Take the file of rows and its lock away."""
    for file in (path, path.with_name(f"{path.name}.lock")):
        file.unlink(missing_ok=True)


def check(path: Path, known: Identity, given: Identity) -> None:
    """Refuse rows of another setup: StorageError says in what they differ."""
    keys = [k for k in (*known, *given) if known.get(k) != given.get(k)]
    if keys:
        said = "; ".join(f"{k} {known.get(k)!r}, not {given.get(k)!r}" for k in dict.fromkeys(keys))
        raise StorageError(
            f'"{path}" holds rows of another setup ({said}); name another file with -o, or remove it.'
        )
