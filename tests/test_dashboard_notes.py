"""What a dashboard says of a trial in every state, and of a study."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import read
from nas.configuration import PartConfiguration, SearchConfiguration, StudyConfiguration
from nas.dashboard_notes import Notes, Trials, Units, best_trials, curve, escaped, fenced, search_curve
from nas.lease import lease
from nas.problem import Objective
from nas.study import Budget

ACCURACY = Objective("accuracy", "maximize")
UNITS = Units({"accuracy": "%", "loss": "nats", "params": "1"}, "epochs", (ACCURACY,))
NOTES = Notes(UNITS, read, "/dashboard/studies/7")
TEXT = "network(cell(conv, relu))"
RESULT = {"metrics": {"accuracy": 96.6667, "loss": 0.25, "params": 12345}, "cost": 4.0, "seconds": 1.5}
CURVE = [{"step": 1.0, "accuracy": 50.0}, {"step": 2.0, "accuracy": 96.7}]


def trial(
    number: int = 0, state: TrialState = TrialState.COMPLETE, **attributes: Any
) -> FrozenTrial:  # Any: JSON values
    values = [attributes["evaluation"]["metrics"]["accuracy"]] if state == TrialState.COMPLETE else None
    made = create_trial(state=state, values=values, user_attrs={"architecture": TEXT, **attributes})
    made.number = number
    return made


def note(*trials: FrozenTrial, of: int = -1) -> str:
    return NOTES.trial(trials[of], Trials(trials))


def test_a_complete_trial_shows_metrics_with_units_curve_drawing_and_text() -> None:
    text = note(trial(evaluation={**RESULT, "curve": CURVE}))
    assert text.startswith("**Complete:** accuracy 96.67 %")
    for row in (
        "| accuracy | 96.67 | % | objective: maximize |",
        "| loss | 0.25 | nats |  |",
        "| params | 12,345 |  |  |",
        "| cost | 4 | epochs |  |",
        "| time | 1.5 | s |  |",
    ):
        assert row in text
    assert "![Curve of trial 0](/nasgram/trials/0/curve.svg?points=2)" in text
    assert "![Architecture of trial 0](/nasgram/trials/0/architecture.svg)" in text
    assert f"```text\n{TEXT}\n```" in text


def test_a_trial_without_a_curve_says_so() -> None:
    text = note(trial(evaluation=RESULT))
    assert "No curve" in text
    assert "curve.svg" not in text


def test_a_running_trial_shows_who_is_at_it_and_what_was_reported() -> None:
    running = trial(state=TrialState.RUNNING, lease=lease())
    assert note(running).startswith("**Running:** process ")
    assert "curve.svg" not in note(running)
    running.intermediate_values = {1: 50.0, 2: 70.0}
    assert "curve.svg?points=2" in note(running)
    assert [row["step"] for row in curve(running)] == [1, 2]


def test_a_trial_in_its_search_shows_how_far_that_is() -> None:
    searching = trial(state=TrialState.RUNNING, lease=lease(), **{"search:2": {"train_loss": 0.5}})
    del searching.user_attrs["architecture"]
    searching.user_attrs["search:10"] = {"train_loss": 0.4}
    assert "searching for its architecture" in note(searching)
    assert "![Search of trial 0](/nasgram/trials/0/search.svg?points=2)" in note(searching)
    assert [row["step"] for row in search_curve(searching)] == [2, 10]
    assert "architecture.svg" not in note(searching)


def test_a_search_that_came_to_nothing_says_why() -> None:
    result = {"metrics": {}, "infeasible": "train_loss is nan", "cost": 3.0, "seconds": 1.0}
    failed = trial(state=TrialState.FAIL, evaluation=result)
    del failed.user_attrs["architecture"]
    assert note(failed).startswith("**Infeasible:** train\\_loss is nan")
    assert "architecture.svg" not in note(failed)


def test_a_running_trial_whose_worker_is_gone_is_told_as_lost() -> None:
    gone = {**lease(), "began": "0"}
    assert note(trial(state=TrialState.RUNNING, lease=gone)).startswith("**Lost:**")


def test_an_infeasible_trial_says_why() -> None:
    infeasible = {
        "metrics": {},
        "cost": 0.0,
        "seconds": 0.1,
        "infeasible": "params 9,000 exceeds <8,000>",
    }
    text = note(trial(state=TrialState.FAIL, evaluation=infeasible))
    assert text.startswith(r"**Infeasible:** params 9,000 exceeds \<8,000\>")
    assert "architecture.svg" in text


def test_a_pruned_trial_says_after_how_many_steps() -> None:
    pruned = {**RESULT, "pruned": True, "curve": CURVE}
    text = note(trial(state=TrialState.PRUNED, evaluation=pruned))
    assert text.startswith("**Pruned** after 2 steps")
    assert "curve.svg?points=2" in text


@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("lost", "Lost:"),
        ("interrupted", "Interrupted"),
        ("surplus", "Surplus"),
        ("error: ZeroDivisionError: by *zero*", r"ZeroDivisionError: by \*zero\*"),
    ],
)
def test_a_trial_that_was_closed_without_a_result_says_why(closed: str, said: str) -> None:
    assert said in note(trial(state=TrialState.FAIL, closed=closed)).splitlines()[0]


def test_a_reused_result_links_to_the_trial_that_has_it_now() -> None:
    lost = trial(0, state=TrialState.FAIL, closed="lost")
    retry = trial(1, evaluation=RESULT, retry_of=0)
    reusing = trial(2, evaluation={**RESULT, "reused": 0})
    trials = (lost, retry, reusing)
    assert "[trial 1](/dashboard/studies/7/trials?numbers=1), at no cost" in note(*trials)
    assert "It is retried by [trial 1]" in note(*trials, of=0)
    assert "It retries [trial 0]" in note(*trials, of=1)
    assert "It counts as trial 1 of the study" in note(*trials)


def test_what_the_searcher_noted_is_shown() -> None:
    assert '{"parent": 3}' in note(trial(evaluation=RESULT, notes={"parent": 3}))


def test_a_long_text_is_folded_into_a_tree() -> None:
    long = f"network({', '.join(['cell(conv, relu)'] * 30)})"
    text = note(trial(evaluation=RESULT, architecture=long))
    assert "cell × 30" in text
    assert long not in text


def test_a_trial_of_somebody_else_has_a_note_all_the_same() -> None:
    foreign = create_trial(state=TrialState.COMPLETE, values=[1.0])
    foreign.number = 0
    assert note(foreign).startswith("**Complete:**")
    assert "svg" not in note(foreign)


def test_nothing_in_a_name_or_a_reason_is_read_as_markdown() -> None:
    assert escaped("a|b <i> *x*\n# [y](z) `q` $m$") == (r"a\|b \<i\> \*x\* \# \[y\]\(z\) \`q\` \$m\$")
    assert fenced("a\n````\nb").startswith("`````text\n")


def test_the_front_is_that_of_the_problem() -> None:
    units = (ACCURACY, Objective("params", "minimize"))
    values = [(90, 5), (95, 9), (95, 9), (80, 5), (70, 1), (94, 9)]
    trials = []
    for number, pair in enumerate(values):
        made = create_trial(values=list(map(float, pair)), user_attrs={"evaluation": RESULT})
        made.number = number
        trials.append(made)
    assert [t.number for t in best_trials(trials, units)] == [1, 0, 4]


SEARCH = SearchConfiguration(
    PartConfiguration("nasbench201", {"channels": 4}),
    PartConfiguration("random"),
    (PartConfiguration("training"),),
    objectives=(ACCURACY,),
    seed=3,
)
STUDY = StudyConfiguration(SEARCH, "my study", Budget(trials=5), "journal:/somewhere/study.journal")


def test_a_study_tells_the_command_that_regenerates_it(tmp_path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY.toml(default_storage=STUDY.storage))
    trials = Trials((trial(0, evaluation=RESULT), trial(1, state=TrialState.FAIL, closed="lost")))
    text = NOTES.study(STUDY, file, trials)
    assert f"nas search {file} --study 'my study-again'" in text
    assert "2 trials: 1 complete, 1 to retry" in text
    assert "[trial 0](/dashboard/studies/7/trials?numbers=0): accuracy 96.67 %" in text
    assert file.read_text().strip() in text


def test_a_study_without_its_folder_carries_its_file_in_the_note() -> None:
    text = NOTES.study(STUDY, None, Trials((trial(0, evaluation=RESULT),)))
    assert "nas search study.toml --study 'my study-again'" in text
    tables = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    assert tables["seed"] == 3
    assert tables["space"] == {"name": "nasbench201", "channels": 4}
    assert "storage" not in tables["study"]


def test_a_study_that_has_no_trial_yet_has_a_note() -> None:
    assert "0 trials: none yet" in NOTES.study(STUDY, None, Trials(()))
