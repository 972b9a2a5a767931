"""What parts of a network ask of the training loop: their losses are added, the schedule is told."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas.augmentation import cutout
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.regularization import Auxiliary, Scheduled, TaskLoss, parts_of
from nas.scaled import Scaled
from nas.training import Recipe, train
from tests.evaluators.networks import bars, line

PLAIN = Recipe(epochs=1, batch_size=64, momentum=0.0, nesterov=False, gradient_clip=0.0)


class Side(Auxiliary):
    """A linear map of its own, whose loss counts by a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y

    def loss(self, output: Tensor, task_loss: TaskLoss) -> Tensor:
        return self.weight * task_loss(output)


class Told(Scheduled):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float] = []

    def advance(self, done: float) -> None:
        self.shares.append(done)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Network(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.told, self.side, self.linear = Told(), Side(weight), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.told(x)
        if self.training:
            self.side(x)
        y: Tensor = self.linear(x)
        return y


def network(weight: float) -> Network:
    torch.manual_seed(0)
    return Network(weight)


def test_the_loss_of_an_auxiliary_part_is_added_in_the_targets_units() -> None:
    task, rows = line(), []
    before = network(0.5)
    model, side = Scaled(before, task.scaling), Scaled(before.side, task.scaling)
    with torch.no_grad():
        losses = [task.loss(m(task.train.inputs), task.train.targets, 0) for m in (model, side)]
    context = Context(report=lambda step, row: rows.append(row))
    train(network(0.5), task, PLAIN, context)
    assert rows[0]["train_loss"] == pytest.approx(float(losses[0] + 0.5 * losses[1]))


def test_an_auxiliary_part_learns_by_its_weight_alone() -> None:
    moved = []
    for weight in (0.0, 0.5, 1.0):
        made = network(weight)
        was = deepcopy(made.side.linear.weight.detach())
        train(made, line(), replace(PLAIN, weight_decay=0.0, learning_rate=0.01), Context())
        moved.append(made.side.linear.weight.detach() - was)
    assert not moved[0].any()
    assert moved[1].any()
    torch.testing.assert_close(moved[2], 2 * moved[1])


def test_a_scheduled_part_is_told_the_share_of_epochs_that_are_done() -> None:
    made = network(0.0)
    train(made, line(), replace(PLAIN, epochs=4), Context())
    assert made.told.shares == [0, 0.25, 0.5, 0.75]


def test_nothing_is_listened_to_after_a_block() -> None:
    made = network(1.0)
    parts = parts_of(made)
    with parts.listen() as heard:
        made(torch.randn(3, 2))
    made(torch.randn(3, 2))
    assert [output.shape for _, output in heard.outputs] == [(3, 1)]
    assert torch.equal(heard.add_to(torch.tensor(2.0), lambda y: torch.tensor(3.0)), torch.tensor(5.0))
    deepcopy(made)  # no tensor of a graph is kept


# cutout


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_cutout_fills_a_square_around_a_pixel_that_the_rim_cuts_off(side: int) -> None:
    images = torch.rand(200, 3, 6, 5) + 1
    fill = torch.tensor([7.0, 8.0, 9.0])[:, None, None]
    seen = cutout(images, side, fill, torch.Generator().manual_seed(0))
    hidden = seen != images
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert torch.equal(seen[hidden], fill.expand_as(images)[hidden])
    rows, columns = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(rows * columns, hidden[:, 0].sum((1, 2)))
    assert int(rows.min()) == (side + 1) // 2
    assert int(rows.max()) == min(side, 6)
    assert len({tuple(h.flatten().tolist()) for h in hidden}) > 1


def test_cutout_hides_every_pixel_of_a_corner_less_often_than_one_inside() -> None:
    images = torch.ones(4000, 1, 8, 8)
    zero = torch.zeros(1)
    share = 1 - cutout(images, 4, zero, torch.Generator().manual_seed(1)).mean(0)[0]
    assert float(share[4, 4]) == pytest.approx(16 / 64, abs=0.03)
    assert float(share[0, 0]) == pytest.approx(9 / 64, abs=0.03)


def test_cutout_changes_training_and_is_for_images() -> None:
    recipe = replace(PLAIN, cutout=2)
    scores = []
    for how in (PLAIN, recipe, recipe):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        scores.append(train(made, bars(), how, Context()).scores)
    assert scores[0] != scores[1] == scores[2]
    with pytest.raises(ConfigurationError, match="cutout is for images"):
        train(network(0.0), line(), recipe, Context())
