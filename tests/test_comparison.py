from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas import comparison, comparison_scores, registry
from nas.comparison import Protocol, compare
from nas.configuration import PartConfiguration, SearchConfiguration
from nas.errors import ConfigurationError, StorageError
from nas.study import Budget

PROTOCOL = """
[protocol]
name = "small"
seeds = 4
cost = 12
baseline = 6
storage = "{storage}"
[space]
name = "nasbench201"
[evaluator]
name = "table"
path = "{table}"
[[searcher]]
name = "random"
[[searcher]]
label = "evolution"
name = "regularized_evolution"
population_size = 4
tournament_size = 2
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table in the benchmark's format, its scores made up: the more convolutions, the better."""
    rng = np.random.default_rng(0)
    space = registry.make("space", "nasbench201")
    names = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    cells = [[names.index(op.rule) for op in a.children[0].children] for a in space.enumerate()]
    ops = np.array(cells, dtype=np.int8)
    score = 60 + 5 * (ops == 3).sum(1) + 2 * (ops == 2).sum(1) + rng.normal(0, 0.5, len(ops))
    path = tmp_path_factory.mktemp("table") / "made_up.npz"
    columns = {"c10_valid200": score, "c10_test200": score + rng.normal(0, 0.3, len(ops))}
    columns |= {"c10_train_seconds200": np.full(len(ops), 10.0)}
    np.savez(path, ops=ops, **columns)
    return path


@pytest.fixture
def protocol(table, tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text(PROTOCOL.format(table=table, storage="memory"))
    return path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_run_and_equal_cost_for_all(protocol, tmp_path):
    done = compare(protocol, results=tmp_path)
    runs = rows(tmp_path / "benchmarks/small/runs.csv")
    assert runs == done.runs
    assert [(r["searcher"], r["seed"]) for r in runs[:6]] == [
        ("random_sampling", str(seed)) for seed in range(6)
    ]
    searchers = [r for r in runs if r["searcher"] != "random_sampling"]
    assert len(searchers) == 8
    assert {float(r["cost"]) for r in searchers} == {12.0}


def test_random_sampling_is_unselected_and_search_improves_on_it(protocol, tmp_path):
    done = compare(protocol, results=tmp_path)
    by = {
        label: [float(r["test"]) for r in done.runs if r["searcher"] == label]
        for label in ("random_sampling", "random", "evolution")
    }
    assert np.mean(by["random_sampling"]) < np.mean(by["random"])
    text = (done.folder / "report.md").read_text()
    assert "relative improvement" in text
    for label, values in by.items():
        assert f"{np.mean(values):.3f} [" in text, label


def test_the_anytime_curve_ends_at_the_best_of_the_run(protocol, tmp_path):
    done = compare(protocol, results=tmp_path)
    last = {(r["searcher"], r["seed"]): r for r in done.anytime}
    for run in done.runs:
        assert last[run["searcher"], run["seed"]]["accuracy"] == run["accuracy"]
        assert last[run["searcher"], run["seed"]]["test"] == run["test"]
    for before, after in zip(done.anytime, done.anytime[1:], strict=False):
        if (before["searcher"], before["seed"]) == (after["searcher"], after["seed"]):
            assert float(after["accuracy"]) > float(before["accuracy"])


def test_stopped_anywhere_it_goes_on_to_the_same_files(protocol, tmp_path, monkeypatch):
    whole = compare(protocol, results=tmp_path / "whole")
    work, left = comparison._work, [5]

    def stops(run, journals):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return work(run, journals)

    monkeypatch.setattr(comparison, "_work", stops)
    with pytest.raises(KeyboardInterrupt):
        compare(protocol, results=tmp_path / "stopped")
    assert len(rows(tmp_path / "stopped/benchmarks/small/runs.csv")) == 5
    monkeypatch.setattr(comparison, "_work", work)
    resumed = compare(protocol, results=tmp_path / "stopped")

    def timeless(runs):
        return [{k: v for k, v in r.items() if k != "seconds"} for r in runs]

    assert timeless(resumed.runs) == timeless(whole.runs)
    assert resumed.anytime == whole.anytime


def test_several_processes_give_the_same_runs(protocol, tmp_path):
    one = compare(protocol, results=tmp_path / "one")
    two = compare(protocol, jobs=2, results=tmp_path / "two")
    assert [r["architecture"] for r in one.runs] == [r["architecture"] for r in two.runs]


def test_journals_keep_every_trial(table, tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text(PROTOCOL.format(table=table, storage="journal"))
    done = compare(path, results=tmp_path)
    assert len(list((done.folder / "journals").glob("*.journal"))) == len(done.runs)


def test_seeds_and_searchers_can_be_added_and_nothing_else_changed(protocol, tmp_path):
    compare(protocol, results=tmp_path)
    text = protocol.read_text()
    more = text.replace("seeds = 4", "seeds = 5") + '\n[[searcher]]\nname = "local_search"\n'
    protocol.write_text(more)
    done = compare(protocol, results=tmp_path)
    assert len(done.runs) == 6 + 5 * 3
    protocol.write_text(more.replace("cost = 12", "cost = 13"))
    with pytest.raises(StorageError, match="another protocol"):
        compare(protocol, results=tmp_path)


def test_a_searcher_may_have_a_budget_of_its_own(protocol, tmp_path):
    own = "population_size = 4\nbudget = { trials = 5 }"
    protocol.write_text(protocol.read_text().replace("population_size = 4", own))
    done = compare(protocol, results=tmp_path)
    trials = {r["searcher"]: int(r["trials"]) for r in done.runs}
    assert trials["evolution"] == 5
    assert trials["random"] >= 12
    assert "evolution: 5 trials" in (done.folder / "report.md").read_text()
    again = compare(done.folder / "protocol.toml", results=tmp_path / "again")
    assert [r["architecture"] for r in again.runs] == [r["architecture"] for r in done.runs]


SCORES = """
[[score]]
name = "table"
path = "{table}"
[[score]]
name = "complexity"
label = "size"
"""


def test_what_was_found_is_scored_by_further_evaluators_at_no_cost(protocol, table, tmp_path):
    before = compare(protocol, results=tmp_path)
    protocol.write_text(protocol.read_text() + SCORES.format(table=table))
    done = compare(protocol, jobs=2, results=tmp_path)
    assert done.runs == before.runs
    space = registry.make("space", "nasbench201")
    tested = {
        (r["searcher"], r["seed"], r["metric"]): float(r["value"])
        for r in done.scores
        if (r["score"], r["split"]) == ("table", "test")
    }
    params = {
        (r["searcher"], r["seed"]): float(r["value"])
        for r in done.scores
        if (r["score"], r["split"], r["metric"]) == ("size", "validation", "params")
    }
    ranks = np.load(table)["c10_test200"]
    for run in done.runs:
        key = run["searcher"], run["seed"]
        assert tested[*key, "accuracy"] == float(run["test"])
        assert tested[*key, "rank"] == 1 + (ranks > float(run["test"])).sum()
        assert params[key] == space.complexity(space.parse(run["architecture"])).params
    assert "| searcher | table: validation accuracy |" in (done.folder / "report.md").read_text()


def test_scores_go_on_where_they_were_stopped(protocol, table, tmp_path, monkeypatch):
    protocol.write_text(protocol.read_text() + SCORES.format(table=table))
    whole = compare(protocol, results=tmp_path)
    path = whole.folder / "scores.csv"
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[: len(kept) // 2]))
    made = []
    scored = comparison_scores._scored
    monkeypatch.setattr(comparison_scores, "_scored", lambda s: made.append(s) or scored(s))
    resumed = compare(protocol, results=tmp_path)
    assert 0 < len(made) < len(whole.scores) / 4

    def as_set(rows):
        return {tuple(sorted(row.items())) for row in rows}

    assert as_set(resumed.scores) == as_set(whole.scores)
    assert len(resumed.scores) == len(whole.scores)


def test_trained_networks_are_tested_with_their_weights(tmp_path):
    part = PartConfiguration
    protocol = Protocol(
        "trained",
        SearchConfiguration(
            part("kan", {"widths": (4,), "depths": (1,)}),
            part("random"),
            (part("training", {"epochs": 2, "optimizer": "adam"}),),
            part("function_fit", {"num_train": 128}),
        ),
        {"random": part("random"), "walk": part("local_search")},
        seeds=(0, 1),
        budget=Budget(trials=3),
        baseline=2,
    )
    done = compare(protocol, results=tmp_path)
    assert all(np.isfinite(float(r["test"])) for r in done.runs)
    text = (done.folder / "report.md").read_text()
    assert "rmse" in text
    assert "minimize" in text
    again = replace(protocol, seeds=(0, 1, 2))
    assert len(compare(again, results=tmp_path).runs) == 2 + 3 * 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "small"\n', "", "begins with"),
        ("seeds = 4", "seds = 4", 'did you mean "seeds"'),
        ("seeds = 4", "seeds = []", "is empty"),
        ("cost = 12", "", "needs a limit"),
        ('storage = "memory"', 'storage = "disk"', "journal, memory"),
        ('name = "regularized_evolution"', 'name = "random_evolution"', "regularized_evolution"),
        ('label = "evolution"', 'label = "random"', 'two runs are called "random"'),
        ("population_size", "population", "population_size"),
        ("population_size = 4", "population_size = 4\nbudget = 3", "takes a table"),
        ("population_size = 4", "population_size = 4\nbudget = { trails = 3 }", "trials"),
        ("[space]", '[[score]]\nname = "complexty"\n[space]', "complexity"),
        ("[protocol]", "score = 3\n[protocol]", "each with the name of an evaluator"),
        ("[space]", "seed = 3\n[space]", "seed"),
    ],
)
def test_a_wrong_protocol_is_one_sentence(protocol, tmp_path, old, new, said):
    protocol.write_text(protocol.read_text().replace(old, new))
    with pytest.raises(ConfigurationError, match=said):
        compare(protocol, results=tmp_path)
    assert not (tmp_path / "benchmarks").exists()


def test_several_objectives_are_refused(protocol, tmp_path):
    both = '[[objective]]\nmetric = "accuracy"\ndirection = "maximize"\n'
    both += '[[objective]]\nmetric = "train_seconds"\ndirection = "minimize"\n'
    protocol.write_text(protocol.read_text() + both)
    with pytest.raises(ConfigurationError, match="one objective"):
        compare(protocol, results=tmp_path)


def test_what_costs_nothing_is_drawn_by_trials(protocol, tmp_path):
    text = protocol.read_text().replace("cost = 12", "trials = 5")
    lines = [x for x in text.splitlines() if "path" not in x]
    protocol.write_text("\n".join(lines).replace('name = "table"', 'name = "complexity"'))
    done = compare(protocol, results=tmp_path)
    assert "| trials | 0.5 | 1.25 | 2.5 | 3.75 | 5 |" in (done.folder / "report.md").read_text()


def test_the_picture_shows_every_searcher(protocol, tmp_path):
    compare(protocol, results=tmp_path)
    picture = Path(tmp_path / "benchmarks/small/anytime.svg").read_text()
    assert picture.count("<svg") == 1
    assert "evolution" in picture
