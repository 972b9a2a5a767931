"""Scoring the architectures of a pool, in this process or in several that are handed one at a time.

Each worker is a process of its own (spawned, nothing is forked) that ends with the one that started it.
One that dies loses the architecture at hand, which is tried again, and is started anew.
"""

from __future__ import annotations

import math
import multiprocessing
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, final

import torch

from nas import configuration as config
from nas.children import end_with_parent
from nas.configuration import Made, SearchConfiguration
from nas.errors import NasgramError, WorkerError
from nas.evaluation import Context, checked
from nas.pool_rows import Row

MOST_LOSSES = 3  # deaths over one architecture, then it is infeasible


@dataclass(frozen=True)
class Job:
    """An architecture to score, and the metrics that one of equal function has."""

    text: str
    known: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """What evaluations run on."""

    device: str = "cpu"
    threads: int = 1


def scored(made: Made, job: Job, machine: Machine) -> Row:
    """The row of one architecture. Nothing in it but seconds depends on what was scored before."""
    began, began_cpu = time.perf_counter(), time.process_time()
    architecture = made.problem.space.parse(job.text)
    refusal = made.problem.refusal(architecture)
    if refusal is not None:
        return Row(job.text, reason=refusal)
    seed = made.configuration.seed
    context = Context(seed, device=machine.device, threads=machine.threads, known=job.known)
    result = checked(made.problem, made.evaluator.evaluate(made.problem, architecture, context))
    finite = {name: float(value) for name, value in result.metrics.items() if math.isfinite(value)}
    reason = result.infeasible or _lacking(result.missing)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Row(job.text, finite, reason, result.cost, seconds, cpu)


def _lacking(missing: Mapping[str, str]) -> str | None:
    """Why metrics are missing, each reason once with the metrics it is of."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    told = (f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    return "; ".join(told) or None


def rows(made: Made, jobs: Sequence[Job], machine: Machine, workers: int) -> Iterator[Row]:
    """The rows of some architectures, as they come."""
    if workers == 1 or len(jobs) < 2:
        yield from (scored(made, job, machine) for job in jobs)
        return
    crew = _Crew(made.configuration, machine, deque(jobs))
    try:
        yield from crew.run(min(workers, len(jobs)))
    finally:
        crew.stop()


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


@final
@dataclass
class _Crew:
    search: SearchConfiguration
    machine: Machine
    left: deque[Job]
    workers: list[_Worker] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)

    def run(self, count: int) -> Iterator[Row]:
        """Hand out jobs until none is left, and give on what comes back."""
        self.workers = [self._start() for _ in range(count)]
        for worker in self.workers:
            self._hand(worker)
        while any(worker.job for worker in self.workers):
            busy = {id(worker.pipe): worker for worker in self.workers if worker.job}
            for pipe in wait([worker.pipe for worker in busy.values()]):
                worker = busy[id(pipe)]
                row = self._taken(worker)
                if row is not None:
                    yield row  # kept, before more is begun: a kill loses what is at hand alone
                if worker.job is None:
                    self._hand(worker)

    def stop(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            worker.pipe.close()
            worker.process.kill()
            worker.process.join()
            worker.process.close()

    def _start(self) -> _Worker:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        orders = (theirs, self.search.tables(), self.machine)
        process = spawn.Process(target=_work, args=orders, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _hand(self, worker: _Worker) -> None:
        worker.job = self.left.popleft() if self.left else None
        if worker.job is not None:
            try:
                worker.pipe.send(worker.job)
            except OSError:  # it died: met when its end is read
                return

    def _taken(self, worker: _Worker) -> Row | None:
        """What a worker says; None where it died, and its job is to be done again."""
        assert worker.job is not None
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if isinstance(said, Row):
            worker.job = None
            return said
        raise _error(worker.job, said)

    def _lost(self, worker: _Worker) -> Row | None:
        job = worker.job
        assert job is not None
        worker.process.join()
        worker.pipe.close()
        self.losses[job.text] += 1
        over = self.losses[job.text] >= MOST_LOSSES
        if not over:
            self.left.appendleft(job)
        again = self._start()
        self.workers[self.workers.index(worker)] = again
        self._hand(again)
        reason = f"its worker died {MOST_LOSSES} times while scoring it"
        return Row(job.text, reason=reason) if over else None


def _work(pipe: Connection, tables: Mapping[str, Any], machine: Machine) -> None:
    """A worker: score what is sent until the pipe closes."""
    end_with_parent()
    torch.set_num_threads(machine.threads)
    try:
        made = config.make(SearchConfiguration.read(tables))
        while True:
            pipe.send(scored(made, pipe.recv(), machine))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        pipe.send(_failure(error))


def _failure(error: Exception) -> dict[str, str | None]:
    if isinstance(error, NasgramError):
        return {"message": str(error), "traceback": None}
    lines = "".join(traceback.format_exception(error))
    return {"message": f"{type(error).__name__}: {error}", "traceback": lines}


def _error(job: Job, failure: Mapping[str, str | None]) -> WorkerError:
    if failure["traceback"] is None:
        return WorkerError(str(failure["message"]))
    error = WorkerError(
        f"a worker failed on {job.text}: {failure['message']}; what was scored is kept; mend it, then "
        "go on with the same command."
    )
    error.add_note(failure["traceback"])
    return error
