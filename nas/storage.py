"""Opening the storage that a study is recorded in: a journal file, SQLite, PostgreSQL, or memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock

from nas.errors import StorageError, unknown
from nas.journal import Journal, KernelLock, after_last, drop_torn_end

FORMS = "journal:FILE, sqlite:///FILE, postgresql://USER@HOST/NAME, memory"
SQLITE_TIMEOUT_SECONDS = 60


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
    with locked(Path(url.partition(":///")[2] or "memory")):  # two makers of one file would collide
        return optuna.storages.get_storage(RDBStorage(url, engine_kwargs=arguments))


@contextmanager
def locked(path: Path) -> Iterator[BaseJournalFileLock]:
    """Alone with a file: others that ask for it wait; the lock is a file of its own beside it."""
    lock = JournalFileOpenLock(str(path)) if sys.platform == "win32" else KernelLock(path)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as lock:
        if not path.exists():
            path.touch()
        _check_end(path)
    try:
        return JournalStorage(_backend(path, lock))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f'"{path}" is not a journal of a study ({error}); name another file.'
        ) from error


def _backend(path: Path, lock: BaseJournalFileLock) -> BaseJournalBackend:
    if isinstance(lock, KernelLock):
        return Journal(path, lock)
    return JournalFileBackend(str(path), lock_obj=lock)


def _check_end(path: Path) -> None:
    """StorageError where the last whole line is not JSON, on which reading would fail only later."""
    with path.open("rb+", buffering=0) as file:
        end = drop_torn_end(file)
        file.seek(after_last(file, b"\n", max(0, end - 1)))
        last = file.read()
    try:
        if last:
            json.loads(last)
    except ValueError as error:
        raise StorageError(
            f'"{path}" is not a journal of a study, or its last line was damaged ({error}); remove '
            "that line, or name another file."
        ) from error
