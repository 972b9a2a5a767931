"""What every registered task keeps, with its default settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluators import datasets
from nas import registry
from nas.errors import DataError
from nas.task import Split, Task
from tests.tasks.data_folder import data_folder


@pytest.fixture(scope="module", params=sorted(registry.parts("task")))
def twice(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Task, Task]:
    """The task made two times; skips where its data are absent. `arrays` gets a file of its own."""
    settings = {}
    if request.param == "arrays":
        x = np.random.default_rng(0).normal(size=(200, 3))
        path = tmp_path_factory.mktemp("arrays") / "mine.npz"
        np.savez(path, x=x, y=(x[:, 0] > 0).astype(int))
        settings["path"] = str(path)
    with pytest.MonkeyPatch.context() as patch:
        if (folder := data_folder()) is not None:
            patch.setenv("NASGRAM_DATA", str(folder))
        try:
            return tuple(registry.make("task", request.param, settings) for _ in range(2))
        except DataError as error:
            known = {d.name for d in datasets.all_datasets()}
            if request.param in known and datasets.find(request.param) is None:
                pytest.skip(str(error))
            raise


@pytest.fixture(scope="module")
def task(twice: tuple[Task, Task]) -> Task:
    return twice[0]


def splits(task: Task) -> dict[str, Split]:
    return {"train": task.train, "valid": task.valid, "test": task.test}


def test_made_twice_it_is_the_same(twice: tuple[Task, Task]) -> None:
    first, second = map(splits, twice)
    for part, split in first.items():
        assert torch.equal(split.inputs, second[part].inputs)
        assert torch.equal(split.targets, second[part].targets)


def test_no_example_is_in_two_splits(task: Task) -> None:
    rows = {part: {x.numpy().tobytes() for x in split.inputs} for part, split in splits(task).items()}
    assert not rows["train"] & rows["valid"]
    assert not rows["train"] & rows["test"]
    assert not rows["valid"] & rows["test"]


def test_every_value_is_finite(task: Task) -> None:
    for split in splits(task).values():
        assert bool(split.inputs.isfinite().all())
        assert bool(split.targets.isfinite().all())


def test_the_signature_is_the_shape_of_the_tensors(task: Task) -> None:
    for split in splits(task).values():
        assert len(split) == len(split.targets) > 0
        assert split.inputs.dtype == task.signature.dtype
        assert tuple(split.inputs.shape[1:]) == task.signature.input
        if task.signature.vocabulary is not None:
            assert 0 <= int(split.inputs.min()) <= int(split.inputs.max()) < task.signature.vocabulary
        if split.targets.dtype == torch.int64:
            assert tuple(split.targets.shape[1:]) == task.signature.output[:-1]
            assert 0 <= int(split.targets.min()) <= int(split.targets.max()) < task.signature.output[-1]
        else:
            assert tuple(split.targets.shape[1:]) == task.signature.output


def test_scaling_is_computed_from_the_training_inputs_alone(task: Task) -> None:
    if task.signature.vocabulary is not None:
        assert torch.equal(task.scaling.input_mean, torch.zeros(1, dtype=torch.int64))
        assert torch.equal(task.scaling.input_std, torch.ones(1, dtype=torch.int64))
        return
    scaled = (task.train.inputs - task.scaling.input_mean) / task.scaling.input_std
    places = [0, *range(2, scaled.ndim)]
    assert torch.allclose(scaled.mean(places), torch.zeros(1), atol=1e-3)
    assert torch.allclose(scaled.var(places, correction=0), torch.ones(1), atol=1e-3)


def test_the_loss_of_scaled_outputs_can_be_trained(task: Task) -> None:
    outputs = torch.zeros(4, *task.signature.output, requires_grad=True)
    named = outputs * task.scaling.output_std + task.scaling.output_mean
    loss = task.loss(named, task.train.targets[:4], 0.1)
    loss.backward()
    assert loss.shape == ()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


def test_every_score_has_a_name_unit_and_direction(task: Task) -> None:
    names = [score.metric.name for score in task.scores]
    assert len(set(names)) == len(names) > 0
    for score in task.scores:
        assert score.metric.unit
        assert score.metric.direction in ("maximize", "minimize")


def test_the_trivial_answer_is_worse_than_the_known_good_score(task: Task) -> None:
    if task.known_good is None:
        pytest.skip("states no known-good score")
    targets = task.train.targets
    if targets.dtype == torch.int64:
        one_class = torch.bincount(targets.flatten(), minlength=task.signature.output[-1]).float()
        answer = (one_class == one_class.max()).float()
    else:
        answer = targets.mean(0)
    score = task.scores[0]
    trivial = score.of(answer.expand(len(task.valid), *task.signature.output), task.valid.targets)
    sign = 1 if score.metric.direction == "maximize" else -1
    assert sign * trivial < sign * task.known_good


def test_its_docstring_says_in_one_line_what_it_is(task: Task) -> None:
    assert registry.parts("task")[task.name].summary.endswith(".")
