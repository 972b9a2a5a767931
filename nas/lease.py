"""Who is working on a trial: a lease that is renewed while the work goes on."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LEASE_SECONDS = 60.0
Lease = Mapping[str, Any]  # Any: JSON values


def lease(run: str = "") -> dict[str, Any]:  # Any: JSON values
    """A lease for a run of this process from now on: host, process, when that began, until when."""
    pid = os.getpid()
    until = time.time() + LEASE_SECONDS
    return {"host": _host(), "pid": pid, "began": _began(pid), "run": run, "until": until}


def is_lost(given: Lease) -> bool:
    """Whether a lease's holder is gone: its process or run ended, or it was not renewed in time."""
    if given.get("host") != _host() or given.get("began") is None:
        return float(given.get("until", 0)) < time.time()
    if _began(int(given["pid"])) != given["began"]:
        return True
    return given["pid"] == os.getpid() and not _is_running(given.get("run", ""))


@contextmanager
def renewed(renew: Callable[[], None], run: str = "") -> Iterator[None]:
    """Call `renew` three times a lease in a thread of its own, which bears the run's name."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(LEASE_SECONDS / 3):
            with suppress(Exception):  # what is wrong with the storage is met by the work itself
                renew()

    thread = threading.Thread(target=keep, name=_thread_name(run), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _thread_name(run: str) -> str:
    return f"lease {run}"


def _is_running(run: str) -> bool:
    """Whether a run of this process goes on; one without a name counts as such."""
    return not run or any(t.name == _thread_name(run) for t in threading.enumerate())


def _host() -> str:
    """Where process numbers mean the same: the host, or a container on it that counts its own."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _began(pid: int) -> str | None:
    """When a process of this host began; None where there is none, or where that cannot be told."""
    if sys.platform == "win32":  # os.kill would end the process
        return None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[18] if state not in "ZX" else None  # killed, not yet waited for by its parent
    except OSError:
        return None if Path("/proc/self/stat").exists() else _is_alive(pid)


def _is_alive(pid: int) -> str | None:
    """Where there is no /proc, a living process counts as the same one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
