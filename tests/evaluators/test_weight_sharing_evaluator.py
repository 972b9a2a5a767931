from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from evaluators.weight_sharing import WeightSharing, calibrate
from nas import registry
from nas.checkpoint import FileCheckpoint
from nas.errors import ConfigurationError, SearchSpaceError
from nas.evaluation import Context
from nas.grammar import terminal
from nas.problem import Objective, Problem
from nas.scaled import Scaled
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.supernet_training import SupernetSettings, Trainer
from nas.task import Scaling, Split
from nas.training import evaluate
from tests.evaluators.networks import bars, cells, problem
from tests.supernet import planted
from tests.toys import blobs, mixed

QUICK = SupernetSettings(epochs=3, batch_size=8, learning_rate=0.1)
BEST, WORST = "network(nor_conv_3x3, nor_conv_3x3)", "network(avg_pool_3x3, avg_pool_3x3)"


def evaluator(**settings) -> WeightSharing:
    return WeightSharing(replace(QUICK, **settings))


def toy() -> Problem:
    return Problem(mixed(3), (Objective("accuracy", "maximize"),), blobs())


def scored(given: Problem, text: str, using: WeightSharing, context: Context | None = None):
    return using.evaluate(given, given.space.parse(text), context or Context())


def test_the_supernet_is_trained_once_for_all_architectures(monkeypatch) -> None:
    epochs = []
    train = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda *a: epochs.append(a) or train(*a))
    given, using = problem(cells(), bars()), evaluator()
    for architecture in given.space.enumerate():
        using.evaluate(given, architecture, Context())
    assert len(epochs) == QUICK.epochs


def test_the_network_has_the_supernets_weights_and_statistics_of_its_own() -> None:
    given, using = problem(cells(), bars()), evaluator()
    result = scored(given, BEST, using)
    supernet = next(iter(using._known.values())).supernet
    architecture = given.space.parse(BEST)
    inherited = Scaled(supernet.inherit(architecture), given.task.scaling).state_dict()
    for name, value in result.weights.items():
        assert torch.equal(value, inherited[name]) == ("running" not in name and "num_b" not in name)
    model = Scaled(given.space.build(architecture), given.task.scaling)
    model.load_state_dict(result.weights)
    assert evaluate(model, given.task.valid, given.task.scores) == result.metrics


def test_statistics_are_the_mean_over_the_calibration_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5))
    split = [Split(torch.randn(16, 3), torch.zeros(16)) for _ in range(4)]
    model(torch.randn(8, 3))
    calibrate(model, split)
    outs = [model[0](part.inputs) for part in split]
    mean = torch.stack([y.mean(0) for y in outs]).mean(0)
    variance = torch.stack([y.var(0) for y in outs]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    assert model[1].momentum == 0.3


def test_an_option_that_cannot_fit_scores_worse_with_inherited_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 2, generator=generator)
    plain = Scaling(*(torch.tensor([value]) for value in (0.0, 1.0, 0.0, 1.0)))
    task = replace(planted.task(inputs, (inputs[:, 0] < inputs[:, 1]).long()), scaling=plain)
    space = planted.edges({"keep": (1.0, 1.0)})
    blind = terminal("blind", lambda spec: planted.Scale((0.0, 0.0)).requires_grad_(False))
    space = replace(space, rules={**space.rules, "Edge": [*space.rules["Edge"], blind]})
    given = Problem(space, (Objective("accuracy", "maximize"),), task)
    using = evaluator(epochs=8, learning_rate=0.5)
    found = {n: scored(given, f"net({n})", using).metrics["accuracy"] for n in ("keep", "blind")}
    assert found["keep"] > found["blind"] + 20


def test_the_trial_that_trained_the_supernet_pays_for_it() -> None:
    given, using = toy(), evaluator()
    forward = len(given.task.valid) / len(given.task.train) / 3
    first = scored(given, "net(tanh, norm, tanh)", using, Context(number=4))
    second = scored(given, "net(norm, norm, tanh)", using, Context(number=5))
    assert first.cost == pytest.approx(QUICK.epochs + forward)
    assert second.cost == pytest.approx(forward)


def study(storage, folder=None, searcher="random", **settings) -> Study:
    made = registry.make("searcher", searcher)
    return Study("s", toy(), made, evaluator(**settings), storage, folder=folder)


def told(given: Study, number: int = 4) -> list[object]:
    return [(str(t.architecture), t.metrics, t.cost) for t in given.run(Budget(trials=number))]


@pytest.mark.parametrize("saves", [0, 2])
def test_killed_while_the_supernet_trains_a_study_goes_on_to_identical_scores(
    saves, tmp_path, monkeypatch
) -> None:
    class Killed(BaseException):
        pass

    save, left = FileCheckpoint.save, [saves]

    def killing(self, state):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        save(self, state)

    storage = open_storage(f"journal:{tmp_path}/s.journal")
    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpoint, "save", killing)
        with pytest.raises(Killed):
            study(storage, tmp_path).run(Budget(trials=4))
    assert told(study(storage, tmp_path)) == told(study(open_storage("memory")))


def test_another_process_takes_the_trained_supernet_over(tmp_path, monkeypatch) -> None:
    storage = open_storage(f"journal:{tmp_path}/s.journal")
    study(storage, tmp_path).run(Budget(trials=2))
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("it was trained before"))
    assert len(study(storage, tmp_path).run(Budget(trials=4))) == 4


@pytest.mark.parametrize("searcher", ["regularized_evolution", "local_search", "tpe"])
def test_any_searcher_searches_by_inherited_weights(searcher) -> None:
    trials = study(open_storage("memory"), searcher=searcher).run(Budget(trials=12))
    assert all(trial.completed for trial in trials)
    assert sum(trial.cost > 1 for trial in trials) == 1


def test_what_differs_where_a_choice_was_fixed_is_infeasible() -> None:
    given, using = toy(), evaluator(fixed={"e0": "tanh"})
    other = scored(given, "net(norm, norm, norm)", using, Context(number=1))
    assert 'has "norm" at "e0"' in other.infeasible
    assert other.cost == QUICK.epochs
    assert scored(given, "net(tanh, norm, norm)", using).infeasible is None


def test_a_supernet_that_diverges_makes_every_architecture_infeasible() -> None:
    given, using = toy(), evaluator(learning_rate=1e30, gradient_clip=1e30)
    result = scored(given, "net(tanh, tanh, tanh)", using)
    assert "of the supernet" in result.infeasible
    assert json.dumps(result.infeasible)


def test_without_a_task_or_an_open_choice_it_is_refused() -> None:
    given = toy()
    with pytest.raises(ConfigurationError, match="name one, such as digits"):
        evaluator().metrics(replace(given, task=None))
    closed = {f"e{i}": "tanh" for i in range(3)}
    with pytest.raises(SearchSpaceError, match="nothing to share weights"):
        scored(given, "net(tanh, tanh, tanh)", evaluator(fixed=closed))
