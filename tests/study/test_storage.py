from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nas import lease
from nas.errors import StorageError
from nas.record import Counted
from nas.searcher import Proposal
from nas.searchers.random import Random
from nas.storage import open_storage
from nas.study import Budget, Study
from tests.processes import ended, started
from tests.toys import Scored, problem


def work(url, trials, seconds=0.0, kill_file=None):
    evaluator = Scored(seconds=seconds, kill_file=kill_file)
    Study("s", problem(), Random(), evaluator, open_storage(url)).run(Budget(trials=trials))


def texts(trials):
    return [str(t.architecture) for t in trials]


@pytest.fixture(params=["journal", "sqlite"])
def url(request, tmp_path):
    return {"journal": f"journal:{tmp_path}/s.journal", "sqlite": f"sqlite:///{tmp_path}/s.db"}[
        request.param
    ]


def test_killed_in_the_middle_of_a_trial_nothing_told_is_lost_and_the_study_resumes(url, tmp_path):
    kill = tmp_path / "kill"
    kill.write_text("4")
    ended(started(work, url, 8, 0.0, kill), -9)
    left = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    assert [t.state for t in left] == [TrialState.COMPLETE] * 4 + [TrialState.RUNNING]

    trials = Study("s", problem(), Random(), Scored(), open_storage(url)).run(Budget(trials=8))
    whole = Study("s", problem(), Random(), Scored(), open_storage("memory")).run(Budget(trials=8))
    assert texts(trials) == texts(whole)
    recorded = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    assert recorded[4].user_attrs["closed"] == "lost"
    assert recorded[5].user_attrs["retry_of"] == 4


def test_what_kills_its_worker_three_times_is_infeasible(url, tmp_path):
    kill = tmp_path / "kill"
    for left in ("1", "0", "0"):
        kill.write_text(left)
        ended(started(work, url, 3, 0.0, kill), -9)
    trials = Study("s", problem(), Random(), Scored(), open_storage(url)).run(Budget(trials=3))
    assert trials[1].infeasible == "its worker died 3 times while evaluating it"
    assert len(trials) == 3


def test_two_processes_on_one_study_make_exactly_the_trials_asked_for(url):
    both = [started(work, url, 30, 0.01) for _ in range(2)]
    for process in both:
        ended(process)
    trials = Study("s", problem(), Random(), Scored(), open_storage(url)).run(Budget(trials=30))
    assert sorted(t.number for t in trials) == list(range(30))
    recorded = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    counted = [t for t in recorded if t.user_attrs.get("closed") != "surplus"]
    assert len(counted) == 30
    assert all(t.state.is_finished() for t in recorded)


def test_a_torn_last_line_of_a_journal_is_dropped(tmp_path):
    path = tmp_path / "s.journal"
    make = lambda: Study("s", problem(), Random(), Scored(), open_storage(f"journal:{path}"))  # noqa: E731
    make().run(Budget(trials=3))
    with path.open("ab") as file:
        file.write(b'{"op_code": 8, "trial_i')
    assert len(make().run(Budget(trials=5))) == 5


def test_a_damaged_last_line_of_a_journal_is_told_before_anything_is_added(tmp_path):
    path = tmp_path / "s.journal"
    Study("s", problem(), Random(), Scored(), open_storage(f"journal:{path}")).run(Budget(trials=2))
    whole = path.read_bytes()
    path.write_bytes(whole + b"damaged\n")
    with pytest.raises(StorageError, match="its last line was damaged"):
        open_storage(f"journal:{path}")
    assert path.read_bytes() == whole + b"damaged\n"


@pytest.mark.parametrize(
    "wrong",
    ["", "nonsense", "journal:", "sqlite:////no/such/folder/s.db", "mysql+none://x", "redis://x:1"],
)
def test_a_storage_that_cannot_be_opened_is_one_sentence(wrong):
    with pytest.raises(StorageError, match="journal:FILE"):
        open_storage(wrong)


def test_a_file_that_is_no_journal_is_one_sentence(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello\nworld\n")
    with pytest.raises(StorageError, match="is not a journal"):
        open_storage(f"journal:{path}")


def test_a_retry_takes_the_place_of_the_lost_trial_and_a_second_one_is_surplus():
    counted = Counted()
    for number, attributes in enumerate([{}, {}, {"retry_of": 0}, {"retry_of": 0}, {}]):
        counted.add(number, attributes)
    assert [counted.place(n) for n in range(5)] == [0, 1, 0, None, 2]
    assert counted.size == 3


def test_a_surplus_trial_counts_nowhere():
    counted = Counted()
    for number, attributes in enumerate([{}, {"closed": "surplus"}, {}]):
        counted.add(number, attributes)
    assert [counted.place(n) for n in range(3)] == [0, None, 1]


def test_counting_on_leaves_what_was_counted_as_it_is():
    counted = Counted()
    counted.add(0, {})
    further = counted.on()
    further.add(1, {"retry_of": 0})
    assert further.place(1) == 0
    assert further.is_retried(0)
    assert not counted.is_retried(0)
    assert counted.place(1) is None


def test_a_lease_of_this_process_is_held_and_of_a_dead_one_lost():
    own = lease.lease()
    assert not lease.is_lost(own)
    assert lease.is_lost(own | {"pid": 2**22 + 1})
    assert lease.is_lost(own | {"began": "0"})


def test_a_lease_of_another_host_is_lost_when_it_is_not_renewed():
    other = lease.lease() | {"host": "elsewhere"}
    assert not lease.is_lost(other)
    assert lease.is_lost(other | {"until": 0.0})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lease_of_a_killed_process_is_lost_before_its_parent_has_waited_for_it():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    held = lease.lease() | {"pid": process.pid, "began": began}
    assert not lease.is_lost(held)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # until it is a zombie
    assert lease.is_lost(held)
    process.communicate()


def test_a_lease_of_a_run_of_this_process_is_lost_when_that_run_has_ended():
    with lease.renewed(lambda: None, "a run"):
        held = lease.lease("a run")
        assert not lease.is_lost(held)
    assert lease.is_lost(held)


def test_a_renewal_that_fails_is_tried_again(monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.01)
    tried = threading.Semaphore(0)

    def fails():
        tried.release()
        raise OSError("no room")

    with lease.renewed(fails):
        assert tried.acquire(timeout=30)
        assert tried.acquire(timeout=30)


def test_a_trial_counts_only_in_the_place_that_it_was_proposed_for():
    counted = Counted()
    for number, place in enumerate([0, 0, 1, 3, 2]):
        counted.add(number, {"place": place})
    assert [counted.place(n) for n in range(5)] == [0, None, 1, None, 2]
    assert counted.size == 3


def test_a_lost_trial_beyond_the_limit_is_left_to_those_who_may_retry_it(tmp_path):
    study = Study("s", problem(), Random(), Scored(), open_storage(f"journal:{tmp_path}/s.journal"))
    study.run(Budget(trials=2))
    record = study.open()
    record.refresh()
    claim = record.claim(Proposal(problem().sample(random.Random(0))), 2)
    record.close(claim.trial_id, "interrupted")
    assert [t.number for t in study.run(Budget(trials=2))] == [0, 1]
    assert [t.number for t in study.run(Budget(trials=3))] == [0, 1, 2]


def test_what_a_killed_worker_claimed_in_vain_is_surplus(tmp_path):
    url = f"journal:{tmp_path}/s.journal"
    study = Study("s", problem(), Random(), Scored(), open_storage(url))
    study.run(Budget(trials=2))
    record = study.open()
    architecture = str(problem().sample(random.Random(0)))
    attributes = {"architecture": architecture, "place": 0, "lease": lease.lease() | {"began": "0"}}
    template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=attributes)
    record.storage.create_new_trial(record.study_id, template)
    assert len(study.run(Budget(trials=4))) == 4
    recorded = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    assert recorded[2].user_attrs["closed"] == "surplus"
    assert all(t.state.is_finished() for t in recorded)
