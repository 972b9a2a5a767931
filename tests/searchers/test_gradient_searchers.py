"""Searches by gradient as the inner searches of a study: whole, resumed to the last bit, refused."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import optuna
import pytest

from nas import registry, searching
from nas.checkpoint import FileCheckpoint
from nas.configuration import PartConfiguration, SearchConfiguration, StudyConfiguration
from nas.dashboard_notes import search_curve
from nas.errors import ConfigurationError, NasgramError, SearchSpaceError
from nas.evaluation import Context
from nas.problem import Objective, Problem
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.trial import History
from tests.processes import ended, started
from tests.toys import Hashed, blobs, letters, mixed, problem

SEARCHERS = (
    "darts",
    "darts_second_order",
    "gdas",
    "perturbation_selection",
    "sd_darts",
    "sharpdarts",
    "single_path",
)
QUICK = {"epochs": 4, "batch_size": 8, "learning_rate": 0.1, "alpha_learning_rate": 0.1}
OWN = {"perturbation_selection": {"tuning_epochs": 2, "together": "none"}}


def toy(**limits):
    return Problem(mixed(3), (Objective("score", "maximize"),), blobs(), limits)


def made(name, storage, folder=None, given=None, **settings):
    settings = {**QUICK, **OWN.get(name, {}), **settings}
    searcher = registry.make("searcher", name, settings)
    return Study("s", given or toy(), searcher, Hashed(), storage, folder=folder)


def whole(study, storage):
    (trial,) = study.run(Budget(trials=1))
    kept = optuna.load_study(study_name="s", storage=storage).trials[-1]
    alphas = {k: v for k, v in kept.user_attrs.items() if k.startswith("note:")}
    return str(trial.architecture), dict(trial.notes), search_curve(kept), alphas


TUNED = (4, 5, 6, 7, 8, 9)  # saves of a perturbation: when it was begun, decided and tuned


def work(folder, name, saves):
    """Run a study in this process, which dies where so many checkpoints were saved."""
    save, left = FileCheckpoint.save, [saves]

    def killing(self, state):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        save(self, state)

    FileCheckpoint.save = killing
    made(name, open_storage(f"journal:{folder}/s.journal"), folder).run(Budget(trials=1))


def test_killed_in_the_middle_and_resumed_the_search_is_identical_to_the_last_bit(tmp_path):
    name = "darts"
    ended(started(work, tmp_path, name, 2), -9)
    storage, memory = open_storage(f"journal:{tmp_path}/s.journal"), open_storage("memory")
    resumed = whole(made(name, storage, tmp_path), storage)
    assert resumed == whole(made(name, memory), memory)


@pytest.mark.parametrize(
    ("name", "saves"),
    [
        ("darts", 0),
        *((name, 2) for name in SEARCHERS),
        *(("perturbation_selection", saves) for saves in TUNED),
    ],
)
def test_stopped_after_any_checkpoint_every_search_goes_on_to_the_identical_one(
    name, saves, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    save, left = FileCheckpoint.save, [saves]

    def killing(self, state):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        save(self, state)

    storage, memory = open_storage(f"journal:{tmp_path}/s.journal"), open_storage("memory")
    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpoint, "save", killing)
        with pytest.raises(Killed):
            made(name, storage, tmp_path).run(Budget(trials=1))
    resumed = whole(made(name, storage, tmp_path), storage)
    assert resumed == whole(made(name, memory), memory)


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_epoch_has_its_row(name):
    storage = open_storage("memory")
    _, notes, rows, _ = whole(made(name, storage), storage)
    assert [row["step"] for row in rows] == list(range(1, notes["epochs"] + 1))
    assert all({"train_loss", "valid_loss", "accuracy"} <= row.keys() for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] * 1.5


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("darts", 4.0),
        ("darts_second_order", 10.0),
        ("gdas", 4.0),
        ("sd_darts", 4.0),
        ("single_path", 2.0),
        ("perturbation_selection", 4.0 + 2 * 2),  # tuned twice between three decisions
    ],
)
def test_its_cost_is_the_passes_forward_and_backward(name, passes):
    study = made(name, open_storage("memory"))
    found = study.searcher.propose(study.problem, History(), Context()).run(Context())
    assert found.cost == {"epochs": passes}


def test_perturbation_decides_every_choice_and_tunes_between():
    storage = open_storage("memory")
    study = made("perturbation_selection", storage)
    text, notes, rows, _ = whole(study, storage)
    assert len(notes["decisions"]) == 3
    assert all(decision.split(": ")[1] in text for decision in notes["decisions"])
    assert len(rows) == 4 + 2 * 2


def test_with_fixed_alphas_none_are_trained_and_none_are_shown():
    storage = open_storage("memory")
    study = made("perturbation_selection", storage, train_alphas=False)
    _, _, rows, alphas = whole(study, storage)
    assert alphas == {}
    assert "skips" not in rows[0]


def test_the_alphas_of_every_epoch_are_on_the_trial():
    storage = open_storage("memory")
    *_, alphas = whole(made("darts", storage), storage)
    assert list(alphas) == [f"note:alphas/{epoch}" for epoch in range(1, 5)]
    for shares in alphas.values():
        assert shares.keys() == {"e0", "e1", "e2"}
        assert all(abs(sum(row) - 1) < 1e-3 for row in shares.values())
    assert alphas["note:alphas/1"] != alphas["note:alphas/4"]


def test_an_option_of_weight_0_is_never_found():
    for seed in range(5):
        study = replace(made("darts", open_storage("memory"), epochs=1), seed=seed)
        assert "none" not in str(study.run(Budget(trials=1))[0].architecture)


def test_no_distillation_is_darts_to_the_last_bit():
    one, other = open_storage("memory"), open_storage("memory")
    assert whole(made("darts", one), one) == whole(made("sd_darts", other, weight=0.0), other)


def test_trials_of_a_study_search_by_streams_of_their_own():
    trials = made("darts", open_storage("memory"), epochs=1).run(Budget(trials=6))
    assert len({str(t.architecture) for t in trials}) > 1


def test_fixed_choices_stay_as_they_are():
    study = made("darts", open_storage("memory"), fixed="e1:tanh,e0:dropout")
    (trial,) = study.run(Budget(trials=1))
    assert [child.rule for child in trial.architecture.children][:2] == ["dropout", "tanh"]


def test_the_search_ends_before_it_has_too_many_skips():
    storage = open_storage("memory")
    study = made("darts", storage, most_skips=0, skip_rule="tanh", epochs=30)
    for seed in range(6):
        kept = open_storage("memory")
        text, notes, rows, _ = whole(replace(study, seed=seed, storage=kept), kept)
        if "stopped" in notes and len(rows) > 1:
            assert "tanh" not in text
            assert rows[-1]["skips"] > 0
            assert all(row["skips"] == 0 for row in rows[:-1])
            return
    raise AssertionError("no seed was stopped")


def test_the_eigenvalue_is_on_the_curve_and_changes_nothing_else():
    one, other = open_storage("memory"), open_storage("memory")
    plain = whole(made("darts", one), one)
    watched = whole(made("darts", other, eigenvalue_ratio=0.001), other)
    assert all("eigenvalue" in row for row in watched[2])
    assert [{k: v for k, v in row.items() if k != "eigenvalue"} for row in watched[2]] == plain[2]
    assert watched[0] == plain[0]


def test_a_loss_that_is_not_finite_closes_the_trial_with_the_reason_and_the_study_goes_on():
    storage = open_storage("memory")
    study = made("darts", storage, learning_rate=1e30, final_learning_rate=0.0, gradient_clip=0)
    record = study.open()
    assert study.run(Budget(trials=2), record=record) == []
    assert [f.number for f in record.history.failures] == [0, 1]
    assert "in epoch 1 of the supernet, at learning_rate 1e+30" in record.history.failures[0].reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Problem(mixed(), (Objective("score", "maximize"),)), "the problem has none; name one"),
        (
            Problem(registry.make("space", "kan"), (Objective("score", "maximize"),), blobs()),
            "cannot be relaxed: its options differ",
        ),
        (
            Problem(
                registry.make("space", "einspace"),
                (Objective("score", "maximize"),),
                registry.make("task", "digits"),
            ),
            "cannot be relaxed: .* is derived again within itself",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_trial_is_opened(given, reason):
    storage = open_storage("memory")
    with pytest.raises(NasgramError, match=reason):
        made("darts", storage, given=given).run(Budget(trials=1))
    assert optuna.load_study(study_name="s", storage=storage).trials == []


def test_a_space_without_weights_or_without_choices_is_refused():
    words = Problem(letters(), (Objective("score", "maximize"),), blobs())
    words = replace(words, space=letters(options="ab"))
    with pytest.raises(SearchSpaceError, match="no weights to train"):
        made("darts", open_storage("memory"), given=words).run(Budget(trials=1))
    with pytest.raises(SearchSpaceError, match="left open"):
        made("darts", open_storage("memory"), fixed="e0:tanh,e1:tanh,e2:tanh").run(Budget(trials=1))


def test_too_little_memory_is_told_in_a_sentence(monkeypatch):
    import nas.gradient_search

    def full(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    storage = open_storage("memory")
    with monkeypatch.context() as patch:
        patch.setattr(nas.gradient_search, "Trainer", full)
        with pytest.raises(ConfigurationError, match=r"too little memory on cpu.*batch_size"):
            made("darts", storage).run(Budget(trials=1))
    assert len(made("darts", storage).run(Budget(trials=1))) == 1


def test_single_path_takes_the_best_of_the_candidates_within_the_limits():
    sizes = sorted(mixed(3).complexity(a).params for a in mixed(3).enumerate())
    bound = toy(params=sizes[len(sizes) // 2])
    (trial,) = made("single_path", open_storage("memory"), given=bound).run(Budget(trials=1))
    assert trial.completed
    assert mixed(3).complexity(trial.architecture).params <= bound.limits["params"]


@pytest.mark.slow
def test_two_workers_make_the_searches_that_one_makes(tmp_path):
    def found(name, workers):
        search = SearchConfiguration(
            PartConfiguration("kan"),
            PartConfiguration("darts", {"epochs": 2, "fixed": {"depth": "1", "width": "4"}}),
            (PartConfiguration("training", {"epochs": 1, "optimizer": "adam"}),),
            PartConfiguration("function_fit", {"num_train": 64}),
        )
        storage = f"journal:{tmp_path}/{name}.journal"
        study = StudyConfiguration(search, name, Budget(trials=4), storage, workers=workers)
        return [
            (t.number, str(t.architecture), t.cost)
            for t in searching.search(study, results=tmp_path).trials
        ]

    assert found("one", 1) == found("two", 2)
    assert list((tmp_path / "studies" / "two" / "checkpoints").iterdir()) == []


def test_a_supernet_may_have_another_skeleton_than_what_is_evaluated():
    space = registry.make("space", "kan", {"grid_size": 5})
    given = Problem(space, (Objective("score", "maximize"),), blobs())
    fixed = "depth:1,width:4"
    study = made("darts", open_storage("memory"), given=given, fixed=fixed, skeleton="grid_size:3")
    (trial,) = study.run(Budget(trials=1))
    assert study.problem.space.contains(trial.architecture)


def test_problem_words_are_no_concern_of_gradient_searches():
    with pytest.raises(NasgramError):
        made("darts", open_storage("memory"), given=problem()).run(Budget(trials=1))
