"""What a trial costs beside its evaluation: ours against a bare one-write create and tell.

    python benchmarks/record_overhead.py [--trials 5100] [--searcher random] [--storage journal]

Both write to storages of the same kind in one process, in turns of 50 trials, with 25 categorical
choices a trial and an evaluation that takes no time. Prints milliseconds a trial (median over turns)
and the ratio, at the beginning and at the end. "own" is ours without Optuna's calls.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import optuna

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nas import registry
from nas.storage import open_storage
from nas.study import Budget, Observer, Study
from tests.toys import Hashed, letters, problem

CHOICES = 25
TURN = 50


class Timed:
    """A storage whose calls are timed."""

    def __init__(self, storage):
        self.storage = storage
        self.seconds = 0.0
        self.depth = 0

    def __getattr__(self, name):
        found = getattr(self.storage, name)
        if not callable(found):
            return found

        def call(*arguments, **named):
            self.depth += 1
            began = time.perf_counter()
            try:
                return found(*arguments, **named)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.seconds += time.perf_counter() - began

        return call


class Bare:
    """One write that creates the trial complete, and tell."""

    def __init__(self, storage):
        sampler = optuna.samplers.RandomSampler()
        self.study = optuna.create_study(storage=storage, study_name="bare", sampler=sampler)
        self.storage = storage
        letter = optuna.distributions.CategoricalDistribution(list("abcde"))
        self.distributions = {f"p{i}": letter for i in range(CHOICES)}
        self.text = {"architecture": "word(" + ", ".join("a" * CHOICES) + ")"}

    def trial(self):
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=dict.fromkeys(self.distributions, "a"),
            distributions=self.distributions,
            user_attrs=self.text,
        )
        trial_id = self.storage.create_new_trial(self.study._study_id, template_trial=template)
        self.study.tell(self.storage.get_trial(trial_id).number, 1.0)


class Turns(Observer):
    """Lets the bare loop have its turn after every 50 of ours."""

    def __init__(self, bare, timed):
        self.bare, self.timed = bare, timed
        self.ours, self.theirs, self.own = [], [], []
        self.began, self.in_storage = time.perf_counter(), 0.0
        self.count = 0

    def on_progress(self, done, total, what):
        pass

    def on_trial(self, trial, weights):
        self.count += 1
        if self.count % TURN:
            return
        mine = time.perf_counter() - self.began
        self.ours.append(mine / TURN * 1e3)
        self.own.append((mine - (self.timed.seconds - self.in_storage)) / TURN * 1e3)
        began = time.perf_counter()
        for _ in range(TURN):
            self.bare.trial()
        self.theirs.append((time.perf_counter() - began) / TURN * 1e3)
        self.began, self.in_storage = time.perf_counter(), self.timed.seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=5100)
    parser.add_argument("--searcher", default="random")
    parser.add_argument("--storage", choices=["journal", "sqlite", "memory"], default="journal")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        forms = {"journal": "journal:{}/{}.journal", "sqlite": "sqlite:///{}/{}.db", "memory": "memory"}
        form = forms[options.storage]
        timed = Timed(open_storage(form.format(folder, "ours")))
        turns = Turns(Bare(open_storage(form.format(folder, "bare"))), timed)
        searcher = registry.make("searcher", options.searcher)
        space = replace(letters(CHOICES), canonical=None)
        Study("s", problem(space), searcher, Hashed(), timed).run(Budget(trials=options.trials), turns)
    print(f"{options.searcher} on {options.storage}, {CHOICES} choices, ms a trial (medians of turns)")
    print(f"{'trials':>12} {'ours':>8} {'bare':>8} {'ratio':>6} {'own':>6}")
    window = max(4, len(turns.ours) // 25)
    for name, part in (("first", slice(1, 1 + window)), ("last", slice(-window, None))):
        median = [statistics.median(v[part]) for v in (turns.ours, turns.theirs, turns.own)]
        ratio = statistics.median(
            a / b for a, b in zip(turns.ours[part], turns.theirs[part], strict=True)
        )
        where = f"{name} {window * TURN}"
        print(f"{where:>12} {median[0]:8.3f} {median[1]:8.3f} {ratio:6.2f} {median[2]:6.3f}")


if __name__ == "__main__":
    main()
