"""Evolution from given architectures."""

from __future__ import annotations

import pytest

from nas.errors import SearchSpaceError
from nas.problem import Objective, Problem
from nas.searchers.regularized_evolution import RegularizedEvolution
from nas.space import Signature
from nas.starting import Start
from nas.storage import open_storage
from nas.study import Budget, Study
from search_spaces.einspace import einspace
from tests.toys import Hashed

PLAIN = "network(sequential(computation(relu), computation(norm)))"


def run(start, trials=12):
    space = einspace(max_nodes=40).at(Signature((3, 32, 32), (10,)))
    problem = Problem(space, (Objective("score", "maximize"),))
    searcher = RegularizedEvolution(population_size=5, tournament_size=3, start=Start(start))
    return Study("s", problem, searcher, Hashed(), open_storage("memory")).run(Budget(trials=trials))


def test_what_is_given_is_tried_first_and_then_varied():
    trials = run(("resnet18", PLAIN))
    assert [len(list(t.architecture.nodes())) > 200 for t in trials[:2]] == [True, False]
    assert str(trials[1].architecture) == PLAIN
    assert all("parent" in trial.notes for trial in trials[2:])
    assert trials[2].notes["parent"] in (0, 1)


def test_it_never_ends_below_what_it_began_with():
    trials = run((PLAIN,))
    scores = [trial.metrics["score"] for trial in trials]
    assert max(scores) >= scores[0]


def test_what_is_not_in_the_space_is_refused():
    with pytest.raises(SearchSpaceError, match="resnet99"):
        run(("resnet99",))
