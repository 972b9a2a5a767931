"""TPE: better than chance where there is something to learn."""

from __future__ import annotations

from statistics import mean, stdev

import pytest

from nas.errors import ConfigurationError
from nas.problem import Objective, Problem
from nas.searchers.random import Random
from nas.searchers.tpe import TPE
from nas.storage import open_storage
from nas.study import Budget, Study
from tests.searchers.words import Matches, trees, word, words

SEEDS = range(10)


def run(searcher, seed, problem=None, evaluator=None, trials=60):
    storage = open_storage("memory")
    study = Study("s", problem or words(), searcher, evaluator or Matches(), storage, seed=seed)
    return study.run(Budget(trials=trials))


@pytest.mark.parametrize("multivariate", [True, False])
def test_it_beats_random_search_at_equal_budget(multivariate):
    """Six seeds of 60 trials: the paired difference of the best is above 0 by 3 standard errors."""
    differences = [
        max(t.metrics["matches"] for t in run(TPE(multivariate=multivariate), seed))
        - max(t.metrics["matches"] for t in run(Random(), seed))
        for seed in SEEDS[:6]
    ]
    assert mean(differences) > 3 * stdev(differences) / len(differences) ** 0.5
    assert mean(differences) > 1


def test_it_learns_on_trees_where_trials_have_been():
    problem = Problem(trees(), (Objective("matches", "maximize"),))
    late = [mean(t.metrics["matches"] for t in run(TPE(), s, problem, trials=80)[60:]) for s in SEEDS]
    random = [mean(t.metrics["matches"] for t in run(Random(), s, problem)[40:]) for s in SEEDS]
    assert mean(late) > mean(random) + 3 * (stdev(late) ** 2 + stdev(random) ** 2) ** 0.5 / 10**0.5


def test_it_does_not_propose_one_word_twice():
    texts = [str(t.architecture) for t in run(TPE(), 0, trials=120)]
    assert len(set(texts)) == 120


def test_it_learns_where_trials_are_infeasible():
    """Words that begin with "a" are refused: by chance one of five."""
    begins = []
    for seed in SEEDS:
        trials = run(TPE(), seed, evaluator=Matches(refused="a"))
        begins += [word(t.architecture)[0] == "a" for t in trials[20:]]
    assert mean(begins) < 0.1


def test_the_startup_follows_the_weights_of_the_grammar():
    """A branch has weight 2 of 7, so that of all nodes 2 of 7 are branches."""
    trials = run(TPE(initial_size=400, redraws=0), 0, Problem(trees(), words().objectives), trials=400)
    rules = [node.rule for t in trials for _, node in t.architecture.nodes()]
    share = rules.count("branch") / len(rules)
    assert abs(share - 2 / 7) < 4 * (2 / 7 * 5 / 7 / len(rules)) ** 0.5


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="num_candidates is 0"):
        TPE(num_candidates=0)
