"""Comparisons in several processes: stopped or killed, none of them goes on."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.comparison import compare
from tests.study.test_workers import PARTS, children

PROTOCOL = """
load = ["{parts}"]
[protocol]
name = "slow"
seeds = 3
trials = 2
baseline = 2
[space]
name = "letters"
[evaluator]
name = "scored"
milliseconds = {milliseconds}
[[searcher]]
name = "random"
"""


@pytest.fixture
def protocol(tmp_path):
    def write(milliseconds):
        path = tmp_path / "protocol.toml"
        path.write_text(PROTOCOL.format(parts=PARTS, milliseconds=float(milliseconds)))
        return path

    return write


def test_stopped_by_hand_no_process_is_waited_for(protocol, tmp_path):
    started = []

    @contextmanager
    def stopping():
        def step(done, total, what):
            if done:
                started.extend(multiprocessing.active_children())
                raise KeyboardInterrupt

        yield step

    with pytest.raises(KeyboardInterrupt):
        compare(protocol(100), jobs=2, results=tmp_path, watch=stopping)
    assert [child.exitcode for child in started] == [-signal.SIGKILL] * 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_from_outside_no_process_goes_on(protocol, tmp_path, how):
    command = [sys.executable, "-m", "nas", "compare", str(protocol(10_000)), "--jobs", "2"]
    parent = subprocess.Popen([*command, "--results", str(tmp_path)], stderr=subprocess.DEVNULL)
    while len(children(parent.pid)) < 3:  # two workers and the tracker of what they share
        time.sleep(0.1)
    time.sleep(3)
    started = children(parent.pid)
    parent.send_signal(how)
    assert parent.wait(20) == (130 if how == signal.SIGINT else -how)
    ends = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < ends, "a process goes on"
        time.sleep(0.1)
