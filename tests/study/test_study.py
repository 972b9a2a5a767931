from __future__ import annotations

import itertools
import math
import signal
from contextlib import suppress
from dataclasses import replace

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from nas.errors import ConfigurationError, SearchSpaceError, StorageError
from nas.evaluation import Context, Evaluation, Pruned
from nas.problem import Objective, Problem
from nas.pruners.median import Median
from nas.searchers.random import Random
from nas.searchers.regularized_evolution import RegularizedEvolution
from nas.storage import open_storage
from nas.study import Budget, Observer, Study
from tests.toys import Hashed, Scored, blobs, letters, mixed, problem


def study(storage, **fields):
    made = {"problem": problem(), "searcher": Random(), "evaluator": Scored()} | fields
    return Study("s", storage=storage, configuration={"space": "letters"}, **made)


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request, tmp_path):
    urls = {"journal": f"journal:{tmp_path}/s.journal", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    return open_storage(urls.get(request.param, "memory"))


def test_a_trial_is_recorded_whole(storage):
    study(storage, searcher=RegularizedEvolution(2, 2)).run(Budget(trials=4))
    trial = optuna.load_study(study_name="s", storage=storage).trials[3]
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["architecture"].startswith("word(")
    assert list(trial.params.values()) == trial.user_attrs["architecture"][5:-1].split(", ")
    result = trial.user_attrs["evaluation"]
    assert trial.values == [result["metrics"]["score"]]
    assert trial.user_attrs["notes"]["parent"] in (0, 1, 2)
    assert {"cost", "seconds"} <= result.keys()


def test_the_study_says_units_directions_and_what_runs(storage):
    study(storage).run(Budget(trials=1))
    attributes = optuna.load_study(study_name="s", storage=storage).user_attrs
    assert attributes["metrics"]["score"] == {"unit": "points", "direction": "maximize"}
    assert attributes["nasgram"] == {"space": "letters"}


def test_another_configuration_is_refused_and_nothing_lost(storage):
    study(storage).run(Budget(trials=3))
    other = replace(study(storage), configuration={"space": "kan"})
    with pytest.raises(StorageError, match="space 'letters', not 'kan'"):
        other.run(Budget(trials=5))
    assert len(study(storage).run(Budget(trials=3))) == 3


def test_other_data_of_the_same_name_are_refused_and_nothing_lost(storage):
    task = blobs()
    given = Problem(mixed(), (Objective("score", "maximize"),), task)
    study(storage, problem=given, evaluator=Hashed()).run(Budget(trials=3))
    other = replace(task, valid=replace(task.valid, inputs=task.valid.inputs + 1))
    with pytest.raises(StorageError, match=f'data of task "{task.name}" are others'):
        study(storage, problem=replace(given, task=other), evaluator=Hashed()).run(Budget(trials=5))
    assert len(study(storage, problem=given, evaluator=Hashed()).run(Budget(trials=3))) == 3


def test_the_same_architecture_is_not_evaluated_twice(storage):
    trials = study(storage, problem=problem(letters(1))).run(Budget(trials=20))
    first = {}
    for trial in trials:
        text = str(trial.architecture)
        assert trial.reused == first.get(text)
        assert trial.cost == (0.0 if text in first else 1.0)
        first.setdefault(text, trial.number)
    assert len(first) == 5


def test_equal_functions_share_shared_metrics_alone(storage):
    words = problem(letters(2, "ab"))
    trials = study(storage, problem=words).run(Budget(trials=30))
    by_text = {str(t.architecture): t for t in reversed(trials)}
    one, other = by_text["word(a, b)"], by_text["word(b, a)"]
    assert one.metrics["score"] == other.metrics["score"]
    assert sorted([one.cost, other.cost]) == [0.0, 1.0]
    assert max(one, other, key=lambda t: t.number).reused == min(one.number, other.number)


def test_nothing_is_shared_between_functions_when_the_metric_is_not_shared():
    trials = study(
        open_storage("memory"), problem=problem(letters(2, "ab")), evaluator=Scored(shared=False)
    ).run(Budget(trials=30))
    assert sum(t.cost for t in trials) == 4


def test_nan_is_infeasible_with_its_reason(storage):
    trials = study(storage, evaluator=Scored(nan_at=2)).run(Budget(trials=4))
    assert trials[2].infeasible == "score is nan"
    assert not trials[2].completed
    states = [t.state for t in optuna.load_study(study_name="s", storage=storage).trials]
    assert states[2] == TrialState.FAIL


def test_a_bug_stops_the_study_and_its_trial_is_retried_in_its_place(storage):
    whole = study(open_storage("memory")).run(Budget(trials=6))
    with pytest.raises(ZeroDivisionError):
        study(storage, evaluator=Scored(fail_at=3)).run(Budget(trials=6))
    trials = study(storage).run(Budget(trials=6))
    assert [str(t.architecture) for t in trials] == [str(t.architecture) for t in whole]
    assert [t.number for t in trials] == list(range(6))
    failed = optuna.load_study(study_name="s", storage=storage).trials[3]
    assert failed.user_attrs["closed"].startswith("error: ZeroDivisionError")


def test_stopped_by_hand_the_study_is_whole_and_goes_on_identically(storage):
    class Stopping(Observer):
        def on_progress(self, done, total, what):
            pass

        def on_trial(self, trial, weights):
            if trial.number == 2:
                raise KeyboardInterrupt

        def on_failure(self, failure):
            pass

    whole = study(open_storage("memory")).run(Budget(trials=6))
    with pytest.raises(KeyboardInterrupt):
        study(storage).run(Budget(trials=6), Stopping())
    trials = study(storage).run(Budget(trials=6))
    assert [str(t.architecture) for t in trials] == [str(t.architecture) for t in whole]


def test_stopped_within_an_evaluation_the_trial_is_retried(storage):
    class Stops(Scored):
        def evaluate(self, problem, architecture, context):
            if context.number == 2:
                raise KeyboardInterrupt
            return super().evaluate(problem, architecture, context)

    with pytest.raises(KeyboardInterrupt):
        study(storage, evaluator=Stops()).run(Budget(trials=4))
    trials = study(storage).run(Budget(trials=4))
    assert [t.number for t in trials] == [0, 1, 2, 3]
    recorded = optuna.load_study(study_name="s", storage=storage).trials
    closed = [t.user_attrs.get("closed") for t in recorded]
    assert closed == [None, None, "interrupted", None, None]


def interrupting(storage, monkeypatch, at):
    """Has the call of that number to the storage followed by a Ctrl-C; the number of calls so far."""
    calls = []

    def interrupted(method):
        def call(*arguments, **named):
            result = method(*arguments, **named)
            calls.append(method.__name__)
            if len(calls) == at + 1:
                signal.raise_signal(signal.SIGINT)
            return result

        return call

    for name in {n for n in dir(BaseStorage) if n.startswith(("create", "set", "get"))}:
        monkeypatch.setattr(storage, name, interrupted(getattr(storage, name)))
    return calls


@pytest.mark.parametrize("kind", ["memory", "journal"])
def test_stopped_at_any_moment_of_recording_nothing_is_left_open_and_nothing_told_twice(
    kind, tmp_path, monkeypatch
):
    whole = study(open_storage("memory")).run(Budget(trials=3))
    for at in itertools.count():
        storage = open_storage("memory" if kind == "memory" else f"journal:{tmp_path}/{at}.journal")
        run = study(storage)
        record = run.open()
        with monkeypatch.context() as patch:
            calls = interrupting(storage, patch, at)
            with suppress(KeyboardInterrupt):
                run.run(Budget(trials=3), record=record)
        trials = optuna.load_study(study_name="s", storage=storage).trials
        assert all(t.state.is_finished() for t in trials), calls[-1]
        told = [t for t in trials if "evaluation" in t.user_attrs]
        assert all(t.state == TrialState.COMPLETE and "closed" not in t.user_attrs for t in told), (
            calls[-1]
        )
        again = study(storage).run(Budget(trials=3))
        assert [str(t.architecture) for t in again] == [str(t.architecture) for t in whole]
        if len(calls) <= at:  # it ended before
            break
    assert at > 3 * 5  # a trial is made, written to, told and read again


def test_stopped_while_a_trial_is_told_it_is_told_by_the_next_run(storage, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "set_trial_state_values", killed)
        with pytest.raises(Killed):
            study(storage).run(Budget(trials=3))
    trials = study(storage).run(Budget(trials=3))
    recorded = optuna.load_study(study_name="s", storage=storage).trials
    assert [t.state for t in recorded] == [TrialState.COMPLETE] * 3
    assert [t.values for t in recorded] == [[t.metrics["score"]] for t in trials]


def test_a_curve_is_kept_and_a_pruned_trial_is_marked(storage):
    class Curved(Scored):
        def evaluate(self, problem, architecture, context):
            for epoch in range(3):
                context.report(epoch, {"score": float(epoch), "length": 0.0})
                if context.number == 1 and epoch == 1:
                    raise Pruned
            return super().evaluate(problem, architecture, context)

    trials = study(storage, evaluator=Curved()).run(Budget(trials=2))
    assert trials[1].pruned
    assert trials[1].metrics["score"] == 1.0
    recorded = optuna.load_study(study_name="s", storage=storage).trials
    assert [t.state for t in recorded] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert recorded[0].intermediate_values == {0: 0.0, 1: 1.0, 2: 2.0}
    assert len(recorded[0].user_attrs["evaluation"]["curve"]) == 3


def test_optunas_median_pruner_gives_up_a_bad_curve():
    class Curved(Scored):
        def evaluate(self, problem, architecture, context):
            level = -1.0 if context.number == 9 else 1.0
            for epoch in range(3):
                context.report(epoch, {"score": level})
            return Evaluation({"score": level, "length": 0.0})

    pruner = Median(n_startup_trials=3, n_warmup_steps=0)
    made = study(open_storage("memory"), evaluator=Curved(shared=False), pruner=pruner)
    trials = replace(made, problem=problem(letters(9))).run(Budget(trials=10))
    assert [t.pruned for t in trials] == [False] * 9 + [True]


def test_several_objectives_give_a_front_of_trade_offs(storage):
    objectives = (Objective("score", "maximize"), Objective("length", "minimize"))
    both = Problem(letters(), objectives)
    trials = study(storage, problem=both, searcher=RegularizedEvolution(5, 3)).run(Budget(trials=30))
    front = both.front(trials)
    for trial in trials:
        dominated = any(both.better(f, trial) for f in front)
        assert dominated or both.values(trial) in [both.values(f) for f in front]


def test_a_cost_budget_does_not_count_what_was_reused():
    trials = study(open_storage("memory"), problem=problem(letters(2))).run(Budget(cost=10))
    assert sum(t.cost for t in trials) == 10
    assert len(trials) > 10


def test_a_cost_budget_that_can_never_be_spent_ends():
    trials = study(open_storage("memory"), problem=problem(letters(1, "ab"))).run(Budget(cost=10))
    assert sum(t.cost for t in trials) == 2


def test_a_time_budget_ends_the_run():
    trials = study(open_storage("memory"), evaluator=Scored(seconds=0.05)).run(Budget(seconds=0.3))
    assert 1 <= len(trials) <= 7


def test_an_objective_that_the_evaluator_does_not_give_is_named():
    wrong = Problem(letters(), (Objective("scor", "maximize"),))
    with pytest.raises(ConfigurationError, match='did you mean "score"'):
        study(open_storage("memory"), problem=wrong)


def test_a_space_that_does_not_fit_is_told_before_anything_runs():
    from nas.grammar import Misfit, Rule

    def infer(spec):
        raise Misfit("needs images")

    from nas.space import SearchSpace

    empty = SearchSpace("S", {"S": [Rule("r", {}, infer, infer)]}, (2,), name="empty")
    with pytest.raises(SearchSpaceError, match="needs images"):
        study(open_storage("memory"), problem=problem(empty))


@pytest.mark.parametrize("limits", [{}, {"trials": 0}, {"seconds": -1.0}])
def test_a_budget_needs_a_limit_above_zero(limits):
    with pytest.raises(ConfigurationError):
        Budget(**limits)


def test_a_measured_limit_makes_a_trial_infeasible(storage):
    trials = study(storage, problem=problem(length=0.5)).run(Budget(trials=20))
    over = [t for t in trials if t.infeasible]
    assert over
    assert all("exceeds the limit of 0.5" in str(t.infeasible) for t in over)
    assert all(t.metrics["length"] == 0 for t in trials if t.completed)


def test_streams_follow_from_seed_and_number_alone():
    draws = [Context(seed=1, number=n).rng.random() for n in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert Context(seed=2).rng.random() != draws[0]
    assert not math.isnan(draws[0])
