"""A trial that is opened for an inner search is a trial like any other, from its first moment."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
import pytest
import torch
from optuna.trial import TrialState

from nas.checkpoint import Checkpoints, FileCheckpoint
from nas.dashboard_notes import search_curve
from nas.errors import StorageError
from nas.evaluation import Context
from nas.problem import Problem
from nas.searcher import InnerSearch, Proposal, Searcher
from nas.storage import open_storage
from nas.study import Budget, Observer, Study
from nas.trial import History
from nas.variation import sample
from tests.processes import ended, started
from tests.study.inner import Adding
from tests.toys import Scored, problem


def work(folder, trials, kill_before):
    searcher = Adding(kill_before=kill_before, kill_file=folder / "kill")
    storage = open_storage(f"journal:{folder}/s.journal")
    Study("s", problem(), searcher, Scored(), storage, folder=folder).run(Budget(trials=trials))


def killed(folder, trials, kill_before):
    """Run a worker that dies."""
    ended(started(work, folder, trials, kill_before), -9)


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request, tmp_path):
    urls = {"journal": f"journal:{tmp_path}/s.journal", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    return open_storage(urls.get(request.param, "memory"))


def recorded(storage):
    return optuna.load_study(study_name="s", storage=storage).trials


def told(trials):
    return [(t.number, str(t.architecture), t.notes["total"], t.cost) for t in trials]


def whole(trials=3):
    study = Study("s", problem(), Adding(), Scored(), open_storage("memory"))
    return told(study.run(Budget(trials=trials)))


def test_the_trial_is_open_leased_and_watched_while_its_search_goes_on(storage):
    seen = []

    class Watching(Observer):
        def on_progress(self, done, total, what):
            if what == "adding" and done == 4:
                seen.append(recorded(storage)[-1])

        def on_trial(self, trial, weights):
            pass

        def on_failure(self, failure):
            pass

    Study("s", problem(), Adding(), Scored(), storage).run(Budget(trials=2), Watching())
    for trial in seen:
        assert trial.state == TrialState.RUNNING
        assert "architecture" not in trial.user_attrs
        assert trial.user_attrs["lease"]["pid"]
        assert [row["step"] for row in search_curve(trial)] == [1, 2, 3]
        assert "odd" not in search_curve(trial)[0]
    assert [t.number for t in seen] == [0, 1]


def test_the_architecture_is_put_into_that_very_trial(storage):
    trials = Study("s", problem(), Adding(), Scored(), storage).run(Budget(trials=3))
    for trial, kept in zip(trials, recorded(storage), strict=True):
        assert kept.state == TrialState.COMPLETE
        assert kept.user_attrs["architecture"] == str(trial.architecture)
        assert kept.user_attrs["digest"] == trial.architecture.digest
        assert list(kept.params.values()) == [child.rule for child in trial.architecture.children]
        assert kept.user_attrs["notes"] == {"total": trial.notes["total"]}
        assert len(search_curve(kept)) == 5
        assert kept.user_attrs["note:half/5"] == trial.notes["total"] / 2


@pytest.mark.parametrize(("unit", "cost"), [("evaluations", 6.0), ("epochs", 1.0)])
def test_what_a_search_cost_in_the_evaluators_unit_counts(unit, cost):
    study = Study("s", problem(), Adding(unit=unit), Scored(), open_storage("memory"))
    trials = study.run(Budget(cost=20))
    assert trials[0].cost == cost
    assert sum(t.cost for t in trials[:-1]) < 20 <= sum(t.cost for t in trials)


@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_killed_in_its_search_a_study_resumes_to_the_identical_one(tmp_path, epoch):
    (tmp_path / "kill").write_text("1")
    killed(tmp_path, 3, epoch)
    storage = open_storage(f"journal:{tmp_path}/s.journal")
    assert "architecture" not in recorded(storage)[0].user_attrs
    searcher = Adding(kill_before=epoch, kill_file=tmp_path / "kill")  # no longer, by its file
    trials = Study("s", problem(), searcher, Scored(), storage, folder=tmp_path).run(Budget(trials=3))
    assert told(trials) == whole()
    lost, retry = recorded(storage)[:2]
    assert lost.user_attrs["closed"] == "lost"
    assert retry.user_attrs["retry_of"] == 0
    assert [row["step"] for row in search_curve(retry)] == [1, 2, 3, 4, 5]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_resumed_it_does_not_search_again_what_it_had(tmp_path):
    (tmp_path / "kill").write_text("1")
    killed(tmp_path, 1, 3)
    storage = open_storage(f"journal:{tmp_path}/s.journal")
    steps = []

    class Watching(Observer):
        def on_progress(self, done, total, what):
            steps.append(done)

        def on_trial(self, trial, weights):
            pass

        def on_failure(self, failure):
            pass

    searcher = Adding(kill_before=3, kill_file=tmp_path / "kill")
    study = Study("s", problem(), searcher, Scored(), storage, folder=tmp_path)
    study.run(Budget(trials=1), Watching())
    assert steps == [4, 5]


def test_interrupted_by_hand_it_goes_on_too(storage, tmp_path):
    (tmp_path / "kill").write_text("1")
    searcher = Adding(kill_before=3, kill_file=tmp_path / "kill", by="hand")
    study = Study("s", problem(), searcher, Scored(), storage, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        study.run(Budget(trials=3))
    assert recorded(storage)[0].user_attrs["closed"] == "interrupted"
    assert told(study.run(Budget(trials=3))) == whole()


def test_killed_while_it_is_evaluated_the_found_architecture_is_evaluated_again(tmp_path):
    storage = open_storage(f"journal:{tmp_path}/s.journal")
    study = Study("s", problem(), Adding(), Scored(fail_at=1), storage, folder=tmp_path)
    with pytest.raises(ZeroDivisionError):
        study.run(Budget(trials=3))
    again = Study("s", problem(), Never(), Scored(), storage, folder=tmp_path)
    assert told(again.run(Budget(trials=2))) == whole(2)


@dataclass(frozen=True)
class Never(Searcher):
    """Is not to be asked."""

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal:
        raise AssertionError


def test_a_search_that_fails_closes_its_trial_with_the_reason_and_the_study_goes_on(storage):
    failures = []

    class Watching(Observer):
        def on_progress(self, done, total, what):
            pass

        def on_trial(self, trial, weights):
            pass

        def on_failure(self, failure):
            failures.append(failure)

    study = Study("s", problem(), Adding(fail_at=1), Scored(), storage)
    trials = study.run(Budget(trials=3), Watching())
    assert told(trials) == [row for row in whole() if row[0] != 1]
    assert [(f.number, f.reason, f.cost) for f in failures] == [(1, "the total is odd", 7.0)]
    kept = recorded(storage)[1]
    assert kept.state == TrialState.FAIL
    assert kept.user_attrs["evaluation"]["infeasible"] == "the total is odd"
    record = study.open()
    record.refresh()
    assert record.history.failures == [record.history.failures[0]]
    assert study.run(Budget(trials=3)) == record.history.trials


def test_what_failed_counts_in_a_budget_of_cost(storage):
    study = Study("s", problem(), Adding(fail_at=0), Scored(), storage)
    trials = study.run(Budget(cost=12))
    assert sum(t.cost for t in trials) + 7 >= 12
    assert sum(t.cost for t in trials[:-1]) + 7 < 12


def test_a_search_that_dies_three_times_in_one_place_fails(tmp_path):
    (tmp_path / "kill").write_text("9")
    for _ in range(4):  # the first got two epochs far
        killed(tmp_path, 2, 2)
    storage = open_storage(f"journal:{tmp_path}/s.journal")
    study = Study("s", problem(), Adding(), Scored(), storage)
    record = study.open()
    trials = study.run(Budget(trials=2), record=record)
    assert [f.number for f in record.history.failures] == [0]
    assert "died 3 times while searching" in record.history.failures[0].reason
    assert told(trials) == whole(2)[1:]


def test_others_see_an_open_trial_and_no_architecture_of_it(tmp_path):
    storage = open_storage(f"journal:{tmp_path}/s.journal")
    mine = Study("s", problem(), Adding(), Scored(), storage).open()
    opened = mine.open(0)
    other = Study("s", problem(), Adding(), Scored(), open_storage(f"journal:{tmp_path}/s.journal"))
    record = other.open()
    record.refresh()
    assert record.size == 1
    assert record.awaited() == 1
    assert record.history.running == []
    assert record.open(0) is None
    drawn = sample(problem().space, Context().rng)
    mine.name(opened, Proposal(drawn))
    record.refresh()
    assert record.history.running == [drawn]


def test_of_two_that_open_one_place_the_first_has_it(tmp_path):
    url = f"journal:{tmp_path}/s.journal"
    one, two = (Study("s", problem(), Adding(), Scored(), open_storage(url)).open() for _ in range(2))
    assert one.open(0) is not None
    assert two.open(0) is None


def test_an_inner_search_may_follow_plain_proposals():
    @dataclass(frozen=True)
    class Both(Searcher):
        def propose(
            self, problem: Problem, history: History, context: Context
        ) -> Proposal | InnerSearch:
            if context.number % 2:
                return Adding().propose(problem, history, context)
            return Proposal(sample(problem.space, context.rng))

    trials = Study("s", problem(), Both(), Scored(), open_storage("memory")).run(Budget(trials=4))
    assert [t.cost for t in trials] == [1.0, 6.0, 1.0, 6.0]


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    state = {
        "whole": 3,
        "real": 0.1 + 0.2,
        "nothing": None,
        "tensors": [torch.randn(3, dtype=torch.float64), {"b": torch.arange(2, dtype=torch.uint8)}],
        "empty": torch.empty(0),
    }
    checkpoint = Checkpoints(tmp_path, "study").at(4)
    assert checkpoint.load() is None
    checkpoint.save(state)
    found = Checkpoints(tmp_path, "study").at(4).load()
    assert (found["whole"], found["real"], found["nothing"]) == (3, 0.1 + 0.2, None)
    assert torch.equal(found["tensors"][0], state["tensors"][0])
    assert torch.equal(found["tensors"][1]["b"], state["tensors"][1]["b"])
    assert found["empty"].shape == (0,)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_study_is_none(tmp_path):
    Checkpoints(tmp_path, "one").at(0).save({"epoch": 1})
    assert Checkpoints(tmp_path, "other").at(0).load() is None
    assert Checkpoints(tmp_path, "one").at(0).load() == {"epoch": 1}


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "0.safetensors").write_bytes(b"torn")
    with pytest.raises(StorageError, match=r"0\.safetensors.*remove it"):
        FileCheckpoint(tmp_path / "0.safetensors", "me").load()


def test_checkpoints_of_trials_that_were_told_are_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, "study")
    for place in range(3):
        checkpoints.at(place).save({})
    checkpoints.remove_told({0, 2})
    assert [file.stem for file in tmp_path.iterdir()] == ["1"]
