"""Several processes append to one journal; a write that was cut short stands in nobody's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.errors import StorageError
from nas.journal import Journal, KernelLock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
TORN = b'{"op_code": 8, "trial_i'


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "s.journal"
    made.touch()
    return made


def journal(path):
    return Journal(path, KernelLock(path))


def log(n, text=""):
    return {"op_code": 2, "number": n, "text": text}


def numbers(backend, first=0):
    return [operation["number"] for operation in backend.read_logs(first)]


def test_what_one_appends_the_others_read_in_order_and_once(path):
    one, other = journal(path), journal(path)
    one.append_logs([log(0), log(1)])
    assert numbers(other) == [0, 1]
    other.append_logs([log(2)])
    assert numbers(other, 2) == [2]
    assert numbers(one) == [0, 1, 2]
    assert numbers(one, 3) == []


def test_optuna_reads_the_file_as_its_own(path):
    own = JournalStorage(journal(path))
    study_id = own.create_new_study([], "s")
    own.set_study_user_attr(study_id, "key", "value")
    theirs = JournalStorage(JournalFileBackend(str(path)))
    assert theirs.get_study_user_attrs(study_id) == {"key": "value"}


@pytest.mark.parametrize("remains", [b"{", TORN, TORN * 10_000])
def test_remains_of_a_killed_write_are_not_read_and_the_next_writer_takes_them_away(path, remains):
    one, other = journal(path), journal(path)
    one.append_logs([log(0)])
    with path.open("ab") as file:
        file.write(remains)
    assert numbers(other) == [0]
    other.append_logs([log(1)])
    assert numbers(one) == [0, 1]
    assert numbers(other, 1) == [1]
    assert [json.loads(line)["number"] for line in path.read_bytes().splitlines()] == [0, 1]


def test_a_reader_that_was_interrupted_reads_on_where_it_was(path):
    one = journal(path)
    one.append_logs([log(n) for n in range(5)])
    reading = one.read_logs(0)
    next(reading), next(reading)
    assert numbers(one, 1) == [1, 2, 3, 4]
    assert numbers(one, 5) == []


def test_a_damaged_line_is_told_with_its_number(path):
    journal(path).append_logs([log(0)])
    with path.open("ab") as file:
        file.write(b"damaged\n")
    journal(path).append_logs([log(1)])
    with pytest.raises(StorageError, match="damaged in line 2"):
        numbers(journal(path))


def test_a_journal_that_was_removed_is_told_and_not_begun_anew(path):
    one = journal(path)
    path.unlink()
    with pytest.raises(StorageError, match="was removed"):
        one.append_logs([log(0)])
    with pytest.raises(StorageError, match="was removed"):
        numbers(one)
    assert not path.exists()


FULL = textwrap.dedent(
    """
    import resource, signal, sys
    from pathlib import Path
    from nas.errors import StorageError
    from nas.journal import Journal, KernelLock

    path = Path(sys.argv[1])
    most = path.stat().st_size + 20_000
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        Journal(path, KernelLock(path)).append_logs([{"text": "x" * 50_000}])
    except StorageError as error:
        sys.exit(str(error))
    """
)


def test_a_write_that_finds_no_room_leaves_the_journal_as_it_was(path):
    journal(path).append_logs([log(0)])
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert "cannot be written" in done.stderr
    assert "make room" in done.stderr
    assert path.read_bytes() == before


def test_many_writers_at_once_write_whole_lines(path):
    def write(writer):
        own = journal(path)
        for n in range(20):
            own.append_logs([log(writer * 20 + n, "x" * 5000)])
            numbers(own)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    found = numbers(journal(path))
    assert sorted(found) == list(range(160))
    assert [n for n in found if n < 20] == list(range(20))


def test_a_lock_whose_holder_forked_is_free_when_it_is_given_back(path):
    lock, other = KernelLock(path), KernelLock(path)
    lock.acquire()
    hold, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on)
        os.read(hold, 1)  # until the parent closes its end
        os._exit(0)
    os.close(hold)
    lock.release()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(other.acquire)
        try:
            assert taken.result(timeout=30)
        finally:
            os.close(go_on)
            os.waitpid(child, 0)
    other.release()
