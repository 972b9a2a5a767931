"""Processes that begin with the project imported, to be killed or to race.

Each is a fork of one server process, which imports it once: to import torch takes seconds.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

READY = multiprocessing.get_context("forkserver")
READY.set_forkserver_preload(["pytest", "alembic.command", "nas.study", "tests.toys"])


def started(work: Callable[..., None], *given: object) -> BaseProcess:
    """A process that does some work."""
    process = READY.Process(target=work, args=given, daemon=True)
    process.start()
    return process


def ended(process: BaseProcess, status: int = 0) -> None:
    """Wait for a process, and check how it ended: by signal 9, -9."""
    process.join(500)
    assert process.exitcode == status
