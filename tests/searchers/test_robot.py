"""RoBoT on a pool whose objective is a known mix of three metrics, one with a negative weight."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pytest
from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError, DataError, SearchSpaceError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.pool_source import Source
from nas.problem import Objective, Problem
from nas.ranking import precision_at
from nas.searchers.random import Random
from nas.searchers.robot import Robot
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.task import Metric
from nas.trial import History
from tests.pools.making import pool_of, written
from tests.toys import letters

SPACE = letters(5, "abcd")
TEXTS = tuple(str(a) for a in SPACE.enumerate())  # 1,024
TRUE = {"a": 1.0, "b": 0.6, "c": -0.8}
COLUMNS = dict(zip(TRUE, np.random.default_rng(0).random((3, len(TEXTS))), strict=True))
SCORES = sum(TRUE[n] * COLUMNS[n] for n in TRUE)
ROWS = {text: row for row, text in enumerate(TEXTS)}


@dataclass(frozen=True)
class Looked(Evaluator):
    """Scores looked up; NaN is infeasible. Counts how often it is asked."""

    scores: np.ndarray = field(default_factory=lambda: SCORES)
    asked: list[str] = field(default_factory=list)

    @property
    def cost_unit(self) -> str:
        return "evaluations"

    @property
    def needs_task(self) -> bool:
        return False

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (Metric("score", "", "maximize"),)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        self.asked.append(str(architecture))
        return Evaluation({"score": float(self.scores[ROWS[str(architecture)]])})

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}


PROBLEM = Problem(SPACE, (Objective("score", "maximize"),))


@pytest.fixture
def file(tmp_path):
    return written(pool_of(TEXTS, COLUMNS), tmp_path / "pool.npz")


def run(searcher, *, trials=20, seed=0, evaluator=None, problem=PROBLEM):
    study = Study("s", problem, searcher, evaluator or Looked(), open_storage("memory"), seed=seed)
    return study.run(Budget(trials=trials))


def best(trials):
    return max(t.metrics["score"] for t in trials if t.completed)


def last_weights(trials):
    return trials[-1].notes["weights"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    path = written(pool_of(TEXTS, COLUMNS), tmp_path_factory.mktemp("pool") / "pool.npz")
    return [run(Robot(Source(path)), seed=seed) for seed in range(20)]


def test_the_learned_weights_have_the_true_signs(studies):
    signs = [[np.sign(last_weights(trials)[n]) == np.sign(TRUE[n]) for n in TRUE] for trials in studies]
    assert np.mean(signs) > 0.9
    assert np.mean([s[2] for s in signs]) > 0.9  # the negative one


def test_the_learned_mix_is_more_precise_than_every_metric_alone(studies):
    learned = [
        precision_at(sum(last_weights(t)[n] * COLUMNS[n] for n in TRUE), SCORES, 20) for t in studies
    ]
    alone = [precision_at(np.sign(TRUE[n]) * COLUMNS[n], SCORES, 20) for n in TRUE]
    assert np.mean(learned) > max(alone)


def test_its_regret_is_below_that_of_random_search(studies):
    drawn = [best(run(Random(), seed=seed)) for seed in range(20)]
    regret, random_regret = (max(SCORES) - np.mean(x) for x in ([best(t) for t in studies], drawn))
    assert regret < random_regret / 4


def test_exploitation_pays_where_metrics_tell_much_and_not_all(file):
    noises = np.random.default_rng(0).normal(0, 0.3, (16, len(SCORES)))
    part, whole = (
        [
            best(run(Robot(Source(file), exploration=e), seed=s, evaluator=Looked(SCORES + noise)))
            for s, noise in enumerate(noises)
        ]
        for e in (0.75, 1.0)
    )
    assert np.mean(part) > np.mean(whole)


def test_the_budget_counts_distinct_architectures_and_none_is_evaluated_twice(file):
    evaluator = Looked()
    trials = run(Robot(Source(file), budget=12), trials=40, evaluator=evaluator)
    assert len(evaluator.asked) == len(set(evaluator.asked)) == len(trials) == 12


def test_a_share_of_the_budget_explores_and_the_rest_exploits(studies):
    for trials in studies:
        assert [t.notes["phase"] for t in trials] == ["exploration"] * 15 + ["exploitation"] * 5


def test_where_no_weights_choose_anything_new_the_best_are_exploited(file):
    trials = run(Robot(Source(file, ("a",)), exploration=1.0))  # the most or the least of one metric
    assert [t.notes["phase"] for t in trials] == ["exploration"] * 2 + ["exploitation"] * 18


def test_exploitation_goes_down_the_ranking_of_the_best_weights(studies):
    for trials in studies:
        exploited = [t for t in trials if t.notes["phase"] == "exploitation"]
        weights = last_weights(trials)
        ranks = np.argsort(np.argsort(np.stack([COLUMNS[n] for n in TRUE]), axis=1), axis=1)
        scores = np.array([weights[n] for n in TRUE]) @ ranks
        values = [scores[ROWS[str(t.architecture)]] for t in exploited]
        assert values == sorted(values, reverse=True)


def test_every_trial_notes_its_weights_and_precision(studies):
    for trial in studies[0][2:]:
        assert trial.notes["weights"].keys() == TRUE.keys()
        assert all(-1 <= w <= 1 for w in trial.notes["weights"].values())
        precision = trial.notes["precision"]
        assert precision["at"] == trial.number // 2
        assert precision["metrics"].keys() == TRUE.keys()
        assert 0 <= precision["mix"] <= 1


def test_of_equal_values_the_later_weights_are_kept(file):
    trials = run(Robot(Source(file)), evaluator=Looked(np.ones(len(TEXTS))))
    later = trials[14].notes
    assert later["phase"] == "exploration"
    assert all(t.notes["weights"] == later["weights"] for t in trials[15:])


def test_more_metrics_than_evaluations_do_no_harm(tmp_path):
    noise = dict(enumerate(np.random.default_rng(1).random((22, len(TEXTS)))))
    columns = COLUMNS | {f"noise {i}": column for i, column in noise.items()}
    source = Source(written(pool_of(TEXTS, columns), tmp_path / "p.npz"))
    found, drawn = ([best(run(s, seed=seed)) for seed in range(20)] for s in (Robot(source), Random()))
    regret, random_regret = (max(SCORES) - np.mean(x) for x in (found, drawn))
    assert regret < 0.6 * random_regret


def test_architectures_without_any_metric_are_left_out_and_a_missing_one_counts_0(tmp_path):
    columns = {n: column.copy() for n, column in COLUMNS.items()}
    for column in columns.values():
        column[::2] = np.nan
    columns["a"][1::4] = np.nan
    source = Source(written(pool_of(TEXTS, columns), tmp_path / "p.npz"))
    assert source.candidates(PROBLEM).texts == TEXTS[1::2]
    trials = run(Robot(source))
    assert len(trials) == 20
    assert all(ROWS[str(t.architecture)] % 2 for t in trials)


def test_a_constant_metric_does_no_harm(tmp_path):
    columns = COLUMNS | {"d": np.ones(len(TEXTS))}
    assert len(run(Robot(Source(written(pool_of(TEXTS, columns), tmp_path / "p.npz"))))) == 20


def test_it_goes_on_where_everything_is_infeasible_or_far_below_zero(file):
    infeasible = run(Robot(Source(file)), evaluator=Looked(np.full(len(TEXTS), np.nan)))
    assert len(infeasible) == 20
    below = run(Robot(Source(file)), evaluator=Looked(SCORES - 1e6))
    assert best(below) > np.quantile(SCORES - 1e6, 0.99)


def test_less_is_better_where_the_objective_says_so(file):
    problem = Problem(SPACE, (Objective("score", "minimize"),))
    trials = run(Robot(Source(file)), problem=problem)
    assert min(t.metrics["score"] for t in trials) < np.quantile(SCORES, 0.01)


def test_the_objective_itself_is_no_metric_to_rank_by(tmp_path):
    pool = pool_of(TEXTS, COLUMNS | {"score": SCORES})
    assert Source(written(pool, tmp_path / "p.npz")).candidates(PROBLEM).names == tuple(TRUE)


def test_what_an_architecture_takes_is_no_metric_unless_named(file):
    pool = pool_of(TEXTS, COLUMNS)
    taken = {"c": replace(pool.metrics["c"], resource=True)}
    written(replace(pool, metrics=pool.metrics | taken), file)
    assert Source(file).candidates(PROBLEM).names == ("a", "b")
    assert Source(file, ("a", "c")).candidates(PROBLEM).names == ("a", "c")
    every = {n: replace(m, resource=True) for n, m in pool.metrics.items()}
    written(replace(pool, metrics=every), file)
    with pytest.raises(ConfigurationError, match="METRIC:DIRECTION, of a, b, c"):
        Source(file).candidates(PROBLEM)


def test_a_pool_smaller_than_the_budget_is_used_up(tmp_path):
    rows = random.Random(0).sample(range(len(TEXTS)), 7)
    pool = pool_of([TEXTS[r] for r in rows], {n: c[rows] for n, c in COLUMNS.items()})
    assert len(run(Robot(Source(written(pool, tmp_path / "p.npz"))))) == 7


def test_what_runs_elsewhere_is_not_proposed_again(file):
    context, history = Context(), History()
    first = Robot(Source(file)).propose(PROBLEM, history, context)
    history.running = [first.architecture]
    second = Robot(Source(file)).propose(PROBLEM, history, replace(context, number=1))
    assert second.architecture != first.architecture


def test_what_cannot_be_searched_is_refused_in_a_sentence(file, tmp_path):
    two = Problem(SPACE, (Objective("score", "maximize"),) * 2)
    for source, problem, error, said in (
        (Source(), PROBLEM, ConfigurationError, "--set pool=FILE"),
        (Source(tmp_path / "none.npz"), PROBLEM, DataError, "there is no file"),
        (Source(file, ("d",)), PROBLEM, DataError, "not a metric of the pool"),
        (Source(file, ("a:up",)), PROBLEM, ConfigurationError, "METRIC:DIRECTION"),
        (Source(file), two, ConfigurationError, "one objective"),
        (Source(file), Problem(letters(3), PROBLEM.objectives), SearchSpaceError, "word"),
    ):
        with pytest.raises(error, match=said):
            run(Robot(source), problem=problem)


def test_the_best_of_a_mix_is_the_first_of_the_best_within_the_limits(file):
    space = registry.make("space", "nasbench201")
    texts = tuple(str(a) for a in islice(space.enumerate(), 0, None, 40))
    columns = dict(
        zip("abc", np.random.default_rng(0).integers(0, 9, (3, len(texts))) / 9, strict=True)
    )
    written(pool_of(texts, columns), file)
    params = np.array([space.complexity(space.parse(text)).metrics()["params"] for text in texts])
    limits = {"params": float(np.quantile(params, 0.4))}
    problem = Problem(space, PROBLEM.objectives, limits=limits)
    candidates = Source(file).candidates(problem)
    weights = np.random.default_rng(1).uniform(-1, 1, (30, 3))
    tops = candidates.tops(candidates.values, weights, problem)
    scores = candidates.values @ weights.T
    scores[params > limits["params"]] = -np.inf
    np.testing.assert_array_equal(tops, scores.argmax(axis=0))
    none = Problem(space, PROBLEM.objectives, limits={"params": 0})
    assert len(candidates.tops(candidates.values, weights, none)) == 0


@pytest.mark.parametrize("settings", [{"budget": 0}, {"kappa": -1.0}, {"exploration": 0.0}], ids=str)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Robot(Source(), **settings)


@pytest.mark.parametrize("change", ["columns", "rows"])
def test_a_pool_that_is_another_one_than_the_trials_came_from_is_refused(file, change):
    trials = run(Robot(Source(file)), trials=3)
    history = History()
    for trial in trials:
        history.add(trial)
    rows = {"columns": range(len(TEXTS)), "rows": range(100)}[change]
    columns = COLUMNS if change == "rows" else COLUMNS | {"d": COLUMNS["a"] ** 2}
    written(pool_of([TEXTS[r] for r in rows], {n: c[list(rows)] for n, c in columns.items()}), file)
    with pytest.raises(ConfigurationError, match="not the pool that trial 0 came from"):
        Robot(Source(file)).propose(PROBLEM, history, Context(number=3))
