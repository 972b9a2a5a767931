"""Scoring a pool: what is scored, folded, shared, kept over kills, and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas import configuration, registry
from nas.configuration import PartConfiguration, SearchConfiguration
from nas.errors import ConfigurationError, NasgramError, StorageError, WorkerError
from nas.pool import Pool
from nas.problem import Objective, Problem
from nas.scoring import Scoring, chosen, score, unfolded
from nas.scoring_workers import Job, rows

PARTS = Path(__file__).with_name("lettering.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "pool.npz"


def scoring(log, *, sample=None, fold=None, workers=1, length=3, limits=None, **settings):
    search = SearchConfiguration(
        PartConfiguration("words", {"length": length}),
        PartConfiguration("random"),
        (PartConfiguration("lettered", {"log": str(log), **settings}),),
        limits=limits or {},
        load=(str(PARTS),),
    )
    return Scoring(search, sample, fold, workers=workers)


def logged(log):
    return log.read_text().split()


def assert_equal(one, other):
    """Equal but for the seconds."""
    assert (one.texts, one.reasons, one.metrics) == (other.texts, other.reasons, other.metrics)
    np.testing.assert_equal(dict(one.columns), dict(other.columns))
    np.testing.assert_equal(one.costs, other.costs)


def test_a_finite_space_is_scored_whole_and_each_architecture_once(log, output):
    pool = score(scoring(log), output)
    assert len(pool) == len(set(pool.texts)) == len(logged(log)) == 27
    assert_equal(Pool.read(output), pool)
    assert not list(output.parent.glob("*.part*"))


@pytest.mark.slow
def test_several_workers_make_the_same_pool(log, output, tmp_path):
    one = score(scoring(log, refused="b", half="c"), output)
    assert_equal(score(scoring(log, refused="b", half="c", workers=2), tmp_path / "other.npz"), one)


def test_waiting_takes_seconds_by_the_clock_alone(log, output):
    pool = score(scoring(log, length=1, milliseconds=200), output)
    assert (pool.cpu_seconds > 0).all()
    assert pool.cpu_seconds.sum() < pool.seconds.sum() / 2


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_by_the_clock_the_pool_is_what_was_scored_and_goes_on(log, output, tmp_path, workers):
    asked = scoring(log, milliseconds=30, workers=workers)
    begun = score(replace(asked, seconds=0.1), output)
    assert 1 <= len(begun) < 27 == begun.description["asked"]
    assert_equal(Pool.read(output), begun)
    assert not list(output.parent.glob("*.part*"))
    whole = score(replace(asked, workers=1), output)
    assert len(whole) == 27
    assert_equal(whole, score(scoring(log, milliseconds=30), tmp_path / "other.npz"))


def test_a_sample_is_distinct_and_a_larger_one_begins_with_it(log, output):
    small = score(scoring(log, sample=5), output)
    large = score(scoring(log, sample=12), output)
    assert len(set(large.texts)) == 12
    assert large.texts[:5] == small.texts
    assert len(logged(log)) == 12  # the five were not scored again


def test_a_sample_beyond_the_space_is_the_space(log, output):
    assert len(score(scoring(log, sample=500, length=2), output)) == 9


def test_an_infinite_space_asks_for_a_sample(log, output):
    recursive = replace(scoring(log).search, space=PartConfiguration("einspace"))
    with pytest.raises(ConfigurationError, match="--sample N"):
        score(Scoring(recursive), output)


def test_what_is_infeasible_is_a_row_with_its_reason(log, output):
    pool = score(scoring(log, refused="b"), output)
    rows = [pool.rows[t] for t in pool.texts if t.startswith("word(b")]
    assert {pool.reasons[row] for row in rows} == {"it begins with b"}
    assert len(pool.reasons) == len(rows) == 9
    assert np.isnan(pool.column("score")[rows]).all()
    assert set(pool.costs[rows]) == {0.5}


def test_a_metric_that_is_no_number_is_missing_and_the_others_stay(log, output):
    pool = score(scoring(log, half="c"), output)
    row = pool.rows["word(c, a, a)"]
    assert np.isnan(pool.column("score")[row])
    assert pool.column("vowels")[row] == 2
    assert pool.reasons[row] == "score is nan"


def test_a_measured_excess_is_a_reason_beside_the_metrics(log, output):
    pool = score(scoring(log, limits={"vowels": 1}), output)
    row = pool.rows["word(a, a, b)"]
    assert pool.column("vowels")[row] == 2
    assert pool.reasons[row] == "vowels 2 exceeds the limit of 1"


def test_what_is_refused_before_building_is_not_evaluated(tmp_path, output):
    search = SearchConfiguration(
        PartConfiguration("nasbench201", {"channels": 4, "cells": 1}),
        PartConfiguration("random"),
        (PartConfiguration("complexity"),),
        limits={"params": 1},  # drawn all the same, as nothing keeps it
    )
    pool = score(Scoring(search, sample=20), output)
    assert len(pool.reasons) == 20
    assert all("exceeds the limit of 1" in reason for reason in pool.reasons.values())
    assert np.isnan(pool.column("params")).all()


@pytest.mark.parametrize(("fold", "classes"), [("function", 4930), ("benchmark", 6466)])
def test_a_space_is_folded_by_the_equivalences_it_names(tmp_path, fold, classes):
    space = registry.make("space", "nasbench201")
    problem = Problem(space, (Objective("params", "minimize"),))
    search = SearchConfiguration(PartConfiguration("nasbench201"), PartConfiguration("random"), ())
    assert len(chosen(problem, Scoring(search, fold=fold))) == classes


def test_a_folded_pool_unfolds_to_the_whole_space(log, output):
    pool = score(scoring(log, fold="function"), output)
    assert len(pool) == 10  # multisets of three of three letters
    space = registry.make("space", "words")
    whole = unfolded(pool, Problem(space, (Objective("score", "maximize"),)))
    assert len(whole) == 27
    assert len({whole.column("score")[whole.rows[f"word({w})"]] for w in ("a, b, c", "c, a, b")}) == 1


def test_an_unknown_fold_is_told_with_those_there_are(log, output):
    with pytest.raises(NasgramError, match="Allowed: function"):
        score(scoring(log, fold="benchmark"), output)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shared_metrics_are_those_of_the_first_of_a_function(log, output, workers):
    pool = score(scoring(log, shared=True, workers=workers), output)
    alone = score(scoring(log), output.with_name("alone.npz"))
    np.testing.assert_equal(pool.column("score"), alone.column("score"))
    np.testing.assert_equal(pool.column("vowels"), alone.column("vowels"))


def test_nothing_is_evaluated_again_where_all_metrics_are_shared(output):
    search = SearchConfiguration(
        PartConfiguration("words"), PartConfiguration("random"), (PartConfiguration("same"),),
        load=(str(PARTS),),
    )  # fmt: skip
    pool = score(Scoring(search), output)
    assert pool.costs.sum() == 10
    assert not pool.reasons


def test_a_pool_of_another_setup_is_not_overwritten(log, output):
    score(scoring(log), output)
    before = output.read_bytes()
    with pytest.raises(StorageError, match=r"another setup .*refused"):
        score(scoring(log, refused="b"), output)
    assert output.read_bytes() == before


def test_other_data_in_the_same_file_are_another_setup(tmp_path):
    x, y = np.random.default_rng(0).random((60, 3)), np.arange(60) % 2
    search = SearchConfiguration(
        PartConfiguration("kan"), PartConfiguration("random"), (PartConfiguration("complexity"),),
        task=PartConfiguration("arrays", {"path": str(tmp_path / "data.npz")}),
    )  # fmt: skip
    np.savez(tmp_path / "data.npz", x=x, y=y)
    first = score(Scoring(search, sample=2), tmp_path / "pool.npz")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    assert score(Scoring(search, sample=3), tmp_path / "pool.npz").texts[:2] == first.texts
    np.savez(tmp_path / "data.npz", x=x + 1e-3, y=y)
    with pytest.raises(StorageError, match=r"another setup .*data"):
        score(Scoring(search, sample=4), tmp_path / "pool.npz")


def test_a_pool_is_not_made_smaller(log, output):
    score(scoring(log, sample=8), output)
    with pytest.raises(StorageError, match="not asked for"):
        score(scoring(log, sample=4), output)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bug_stops_the_pool_and_what_was_scored_is_kept(log, output, workers):
    with pytest.raises((ZeroDivisionError, WorkerError), match="a bug in an evaluator"):
        score(scoring(log, wrong="cab", workers=workers), output)
    lines = output.with_name("pool.npz.part").read_text().splitlines()
    assert len(lines) > 10
    assert not output.exists()


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_the_architecture_scored(log, output):
    pool = score(scoring(log, deadly="abc", lives=2, workers=2), output)
    assert not pool.reasons
    assert logged(log).count("abc") == 3


def test_an_architecture_that_always_kills_is_infeasible(log, output):
    pool = score(scoring(log, deadly="abc", lives=99, workers=2), output)
    assert pool.reasons == {pool.rows["word(a, b, c)"]: "its worker died 3 times while scoring it"}


def test_a_line_cut_short_is_scored_again(log, output):
    whole = score(scoring(log), output)
    rows = [
        json.dumps({"text": text, "metrics": {"score": 1.0, "vowels": 0.0}}) for text in whole.texts
    ]
    head = json.dumps({"identity": whole.description["identity"]})
    output.unlink()
    output.with_name("pool.npz.part").write_text("\n".join([head, *rows[:4], rows[4][:30]]))
    again = score(scoring(log), output)
    np.testing.assert_equal(again.column("score")[:4], np.ones(4))
    np.testing.assert_equal(again.column("score")[4:], whole.column("score")[4:])


def command(output, log, workers):
    given = [
        "--load", PARTS, "score", "--space", "words", "--set", "length=4", "--evaluator", "lettered",
        "--set", f"log={log}", "--set", "milliseconds=20", "--set", "half=b", "--workers", workers,
        "-o", output,
    ]  # fmt: skip
    return [sys.executable, "-m", "nas", *map(str, given)]


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_in_the_middle_and_run_again_it_is_the_identical_pool(log, output, tmp_path, workers):
    process = subprocess.Popen(
        command(output, log, workers), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    part = output.with_name("pool.npz.part")
    while not part.exists() or part.read_text().count("\n") < 25:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    time.sleep(0.3)
    begun, kept = len(logged(log)), part.read_text().count("\n") - 1
    assert kept >= 24
    assert begun <= kept + workers  # no more than one at hand for each; and none is left that goes on
    time.sleep(0.2)
    assert len(logged(log)) == begun
    search = scoring(log, length=4, milliseconds=20, half="b")
    resumed = score(search, output)
    assert len(logged(log)) == 81 + begun - kept
    assert_equal(resumed, score(search, tmp_path / "whole.npz"))


@pytest.mark.slow
def test_a_worker_begins_nothing_new_before_its_row_is_taken(log):
    asked = scoring(log, milliseconds=1)
    given = configuration.make(asked.search)
    jobs = [Job(str(architecture)) for architecture in chosen(given.problem, asked)]
    coming = rows(given, jobs, asked.machine, 2)
    next(coming)
    while len(logged(log)) < 2:  # the other one has begun
        time.sleep(0.01)
    time.sleep(0.5)
    assert len(logged(log)) == 2
    assert len(list(coming)) == 26


def test_the_command_prints_what_the_pool_holds(nas_command, tmp_path):
    told = nas_command.json(
        "score", "--space", "nasbench201", "--sample", 20, "--evaluator", "complexity", "-o", "a/p.npz"
    )
    assert told["architectures"] == 20
    assert [row["metric"] for row in told["metrics"]] == ["params", "macs", "flops", "activation_bytes"]
    pool = Pool.read(tmp_path / "a" / "p.npz")
    assert told["metrics"][0]["max"] == pool.column("params").max()
    assert "20 architectures" in nas_command(
        "score", "--space", "nasbench201", "--sample", 20, "--evaluator", "complexity", "-o", "a/p.npz"
    )


def test_the_command_says_that_the_clock_stopped_it(nas_command):
    given = ("--space", "kan", "--sample", 20, "--evaluator", "complexity", "-o", "p.npz")
    assert "p.npz: 1 of 20 architectures" in nas_command("score", *given, "--seconds", 1e-9)
    assert "the same command goes on" in nas_command.err
    assert nas_command.json("score", *given, "--seconds", 1e-9)["asked"] == 20
    assert "p.npz: 20 architectures" in nas_command("score", *given)
    assert "goes on" not in nas_command.err
    assert "above 0" in nas_command.refused("score", *given, "--seconds", 0)


def test_the_command_refuses_in_a_sentence(nas_command):
    assert "--evaluator" in nas_command.refused("score", "--space", "kan", "-o", "p.npz")
    assert "not a registered" in nas_command.refused(
        "score", "--space", "kan", "--evaluator", "none", "-o", "p.npz"
    )


def test_a_table_and_costs_become_columns_of_one_pool(data_folder, nas_command, tmp_path):
    nas_command(
        "score",
        "--space",
        "nasbench201",
        "--sample",
        300,
        "--evaluator",
        "table",
        "--evaluator",
        "complexity",
        "-o",
        "t.npz",
    )
    pool = Pool.read(tmp_path / "t.npz")
    assert not pool.reasons
    assert np.corrcoef(pool.column("accuracy"), pool.column("params"))[0, 1] > 0.3


def test_a_metric_that_does_not_apply_is_missing_with_its_reason(output):
    search = SearchConfiguration(
        PartConfiguration("kan", {"widths": (4,), "depths": (1,)}),
        PartConfiguration("random"),
        (PartConfiguration("zero_cost", {"proxies": ("l2_norm", "naswot", "meco")}),),
        PartConfiguration("function_fit", {"num_train": 64}),
    )
    pool = score(Scoring(search, sample=2), output)
    assert np.isfinite(pool.column("l2_norm")).all()
    assert np.isnan(pool.column("naswot")).all()
    assert pool.reasons[0].startswith("naswot: ")
    assert "meco" in pool.reasons[0]


def test_a_metric_that_no_architecture_has_is_printed_as_missing(nas_command):
    kan = (
        "score",
        "--space",
        "kan",
        "--sample",
        2,
        "--task",
        "function_fit",
        "--evaluator",
        "zero_cost",
    )
    proxies = ("--set", "proxies=l2_norm,naswot", "-o", "p.npz")
    printed = nas_command(*kan, *proxies)
    assert "naswot: no ReLU" in printed
    (told,) = (m for m in nas_command.json(*kan, *proxies)["metrics"] if m["metric"] == "naswot")
    assert (told["missing"], told["values"]) == (2, 0)
    assert told["min"] is told["median"] is told["max"] is None
