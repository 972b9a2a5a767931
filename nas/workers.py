"""Several processes at work on one study: started, watched, started anew when they die, stopped.

Who works on what, and what counts, is decided by the record; here are processes only. Each is a Python
of its own (`nas.worker`; nothing is forked) that is sent its order as a line of JSON and answers in
such lines. It stops when its standard input ends, so that none outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, final

from nas.configuration import StudyConfiguration
from nas.errors import WorkerError
from nas.progress import Watched
from nas.record import MOST_LOSSES, Record

SHOW_SECONDS = 0.25
GRACE_SECONDS = 10.0  # to close a trial when asked to stop
BEGIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = {path!r}; "
    "from nas.worker import main; main()"
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Order:
    """What a worker is to do: a study, in a folder of results, to a budget that ends at a time."""

    study: str  # the text of its study.toml
    results: str
    threads: int
    until: float | None  # seconds since the epoch


@dataclass(frozen=True)
class Report:
    """What a worker says ("progress", "told", "done", "failed"), or that its process "ended"."""

    worker: int
    kind: str
    value: Any = None  # Any: JSON values


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def crowding(configuration: StudyConfiguration, cores: int) -> str | None:
    """What to say where workers have more threads than there are cores; None where they have not."""
    workers, threads = configuration.workers, configuration.threads
    if workers * threads <= cores:
        return None
    return (
        f"{workers} workers x {threads} threads share {cores} cores and slow each other; "
        f"--workers {max(1, cores // threads)} would fill them."
    )


def work(configuration: StudyConfiguration, results: Path, record: Record, watched: Watched) -> None:
    """Run a study in as many processes as it asks for, until its budget is spent.

    WorkerError where a part of it fails, or where workers die again and again. However this ends, no
    process is left, and every trial that was begun is told or closed.
    """
    count = _wanted(configuration, record)
    if count == 0:
        return
    said = crowding(configuration, cores())
    if said is not None:
        watched.notice(said)
    seconds = configuration.budget.seconds
    order = Order(
        configuration.toml(default_storage=""),
        str(results),
        configuration.threads,
        None if seconds is None else time.time() + seconds,
    )
    crew = _Crew(order, configuration, record, watched)
    try:
        crew.run(count)
    finally:
        crew.stop()


def _wanted(configuration: StudyConfiguration, record: Record) -> int:
    """How many workers are of use: no more than there are trials left to do."""
    most = configuration.budget.trials
    if most is None:
        return configuration.workers
    numbers = [t.number for t in record.history] + [f.number for f in record.history.failures]
    return min(configuration.workers, most - sum(number < most for number in numbers))


@dataclass
class _Worker:
    """A process, and the thread that hands on what it reports."""

    index: int
    process: subprocess.Popen[str]
    reports: SimpleQueue[Report]
    is_done: bool = False
    is_running: bool = True

    def order(self, order: Order) -> None:
        with suppress(OSError):  # it died; that is met when its end is reported
            self._input.write(json.dumps(vars(order)) + "\n")
            self._input.flush()
        threading.Thread(target=self._wait, daemon=True).start()

    def ask_to_stop(self) -> None:
        with suppress(OSError):
            self._input.close()

    @property
    def _input(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    def _wait(self) -> None:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        code = self.process.wait()
        reader.join(1.0)  # what it forked may hold the pipe open
        self.reports.put(Report(self.index, "ended", code))

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with suppress(ValueError):  # cut short by a kill
                    kind, value = json.loads(line)
                    self.reports.put(Report(self.index, kind, value))


@final
@dataclass
class _Crew:
    order: Order
    configuration: StudyConfiguration
    record: Record
    watched: Watched
    workers: list[_Worker] = field(default_factory=list)
    reports: SimpleQueue[Report] = field(default_factory=SimpleQueue)
    tellers: dict[int, int] = field(default_factory=dict)  # a trial's number -> who told it
    shown: int = 0
    failures_shown: int = 0
    shown_at: float = 0.0
    deaths_in_a_row: int = 0

    def run(self, count: int) -> None:
        self.shown = len(self.record.history)
        self.failures_shown = len(self.record.history.failures)
        for index in range(count):
            self.workers.append(self._start(index))
        while any(worker.is_running for worker in self.workers):
            with suppress(Empty):
                self._take(self.reports.get(timeout=SHOW_SECONDS))
            if time.monotonic() - self.shown_at >= SHOW_SECONDS:
                self._show()
        self._show()

    def stop(self) -> None:
        """End what still runs, and close the trials that it leaves open."""
        left = [worker for worker in self.workers if worker.is_running]
        for worker in left:
            worker.ask_to_stop()
        ends = time.monotonic() + GRACE_SECONDS
        try:
            for worker in left:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, ends - time.monotonic()))
        finally:  # stopped by hand once more, or its time is over
            for worker in left:
                worker.process.kill()
                worker.process.wait()
        if left:
            self.record.refresh()
            self.record.close_lost("interrupted")

    def _start(self, index: int) -> _Worker:
        threads = dict.fromkeys(THREADS, str(self.configuration.threads))
        process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-c", BEGIN.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **threads},
        )
        worker = _Worker(index, process, self.reports)
        worker.order(self.order)
        return worker

    def _take(self, report: Report) -> None:
        worker = self.workers[report.worker]
        match report.kind:
            case "progress":
                self.watched.observers[report.worker].on_progress(*report.value)
            case "told":
                self.tellers[report.value] = report.worker
                self.deaths_in_a_row = 0
            case "done":
                worker.is_done = True
            case "failed":
                raise self._failed(report)
            case "ended":
                worker.is_running = False
                worker.ask_to_stop()  # closes the pipe
                if not worker.is_done:
                    self._begin_anew(report)

    def _begin_anew(self, report: Report) -> None:
        """Close what a dead worker left, and start another one in its place."""
        self.record.refresh()
        self.record.close_lost()
        self.deaths_in_a_row += 1
        said = f"worker {report.worker + 1} died ({_cause(report.value)})"
        if self.deaths_in_a_row > (MOST_LOSSES + 1) * self.configuration.workers:
            raise WorkerError(
                f"{said}, the last of {self.deaths_in_a_row} deaths without a trial told in between; "
                "nothing that was told is lost; once the cause is mended, go on with "
                f"`nas resume {self.configuration.name}`."
            )
        self.watched.notice(f"{said}; it is started anew, and its trial done again.")
        self.workers[report.worker] = self._start(report.worker)

    def _failed(self, report: Report) -> WorkerError:
        name, said = self.configuration.name, report.value["message"]
        if report.value["mendable"]:
            return WorkerError(said)
        error = WorkerError(
            f"worker {report.worker + 1} failed: {said}; the others were stopped and nothing that was "
            f"told is lost; mend it, then go on with `nas resume {name}`."
        )
        error.add_note(report.value["traceback"])
        return error

    def _show(self) -> None:
        """Show the trials that were told since the last time, those of other processes too."""
        self.shown_at = time.monotonic()
        self.record.refresh()
        for trial in self.record.history.trials[self.shown :]:
            self.shown += 1
            teller = self.tellers.pop(trial.number, 0)
            self.watched.observers[teller].on_trial(trial, None)
        for failure in self.record.history.failures[self.failures_shown :]:
            self.failures_shown += 1
            self.watched.observers[self.tellers.pop(failure.number, 0)].on_failure(failure)


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    number = -code
    hint = ", as when memory is full" if number == signal.SIGKILL else ""
    return f"{signal.Signals(number).name}{hint}"
