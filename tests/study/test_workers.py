"""Several processes on one study: exactly the trials asked for, whatever happens to the processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
import pytest

import nas
from nas.configuration import PartConfiguration, SearchConfiguration, StudyConfiguration
from nas.errors import ConfigurationError, WorkerError
from nas.evaluation import Context
from nas.progress import Watched
from nas.record import Record
from nas.searcher import Proposal
from nas.searchers.random import Random
from nas.searching import named, search
from nas.storage import open_storage
from nas.study import Budget, Observer, Study
from nas.trial import Trial
from nas.workers import crowding
from tests.processes import READY, ended, started
from tests.toys import Scored, problem

PARTS = Path(__file__).resolve().parents[1] / "parts.py"
URLS = {"journal": "journal:{}/{}.journal", "sqlite": "sqlite:///{}/{}.db"}


def configured(folder, trials=12, workers=2, storage="journal", **scored) -> StudyConfiguration:
    part = PartConfiguration
    evaluator = part("scored", {"milliseconds": 10.0, **scored})
    load = (str(PARTS),)
    searching = SearchConfiguration(part("letters"), part("random"), (evaluator,), load=load)
    url = URLS[storage].format(folder, "s")
    made = named(searching, Budget(trials=trials), name="s", storage=url, results=folder)
    return replace(made, workers=workers)


def recorded(url, name="s"):
    return optuna.load_study(study_name=name, storage=open_storage(url)).trials


def texts(trials):
    return [str(t.architecture) for t in sorted(trials, key=lambda t: t.number)]


def alone(trials):
    """What one worker proposes; random draws follow from the trial's number alone."""
    return texts(Study("s", problem(), Random(), Scored(), open_storage("memory")).run(Budget(trials)))


def read(url):
    storage = open_storage(url)
    record = Record(storage, storage.get_study_id_from_name("s"), problem())
    record.refresh()
    return record


def check_whole(url, trials):
    """Exactly the trials asked for, none twice, none lost, nothing left open."""
    told = read(url).history
    assert sorted(t.number for t in told) == list(range(trials))
    assert texts(told) == alone(trials)
    every = recorded(url)
    assert all(t.state.is_finished() for t in every)
    assert sum("evaluation" in t.user_attrs for t in every) == trials
    lost = {t.number for t in every if t.user_attrs.get("closed") in ("lost", "interrupted")}
    assert lost <= {t.user_attrs.get("retry_of") for t in every}


@dataclass
class Watching(Observer):
    """Keeps what it is told by the process that started the workers."""

    notices: list[str] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    stop_at: int = -1

    def __call__(self, problem, metrics, budget, done, workers):
        return nullcontext(Watched([self] * workers, self.notices.append))

    def on_progress(self, done, total, what):
        pass

    def on_trial(self, trial, weights):
        self.trials.append(trial.number)
        if len(self.trials) == self.stop_at:
            raise KeyboardInterrupt

    def on_failure(self, failure):
        pass


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_workers_make_exactly_the_trials_that_one_would_have_made(tmp_path, storage):
    watching = Watching()
    configuration = configured(tmp_path, trials=30, storage=storage)
    outcome = search(configuration, results=tmp_path, watch=watching)
    check_whole(configuration.storage, 30)
    assert texts(outcome.trials) == alone(30)
    assert [t.number for t in outcome.trials] == list(range(30))
    assert sorted(watching.trials) == list(range(30))
    workers = {t.user_attrs["lease"]["pid"] for t in recorded(configuration.storage)}
    assert 1 <= len(workers) <= 2
    assert os.getpid() not in workers


def race(urls, barrier, trials):
    """One of several processes that begin each study at the same moment."""
    for url in urls:
        storage = open_storage(url)
        barrier.wait()
        Study("s", problem(), Random(), Scored(), storage).run(Budget(trials=trials))


def raced(folder, storage, workers, repetitions, trials=25):
    urls = [URLS[storage].format(folder, n) for n in range(repetitions)]
    barrier = READY.Barrier(workers)
    racers = [started(race, urls, barrier, trials) for _ in range(workers)]
    for racer in racers:
        ended(racer)
    for url in urls:
        check_whole(url, trials)


@pytest.mark.parametrize("storage", URLS)
def test_processes_that_begin_at_once_race_for_no_trial(tmp_path, storage):
    raced(tmp_path, storage, workers=2, repetitions=2, trials=12)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("storage", URLS)
def test_in_twenty_races_every_trial_is_made_once(tmp_path, storage, workers):
    raced(tmp_path, storage, workers, repetitions=20)


def test_a_worker_that_dies_is_started_anew_and_what_kills_it_three_times_is_infeasible(tmp_path):
    watching = Watching()
    configuration = configured(tmp_path, trials=8, die_at=5)
    outcome = search(configuration, results=tmp_path, watch=watching)
    check_whole(configuration.storage, 8)
    assert outcome.trials[5].infeasible == "its worker died 3 times while evaluating it"
    deaths = [n for n in watching.notices if "died (SIGKILL" in n]
    assert len(deaths) == 3


def test_an_exception_of_one_worker_stops_the_study_and_leaves_it_whole(tmp_path):
    configuration = configured(tmp_path, trials=30, fail_at=5)
    with pytest.raises(
        WorkerError, match="ZeroDivisionError: a bug in an evaluator, in trial 5"
    ) as raised:
        search(configuration, results=tmp_path)
    assert "nas resume s" in str(raised.value)
    assert "Traceback" in raised.value.__notes__[0]
    every = recorded(configuration.storage)
    assert all(t.state.is_finished() for t in every)
    closed = [t.user_attrs["closed"] for t in every if "closed" in t.user_attrs]
    assert any(why.startswith("error: ZeroDivisionError") for why in closed)
    assert len(every) < 30


def test_stopped_by_hand_every_worker_closes_its_trial_and_resuming_retries_it(tmp_path):
    configuration = configured(tmp_path, trials=30, milliseconds=100.0)
    with pytest.raises(KeyboardInterrupt):
        search(configuration, results=tmp_path, watch=Watching(stop_at=4))
    every = recorded(configuration.storage)
    assert all(t.state.is_finished() for t in every)
    closed = [t.user_attrs["closed"] for t in every if "closed" in t.user_attrs]
    assert closed.count("interrupted") <= 2
    assert set(closed) <= {"interrupted", "surplus"}
    search(replace(configuration, workers=1), results=tmp_path)
    check_whole(configuration.storage, 30)


@pytest.mark.parametrize("storage", URLS)
def test_what_was_told_after_the_last_look_at_a_worker_that_died_is_kept(
    tmp_path, storage, monkeypatch
):
    url = URLS[storage].format(tmp_path, "s")
    Study("s", problem(), Random(), Scored(), open_storage(url)).run(Budget(trials=1))
    dying = read(url)
    claim = dying.claim(Random().propose(problem(), dying.history, Context(number=1)), 1)
    other = read(url)  # sees it at work
    monkeypatch.setattr(dying, "_end", lambda trial_id, trial: None)
    dying.tell(claim, Trial(1, claim.proposal.architecture, {"score": 1.0}), [])
    monkeypatch.setattr("nas.record.is_lost", lambda lease: True)
    assert other.close_lost("interrupted")
    trial = recorded(url)[1]
    assert (trial.state.name, trial.value) == ("COMPLETE", 1.0)
    assert "closed" not in trial.user_attrs


@pytest.mark.parametrize("storage", ["memory", "sqlite:///:memory:"])
def test_workers_cannot_share_a_storage_in_memory(tmp_path, storage):
    configuration = replace(configured(tmp_path, workers=1), storage=storage)
    with pytest.raises(ConfigurationError, match="leave --storage out"):
        replace(configuration, workers=2)


def test_the_number_of_workers_is_at_least_one_and_is_kept_with_the_study(tmp_path):
    with pytest.raises(ConfigurationError, match="1 or more"):
        configured(tmp_path, workers=0)
    assert "workers = 3" in configured(tmp_path, workers=3).toml(default_storage="")


@pytest.mark.parametrize(("cores", "most"), [(1, 1), (3, 3), (4, None), (8, None)])
def test_more_workers_than_cores_is_said(tmp_path, cores, most):
    said = crowding(configured(tmp_path, workers=4), cores)
    assert said is None if most is None else f"--workers {most} would fill them" in said


class Held(Scored):
    """Waits within the evaluation until it is let go on."""

    begun, go_on = threading.Event(), threading.Event()

    def evaluate(self, problem, architecture, context):
        self.begun.set()
        self.go_on.wait()
        return super().evaluate(problem, architecture, context)


@pytest.fixture
def one_held(tmp_path):
    """The storage of a study of which a thread of this process works on trial 0."""
    url = URLS["journal"].format(tmp_path, "s")
    held = Held()
    study = Study("s", problem(), Random(), held, open_storage(url))
    thread = threading.Thread(target=study.run, args=(Budget(trials=1),))
    thread.start()
    held.begun.wait()
    yield url
    held.go_on.set()
    thread.join()
    held.begun.clear()
    held.go_on.clear()


def test_two_runs_in_one_process_leave_each_other_their_trials(one_held):
    other = Study("s", problem(), Random(), Scored(), open_storage(one_held))
    watching = Watching(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        other.run(Budget(trials=9), watching)
    assert watching.trials == [1, 2]
    assert [t.state.is_finished() for t in recorded(one_held)] == [False, True, True]


def test_the_cost_of_what_others_work_on_is_within_the_budget(one_held):
    other = Study("s", problem(), Random(), Scored(), open_storage(one_held))
    threading.Timer(1.0, Held.go_on.set).start()
    trials = other.run(Budget(cost=5.0))
    assert sorted(t.number for t in trials) == [0, 1, 2, 3, 4]


def test_of_two_workers_that_propose_for_one_place_the_first_has_it(tmp_path):
    url = URLS["journal"].format(tmp_path, "s")
    study = Study("s", problem(), Random(), Scored(), open_storage(url))
    first, second = study.open(), study.open()
    proposals = [Proposal(problem().sample(random.Random(n))) for n in (0, 1)]
    second.size = 0
    claims = []
    read = second._read_new

    def too_late():
        counted = read()
        if not claims:
            claims.append(first.claim(proposals[0], 0))
        return counted

    second._read_new = too_late
    assert second.claim(proposals[1], 0) is None
    assert claims[0].place == 0
    assert [t.user_attrs.get("closed") for t in recorded(url)] == [None, "surplus"]
    second.refresh()
    assert second.size == 1


def children(pid):
    return {int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def holders(storage):
    """The processes that ever began a trial."""
    studies = storage.get_all_studies()
    trials = storage.get_all_trials(studies[0]._study_id, deepcopy=False) if studies else []
    return {t.user_attrs["lease"]["pid"] for t in trials}


def searching(folder, storage, milliseconds, workers):
    """A search in a process of its own that would go on for long."""
    flags = ["--space", "letters", "--searcher", "random", "--evaluator", "scored", "--study", "s"]
    flags += ["--set", f"milliseconds={milliseconds}", "--trials", "1000000"]
    flags += ["--workers", str(workers), "--storage", URLS[storage].format(folder, "s")]
    command = [sys.executable, "-m", "nas", "--load", str(PARTS), "search", *flags]
    return subprocess.Popen([*command, "--results", str(folder)], stderr=subprocess.DEVNULL)


def killed_at_random(folder, storage, kills, milliseconds):
    """The trials of a search of which, again and again, a worker that began a trial was killed."""
    rng = random.Random(0)
    url = URLS[storage].format(folder, "s")
    parent = searching(folder, storage, milliseconds, workers=3)
    opened = open_storage(url)
    while kills > 0 and parent.poll() is None:
        time.sleep(rng.uniform(0.2, 1.2))
        at_work = sorted(holders(opened) & children(parent.pid))
        if at_work:
            os.kill(rng.choice(at_work), signal.SIGKILL)
            kills -= 1
    parent.send_signal(signal.SIGINT)
    assert parent.wait(120) == 130
    trials = read(url).size
    configuration = configured(folder, trials, 1, storage, milliseconds=float(milliseconds))
    search(configuration, results=folder)
    check_whole(url, trials)
    return recorded(url)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_worker_killed_at_a_random_moment_loses_nothing_that_was_told(tmp_path):
    killed_at_random(tmp_path, "journal", kills=1, milliseconds=30)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.parametrize(("storage", "milliseconds"), [("journal", 5), ("journal", 80), ("sqlite", 40)])
def test_thirty_kills_at_random_moments_lose_nothing_that_was_told(tmp_path, storage, milliseconds):
    every = killed_at_random(tmp_path, storage, kills=30, milliseconds=milliseconds)
    assert any(t.user_attrs.get("closed") == "lost" for t in every)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_no_worker_outlives_the_process_that_started_it(tmp_path):
    parent = searching(tmp_path, "journal", milliseconds=50, workers=2)
    storage = open_storage(URLS["journal"].format(tmp_path, "s"))
    while not holders(storage):
        time.sleep(0.1)
    workers = children(parent.pid)
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.1)
    every = recorded(URLS["journal"].format(tmp_path, "s"))
    assert len(every) > 0
    assert all(t.state.is_finished() for t in every)


def test_a_study_that_is_done_starts_no_worker(tmp_path, monkeypatch):
    search(configured(tmp_path, trials=3, workers=1, milliseconds=0.0), results=tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    outcome = search(configured(tmp_path, trials=3, workers=4, milliseconds=0.0), results=tmp_path)
    assert len(outcome.trials) == 3


def test_what_workers_found_is_kept_with_its_weights(nas_command, tmp_path):
    flags = ["--space", "kan", "--task", "function_fit", "--searcher", "random", "--study", "s"]
    flags += ["--set", "epochs=1", "--set", "num_train=64", "--set", "optimizer=adam"]
    told = nas_command.json("search", *flags, "--trials", 4, "--workers", 2)
    [best] = [trial for trial in told["trials"] if trial["best"]]
    found = nas.load(best["file"])
    assert found.pretrained() is not None
    assert found.metrics["rmse"].value == best["metrics"]["rmse"]
    assert "workers = 2" in (tmp_path / "results/studies/s/study.toml").read_text()


def test_workers_in_memory_are_refused_on_the_command_line(nas_command):
    said = nas_command.refused("search", "--storage", "memory", "--workers", 2)
    assert "cannot be shared by 2 workers" in said
