"""What all of Optuna's samplers keep as searchers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from torch import nn

from nas import registry
from nas.evaluation import Context
from nas.grammar import Misfit, Rule, terminal
from nas.mirror import Mirror, mirror, seed
from nas.parameters import parameters
from nas.problem import Objective, Problem
from nas.space import SearchSpace, Signature
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.trial import History, Trial
from nas.variation import sample
from tests.searchers.words import Matches, trees, word, words
from tests.toys import Hashed, letters

SAMPLERS = ["tpe", "nsga2", "gp"]
GP_SETTINGS = {"initial_size": 5, "most_choices": 6}
SMALL = {"tpe": {"initial_size": 5}, "nsga2": {"population_size": 5}, "gp": GP_SETTINGS}


def made(name, **settings):
    return registry.make("searcher", name, SMALL[name] | settings)


def study(name, problem, evaluator=None, storage=None, **settings):
    part = made(name, **settings)
    return Study("s", problem, part, evaluator or Matches(), storage or open_storage("memory"))


def a_history(problem, trials):
    history = History(problem.key)
    for trial in trials:
        history.add(trial)
    return history


def scored(problem, numbers, *, searcher=None):
    """Finished trials of random words, with the attributes that a searcher gave them."""
    history = History(problem.key)
    for number in numbers:
        context = Context(seed=3, number=number)
        if searcher is None:
            architecture, attributes = problem.sample(context.rng), {}
        else:
            proposal = searcher.propose(problem, history, context)
            architecture, attributes = proposal.architecture, proposal.system_attributes
        found = Matches().evaluate(problem, architecture, context).metrics
        history.add(Trial(number, architecture, found, system_attributes=attributes))
    return history.trials


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_objectives", [1, 2])
def test_a_proposal_follows_from_the_history_however_it_came_to_be(name, num_objectives):
    problem, searcher = words(num_objectives), made(name)
    trials = scored(problem, range(14), searcher=searcher)
    kept = History(problem.key)
    for trial in trials:
        kept.add(trial)
        kept.running = [sample(problem.space, random.Random(trial.number))]
        if trial.number % 3 == 0:
            searcher.propose(problem, kept, Context(seed=9, number=trial.number))  # asked in between
    kept.running = []
    fresh = a_history(problem, trials)
    for number in (14, 15):
        context = Context(seed=3, number=number)
        assert searcher.propose(problem, kept, context) == searcher.propose(problem, fresh, context)


@pytest.mark.parametrize("name", SAMPLERS)
def test_several_objectives_are_searched_and_resumed(name):
    problem, storage = words(2), open_storage("memory")
    whole = [t.architecture for t in study(name, problem).run(Budget(trials=14))]
    for stop in (3, 9, 14):
        trials = study(name, problem, storage=storage).run(Budget(trials=stop))
    assert [t.architecture for t in trials] == whole


@pytest.mark.parametrize("name", SAMPLERS)
def test_options_of_weight_0_are_never_drawn(name):
    rules = [terminal(n, lambda spec: nn.Identity(), weight=float(n != "b")) for n in "abc"]
    pair = Rule("pair", {"x": "L", "y": "L"}, lambda spec, x, y: y(x(spec)), None)
    space = SearchSpace("P", {"P": [pair], "L": rules}, Signature((1,), (1,)))
    problem = Problem(space, (Objective("score", "maximize"),))
    trials = study(name, problem, Hashed()).run(Budget(trials=16))
    assert not any("b" in word(t.architecture) for t in trials)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_option_that_does_not_fit_is_drawn_again(name):
    def differ(spec, *children):
        if len({child(spec) for child in children}) < len(children):
            raise Misfit("all different")
        return spec

    def letter(name):
        return Rule(name, {}, lambda spec: name, None)

    word_of_three = Rule("word", {"x": "L", "y": "L", "z": "L"}, differ, None)
    space = SearchSpace("W", {"W": [word_of_three], "L": [letter(n) for n in "abcd"]}, 0)
    problem = Problem(space, (Objective("score", "maximize"),))
    trials = study(name, problem, Hashed()).run(Budget(trials=16))
    assert len(trials) == 16
    assert all(len(set(word(t.architecture))) == 3 for t in trials)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_recursive_space_is_searched(name):
    problem = Problem(trees(), (Objective("matches", "maximize"), Objective("size", "minimize")))
    trials = study(name, problem).run(Budget(trials=14))
    assert len(trials) == 14
    assert len({t.architecture for t in trials}) > 7


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_limit_that_is_measured_is_learned_as_a_constraint(name):
    problem = words(length=4, first=1.0)  # words that begin with a or b, 2 of 5 by chance
    kept = []
    for number in range(2 if name == "gp" else 8):
        made_study = replace(study(name, problem), seed=number)
        kept += [t.completed for t in made_study.run(Budget(trials=24))[12:]]
    assert sum(kept) / len(kept) > 0.6


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_what_was_tried_is_not_tried_again_while_there_is_more(name):
    problem = Problem(letters(4, "ab"), (Objective("score", "maximize"),))
    trials = study(name, problem, Hashed()).run(Budget(trials=18))
    assert len({str(t.architecture) for t in trials[:14]}) == 14
    assert len(trials) == 18  # more than the 16 that there are: it ends all the same


@pytest.mark.parametrize("name", SAMPLERS)
def test_running_trials_are_not_proposed(name):
    problem, searcher = words(), made(name)
    trials = scored(problem, range(12))
    history = a_history(problem, trials)
    context = Context(number=12)
    first = searcher.propose(problem, history, context).architecture
    history.running = [first]
    assert searcher.propose(problem, history, context).architecture != first


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_follow_from_the_study_and_the_number(name):
    assert seed(Context(seed=1, number=2)) == seed(Context(seed=1, number=2, device="cuda"))
    assert len({seed(Context(seed=s, number=n)) for s in range(9) for n in range(9)}) == 81


def test_attributes_of_the_sampler_reach_the_trial_and_its_retry():
    storage = open_storage("memory")
    one = study("nsga2", words(), storage=storage)
    one.run(Budget(trials=11))
    generations = [t.system_attrs["NSGAIISampler:generation"] for t in storage.get_all_trials(0)]
    assert generations == [0] * 5 + [1] * 5 + [2]

    record = one.open()
    record.refresh()
    assert [t.system_attributes["NSGAIISampler:generation"] for t in record.history] == generations


def test_a_retried_trial_keeps_its_attributes():
    storage, problem = open_storage("memory"), words()
    searcher = made("nsga2")
    interrupted = study("nsga2", problem, _Interrupted(), storage)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(Budget(trials=3))
    trials = Study("s", problem, searcher, Matches(), storage).run(Budget(trials=3))
    assert [t.system_attributes for t in trials] == [{"NSGAIISampler:generation": 0}] * 3


class _Interrupted(Matches):
    """Is stopped by hand at once."""

    def evaluate(self, problem, architecture, context):
        raise KeyboardInterrupt


def test_the_mirror_holds_what_samplers_can_use():
    problem = words(first=2.0)
    image = Mirror(problem, lambda a: parameters(problem.space, a))
    a = problem.sample(random.Random(0))
    good = {"matches": 3.0, "size": 1.0, "first": 1.0}
    for trial in (
        Trial(0, a, good),
        Trial(1, a, good | {"first": 4.0}, infeasible="first 4 exceeds the limit of 2"),
        Trial(2, a, {}, infeasible="out of memory"),
        Trial(3, a, {"matches": 2.0}, pruned=True, cost=7.0),
    ):
        image.add(trial)
    whole, exceeding, broken, pruned = image.frozen_trials()
    assert (whole.state.name, whole.values, whole.constraints) == ("COMPLETE", [3.0], {"first": -1.0})
    assert (exceeding.state.name, exceeding.constraints) == ("COMPLETE", {"first": 2.0})
    assert (broken.state.name, broken.constraints) == ("PRUNED", {"infeasible": 1.0})
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {7: 2.0})


def test_a_history_keeps_one_mirror_for_an_owner():
    problem = words()
    history = a_history(problem, scored(problem, range(3)))
    first = mirror("owner", problem, history)
    assert mirror("owner", problem, history) is first
    assert mirror("other", problem, history) is not first
    assert mirror("owner", replace(problem), history) is not first
    assert first.num_trials == 3
