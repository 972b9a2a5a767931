"""What kill -9 of workers at random moments does to a study: what is lost, and how long others wait.

    python benchmarks/worker_kills.py [--kills 30] [--workers 3] [--storage journal]

Kills a worker that began a trial every 0.2 to 1.2 seconds while a bystander writes to the same storage
every 20 ms. Prints the trials told, lost and retried, the longest of the bystander's writes (how long
anybody waited for the storage) and the longest time between two trials told, which includes that of
starting workers anew where all of them were killed. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nas.storage import open_storage
from tests.study.test_workers import URLS, children, holders, read, recorded, searching


class Bystander(threading.Thread):
    """Writes to the storage of a study and keeps how long each write took."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.storage = open_storage(url)
        self.study_id = self.storage.get_all_studies()[0]._study_id
        self.seconds = []
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            began = time.perf_counter()
            self.storage.set_study_system_attr(self.study_id, "bystander", len(self.seconds))
            self.seconds.append(time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    parser.add_argument("--storage", choices=list(URLS), default="journal")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        url = URLS[options.storage].format(folder, "s")
        parent = searching(folder, options.storage, options.milliseconds, options.workers)
        storage = open_storage(url)
        while not holders(storage):
            time.sleep(0.1)
        bystander = Bystander(url)
        bystander.start()
        left = options.kills
        while left and parent.poll() is None:
            time.sleep(rng.uniform(0.2, 1.2))
            at_work = sorted(holders(storage) & children(parent.pid))
            if at_work:
                os.kill(rng.choice(at_work), signal.SIGKILL)
                left -= 1
        bystander.over.set()
        parent.send_signal(signal.SIGINT)
        status = parent.wait()
        report(url, options, bystander.seconds, status)


def report(url, options, seconds, status):
    trials = recorded(url)
    closed = Counter(t.user_attrs.get("closed") for t in trials)
    retried = {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}
    lost = {t.number for t in trials if t.user_attrs.get("closed") == "lost"}
    told = sorted(t.datetime_complete for t in trials if "evaluation" in t.user_attrs)
    gap = max((b - a).total_seconds() for a, b in pairwise(told))
    numbers = [t.number for t in read(url).history]
    print(f"{options.kills} kills, {options.workers} workers, {options.storage}; exit status {status}")
    print(f"told {len(told)}, twice {len(numbers) - len(set(numbers))}, {dict(closed)}")
    print(f"open {sum(not t.state.is_finished() for t in trials)}, lost {len(lost)}, ", end="")
    print(f"of these retried {len(lost & retried)}")
    print(f"longest of {len(seconds)} writes of a bystander: {max(seconds):.2f} s")
    print(f"longest time between two trials told: {gap:.2f} s")


if __name__ == "__main__":
    main()
