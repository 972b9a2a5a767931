"""Multi-objective studies from the command line to what is shown of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SMALL = ("--space", "nasbench201", "--set", "cells=1", "--set", "channels=4")
COSTS = ("--evaluator", "complexity", "--objective", "macs:max", "--objective", "params:min")


def search(nas_command, *more, trials=12):
    return nas_command("search", "--study", "front", *SMALL, *COSTS, *more, "--trials", trials)


@pytest.mark.parametrize("searcher", ["nsga2", "tpe", "gp"])
def test_a_search_shows_front_hypervolume_and_knee(nas_command, searcher):
    shown = search(nas_command, "--searcher", searcher)
    assert "Pareto front" in shown
    assert "macs by params" in shown
    assert "of the box between the reference point (macs" in shown
    report = Path("results/studies/front/report.md").read_text()
    assert "Hypervolume" in report
    assert ("Knee of the front" in report) == ("Knee of the front" in shown)


def test_the_best_under_a_budget(nas_command):
    search(nas_command)
    whole = nas_command.json("show", "front")
    sizes = sorted(t["metrics"]["params"] for t in whole["trials"])
    found = nas_command.json("show", "front", "--under", f"params={sizes[3]}")
    assert [t["metrics"]["params"] <= sizes[3] for t in found["trials"]] == [True] * len(
        found["trials"]
    )
    assert found["under"] == {"params": sizes[3]}
    allowed = [t for t in whole["trials"] if t["metrics"]["params"] <= sizes[3]]
    most = max(t["metrics"]["macs"] for t in allowed)
    best = next(t for t in found["trials"] if t["number"] == found["best"][0])
    assert best["metrics"]["macs"] == most
    assert f"params at most {sizes[3]:,.0f}" in nas_command(
        "show", "front", "--under", f"params={sizes[3]}"
    )


def test_a_budget_on_what_was_not_measured(nas_command, tmp_path):
    """With one objective; the network of a trial that is kept in no file is built by the line given."""
    arguments = ("--evaluator", "latency", "--objective", "latency_ms:max")
    nas_command("search", "--study", "one", *SMALL, *arguments, "--trials", 6)
    found = nas_command.json("show", "one", "--under", "params=1e9", "--under", "macs=1e12")
    assert len(found["trials"]) == 6
    assert all(t["metrics"]["params"] > 0 for t in found["trials"])
    assert found["pareto"] is None


def test_a_trial_without_a_file_is_built_by_the_line_that_is_shown(nas_command):
    arguments = ("--evaluator", "complexity", "--objective", "macs:max")
    whole = nas_command("search", "--study", "one", *SMALL, *arguments, "--trials", 6, "--json")
    least = min(json.loads(whole)["trials"], key=lambda t: t["metrics"]["macs"])["metrics"]
    shown = nas_command("show", "one", "--under", f"macs={least['macs']}")
    line = next(x for x in shown.splitlines() if x.startswith("Build trial"))
    made: dict[str, object] = {}
    exec(line.partition('python -c "')[2].rstrip('"'), made)
    assert sum(p.numel() for p in made["model"].parameters()) == least["params"]


def test_a_reference_point_of_ones_own(nas_command):
    search(nas_command)
    given = nas_command.json("show", "front", "--reference", "params=1e5", "--reference", "macs=0")
    assert given["pareto"]["reference"] == {"macs": 0, "params": 1e5}
    own = nas_command.json("show", "front")["pareto"]
    assert 0 < own["share"] <= 1
    assert own["knee"] is None or own["knee"] in nas_command.json("show", "front")["best"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--under", "params=1"), "the least there is: params"),
        (("--under", "parms=1"), 'did you mean "params"'),
        (("--under", "params"), "is not METRIC=NUMBER"),
        (("--reference", "flops=1"), "is not an objective"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(nas_command, arguments, sentence):
    search(nas_command, trials=3)
    assert sentence in nas_command.refused("show", "front", *arguments)


def test_a_file_takes_no_budget(nas_command):
    search(nas_command, trials=3)
    file = next(Path("results/studies/front/found").glob("*.json"))
    assert "take a study" in nas_command.refused("show", file, "--under", "params=1")
