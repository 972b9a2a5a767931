"""Watching one long piece of work: a progress function for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Step = Callable[[int, int, str], None]  # (done, total, what)


class WatchOne(Protocol):
    """Makes a progress function for the time of a run; `nas.terminal.watching_one` draws a bar."""

    def __call__(self) -> AbstractContextManager[Step]:
        """The progress function."""


def unwatched() -> AbstractContextManager[Step]:
    """A progress function that shows nothing."""
    return nullcontext(lambda done, total, what: None)
