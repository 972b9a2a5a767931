from __future__ import annotations

from dataclasses import replace

import pytest

import nas
from nas import finalists, retraining
from nas.configuration import FinalistsConfiguration, PartConfiguration, SearchConfiguration
from nas.errors import ConfigurationError, DataError
from nas.evaluation import Context
from nas.finalists import chosen, recipe
from nas.problem import Objective, Problem
from nas.searching import named, search
from nas.study import Budget
from nas.training import Recipe, evaluate
from nas.trial import Trial
from tests.toys import letters

PART = PartConfiguration
SEARCH = SearchConfiguration(
    PART("kan", {"widths": (4, 6), "depths": (1, 2)}),
    PART("random"),
    (PART("training", {"epochs": 1, "optimizer": "adam", "learning_rate": 0.01}),),
    PART("function_fit", {"num_train": 64}),
)


def run(results, count=3, epochs=3, trials=5, given=SEARCH):
    configuration = named(given, Budget(trials=trials), name="s", results=results)
    asked = FinalistsConfiguration(count, {"epochs": epochs})
    return search(replace(configuration, finalists=asked), results=results)


# who is a finalist


def trial(number, word, **metrics):
    return Trial(number, letters(4).parse(f"word({', '.join(word)})"), metrics=metrics)


def test_the_best_by_one_objective_are_chosen_and_equal_functions_once():
    problem = Problem(letters(4), (Objective("score", "maximize"),))
    trials = [
        trial(0, "aaaa", score=1.0),
        trial(1, "aaab", score=5.0),
        trial(2, "baaa", score=5.0),  # the same function
        trial(3, "aabb", score=3.0),
        replace(trial(4, "bbbb", score=9.0), pruned=True),
        replace(trial(5, "eeee", score=9.0), infeasible="too large"),
        trial(6, "cccc", score=4.0),
    ]
    assert [t.number for t in chosen(problem, trials, 3)] == [1, 6, 3]
    assert [t.number for t in chosen(problem, trials, 9)] == [1, 6, 3, 0]


def test_with_several_objectives_the_ends_of_the_front_come_first():
    problem = Problem(letters(4), (Objective("score", "maximize"), Objective("cost", "minimize")))
    values = {"aaaa": (9, 9), "bbbb": (6, 5), "cccc": (5.5, 4), "dddd": (1, 1), "eeee": (4, 6)}
    trials = [trial(i, w, score=s, cost=c) for i, (w, (s, c)) in enumerate(values.items())]
    # crowding of bbbb: (9 - 5.5) / 8 + (9 - 4) / 8, of cccc: (6 - 1) / 8 + (5 - 1) / 8, which is more
    assert [t.number for t in chosen(problem, trials, 5)] == [0, 3, 2, 1, 4]


# how they are trained


def test_the_full_recipe_is_the_searchs_for_ten_times_the_epochs():
    full = recipe(SEARCH, FinalistsConfiguration(1))
    assert full == Recipe(epochs=10, optimizer="adam", learning_rate=0.01)
    changed = recipe(SEARCH, FinalistsConfiguration(1, {"epochs": 7, "weight_decay": 0.0}))
    assert changed == replace(full, epochs=7, weight_decay=0.0)


def test_a_search_by_a_proxy_has_the_standard_recipe():
    proxy = replace(SEARCH, evaluators=(PART("complexity"),))
    assert recipe(proxy, FinalistsConfiguration(1)) == Recipe(epochs=100)


def test_a_search_without_a_task_is_refused_before_it_begins(tmp_path):
    without = replace(SEARCH, evaluators=(PART("complexity"),), task=None)
    with pytest.raises(
        ConfigurationError, match=r"this study has none \(its evaluator is complexity\)"
    ):
        run(tmp_path, given=without)
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"epochs": 3}, r"\[finalists\] has no count; say how many"),
        ({"count": -1}, "is -1; it takes 0 or more"),
        ({"count": 1, "epoch": 3}, 'did you mean "epochs"'),
        ("many", "it takes a whole number"),
    ],
)
def test_wrong_settings_are_told(table, said):
    with pytest.raises(ConfigurationError, match=said):
        FinalistsConfiguration.read(table)


# what comes of it


def test_finalists_are_trained_saved_and_ranked(tmp_path):
    outcome = run(tmp_path)
    assert [f.search_rank for f in outcome.finalists] == [1, 2, 3]
    assert sorted(f.rank for f in outcome.finalists) == [1, 2, 3]
    by_full = sorted(outcome.finalists, key=lambda f: f.validation["rmse"])
    assert [f.rank for f in by_full] == [1, 2, 3]
    best = by_full[0]
    found = nas.load(best.path)
    assert found.architecture == best.trial.architecture
    assert (found.provenance.study, found.provenance.trial) == ("s", best.trial.number)
    task = nas.make("task", "function_fit", {"num_train": 64})
    assert evaluate(found.pretrained(), task.test, task.scores) == pytest.approx(dict(best.test))


def test_a_finalist_is_what_a_training_by_the_same_recipe_gives(tmp_path):
    from evaluators.training import Training

    best = run(tmp_path).finalists[0]
    made = nas.Problem(
        nas.make("space", "kan", {"widths": (4, 6), "depths": (1, 2)}),
        (Objective("rmse", "minimize"),),
        nas.make("task", "function_fit", {"num_train": 64}),
    )
    how = Recipe(epochs=3, optimizer="adam", learning_rate=0.01)
    evaluation = Training(how).evaluate(made, best.trial.architecture, Context(0))
    assert dict(best.validation) == dict(evaluation.metrics)


def test_a_finalist_already_trained_is_not_trained_again(tmp_path, monkeypatch):
    def interrupted(found, how, **rest):
        if len(trained) == 1:
            raise KeyboardInterrupt
        return counted(found, how, **rest)

    def counted(found, how, **rest):
        trained.append(str(found.architecture))
        return retraining.train(found, how, **rest)

    trained: list[str] = []
    monkeypatch.setattr(finalists, "retrain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(finalists, "retrain", counted)
    outcome = run(tmp_path)
    assert trained == [str(f.trial.architecture) for f in outcome.finalists]
    again = run(tmp_path)
    assert len(trained) == 3
    assert again.finalists == outcome.finalists
    assert nas.show("s", results=tmp_path).finalists == outcome.finalists
    run(tmp_path, epochs=2)
    assert len(trained) == 6


def test_a_damaged_finalist_is_trained_again(tmp_path):
    outcome = run(tmp_path, count=1)
    outcome.finalists[0].path.write_text("{")
    assert run(tmp_path, count=1).finalists == outcome.finalists


def test_a_finalist_that_cannot_be_trained_is_told_and_the_others_are(tmp_path, monkeypatch):
    def failing(found, how, **rest):
        if found.provenance.trial == bad:
            raise DataError("the training failed: loss is nan in epoch 2")
        return retraining.train(found, how, **rest)

    bad = run(tmp_path, count=1).finalists[0].trial.number
    monkeypatch.setattr(finalists, "retrain", failing)
    first, second = run(tmp_path, count=2, epochs=2).finalists
    assert (first.rank, first.failed) == (None, "the training failed: loss is nan in epoch 2")
    assert (second.rank, second.failed) == (1, None)


def test_they_are_asked_for_after_a_search_and_its_configuration_stays(tmp_path):
    configuration = named(SEARCH, Budget(trials=3), name="s", results=tmp_path)
    assert search(configuration, results=tmp_path).finalists == []
    assert len(run(tmp_path, count=2, trials=3).finalists) == 2
    assert len(nas.resume("s", results=tmp_path).finalists) == 2


def test_a_digits_study_ends_with_finalists_on_the_command_line(nas_command, tmp_path):
    nas_command(
        *("search", "--study", "d", "--results", tmp_path, "--trials", "3", "--space", "nasbench201"),
        *("--set", "channels=4", "--set", "cells=1", "--set", "evaluator.epochs=1", "--task", "digits"),
        *("--searcher", "random", "--finalists", "2", "--set", "finalists.epochs=2"),
    )
    assert "The best 2, trained anew for 2 epochs" in nas_command.out
    assert "-finalist.json" in nas_command.out
    report = (tmp_path / "studies" / "d" / "report.md").read_text()
    assert "## Finalists" in report
    shown = nas_command.json("show", "d", "--results", tmp_path)["finalists"]
    assert [f["search_rank"] for f in shown] == [1, 2]
    assert all(f["test"]["accuracy"] > 10 for f in shown)
    more = nas_command.json("resume", "d", "--results", tmp_path, "--finalists", "3")["finalists"]
    assert [f["number"] for f in more[:2]] == [f["number"] for f in shown]
    assert len(more) == 3
