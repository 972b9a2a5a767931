"""NSGA-II against Optuna's own on a live study, and on trees."""

from __future__ import annotations

import optuna
import pytest

from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.mirror import seed
from nas.problem import Objective, Problem
from nas.searchers.nsga2 import NSGA2
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.trial import History, Trial
from tests.searchers.words import Matches, trees, word, words
from tests.toys import letters

NUM_TRIALS = 60


def live_words(num_objectives, given):
    """The words that Optuna's sampler suggests on a study of its own, sown anew for every trial."""
    directions = ["maximize", "minimize"][:num_objectives]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=directions)
    found = []
    for number in range(NUM_TRIALS):
        study.sampler = optuna.samplers.NSGAIISampler(
            population_size=given.population_size,
            crossover_prob=given.crossover_probability,
            swapping_prob=given.swapping_probability,
            mutation_prob=given.mutation_probability,
            seed=seed(Context(seed=5, number=number)),
        )
        trial = study.ask()
        text = "".join(trial.suggest_categorical(f"p{i}", list("abcde")) for i in range(10))
        values = [sum(map(str.__eq__, text, "abcdeabcde")), text.count("a")]
        study.tell(trial, values[:num_objectives])
        found.append(text)
    return found


@pytest.mark.parametrize("mutation_probability", [None, 0.3], ids=["default", "often"])
@pytest.mark.parametrize("num_objectives", [1, 2])
def test_on_the_mirror_it_is_optunas_on_a_live_study_of_the_same_seed(
    num_objectives, mutation_probability
):
    searcher = NSGA2(population_size=8, mutation_probability=mutation_probability, redraws=0)
    problem = words(num_objectives)
    study = Study("s", problem, searcher, Matches(), open_storage("memory"), seed=5)
    trials = study.run(Budget(trials=NUM_TRIALS))
    assert [word(t.architecture) for t in trials] == live_words(num_objectives, searcher)


def test_stopped_at_every_trial_it_is_the_same_as_the_live_study():
    searcher, storage = NSGA2(population_size=8, redraws=0), open_storage("memory")
    for stop in range(1, NUM_TRIALS + 1):
        trials = Study("s", words(2), searcher, Matches(), storage, seed=5).run(Budget(trials=stop))
    assert [word(t.architecture) for t in trials] == live_words(2, searcher)


def test_a_child_that_was_tried_is_made_again():
    problem = Problem(letters(10), words().objectives)
    run = [
        Study("s", problem, NSGA2(population_size=8, redraws=n), Matches(), open_storage("memory"))
        for n in (0, 20)
    ]
    texts = [[str(t.architecture) for t in study.run(Budget(trials=80))] for study in run]
    assert len(set(texts[1])) > len(set(texts[0]))
    assert len(set(texts[1])) == 80


def test_trees_cross_and_mutate_towards_better_ones():
    """Ten seeds: the last fifth of 100 trials is better than the first, which is random."""
    problem = Problem(trees(), (Objective("matches", "maximize"),))
    gains = []
    for number in range(10):
        searcher = NSGA2(population_size=10)
        study = Study("s", problem, searcher, Matches(), open_storage("memory"), seed=number)
        scores = [t.metrics["matches"] for t in study.run(Budget(trials=100))]
        gains.append(sum(scores[80:]) / 20 - sum(scores[:20]) / 20)
    assert min(gains) > 0


def test_parents_are_selected_anew_when_a_trial_of_an_earlier_generation_comes_late():
    """A worker that asked before it came and one that did not propose the same."""
    problem, searcher = words(2), NSGA2(population_size=4, redraws=0)
    early, late = History(problem.key), History(problem.key)
    for number in range(9):
        proposal = searcher.propose(problem, early, Context(number=number))
        found = Matches().evaluate(problem, proposal.architecture, Context()).metrics
        attributes = proposal.system_attributes
        trial = Trial(number, proposal.architecture, found, system_attributes=attributes)
        early.add(trial)
        late.add(trial)
    best = problem.space.parse("word(b, b, c, d, e, b, b, c, d, e)")
    found = Matches().evaluate(problem, best, Context()).metrics
    straggler = Trial(9, best, found, system_attributes={"NSGAIISampler:generation": 0})
    early.add(straggler)
    late.add(straggler)
    for number in range(10, 30):
        context = Context(number=number)
        assert searcher.propose(problem, early, context) == searcher.propose(problem, late, context)


@pytest.mark.parametrize(
    "given", [{"population_size": 1}, {"mutation_probability": 1.5}, {"swapping_probability": -1}]
)
def test_settings_that_cannot_be_are_refused(given):
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        NSGA2(**given)
