"""One of a study's workers: a process that is told what to do by the one that started it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import tomllib
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import final

import torch

from nas.errors import NasgramError
from nas.searching import opened, read_study
from nas.study import Observer, Weights
from nas.trial import Failure, Trial
from nas.workers import Order

INTERRUPTED = 130
PROGRESS_SECONDS = 0.2


def main() -> None:
    """Do the order that comes in as one line, reporting in lines; stop when the input ends."""
    status = _do()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking every module down first takes a second


def _do() -> int:
    orders, reports = _own_pipes()
    asked = _Asked()
    signal.signal(signal.SIGINT, asked.on_signal)
    signal.signal(signal.SIGTERM, asked.on_signal)
    speaker = _Speaker(reports)
    try:
        order = Order(**json.loads(_line(orders)))
        threading.Thread(target=asked.wait, args=(orders,), daemon=True).start()
        _work(order, speaker)
        asked.is_over = True
        speaker.say("done", None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        asked.is_over = True
        speaker.say("failed", _failure(error))
        return 1
    return 0


def _own_pipes() -> tuple[int, int]:
    """The pipes to the one that started this; what parts print goes to standard error."""
    orders, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, reports


def _line(pipe: int) -> bytes:
    """A line, read from the pipe itself: a thread may wait on it when the process ends."""
    read = b""
    while not read.endswith(b"\n"):
        piece = os.read(pipe, 65536)
        if not piece:
            raise KeyboardInterrupt
        read += piece
    return read


def _work(order: Order, speaker: _Speaker) -> None:
    torch.set_num_threads(order.threads)
    results = Path(order.results)
    configuration = read_study(tomllib.loads(order.study), "the order", results=results)
    keeper = opened(configuration, results=results)
    keeper.observer = speaker
    budget = configuration.budget
    if order.until is not None:
        budget = replace(budget, seconds=max(1e-3, order.until - time.time()))
    keeper.study.run(budget, keeper, keeper.record)


def _failure(error: Exception) -> dict[str, object]:
    if isinstance(error, NasgramError):
        return {"mendable": True, "message": str(error)}
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return {
        "mendable": False,
        "message": f"{type(error).__name__}: {error}{where}",
        "traceback": "".join(traceback.format_exception(error)),
    }


@final
@dataclass
class _Speaker(Observer):
    """Reports what happens, a line each; progress not more often than can be seen."""

    pipe: int
    spoke: float = 0.0

    def say(self, kind: str, value: object) -> None:
        """Write a report; where nobody listens any more, the input has ended too."""
        left = json.dumps([kind, value]).encode() + b"\n"
        try:
            while left:
                left = left[os.write(self.pipe, left) :]
        except OSError:
            return

    def on_progress(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if now - self.spoke >= PROGRESS_SECONDS:
            self.spoke = now
            self.say("progress", [done, total, what])

    def on_trial(self, trial: Trial, weights: Weights) -> None:
        self.spoke = 0.0
        self.say("told", trial.number)

    def on_failure(self, failure: Failure) -> None:
        self.spoke = 0.0
        self.say("told", failure.number)


@final
@dataclass
class _Asked:
    """Interrupts the work when it is asked to stop, once: what follows closes the trial.

    A terminal sends Ctrl-C to every process; only the one that started this says what is to be done.
    """

    is_asked: bool = False
    is_over: bool = False

    def wait(self, orders: int) -> None:
        """Wait for the end of the input, which asks to stop."""
        while os.read(orders, 65536):
            pass
        self.is_asked = True
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:  # which also ends what the main thread waits for
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM asks as well."""
        if self.is_over or not (self.is_asked or number == signal.SIGTERM):
            return
        self.is_over = True
        raise KeyboardInterrupt
