"""Who is working on a trial: a lease that is renewed while the work goes on."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LEASE_SECONDS = 60.0
Lease = Mapping[str, Any]  # Any: JSON values


def lease() -> dict[str, Any]:  # Any: JSON values
    """A lease for this process from now on: host, process, when that began, and until when."""
    pid = os.getpid()
    until = time.time() + LEASE_SECONDS
    return {"host": socket.gethostname(), "pid": pid, "began": _began(pid), "until": until}


def is_lost(given: Lease) -> bool:
    """Whether the holder of a lease is gone: its process ended, or it was not renewed in time."""
    if given.get("host") == socket.gethostname() and given.get("began") is not None:
        return bool(_began(int(given["pid"])) != given["began"])
    return float(given.get("until", 0)) < time.time()


@contextmanager
def renewed(renew: Callable[[], None]) -> Iterator[None]:
    """Call `renew` three times a lease in a thread of its own while the block runs."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(LEASE_SECONDS / 3):
            renew()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _began(pid: int) -> str | None:
    """When a process of this host began; None where there is none, or where that cannot be told."""
    if sys.platform == "win32":  # os.kill would end the process
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[19]
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
