"""Watching long work: a progress function for one piece of it, observers for a study's workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from nas.problem import Problem
from nas.study import Budget, Observer, Unobserved
from nas.task import Metric
from nas.trial import Trial

Step = Callable[[int, int, str], None]  # (done, total, what)


class WatchOne(Protocol):
    """Makes a progress function for the time of a run; `nas.terminal.watching_one` draws a bar."""

    def __call__(self) -> AbstractContextManager[Step]:
        """The progress function."""


def unwatched() -> AbstractContextManager[Step]:
    """A progress function that shows nothing."""
    return nullcontext(lambda done, total, what: None)


@dataclass(frozen=True)
class Watched:
    """Who watches a study: an observer for each worker, and `notice`, told what befalls workers."""

    observers: Sequence[Observer]
    notice: Callable[[str], None]


class Watch(Protocol):
    """Makes what watches a study for the time of a run; `nas.terminal.watching` draws progress bars."""

    def __call__(
        self,
        problem: Problem,
        metrics: Mapping[str, Metric],
        budget: Budget,
        done: Sequence[Trial],
        workers: int,
    ) -> AbstractContextManager[Watched]:
        """For a study in which these trials are done, run by so many workers."""


def unwatched_study(
    problem: Problem,
    metrics: Mapping[str, Metric],
    budget: Budget,
    done: Sequence[Trial],
    workers: int,
) -> AbstractContextManager[Watched]:
    """Observers that show nothing."""
    return nullcontext(Watched([Unobserved()] * workers, lambda sentence: None))
