from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.arrays import Holdout, classification, regression, stratified_order
from nas.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (200, 5))
Y = np.arange(200) % 4
Z = X[:, 0] * 2 + 1


def spoiled(value: float) -> np.ndarray:
    x = X.copy()
    x[7, 2] = value
    return x


def test_one_call_makes_a_classification_task() -> None:
    task = classification("mine", X, Y)
    assert [len(s) for s in (task.train, task.valid, task.test)] == [140, 30, 30]
    assert task.signature.input == (5,)
    assert task.signature.output == (4,)
    assert task.train.inputs.dtype == torch.float32
    assert task.train.targets.dtype == torch.int64


def test_a_split_covers_every_example_once() -> None:
    x = np.arange(60.0)[:, None]
    task = classification("mine", x, np.arange(60) % 3)
    rows = torch.cat([s.inputs for s in (task.train, task.valid, task.test)])[:, 0]
    assert sorted(rows.tolist()) == list(range(60))


def test_classes_keep_their_shares_in_each_split() -> None:
    y = np.repeat([0, 1, 2], [100, 60, 40])
    task = classification("mine", X, y, Holdout(valid=50, test=50))
    assert torch.bincount(task.valid.targets).tolist() == [25, 15, 10]
    assert torch.bincount(task.test.targets).tolist() == [25, 15, 10]


def test_any_stretch_of_the_stratified_order_is_balanced() -> None:
    labels = torch.arange(1000) % 10
    order = stratified_order(labels, 0)
    assert torch.bincount(labels[order[130:250]]).tolist() == [12] * 10


def test_the_seed_alone_decides_the_split() -> None:
    first, same, other = (classification("mine", X, Y, Holdout(seed=s)).test.inputs for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_test_split_does_not_depend_on_the_validation_split() -> None:
    first, other = (classification("mine", X, Y, Holdout(valid=v)).test for v in (10, 50))
    assert torch.equal(first.inputs, other.inputs)


def test_arrays_of_ones_own_are_taken_as_they_are() -> None:
    task = classification("mine", X, Y, Holdout(valid=(X[:8], Y[:8]), test=[X[8:12], Y[8:12]]))
    assert torch.equal(task.train.targets, torch.from_numpy(Y))
    assert task.valid.targets.tolist() == Y[:8].tolist()
    assert len(task.test) == 4


def test_a_pair_for_the_test_split_leaves_validation_to_be_drawn() -> None:
    task = regression("mine", X, Z, Holdout(valid=0.25, test=(X, Z)))
    assert [len(s) for s in (task.train, task.valid, task.test)] == [150, 50, 200]


def test_tensors_serve_as_well_as_arrays_and_are_copied() -> None:
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    task = regression("mine", x, torch.tensor(Z), Holdout(valid=(x, Z), test=(x, Z)))
    assert not task.train.inputs.requires_grad
    assert task.train.inputs.data_ptr() != x.data_ptr()


def test_scaling_comes_from_the_training_examples_alone() -> None:
    task = regression("mine", X, Z, Holdout(valid=(X + 100, Z + 100), test=(X, Z)))
    assert torch.allclose(task.scaling.input_mean, torch.tensor(X.mean(0), dtype=torch.float32))
    assert torch.allclose(task.scaling.input_std, torch.tensor(X.std(0), dtype=torch.float32))
    assert float(task.scaling.output_mean) == pytest.approx(Z.mean())
    assert float(task.scaling.output_std) == pytest.approx(Z.std())


@pytest.mark.parametrize(
    ("shape", "broadcast"),
    [((5,), (5,)), ((3, 6), (3, 1)), ((3, 4, 4), (3, 1, 1))],
    ids=["vectors", "sequences", "images"],
)
def test_scaling_is_per_feature_or_channel(shape: tuple[int, ...], broadcast: tuple[int, ...]) -> None:
    task = classification("mine", RNG.normal(size=(40, *shape)), np.arange(40) % 2)
    assert tuple(task.scaling.input_mean.shape) == broadcast
    scaled = (task.train.inputs - task.scaling.input_mean) / task.scaling.input_std
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scaled.std()) == pytest.approx(1, abs=0.05)


def test_a_constant_feature_is_not_divided_by_zero() -> None:
    x = X.copy()
    x[:, 1] = 0.1
    assert float(classification("mine", x, Y).scaling.input_std[1]) == 1


def test_a_feature_of_tiny_numbers_is_scaled_like_any_other() -> None:
    x = X * 1e-9
    task = classification("mine", x, Y, Holdout(valid=(x, Y), test=(x, Y)))
    assert float(task.scaling.input_std[0]) == pytest.approx(x[:, 0].std())


def test_classification_scores_and_loss_by_hand() -> None:
    task = classification("mine", X, Y)
    outputs = torch.tensor([[2.0, 0, 0, 0], [0, 0, 1.0, 0]], requires_grad=True)
    accuracy, loss = task.scores
    assert accuracy.of(outputs, torch.tensor([0, 1])) == 50
    by_hand = -outputs.log_softmax(1)[[0, 1], [0, 1]].mean().item()
    assert loss.of(outputs, torch.tensor([0, 1])) == pytest.approx(by_hand)
    smoothed = task.loss(outputs, torch.tensor([0, 1]), 0.1).item()
    uniform = -outputs.log_softmax(1).mean().item()
    assert smoothed == pytest.approx(0.9 * by_hand + 0.1 * uniform)


def test_outputs_that_are_not_numbers_have_no_accuracy() -> None:
    task = classification("mine", X, Y)
    assert np.isnan(task.scores[0].of(torch.full((2, 4), float("nan")), torch.tensor([0, 0])))


def test_regression_scores_and_loss_by_hand() -> None:
    task = regression("mine", X, Z, Holdout(valid=(X, Z), test=(X, Z)), unit="eV")
    rmse, r2 = task.scores
    targets = torch.tensor([[0.0], [4.0]])
    outputs = torch.tensor([[1.0], [1.0]], requires_grad=True)
    assert rmse.metric.unit == "eV"
    assert rmse.of(outputs, targets) == pytest.approx(5**0.5)
    assert r2.of(outputs, targets) == pytest.approx(1 - 10 / 8)
    assert task.loss(outputs, targets, 0.1).item() == pytest.approx(5 / Z.var())


def test_several_outputs_are_kept_apart() -> None:
    task = regression("mine", X, np.stack([Z, 100 * Z], 1))
    assert task.signature.output == (2,)
    ratio = task.scaling.output_std[1] / task.scaling.output_std[0]
    assert float(ratio) == pytest.approx(100, rel=1e-4)


@pytest.mark.parametrize(
    ("x", "y", "holdout", "message"),
    [
        (X[:50], Y, Holdout(), "50 training inputs and 200 training targets"),
        (spoiled(np.nan), Y, Holdout(), "1 values that are NaN .* in example 7"),
        (spoiled(np.inf), Y, Holdout(), "NaN or beyond 32-bit floats"),
        (spoiled(1e300), Y, Holdout(), "NaN or beyond 32-bit floats"),
        (X[:, 0], Y, Holdout(), r"shape \(200,\); give \(n, features\)"),
        (X[:0], Y[:0], Holdout(), "empty"),
        (X, Y * 1.0, Holdout(), "classes are whole numbers"),
        (X, Y[:, None], Holdout(), "one whole number an example"),
        (X, Y - 1, Holdout(), "hold the class -1"),
        (X, Y * 2, Holdout(), "class 1 has no training example"),
        (X, Y * 0, Holdout(), "name one class"),
        (X, np.array(["cat", "dog"] * 100), Holdout(), "return_inverse"),
        ([[1.0], [1.0, 2.0]], [0, 1], Holdout(), "are no array"),
        (X, Y, Holdout(valid=0), "validation split is empty"),
        (X, Y, Holdout(valid=0.001), "validation split is empty"),
        (X, Y, Holdout(valid=1.5), "fraction between 0 and 1"),
        (X, Y, Holdout(valid=float("nan")), "fraction between 0 and 1"),
        (X, Y, Holdout(valid=100, test=100), "leaves none to train on"),
        (X, Y, Holdout(test=(X[:0], Y[:0])), "test split is empty"),
        (
            X,
            Y,
            Holdout(test=(X[:, :3], Y)),
            r"test inputs has shape \(3,\), of the training inputs \(5,\)",
        ),
        (X, Y, Holdout(valid=(X, Y + 1)), "class 4 is in the validation split"),
        (X, Y, Holdout(valid=(X, Y, Y)), "pair"),  # type: ignore[arg-type]
    ],
)
def test_classification_refuses_with_one_sentence(
    x: np.ndarray, y: np.ndarray, holdout: Holdout, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        classification("mine", x, y, holdout)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(200, 3.0), "training targets are all equal"),
        (spoiled(np.nan)[:, 2], "training targets hold 1 values"),
        (X[:, :, None], "give \\(n,\\) or \\(n, outputs\\)"),
    ],
    ids=["constant", "not a number", "three axes"],
)
def test_regression_refuses_with_one_sentence(y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        regression("mine", X, y)
