"""Variation where siblings constrain each other, and enumeration of what has no end."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from nas import registry
from nas.errors import NasgramError
from nas.evaluation import Context
from nas.grammar import Misfit, Rule, terminal, values
from nas.problem import Objective, Problem
from nas.space import SearchSpace, Signature
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.trial import History
from nas.variation import crossover, mutate, neighbors
from tests.toys import Hashed


def grows(spec, first, second):
    if first(spec) >= second(spec):
        raise Misfit("must grow")
    return spec


GROWING = SearchSpace(
    "Net",
    {"Net": [Rule("mlp", {"a": "W", "b": "W"}, grows, None)], "W": values(1, 2, 3, 4)},
    Signature((2,), (2,)),
)
ALL = list(GROWING.enumerate())


@pytest.mark.parametrize("parent", ALL, ids=str)
def test_mutants_and_children_are_admissible(parent):
    rng = random.Random(0)
    for other in ALL:
        child = crossover(GROWING, parent, other, rng)
        mutant = mutate(GROWING, parent, rng)
        assert GROWING.contains(child)
        assert GROWING.contains(mutant)
        assert mutant != parent


def test_every_architecture_is_reached_by_mutation():
    rng, seen = random.Random(1), {ALL[0]}
    for _ in range(300):
        seen.add(mutate(GROWING, rng.choice(sorted(seen, key=str)), rng))
    assert seen == set(ALL)


@pytest.mark.parametrize("parent", ALL, ids=str)
def test_neighbors_differ_in_one_choice(parent):
    for neighbor in neighbors(GROWING, parent, random.Random(0)):
        different = [x != y for x, y in zip(parent.children, neighbor.children, strict=True)]
        assert sum(different) == 1


@pytest.mark.parametrize("searcher", registry.parts("searcher"))
def test_searchers_get_through_the_whole_space(searcher):
    problem = Problem(GROWING, (Objective("score", "maximize"),))
    made = registry.make("searcher", searcher)
    try:
        made.propose(problem, History(), Context())
    except NasgramError as refusal:  # in a sentence, as the searcher contract asks
        pytest.skip(str(refusal))
    trials = Study("s", problem, made, Hashed(), open_storage("memory")).run(Budget(trials=60))
    assert {t.architecture for t in trials} == set(ALL)


def test_what_is_infinite_is_enumerated_smallest_first():
    pair = Rule("pair", {"a": "Tree", "b": "Tree"}, lambda s, a, b: b(a(s)), None)
    trees = SearchSpace("Tree", {"Tree": [pair, terminal("leaf", None)]}, 1)
    sizes = [sum(1 for _ in tree.nodes()) for tree in islice(trees.enumerate(), 30)]
    assert sizes == sorted(sizes)
    assert [sizes.count(n) for n in (1, 3, 5, 7)] == [1, 1, 2, 5]  # Catalan numbers
