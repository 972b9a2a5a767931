"""The Gaussian process: better than chance with few trials, and spaces whose choices come and go."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from nas.errors import ConfigurationError
from nas.problem import Objective, Problem
from nas.searchers.gp import ABSENT, GP, Common, common
from nas.searchers.random import Random
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.variation import sample
from tests.searchers.words import Matches, trees, words
from tests.toys import letters


def run(searcher, seed, trials, storage=None):
    study = Study("s", words(), searcher, Matches(), storage or open_storage("memory"), seed=seed)
    return study.run(Budget(trials=trials))


def test_with_22_trials_it_is_ahead_of_random_search():
    """Of 10 letters 2 match by chance."""
    found = {}
    for searcher in (GP(), Random()):
        found[searcher] = mean(
            mean(t.metrics["matches"] for t in run(searcher, seed, 22)[16:]) for seed in range(2)
        )
    assert found[GP()] > found[Random()] + 1


def test_stopped_and_resumed_it_is_the_identical_study():
    whole = [t.architecture for t in run(GP(initial_size=5), 0, 14)]
    storage = open_storage("memory")
    for stop in (4, 6, 9, 14):
        trials = run(GP(initial_size=5), 0, stop, storage)
    assert [t.architecture for t in trials] == whole


def test_choices_that_some_architectures_lack_may_be_absent():
    found = common(trees(), 7)
    assert len(found) == 7
    assert ABSENT not in found["Tree"].choices
    assert all(ABSENT in d.choices for name, d in found.items() if name != "Tree")


def test_choices_that_all_have_are_the_choices():
    found = common(letters(), 32)
    assert [d.choices for d in found.values()] == [tuple("abcde")] * 6


def test_every_architecture_is_encoded_by_the_same_parameters():
    space = trees()
    encode = Common(space, common(space, 12))
    for number in range(50):
        made = encode(sample(space, random.Random(number)))
        assert made.values.keys() == encode.distributions.keys()
        assert all(made.values[n] in d.choices for n, d in encode.distributions.items())


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="most_choices is 0"):
        GP(most_choices=0)


def test_a_recursive_problem_is_proposed_for():
    problem = Problem(trees(), (Objective("matches", "maximize"),))
    study = Study("s", problem, GP(initial_size=4), Matches(), open_storage("memory"))
    assert len(study.run(Budget(trials=6))) == 6
