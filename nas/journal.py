"""The journal that a study is appended to by several processes, any of which may be killed at any time.

The file is Optuna's: one JSON operation a line, read by Optuna and its dashboard. Ours are the lock,
which the kernel releases when its holder dies, and what is done about a write that was cut short: the
next writer takes its remains away before it appends, so that they never stand between whole lines.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, Any, Literal, final

from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._file import BaseJournalFileLock

from nas.errors import StorageError

if sys.platform != "win32":
    import fcntl

BLOCK_BYTES = 65536


@final
class KernelLock(BaseJournalFileLock):
    """A lock that the kernel releases when its holder dies (flock; not on Windows).

    Optuna's own locks are files; one left behind by a killed process stalls everyone for 30 s.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait until nobody else has the lock, and take it."""
        return self._take(fcntl.LOCK_EX)

    def _take(self, how: int) -> bool:
        self._file = self._path.open("w")
        fcntl.flock(self._file, how)
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child may hold the file open
        self._file.close()
        self._file = None

    @contextmanager
    def held(self, *, shared: bool) -> Iterator[None]:
        """Held for the block: by one writer alone, or shared among readers."""
        self._take(fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            self.release()


@final
class Journal(BaseJournalBackend):
    """Operations in a file that is only ever appended to, under a lock of the kernel."""

    def __init__(self, path: Path, lock: KernelLock) -> None:
        self._path = path
        self._lock = lock
        self._count = 0  # lines that were read
        self._end = 0  # where they end in the file

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # Any: JSON values
        """The operations from a number on; StorageError where one is not JSON."""
        if log_number_from != self._count:  # a reader that was interrupted
            self._count = self._end = 0
        for line in self._new().splitlines(keepends=True):
            self._count += 1
            self._end += len(line)
            if self._count > log_number_from:
                yield self._operation(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:  # Any: as above
        """Append operations, on the disk when this returns; wholly or not at all."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with self._lock.held(shared=False), self._open("rb+") as file:
            end = file.seek(drop_torn_end(file))
            left = memoryview("".join(lines).encode())
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:  # a full disk
                file.truncate(end)
                raise StorageError(
                    f'"{self._path}" cannot be written ({error.strerror}); make room, then go on with '
                    "the study by `nas resume`."
                ) from error
            os.fsync(file.fileno())

    def _new(self) -> bytes:
        """The whole lines behind what was read; without the lock where there are none."""
        with self._open("rb") as file:
            if os.fstat(file.fileno()).st_size == self._end:
                return b""
            with self._lock.held(shared=True):  # no remains are taken away while they are read
                file.seek(self._end)
                found = file.read()
        return found[: found.rfind(b"\n") + 1]

    def _open(self, mode: Literal["rb", "rb+"]) -> FileIO:
        try:
            return self._path.open(mode, buffering=0)
        except FileNotFoundError as error:
            raise StorageError(
                f'"{self._path}" was removed while its study ran; put it back, and go on with the '
                "study by `nas resume`."
            ) from error

    def _operation(self, line: bytes) -> dict[str, Any]:  # Any: JSON values
        try:
            operation: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise StorageError(
                f'"{self._path}" is damaged in line {self._count} ({error}); remove that line.'
            ) from error
        return operation


def drop_torn_end(file: FileIO) -> int:
    """Cut off a last line without its end, a write that was cut short; where the file ends then."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    end = after_last(file, b"\n", size)
    file.truncate(end)
    return end


def after_last(file: FileIO, sign: bytes, end: int) -> int:
    """The position behind the last sign before `end`; 0 where there is none."""
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(sign)
        if found >= 0:
            return start + found + 1
        end = start
    return 0
