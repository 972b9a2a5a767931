"""Populations that begin with given architectures, or a pool's best: one way for every searcher."""

from __future__ import annotations

import numpy as np
import pytest

from nas import registry
from nas.errors import ConfigurationError, DataError, SearchSpaceError
from nas.pool_source import Source
from nas.problem import Objective, Problem
from nas.searchers.ranking import Ranking
from nas.starting import Start
from nas.storage import open_storage
from nas.study import Budget, Study
from tests.pools.making import meaningless, pool_of, written
from tests.toys import Hashed, letters

SPACE = letters(5, "abc")
TEXTS = tuple(str(a) for a in SPACE.enumerate())
PROBLEM = Problem(SPACE, (Objective("score", "maximize"),))
STARTED = [
    name for name in registry.parts("searcher") if "start_pool" in registry.options("searcher", name)
]


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"size": rng.random(len(TEXTS)), "speed": rng.random(len(TEXTS))}
    return written(pool_of(TEXTS, columns, size="minimize"), tmp_path / "pool.npz")


def run(searcher, trials, *, problem=PROBLEM, storage=None):
    study = Study("s", problem, searcher, Hashed(), storage or open_storage("memory"))
    return [str(t.architecture) for t in study.run(Budget(trials=trials))]


def test_populations_may_be_started():
    assert STARTED == ["local_search", "nsga2", "regularized_evolution"]


@pytest.mark.parametrize("name", STARTED)
def test_it_begins_with_a_pools_best_and_then_searches(name, file):
    searcher = registry.make("searcher", name, {"start_pool": file, "start_size": 6})
    texts = run(searcher, 30)
    assert texts[:6] == run(Ranking(Source(file)), 6)
    assert len(set(texts[6:])) > 15


@pytest.mark.parametrize("name", STARTED)
def test_what_is_given_comes_before_the_pools_best(name, file):
    given = {"start": (TEXTS[7], TEXTS[3]), "start_pool": file, "start_metrics": "size"}
    texts = run(registry.make("searcher", name, given), 5)
    best = sorted(TEXTS, key=lambda t: Source(file).candidates(PROBLEM).values[TEXTS.index(t), 0])
    assert texts == [TEXTS[7], TEXTS[3], *best[:3]]


@pytest.mark.parametrize("name", STARTED)
def test_stopped_among_the_first_it_goes_on_as_if_it_had_not_been(name, file):
    searcher = registry.make("searcher", name, {"start_pool": file, "start_size": 8})
    storage = open_storage("memory")
    for stop in (3, 8, 9, 24):
        texts = run(searcher, stop, storage=storage)
    assert texts == run(searcher, 24)


def test_nsga2_takes_them_as_its_first_generation(file):
    searcher = registry.make(
        "searcher", "nsga2", {"start_pool": file, "start_size": 6, "population_size": 6}
    )
    storage = open_storage("memory")
    study = Study("s", PROBLEM, searcher, Hashed(), storage)
    trials = study.run(Budget(trials=12))
    generations = [t.system_attributes["NSGAIISampler:generation"] for t in trials]
    assert generations == [0] * 6 + [1] * 6


def test_limits_are_kept_in_what_it_begins_with():
    space = registry.make("space", "nasbench201", {"channels": 4, "cells": 1})
    sizes = sorted(
        space.complexity(space.parse(t)).params
        for t in Source(meaningless(space)).candidates(PROBLEM).texts
    )
    bound = Problem(space, PROBLEM.objectives, limits={"params": sizes[20]})
    texts = Start(start_pool=meaningless(space), start_size=60).texts(bound)
    assert len(texts) == sum(size <= sizes[20] for size in sizes)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"start_size": 0}, ConfigurationError, "at least 1"),
        ({"start_metrics": ("size",)}, ConfigurationError, "start_pool=FILE"),
    ],
)
def test_a_start_that_means_nothing_is_refused(given, error, said):
    with pytest.raises(error, match=said):
        Start(**given)


def test_a_pool_that_is_not_there_and_a_text_that_is_none_are_refused(tmp_path):
    for start, error in (
        (Start(start_pool=tmp_path / "none"), DataError),
        (Start(("x",)), SearchSpaceError),
    ):
        with pytest.raises(error):
            run(registry.get("searcher", "local_search")(start=start), 1)


def test_a_ranking_ends_when_the_pool_is_used_up_and_takes_no_architecture_twice(file):
    texts = run(Ranking(Source(file)), 1000)
    assert sorted(texts) == sorted(TEXTS)


def test_a_ranking_by_one_metric_is_that_metrics_order_in_the_direction_given(file):
    values = dict(zip(TEXTS, Source(file).candidates(PROBLEM).values[:, 0], strict=True))
    down, up = (run(Ranking(Source(file, (m,))), 20) for m in ("size:max", "size"))
    assert [values[t] for t in down] == sorted(values.values(), reverse=True)[:20]
    assert [values[t] for t in up] == sorted(values.values())[:20]
