"""Ctrl-C held back while something is written whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

_is_held = False  # by a block around this one


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends; also a decorator.

    Only where Python handles them, and only in the main thread, which alone is interrupted by them. A
    second Ctrl-C interrupts the block at once: what it waits for may never come.
    """
    global _is_held
    if _is_held or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    before: dict[int, Handler] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        held.append((number, frame))
        if len(held) > 1 and before[number] is signal.default_int_handler:
            signal.default_int_handler(number, frame)

    for each in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(each)
        if callable(handler):
            before[each] = handler
    try:
        _is_held = True
        for number in before:
            signal.signal(number, hold)
        yield
    finally:
        _is_held = False
        for number, handled in before.items():
            signal.signal(number, handled)
    for number, frame in held:
        before[number](number, frame)
