"""What every searcher promises: it is a function of history, keeps its budget, and sees no future."""

from __future__ import annotations

import random
import re
from contextlib import suppress

import pytest

from nas import registry
from nas.errors import NasgramError
from nas.evaluation import Context
from nas.problem import Objective, Problem
from nas.searcher import InnerSearch
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.trial import History
from nas.variation import sample
from tests.pools.making import meaningless
from tests.toys import Hashed, Scored, blobs, letters, mixed, problem

NAMES = reversed(registry.parts("searcher"))  # of two names of one searcher the first
SEARCHERS = sorted({registry.get("searcher", name): name for name in NAMES}.values())
SPACES = list(registry.parts("space"))
DRAWLESS = ["ranking"]
PATIENT = ["gp"]  # a proposal takes a tenth of a second: its long tests run with -m slow
REPLAYING = ["robot"]  # what it noted is read again for each proposal
LONG = [pytest.param(n, marks=pytest.mark.slow) if n in PATIENT else n for n in SEARCHERS]
SLOW_STEPS = ["darts_second_order", "perturbation_selection"]  # of the searches by gradient
MANY = [pytest.param(n, marks=pytest.mark.slow) if n in PATIENT + SLOW_STEPS else n for n in SEARCHERS]
LONGEST = [
    pytest.param(n, marks=pytest.mark.slow) if n in PATIENT + REPLAYING else n for n in SEARCHERS
]


def make(searcher, space=None):
    """The searcher with its defaults, but for an inner search, which is short, and a pool it needs."""
    options = registry.options("searcher", searcher)
    given = {"epochs": 1, "candidates": 5, "tuning_epochs": 1}
    if "pool" in options:
        given["pool"] = meaningless(space or letters())
    return registry.make("searcher", searcher, {k: v for k, v in given.items() if k in options})


def refusal(searcher, given):
    """Why a searcher does not take a problem, told before a trial is opened; None where it does."""
    try:
        searcher.propose(given, History(), Context())
    except NasgramError as error:
        return str(error)
    return None


def fewer(searcher, trials, given=None):
    """A fifth of the trials where each is a search of its own, which takes longer."""
    proposed = searcher.propose(given or fitting(searcher), History(), Context())
    searches = isinstance(proposed, InnerSearch)
    return trials // 5 if searches else trials


def check_refusal(searcher, given):
    """Whether a problem is refused; if it is, in a sentence, and without a trial."""
    why, storage = refusal(searcher, given), open_storage("memory")
    if why is None:
        return False
    assert why.endswith(".")
    assert "\n" not in why
    study = Study("s", given, searcher, Hashed(), storage)
    with pytest.raises(NasgramError, match=re.escape(why)):
        study.run(Budget(trials=1))
    assert storage.get_all_trials(storage.get_study_id_from_name("s")) == []
    return True


def fitting(searcher):
    """Words, or a space that can be trained with a task, whichever the searcher takes."""
    trained = Problem(mixed(6), (Objective("score", "maximize"),), blobs())
    return trained if refusal(searcher, problem()) else problem()


def run(searcher, *budgets, seed=0, space=None, storage=None):
    storage = storage or open_storage("memory")
    made = make(searcher, space)
    given = fitting(made) if space is None else problem(space)
    trials = []
    for budget in budgets:
        study = Study("s", given, made, Hashed() if given.task else Scored(), storage, seed=seed)
        trials = study.run(Budget(trials=budget))
    return [(t.number, str(t.architecture), t.reused, dict(t.notes)) for t in trials]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_one_seed_gives_one_study(searcher):
    trials = fewer(make(searcher), 18 if searcher in PATIENT else 40)
    assert run(searcher, trials) == run(searcher, trials)


@pytest.mark.parametrize("searcher", LONG)
def test_other_seeds_give_other_studies(searcher):
    if searcher in DRAWLESS:
        pytest.skip("it draws nothing")
    trials = fewer(make(searcher), 40)
    assert run(searcher, trials) != run(searcher, trials, seed=1)


@pytest.mark.parametrize("searcher", LONGEST)
def test_stopped_after_any_trial_and_resumed_it_is_the_identical_study(searcher):
    trials = fewer(make(searcher), 20)
    whole = run(searcher, trials)
    for stop in range(1, trials):
        assert run(searcher, stop, trials) == whole


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("searcher", LONG)
def test_stopped_and_resumed_on_every_space(searcher, space):
    made = registry.make("space", space)
    scored = Problem(made, (Objective("score", "maximize"),))
    part = make(searcher, made)
    if check_refusal(part, scored):
        return

    def study(storage):
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


@pytest.mark.parametrize("searcher", MANY)
def test_on_random_scores_no_searcher_beats_random_draws(searcher):
    """The mean score of what is proposed stays that of the space: nothing leaks from the future."""
    made = make(searcher, letters(8))
    given = fitting(made) if refusal(made, problem(letters(8))) else problem(letters(8))
    budget = Budget(trials=fewer(made, 60, given))
    scores = []
    for seed in range(12):
        study = Study("s", given, made, Hashed(seed), open_storage("memory"), seed=seed)
        scores += [t.metrics["score"] for t in study.run(budget) if t.reused is None]
    mean = sum(scores) / len(scores)
    assert abs(mean - 0.5) < 4 * (1 / 12) ** 0.5 / len(scores) ** 0.5


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_limits_are_kept_in_what_is_proposed(searcher):
    space = registry.make("space", "nasbench201", {"channels": 4, "cells": 1})
    rng = random.Random(0)
    sizes = sorted(space.complexity(sample(space, rng)).params for _ in range(30))
    bound = Problem(space, (Objective("score", "maximize"),), limits={"params": sizes[10]})
    made = make(searcher, space)
    if check_refusal(made, bound):
        return
    study = Study("s", bound, made, Hashed(), open_storage("memory"))
    trials = study.run(Budget(trials=30))
    assert all(t.infeasible is None for t in trials)
    assert all(space.complexity(t.architecture).params <= sizes[10] for t in trials)
