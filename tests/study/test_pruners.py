from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from torch import Tensor

from nas import registry
from nas.architecture import Architecture
from nas.curves import Curves
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Objective, Problem
from nas.pruner import Point
from nas.pruners.hyperband import Hyperband
from nas.pruners.median import Median
from nas.pruners.none import Never
from nas.pruners.successive_halving import SuccessiveHalving, goes_on
from nas.rungs import exponent, lowest_rung, rungs
from nas.searcher import Proposal
from nas.searchers.random import Random
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.task import Metric
from tests.toys import letters, score

WORDS = letters(9)
PRUNERS = {
    "median": Median(),
    "hyperband": Hyperband(),
    "successive_halving": SuccessiveHalving(),
}
SCORE, LENGTH = Objective("score", "maximize"), Objective("length", "minimize")


@dataclass(frozen=True)
class Curved(Evaluator):
    """Words learn: score s (1 - 2^-t) after t of `steps` steps, so that curves never cross.

    `stop_at` (place, step) stops the process by hand there, while the file is.
    """

    steps: int = 9
    stop_at: tuple[int, int] = (-1, -1)
    file: Path = Path("no such file")
    report_length: bool = True

    @property
    def cost_unit(self) -> str:
        return "epochs"

    @property
    def needs_task(self) -> bool:
        return False

    @property
    def num_steps(self) -> int:
        return self.steps

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return (
            Metric("score", "", "maximize", shared=False),
            Metric("length", "", "minimize", shared=False),
        )

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        metrics = {}
        for step in range(1, self.steps + 1):
            if (context.number, step) == self.stop_at and self.file.exists():
                self.file.unlink()
                raise KeyboardInterrupt
            metrics = {"score": score(architecture) * (1 - 2.0**-step)}
            row = metrics | ({"length": length(architecture)} if self.report_length else {})
            context.report(step, row)
        return Evaluation(metrics | {"length": length(architecture)}, cost=float(self.steps))

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}


def length(architecture):
    return float(sum(c.rule in "ab" for c in architecture.children))


def study(storage=None, **fields):
    made = {
        "name": "s",
        "problem": Problem(WORDS, (SCORE,)),
        "searcher": Random(),
        "evaluator": Curved(),
        "storage": storage or open_storage("memory"),
    }
    return Study(**(made | fields))


def told(trials):
    return [(t.number, str(t.architecture), t.pruned, t.cost, dict(t.metrics)) for t in trials]


# rungs


@pytest.mark.parametrize(
    ("num_steps", "factor", "expected"),
    [(9, 3, [1, 3]), (10, 3, [2, 6]), (27, 3, [1, 3, 9]), (2, 3, [1]), (16, 4, [1, 4]), (1, 3, [])],
)
def test_rungs_spread_below_a_whole_evaluation(num_steps, factor, expected):
    assert rungs(lowest_rung(num_steps, factor), num_steps, factor) == expected


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_exponents_are_exact_where_logarithms_round(factor):
    for k in range(12):
        assert exponent(factor**k, factor) == k
        assert k == 0 or exponent(factor**k - 1, factor) == k - 1


@pytest.mark.parametrize("factor", [2, 3])
def test_as_many_go_on_as_the_closed_form_says(factor):
    """The i-th of n random arrivals has any rank alike: it goes on with max(1, floor(i / eta)) / i."""
    n = 6
    orders = list(permutations(range(n)))
    counts = [
        sum(goes_on([(v,) for v in (order[i], *order[:i])], factor) for i in range(n))
        for order in orders
    ]
    expected = sum(Fraction(max(1, i // factor), i) for i in range(1, n + 1))
    assert Fraction(sum(counts), len(orders)) == expected


@pytest.mark.parametrize(("factor", "min_resource"), [(2, 1), (3, 1), (3, 2), (4, 1)])
def test_rungs_are_filled_as_the_closed_form_says(factor, min_resource):
    """From worst to best everything goes on; from best to worst the first alone does."""
    pruner, steps, n = SuccessiveHalving(min_resource, factor), 20, 12
    for values, above in ((range(n), n), (range(n, 0, -1), 1)):
        reached = _reached(pruner, list(values), steps)
        expected = [n] + [above] * (len(pruner.rungs(steps)) - 1)
        assert [reached[rung] for rung in pruner.rungs(steps)] == expected


def _reached(pruner, values, steps):
    """How many trials reached each rung, where each has one value at every step."""
    made = study(pruner=pruner)
    record = made.open()
    curves = Curves(record, 0)
    for place, value in enumerate(values):
        record.refresh()
        claim = record.claim(Proposal(WORDS.parse(_word(place))), place)
        for step in range(1, steps):
            if pruner.prunes(
                Point(claim.trial_id, place, step, (float(value),), step - 1, steps), curves
            ):
                break
    counts = dict.fromkeys(pruner.rungs(steps), 0)
    for trial in curves.counted().values():
        for key in trial.system_attrs:
            counts[int(key.removeprefix("rung:"))] += 1
    return counts


def _word(number):
    return "word(" + ", ".join("abcde"[number // 5**i % 5] for i in range(9)) + ")"


# one objective


class PlainASHA:
    """Algorithm 2 of Li et al. on one number, promotion decided on arrival, written for clarity."""

    def __init__(self, lowest, steps, factor):
        self.factor = factor
        self.rungs = {r: [] for r in (lowest * factor**k for k in range(20)) if r < steps}

    def prunes(self, step, value):
        if step not in self.rungs:
            return False
        rung = self.rungs[step]
        rung.append(value)
        top = sorted(rung, reverse=True)[: max(1, len(rung) // self.factor)]
        return value < top[-1]


@pytest.mark.parametrize(("lowest", "factor"), [(1, 2), (1, 3), (2, 3), (1, 4)])
def test_with_one_objective_it_is_plain_asha_and_optunas(lowest, factor):
    steps = 12
    plain = PlainASHA(lowest, steps, factor)
    optunas = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.SuccessiveHalvingPruner(lowest, factor),
    )
    made = study(pruner=SuccessiveHalving(lowest, factor), evaluator=Curved(steps))
    for trial in made.run(Budget(trials=60)):
        asked, whole, stopped = optunas.ask(), steps, steps
        for step in range(1, steps):
            value = score(trial.architecture) * (1 - 2.0**-step)
            asked.report(value, step)
            if plain.prunes(step, value):
                whole = step
            if asked.should_prune():
                stopped = step
            if step in (whole, stopped):
                break
        optunas.tell(asked, state=TrialState.PRUNED)
        assert trial.cost == whole == stopped
        assert trial.pruned == (whole < steps)


@pytest.mark.parametrize("name", PRUNERS)
def test_epochs_are_saved_and_the_best_is_kept(name):
    whole = study().run(Budget(trials=60))
    made = study(pruner=PRUNERS[name])
    trials = made.run(Budget(trials=60))
    assert [str(t.architecture) for t in trials] == [str(t.architecture) for t in whole]
    assert sum(t.cost for t in trials) < 0.75 * sum(t.cost for t in whole)
    best = made.problem.front(trials)[0]
    if name != "hyperband":  # its brackets do not see each other
        assert best.architecture == made.problem.front(whole)[0].architecture
    assert not any(t.pruned and t.cost == 9 for t in trials)


def test_hyperband_keeps_the_best_of_each_bracket():
    pruner = Hyperband()
    assert [pruner.num_brackets(n) for n in (2, 9, 10, 27, 243)] == [2, 3, 3, 4, 6]
    trials = study(pruner=pruner).run(Budget(trials=80))
    first_decisions = {t.cost for t in trials if t.pruned}
    assert first_decisions == {
        1.0,
        3.0,
    }  # bracket 0 decides at 1 and 3, bracket 1 at 3, bracket 2 never


@pytest.mark.parametrize("name", PRUNERS)
def test_prunings_do_not_depend_on_the_studys_name(name):
    one, other = (study(name=n, pruner=PRUNERS[name]).run(Budget(trials=25)) for n in ("s", "t"))
    assert told(one) == told(other)


@pytest.mark.parametrize(
    ("name", "url"), [*((name, "journal") for name in PRUNERS), ("hyperband", "sqlite")]
)
def test_stopped_within_a_trial_and_resumed_it_prunes_the_same(name, url, tmp_path):
    whole = study(pruner=PRUNERS[name]).run(Budget(trials=20))
    stopped_in = next(t.number for t in whole if not t.pruned and t.number > 8)
    form = {"journal": f"journal:{tmp_path}/s.journal", "sqlite": f"sqlite:///{tmp_path}/s.db"}[url]
    file = tmp_path / "stop"
    file.touch()
    evaluator = Curved(stop_at=(stopped_in, 8), file=file)
    made = study(open_storage(form), pruner=PRUNERS[name], evaluator=evaluator)
    with pytest.raises(KeyboardInterrupt):
        made.run(Budget(trials=20))
    again = replace(made, storage=open_storage(form)).run(Budget(trials=20))
    assert told(again) == told(whole)


def test_no_trial_is_given_up_at_its_last_step():
    made = study(pruner=SuccessiveHalving(3), evaluator=Curved(steps=3))
    assert not any(t.pruned for t in made.run(Budget(trials=12)))


# several objectives


def both(pruner=None, **evaluator):
    problem = Problem(WORDS, (SCORE, LENGTH))
    return study(problem=problem, pruner=pruner or SuccessiveHalving(), evaluator=Curved(**evaluator))


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        ((1.0, 9.0), True),  # an end of the first front
        ((5.0, 6.0), False),  # in the first front of four, behind both its ends
        ((9.9, 9.9), True),  # beats everything
        ((0.5, 0.5), False),  # beaten
    ],
)
def test_promotion_of_a_hand_computed_example(newest, expected):
    """Six trials at eta 3: two may go on. The first front has the ends a and d, then b and c."""
    others = [(1.0, 9.0), (5.0, 6.0), (6.0, 5.0), (9.0, 1.0), (4.0, 5.5), (4.0, 0.5)]
    reached = [newest, *(p for p in others if p != newest)][:6]
    assert goes_on(reached, 3) is expected


def test_several_objectives_are_pruned_and_the_ends_of_the_front_survive():
    made, whole = both(), both(Never()).run(Budget(trials=60))
    trials = made.run(Budget(trials=60))
    assert sum(t.cost for t in trials) < 0.75 * sum(t.cost for t in whole)
    front = made.problem.front(trials)
    assert not any(t.pruned for t in front)
    best = max(whole, key=lambda t: t.metrics["score"]).architecture
    assert best in [t.architecture for t in front]


def test_a_pruned_trial_keeps_what_it_reported_last():
    made = both()
    trials = made.run(Budget(trials=30))
    pruned = next(t for t in trials if t.pruned)
    at = score(pruned.architecture) * (1 - 2.0**-pruned.cost)
    assert pruned.metrics == {"score": at, "length": length(pruned.architecture)}
    recorded = optuna.load_study(study_name="s", storage=made.storage).trials[pruned.number]
    assert recorded.state == TrialState.PRUNED


def test_several_objectives_resumed_prune_the_same(tmp_path):
    whole = both().run(Budget(trials=20))
    stopped_in = next(t.number for t in whole if not t.pruned and t.number > 5)
    file = tmp_path / "stop"
    file.touch()
    made = both(stop_at=(stopped_in, 5), file=file)
    with pytest.raises(KeyboardInterrupt):
        made.run(Budget(trials=20))
    assert told(made.run(Budget(trials=20))) == told(whole)


def test_curves_of_running_trials_of_other_workers_count():
    storage, pruner = open_storage("memory"), SuccessiveHalving(1, 2)
    made = study(storage, pruner=pruner)
    one, other = made.open(), made.open()
    first = one.claim(Proposal(WORDS.parse(_word(0))), 0)
    other.refresh()
    second = other.claim(Proposal(WORDS.parse(_word(1))), 1)
    assert not pruner.prunes(Point(first.trial_id, 0, 1, (5.0,), -1, 9), Curves(one, 0))
    assert pruner.prunes(Point(second.trial_id, 1, 1, (4.0,), -1, 9), Curves(other, 0))


def test_a_rung_that_no_row_falls_on_is_reached_by_the_next_row():
    made = study()
    record = made.open()
    claim = record.claim(Proposal(WORDS.parse(_word(0))), 0)
    curves, pruner = Curves(record, 0), SuccessiveHalving(2, 3)
    pruner.prunes(Point(claim.trial_id, 0, 7, (5.0,), 1, 20), curves)
    assert curves.counted()[0].system_attrs == {"rung:2": [5.0], "rung:6": [5.0]}


def test_an_objective_that_is_known_only_afterwards_is_told():
    made = both(report_length=False)
    with pytest.raises(ConfigurationError, match='"length" is not known while a trial trains'):
        made.run(Budget(trials=3))


def test_parameters_are_known_though_no_row_has_them():
    import nas
    from nas.configuration import PartConfiguration, SearchConfiguration, make

    part = PartConfiguration
    training = part("training", {"epochs": 3, "optimizer": "adam"})
    objectives = (Objective("rmse", "minimize"), Objective("params", "minimize"))
    for evaluators in ((part("complexity"), training), (training, part("complexity"))):
        search = SearchConfiguration(
            part("kan", {"widths": (4, 6), "depths": (1, 2)}),
            part("random"),
            evaluators,
            part("function_fit", {"num_train": 64}),
            objectives,
            pruner=part("successive_halving", {"reduction_factor": 2}),
        )
        made = make(search)
        built = nas.Study("s", made.problem, made.searcher, made.evaluator, open_storage("memory"))
        trials = replace(built, pruner=made.pruner).run(Budget(trials=8))
        recorded = optuna.load_study(study_name="s", storage=built.storage).trials
        pruned = [t for t in trials if t.pruned]
        assert pruned
        for trial in pruned:
            at = recorded[trial.number].system_attrs["rung:2"]
            assert -at[1] == made.problem.space.complexity(trial.architecture).params


# what is refused


@pytest.mark.parametrize("name", ["median", "hyperband"])
def test_optunas_pruners_refuse_several_objectives_and_name_ours(name):
    with pytest.raises(ConfigurationError, match="has 2; use the pruner successive_halving"):
        both(PRUNERS[name])


@pytest.mark.parametrize("name", PRUNERS)
def test_an_evaluator_without_a_curve_is_refused(name):
    with pytest.raises(ConfigurationError, match="this evaluator reports no curve"):
        study(pruner=PRUNERS[name], evaluator=Curved(steps=0))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("median", {"n_startup_trials": -1}, "n_startup_trials is -1; it takes a whole number from 0"),
        ("median", {"interval_steps": 0}, "interval_steps is 0; it takes a whole number from 1"),
        ("median", {"n_warmup_step": 1}, 'did you mean "n_warmup_steps"'),
        (
            "hyperband",
            {"min_resource": 0},
            "min_resource is 0; it takes a whole number of steps from 1",
        ),
        (
            "hyperband",
            {"max_resource": 0},
            "max_resource is 0; it takes a whole number of steps from 1",
        ),
        ("hyperband", {"reduction_factor": 1}, "reduction_factor is 1; it takes a whole number from 2"),
        ("successive_halving", {"min_resource": 1.5}, "it takes a whole number"),
    ],
)
def test_wrong_settings_are_told(name, settings, said):
    with pytest.raises(ConfigurationError, match=said):
        registry.make("pruner", name, settings)


@pytest.mark.parametrize(
    "pruner", [Median(n_warmup_steps=10), Hyperband(max_resource=10), SuccessiveHalving(10)]
)
def test_settings_beyond_a_whole_evaluation_are_told(pruner):
    with pytest.raises(ConfigurationError, match="is 10 and a whole evaluation reports 9 steps"):
        study(pruner=pruner)
