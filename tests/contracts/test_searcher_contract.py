"""What every searcher promises: it is a function of history, keeps its budget, and sees no future."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from nas import registry
from nas.errors import NasgramError
from nas.problem import Objective, Problem
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.variation import sample
from tests.toys import Hashed, Scored, letters, problem

SEARCHERS = list(registry.parts("searcher"))
SPACES = list(registry.parts("space"))
PATIENT = ["gp"]  # a proposal takes a tenth of a second: its long tests run with -m slow
LONG = [pytest.param(n, marks=pytest.mark.slow) if n in PATIENT else n for n in SEARCHERS]


def run(searcher, *budgets, seed=0, space=None, storage=None):
    storage = storage or open_storage("memory")
    made = registry.make("searcher", searcher)
    trials = []
    for budget in budgets:
        study = Study("s", problem(space), made, Scored(), storage, seed=seed)
        trials = study.run(Budget(trials=budget))
    return [(t.number, str(t.architecture), t.reused, dict(t.notes)) for t in trials]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_one_seed_gives_one_study(searcher):
    assert run(searcher, 40) == run(searcher, 40)


@pytest.mark.parametrize("searcher", LONG)
def test_other_seeds_give_other_studies(searcher):
    assert run(searcher, 40) != run(searcher, 40, seed=1)


@pytest.mark.parametrize("searcher", LONG)
def test_stopped_after_any_trial_and_resumed_it_is_the_identical_study(searcher):
    whole = run(searcher, 30)
    for stop in range(1, 30):
        assert run(searcher, stop, 30) == whole


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("searcher", LONG)
def test_stopped_and_resumed_on_every_space(searcher, space):
    made = registry.make("space", space)
    scored = Problem(made, (Objective("score", "maximize"),))

    def study(storage):
        part = registry.make("searcher", searcher)
        return Study("s", scored, part, Hashed(), storage)

    storage = open_storage("memory")
    texts = [str(t.architecture) for t in study(storage).run(Budget(trials=25))]
    other = open_storage("memory")
    for stop in (3, 11, 24, 25):
        trials = study(other).run(Budget(trials=stop))
    assert [str(t.architecture) for t in trials] == texts


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_space_with_one_architecture_ends(searcher):
    one = letters(length=2, options="a")
    with suppress(NasgramError):  # evolution says that there is nothing to mutate
        assert 1 <= len(run(searcher, 30, space=one)) <= 30


@pytest.mark.parametrize("searcher", LONG)
def test_on_random_scores_no_searcher_beats_random_draws(searcher):
    """The mean score of what is proposed stays that of the space: nothing leaks from the future."""
    made = registry.make("searcher", searcher)
    scores = []
    for seed in range(12):
        study = Study("s", problem(letters(8)), made, Hashed(seed), open_storage("memory"), seed=seed)
        scores += [t.metrics["score"] for t in study.run(Budget(trials=60)) if t.reused is None]
    mean = sum(scores) / len(scores)
    assert abs(mean - 0.5) < 4 * (1 / 12) ** 0.5 / len(scores) ** 0.5


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_limits_are_kept_in_what_is_proposed(searcher):
    space = registry.make("space", "nasbench201", {"channels": 4, "cells": 1})
    rng = random.Random(0)
    sizes = sorted(space.complexity(sample(space, rng)).params for _ in range(30))
    bound = Problem(space, (Objective("score", "maximize"),), limits={"params": sizes[10]})
    study = Study("s", bound, registry.make("searcher", searcher), Hashed(), open_storage("memory"))
    trials = study.run(Budget(trials=30))
    assert all(t.infeasible is None for t in trials)
    assert all(space.complexity(t.architecture).params <= sizes[10] for t in trials)
