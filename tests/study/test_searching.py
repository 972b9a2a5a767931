"""The folder of a study: what was found is kept by whichever process found it."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import nas
from nas.configuration import PartConfiguration, SearchConfiguration
from nas.searching import named, search
from nas.study import Budget

PART = PartConfiguration
SEARCH = SearchConfiguration(
    PART("kan", {"widths": (4,), "depths": (1, 2)}),
    PART("random"),
    (PART("training", {"epochs": 2, "optimizer": "adam"}),),
    PART("function_fit", {"num_train": 64}),
)


def run(trials, results):
    configuration = named(SEARCH, Budget(trials=trials), name="s", results=results)
    return search(configuration, results=results)


def run_apart(results):
    run(12, results)


def test_the_best_is_saved_with_weights_test_score_and_provenance(tmp_path):
    outcome = run(5, tmp_path)
    best = outcome.front[0]
    found = nas.load(outcome.files[best.number])
    assert found.architecture == best.architecture
    assert found.metrics["rmse"].value == best.metrics["rmse"]
    assert found.metrics["test_rmse"].value == outcome.tests[best.number]["rmse"]
    assert found.metrics["test_rmse"].split == "test"
    assert (found.provenance.study, found.provenance.trial) == ("s", best.number)
    assert found.pretrained() is not None


def test_only_the_front_is_kept(tmp_path):
    outcome = run(8, tmp_path)
    kept = {p.stem for p in (outcome.folder / "found").iterdir()}
    assert kept == {t.architecture.digest for t in outcome.front}


def test_looking_at_a_study_changes_nothing_and_tells_the_same(tmp_path):
    outcome = run(4, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    shown = nas.show("s", results=tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert shown.tests == outcome.tests
    assert [t.architecture for t in shown.trials] == [t.architecture for t in outcome.trials]


def test_weights_that_were_lost_are_trained_again(tmp_path):
    outcome = run(4, tmp_path)
    for path in (outcome.folder / "found").iterdir():
        path.unlink()
    again = run(4, tmp_path)
    assert again.tests == outcome.tests
    assert nas.load(again.files[again.front[0].number]).pretrained() is not None


def test_resuming_without_anything_left_to_do_keeps_what_was_found(tmp_path):
    outcome = run(4, tmp_path)
    file = outcome.files[outcome.front[0].number]
    before = json.loads(file.read_text())
    run(4, tmp_path)
    assert json.loads(file.read_text()) == before


@pytest.mark.slow
def test_two_processes_keep_the_best_of_both(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(run_apart, [tmp_path, tmp_path]))
    shown = nas.show("s", results=tmp_path)
    assert len(shown.trials) == 12
    best = shown.front[0]
    assert nas.load(shown.files[best.number]).pretrained() is not None
    assert shown.tests[best.number]["rmse"] > 0
