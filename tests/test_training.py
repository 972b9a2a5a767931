from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from nas.augmentation import augment, crop, flip
from nas.errors import ConfigurationError
from nas.evaluation import Context, Pruned
from nas.scaled import Scaled
from nas.task import Score, Split
from nas.training import Recipe, batches, evaluate, seeded, threads, torch_device, train
from tests.evaluators.networks import bars, cells, line

QUICK = Recipe(epochs=2, batch_size=16)


def linear(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Linear(2, 1)


def convolutional(seed: int = 0) -> nn.Module:
    space = cells()
    with seeded(seed):
        return space.build(space.parse("network(nor_conv_3x3, avg_pool_3x3)"))


def state(network: nn.Module) -> torch.Tensor:
    return torch.cat([t.double().flatten() for t in network.state_dict().values()])


# the recipe


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.1), (2.5, 0.1 * (1 + math.cos(math.pi / 4)) / 2), (5, 0.05), (10, 0.0)],
)
def test_the_rate_is_half_a_cosine(epoch: float, rate: float) -> None:
    assert Recipe(epochs=10, learning_rate=0.1).rate(epoch) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0), (1, 0.2), (2, 0.4), (6, 0.22), (10, 0.04)])
def test_warm_up_is_linear_and_the_end_is_the_final_rate(epoch: float, rate: float) -> None:
    recipe = Recipe(epochs=10, learning_rate=0.4, final_learning_rate=0.04, warmup_epochs=2)
    assert recipe.rate(epoch) == pytest.approx(rate)


def test_without_warm_up_the_rates_are_those_of_torch() -> None:
    recipe = Recipe(epochs=7, learning_rate=0.3, final_learning_rate=0.01)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7, 0.01)
    for epoch in range(8):
        assert recipe.rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("optimizer", "lion"),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("final_learning_rate", 1.0),
        ("warmup_epochs", 10),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("label_smoothing", 1.0),
        ("gradient_clip", -1.0),
        ("augmentation", "rotate"),
        ("cutout", -1),
    ],
)
def test_a_field_out_of_its_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is {value}; it takes "):
        replace(Recipe(), **{name: value})


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(
        ConfigurationError, match="nesterov is True; it takes false where momentum is 0"
    ):
        Recipe(momentum=0.0)
    assert Recipe(momentum=0.0, nesterov=False).momentum == 0
    assert Recipe(momentum=0.0, optimizer="adam").momentum == 0


# a step against formulas and torch


def one_step(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights before, gradient and weights after one step over the whole training split."""
    task, network = line(), linear()
    before = network.weight.detach().clone()
    model = Scaled(linear(), task.scaling)
    task.loss(model(task.train.inputs), task.train.targets, 0).backward()
    grads = [p.grad for p in model.parameters()]
    train(network, task, replace(recipe, epochs=1, batch_size=64), Context())
    total = torch.cat([g.flatten() for g in grads]).norm()
    clip = 1.0 if recipe.gradient_clip == 0 else min(1.0, recipe.gradient_clip / float(total))
    return before, clip * grads[0], network.weight.detach()


RATE = 0.01 * (1 + math.cos(math.pi / 2)) / 2  # the one step is taken in the middle of the epoch
PLAIN = Recipe(learning_rate=0.01, weight_decay=0.0, gradient_clip=0.0)


def test_a_step_of_sgd_without_momentum_goes_down_the_gradient() -> None:
    before, gradient, after = one_step(replace(PLAIN, momentum=0.0, nesterov=False))
    torch.testing.assert_close(after, before - RATE * gradient)


def test_the_first_step_with_nesterov_momentum_is_longer_by_the_momentum() -> None:
    before, gradient, after = one_step(replace(PLAIN, momentum=0.9))
    torch.testing.assert_close(after, before - RATE * 1.9 * gradient)


def test_weight_decay_of_sgd_is_added_to_the_gradient() -> None:
    before, gradient, after = one_step(replace(PLAIN, momentum=0.0, nesterov=False, weight_decay=0.1))
    torch.testing.assert_close(after, before - RATE * (gradient + 0.1 * before))


def test_the_first_step_of_adam_is_the_sign_of_the_gradient() -> None:
    before, gradient, after = one_step(replace(PLAIN, optimizer="adam"))
    torch.testing.assert_close(after, before - RATE * gradient.sign(), atol=1e-6, rtol=0)


def test_weight_decay_of_adamw_shrinks_the_weights() -> None:
    before, gradient, after = one_step(replace(PLAIN, optimizer="adamw", weight_decay=0.1))
    expected = before * (1 - RATE * 0.1) - RATE * gradient.sign()
    torch.testing.assert_close(after, expected, atol=1e-6, rtol=0)


def test_the_gradient_is_clipped_to_its_norm() -> None:
    recipe = replace(PLAIN, momentum=0.0, nesterov=False, gradient_clip=0.01)
    before, gradient, after = one_step(recipe)
    torch.testing.assert_close(after, before - RATE * gradient, rtol=1e-4, atol=1e-7)
    assert float((after - before).norm()) <= RATE * 0.01 * 1.0001


def test_label_smoothing_reaches_the_loss() -> None:
    seen = []

    def loss(outputs, targets, label_smoothing):
        seen.append(label_smoothing)
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    train(convolutional(), replace(bars(), loss=loss), replace(QUICK, label_smoothing=0.1), Context())
    assert set(seen) == {0.1}


def test_smoothed_cross_entropy_has_its_closed_form() -> None:
    outputs, targets = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    logs = outputs.log_softmax(1)
    wanted = torch.full((5, 3), 0.1 / 3, dtype=torch.float64)
    wanted[torch.arange(5), targets] += 0.9
    torch.testing.assert_close(bars().loss(outputs, targets, 0.1), -(wanted * logs).sum(1).mean())


# the loop


def test_it_learns_in_the_targets_own_units() -> None:
    trained = train(linear(), line(), Recipe(epochs=20, batch_size=16), Context())
    assert trained.infeasible is None
    assert trained.scores["rmse"] < 1.0  # the targets' standard deviation is 28


def test_it_learns_to_tell_images_apart() -> None:
    trained = train(convolutional(), bars(), Recipe(epochs=5, batch_size=16), Context())
    assert trained.scores["accuracy"] > 80


def test_the_same_seed_gives_identical_bits() -> None:
    recipe = replace(QUICK, augmentation="flip_crop")
    runs = [train(convolutional(), bars(), recipe, Context(seed=3)) for _ in range(2)]
    assert runs[0].scores == runs[1].scores
    assert torch.equal(state(runs[0].model), state(runs[1].model))


def test_another_seed_gives_another_order_of_examples() -> None:
    runs = [train(convolutional(), bars(), QUICK, Context(seed=seed)) for seed in (1, 2)]
    assert not torch.equal(state(runs[0].model), state(runs[1].model))


def test_dropout_follows_from_the_seed() -> None:
    def run() -> torch.Tensor:
        with seeded(0):
            network = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        return state(train(network, line(), QUICK, Context()).model)

    first = run()
    torch.rand(5)
    assert torch.equal(first, run())


def test_the_number_of_the_trial_does_not_matter() -> None:
    runs = [train(convolutional(), bars(), QUICK, Context(number=n)) for n in (1, 2)]
    assert runs[0].scores == runs[1].scores


def test_torch_is_left_as_it_was() -> None:
    before, number = torch.get_rng_state(), torch.get_num_threads()
    train(convolutional(), bars(), QUICK, Context(threads=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == number


def test_torch_is_left_as_it_was_by_an_exception() -> None:
    before, number = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="shape"), seeded(1), threads(2):
        nn.Linear(7, 1)(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == number


def test_it_trains_with_the_threads_of_the_context() -> None:
    seen = []
    context = Context(threads=2, report=lambda epoch, row: seen.append(torch.get_num_threads()))
    train(linear(), line(), QUICK, context)
    assert seen == [2, 2]


def test_every_epoch_reports_its_loss_and_all_scores() -> None:
    rows = []
    trained = train(
        convolutional(),
        bars(),
        QUICK,
        Context(report=lambda epoch, row: rows.append((epoch, dict(row)))),
    )
    assert [epoch for epoch, _ in rows] == [1, 2]
    assert all(row.keys() == {"train_loss", "accuracy", "loss"} for _, row in rows)
    assert {k: v for k, v in rows[-1][1].items() if k != "train_loss"} == trained.scores


def test_the_training_loss_is_the_mean_over_the_examples() -> None:
    rows = []
    task = line()
    odd = replace(task, train=Split(task.train.inputs[:22], task.train.targets[:22]))  # 16 and 6
    context = Context(report=lambda epoch, row: rows.append(row))
    train(linear(), odd, replace(QUICK, epochs=1, learning_rate=1e-30), context)
    model = Scaled(linear(), task.scaling)
    expected = task.loss(model(odd.train.inputs), odd.train.targets, 0).item()
    assert rows[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_progress_counts_every_batch_to_the_end() -> None:
    seen = []
    train(
        convolutional(),
        bars(),
        QUICK,
        Context(progress=lambda done, total, what: seen.append((done, total))),
    )
    assert seen == [(i, 8) for i in range(1, 9)]  # 60 images in batches of 16, twice


def test_pruning_passes_and_stops_at_that_epoch() -> None:
    seen = []

    def report(epoch, row):
        seen.append(epoch)
        if epoch == 2:
            raise Pruned

    with pytest.raises(Pruned):
        train(linear(), line(), replace(QUICK, epochs=9), Context(report=report))
    assert seen == [1, 2]


def test_a_diverging_run_is_infeasible_and_says_where() -> None:
    recipe = replace(QUICK, epochs=5, learning_rate=1e20, gradient_clip=0.0)
    trained = train(linear(), line(), recipe, Context())
    assert re.fullmatch(f"train_loss is (nan|inf) in epoch {trained.epochs}", str(trained.infeasible))
    assert trained.epochs < 5
    assert trained.scores == {}


def test_a_score_that_is_not_finite_is_infeasible() -> None:
    task = line()
    worst = Score(task.scores[0].metric, lambda outputs, targets: math.inf)
    trained = train(linear(), replace(task, scores=(worst,)), QUICK, Context())
    assert trained.infeasible == "rmse is inf in epoch 1"
    assert trained.epochs == 1


def test_the_epoch_that_fails_is_not_reported() -> None:
    rows = []
    task = line()
    worst = Score(task.scores[0].metric, lambda outputs, targets: math.nan)
    train(
        linear(),
        replace(task, scores=(worst,)),
        QUICK,
        Context(report=lambda epoch, row: rows.append(row)),
    )
    assert rows == []


@pytest.mark.parametrize("network", [nn.Identity(), nn.Flatten()], ids=["identity", "flatten"])
def test_a_network_without_weights_is_infeasible(network: nn.Module) -> None:
    trained = train(network, line(), QUICK, Context())
    assert trained.infeasible == "no weight of the network reaches the loss"
    assert trained.epochs == 0


def test_a_network_whose_weights_are_out_of_reach_is_infeasible() -> None:
    class Dead(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    assert "reaches the loss" in str(train(Dead(2, 1), line(), QUICK, Context()).infeasible)


def test_too_little_memory_is_infeasible_and_says_where() -> None:
    class Large(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    trained = train(Large(2, 1), line(), QUICK, Context())
    assert trained.infeasible == "out of memory on cpu in epoch 1"


def test_a_bug_in_the_network_passes() -> None:
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        train(Broken(2, 1), line(), QUICK, Context())


# batches, evaluation, devices


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "sizes"),
    [(10, 5, [5, 5]), (11, 5, [5, 6]), (12, 5, [5, 5, 2]), (1, 5, [1]), (3, 1, [1, 1, 1])],
)
def test_every_example_comes_once_and_none_alone(
    num_examples: int, batch_size: int, sizes: list[int]
) -> None:
    parts = batches(num_examples, batch_size, torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == sizes
    assert sorted(torch.cat(parts).tolist()) == list(range(num_examples))


def test_batch_norm_trains_where_one_example_would_be_left_over() -> None:
    task = bars()
    odd = Split(task.train.inputs[:17], task.train.targets[:17])
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    assert train(network, replace(task, train=odd), QUICK, Context()).infeasible is None


def test_scores_are_the_same_in_any_batches_and_leave_the_modes() -> None:
    task, network = bars(), convolutional()
    network[0].eval()
    modes = [m.training for m in network.modules()]
    whole = evaluate(network, task.valid, task.scores)
    parts = evaluate(network, task.valid, task.scores, batch_size=7)
    assert parts == pytest.approx(whole)
    assert [m.training for m in network.modules()] == modes


def test_evaluation_changes_no_running_statistics() -> None:
    task, network = bars(), convolutional()
    before = state(network)
    evaluate(network, task.valid, task.scores)
    assert torch.equal(state(network), before)


def test_outputs_that_are_not_finite_have_no_score() -> None:
    class Overflowing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :3] * math.inf

    task = bars()
    assert all(math.isnan(v) for v in evaluate(Overflowing(), task.valid, task.scores).values())


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='"gpu" is no device; allowed: cpu, cuda'):
        torch_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f'device "{name}" was asked for and torch finds 0'):
        train(linear(), line(), QUICK, Context(device=name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_cuda_repeats_itself_and_hands_its_weights_to_the_cpu() -> None:
    recipe = replace(QUICK, augmentation="flip_crop")
    runs = [train(convolutional(), bars(), recipe, Context(device="cuda")) for _ in range(2)]
    assert runs[0].scores == pytest.approx(runs[1].scores)
    assert all(t.device.type == "cpu" for t in runs[0].weights().values())


# augmentation


PIXELS = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)


def test_a_flip_mirrors_left_to_right_where_chosen() -> None:
    both = flip(PIXELS.expand(2, 1, 3, 3), torch.tensor([True, False]))
    assert both[0, 0].tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert torch.equal(both[1], PIXELS[0])


@pytest.mark.parametrize(
    ("down", "right", "seen"),
    [
        (0, 0, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (1, 0, [[4, 5, 6], [7, 8, 9], [0, 0, 0]]),
        (0, 1, [[2, 3, 0], [5, 6, 0], [8, 9, 0]]),
        (-1, -1, [[0, 0, 0], [0, 1, 2], [0, 4, 5]]),
    ],
)
def test_a_crop_sees_the_image_from_elsewhere(down: int, right: int, seen: list[list[int]]) -> None:
    assert crop(PIXELS, torch.tensor([down]), torch.tensor([right]))[0, 0].tolist() == seen


def test_every_image_and_channel_is_cropped_by_its_own_shift() -> None:
    images = torch.randn(4, 2, 5, 6)
    down, right = torch.tensor([0, 1, -2, 1]), torch.tensor([1, 0, 2, -1])
    expected = torch.stack(
        [
            functional.pad(x, (2, 2, 2, 2))[:, 2 + d : 7 + d, 2 + r : 8 + r]
            for x, d, r in zip(images, down.tolist(), right.tolist(), strict=True)
        ]
    )
    assert torch.equal(crop(images, down, right), expected)


@pytest.mark.parametrize("augmentation", ["flip", "crop", "flip_crop"])
def test_augmentation_keeps_the_shape_and_follows_its_generator(augmentation: str) -> None:
    images = torch.randn(16, 3, 8, 10)
    made = [augment(images, augmentation, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert made[0].shape == images.shape
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_without_augmentation_a_batch_stays_itself() -> None:
    images = torch.randn(2, 3)
    assert augment(images, "none", torch.Generator()) is images


def test_vectors_are_not_augmented() -> None:
    with pytest.raises(ConfigurationError, match=r"is for images .* has the shape \(2,\); use none"):
        train(linear(), line(), replace(QUICK, augmentation="flip"), Context())
