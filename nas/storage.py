"""Opening the storage that a study is recorded in: a journal file, SQLite, PostgreSQL, or memory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock

from nas.errors import StorageError, unknown

if sys.platform != "win32":
    import fcntl

FORMS = "journal:FILE, sqlite:///FILE, postgresql://USER@HOST/NAME, memory"
SQLITE_TIMEOUT_SECONDS = 60


class KernelLock(BaseJournalFileLock):
    """An exclusive lock that the kernel releases when its holder dies (flock; not on Windows).

    Optuna's own locks are files; one left behind by a killed process stalls everyone for 30 s.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self._file is not None
        self._file.close()
        self._file = None


def open_storage(url: str) -> BaseStorage:
    """The storage at a URL, made where it does not exist; StorageError where it cannot be opened."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind, _, rest = url.partition(":")
    try:
        if url == "memory":
            return InMemoryStorage()
        if kind == "journal" and rest:
            return _journal(Path(rest))
        if "://" in url and rest:
            return _database(url)
    except StorageError:
        raise
    except Exception as error:  # each database driver has exceptions of its own
        reason = str(error).strip().partition("\n")[0]
        raise StorageError(
            f'the storage "{url}" cannot be opened ({reason}); '
            f"check that it exists and may be written. Forms: {FORMS}."
        ) from error
    raise StorageError(f'"{url}" is no storage; allowed forms: {FORMS}.')


def absolute(url: str) -> str:
    """The same storage by a path that does not depend on the working directory."""
    for form in ("journal:", "sqlite:///"):
        rest = url.removeprefix(form)
        if url.startswith(form) and rest and rest != ":memory:":
            return form + str(Path(rest).expanduser().resolve())
    return url


def require(url: str, name: str) -> None:
    """StorageError where a storage has no study of that name; nothing is made."""
    file = Path(url.removeprefix("journal:").removeprefix("sqlite:///"))
    if url.startswith(("journal:", "sqlite:///")) and not file.is_file():
        raise StorageError(
            f'the study "{name}" is recorded in "{file}", which is missing; put it back there, or name '
            "its place with --storage."
        )
    names = [study.study_name for study in open_storage(url).get_all_studies()]
    if name not in names:
        raise StorageError(unknown(name, f"a study in {url}", names))


def _database(url: str) -> BaseStorage:
    if not url.startswith("sqlite"):
        return optuna.storages.get_storage(RDBStorage(url))
    arguments = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    with _locked(Path(url.partition(":///")[2] or "memory")):  # two makers of one file would collide
        return optuna.storages.get_storage(RDBStorage(url, engine_kwargs=arguments))


@contextmanager
def _locked(path: Path) -> Iterator[BaseJournalFileLock]:
    lock = JournalFileOpenLock(str(path)) if sys.platform == "win32" else KernelLock(path)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as lock:
        if path.exists():
            _drop_torn_end(path)
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f'"{path}" is not a journal of a study ({error}); name another file.'
        ) from error


def _drop_torn_end(path: Path) -> None:
    """Cut off a last line without its end: a write that was killed half way, so never confirmed.

    StorageError where the last whole line is not JSON, on which Optuna would fail only later.
    """
    with path.open("rb+") as file:
        end = _after_last(file, b"\n", file.seek(0, os.SEEK_END))
        file.truncate(end)
        file.seek(_after_last(file, b"\n", max(0, end - 1)))
        last = file.read()
    try:
        if last:
            json.loads(last)
    except ValueError as error:
        raise StorageError(
            f'"{path}" is not a journal of a study, or its last line was damaged ({error}); remove '
            "that line, or name another file."
        ) from error


def _after_last(file: BinaryIO, sign: bytes, end: int) -> int:
    """The position behind the last sign before `end`; 0 where there is none."""
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(sign)
        if found >= 0:
            return start + found + 1
        end = start
    return 0
