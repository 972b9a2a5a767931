"""The fusing pass and the depthwise convolution, against the plain modules in double precision."""

from __future__ import annotations

import copy
import random
import weakref

import pytest
import torch
from torch import nn

from nas import registry
from nas.depthwise import FastDepthwise, apart
from nas.fusing import FusedMixture, fuse
from nas.holding import evaluated
from nas.pointwise import FastPointwise
from nas.relaxation import Draw, GumbelSample, SoftmaxMixture
from nas.space import Signature
from nas.stacking import described
from nas.supernet import Supernet

SPACES = {
    "nasbench201": (("nasbench201", {"channels": 4, "cells": 1}), Signature((3, 9, 8), (5,)), {}),
    "nasbench201-one-channel": (
        ("nasbench201", {"channels": 1, "cells": 1}),
        Signature((1, 8, 8), (3,)),
        {},
    ),
    "darts_cell": (
        ("darts_cell", {"channels": 4, "cells": 3, "nodes": 3, "form": "search"}),
        Signature((3, 9, 12), (5,)),
        {},
    ),
    "darts_cell-evaluation": (
        ("darts_cell", {"channels": 2, "cells": 3, "nodes": 2}),
        Signature((1, 8, 8), (5,)),
        {},
    ),
    "sharpdarts": (
        ("sharpdarts", {"channels": 2, "cells": 3, "nodes": 2, "form": "search"}),
        Signature((1, 9, 9), (4,)),
        {},
    ),
    "darts_cell_1d": (
        ("darts_cell_1d", {"channels": 2, "cells": 3, "nodes": 2, "form": "search"}),
        Signature((2, 13), (5,)),
        {},
    ),
    "kan": (("kan", {}), Signature((3,), (2,)), {"depth": "2", "width": "8"}),
}


def made(name):
    (space, settings), signature, fixed = SPACES[name]
    torch.manual_seed(0)
    return Supernet(registry.make("space", space, settings).at(signature), fixed).double().train()


def pair(name):
    plain = made(name)
    with torch.no_grad():
        for table in plain.alphas.tables:
            table.normal_()
    fused = made(name)
    fused.load_state_dict(plain.state_dict())
    return plain, fuse(fused)


RELAXATIONS = {
    "softmax": SoftmaxMixture(),
    "gumbel": GumbelSample(),  # one option of each choice is active
}


def outcome(supernet, x, relaxation="softmax"):
    """The output, and the gradients of alphas and weights, in the order of the parameters."""
    RELAXATIONS[relaxation].relax(supernet, Draw(torch.Generator().manual_seed(1)))
    y = supernet(x)
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()
    tensors = [*supernet.alphas.parameters(), *supernet.weights()]
    return y, torch.autograd.grad(loss, tensors, allow_unused=True)


def assert_alike(plain, fused, x, relaxation="softmax"):
    """Equal outputs, gradients and buffers after a pass of each."""
    (y, gradients), (z, others) = (outcome(net, x, relaxation) for net in (plain, fused))
    torch.testing.assert_close(z, y, rtol=1e-9, atol=1e-9)
    for one, other in zip(gradients, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(fused.state_dict(), plain.state_dict())


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("name", SPACES)
def test_a_fused_supernet_has_the_outputs_gradients_and_statistics_of_the_plain_one(name, relaxation):
    plain, fused = pair(name)
    x = torch.randn(4, *plain.space.spec.input, dtype=torch.float64)
    for mode in (True, True, False):
        assert_alike(plain.train(mode), fused.train(mode), x, relaxation)


def test_it_does_so_where_norms_alone_are_in_training_mode():
    plain, fused = pair("darts_cell")
    x = torch.randn(4, *plain.space.spec.input, dtype=torch.float64)
    with evaluated(plain, batch_statistics=True), evaluated(fused, batch_statistics=True):
        assert_alike(plain, fused, x)


def test_it_does_so_where_some_choices_are_decided():
    plain, fused = pair("darts_cell")
    picks = [choice.path for choice in plain.choices.values() if choice.picks]
    edges = [path for path, choice in plain.choices.items() if not choice.picks]
    decided = {picks[-1]: "pick_0_2", edges[0]: "sep_conv_3x3", edges[1]: "none"}
    x = torch.randn(4, *plain.space.spec.input, dtype=torch.float64)
    for net in (plain, fused):
        net.decide(decided)
    assert_alike(plain, fused, x)  # what is not picked is not reached, and its norms see nothing


def test_it_does_so_where_the_weights_or_the_alphas_are_untrained():
    plain, fused = pair("darts_cell")
    x = torch.randn(4, *plain.space.spec.input, dtype=torch.float64)
    found = []
    for net in (plain, fused):
        RELAXATIONS["softmax"].relax(net, Draw(torch.Generator()))
        alphas = list(net.alphas.parameters())
        for weight in net.weights():
            weight.requires_grad_(False)
        found.append(torch.autograd.grad(net(x).square().sum(), alphas))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


def test_nothing_is_held_after_a_pass_nor_after_one_that_failed():
    _, fused = pair("nasbench201")
    held = []
    with torch.no_grad():
        for stop in (False, True):
            watched = next(m for m in fused.modules() if isinstance(m, FusedMixture))
            hook = watched.register_forward_hook(lambda m, i, y: held.append(weakref.ref(y)))
            last = fused.network[-1].register_forward_pre_hook(refuse) if stop else None
            if stop:
                with pytest.raises(ValueError, match="refused"):
                    fused(torch.randn(4, 3, 9, 8, dtype=torch.float64))
                last.remove()
            else:
                fused(torch.randn(4, 3, 9, 8, dtype=torch.float64))
            hook.remove()
    assert [ref() for ref in held] == [None, None]


def refuse(module, inputs):
    raise ValueError("refused")


@pytest.mark.parametrize("name", SPACES)
def test_a_fused_supernet_is_under_select_what_an_architecture_inherits(name):
    _, fused = pair(name)
    x = torch.randn(4, *fused.space.spec.input, dtype=torch.float64)
    for seed in range(3):
        architecture = fused.sample(random.Random(seed))
        network = fused.inherit(architecture).eval()
        fused.eval().select(architecture)
        torch.testing.assert_close(fused(x), network(x), rtol=1e-9, atol=1e-9)


def test_weights_are_the_same_objects_after_fusing():
    plain = made("darts_cell")
    before = {id(weight) for weight in plain.weights()}
    assert {id(weight) for weight in fuse(plain).weights()} == before


@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=str)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("side", [3, 5, 7])
def test_a_depthwise_convolution_has_torch_s_output_and_gradients(side, stride, dilation, size):
    plain = nn.Conv2d(
        6, 6, side, stride, dilation * (side // 2), dilation=dilation, groups=6, bias=False
    ).double()
    assert FastDepthwise.replaces(plain)
    x = torch.randn(3, 6, *size, dtype=torch.float64)
    results = []
    for module in (plain, FastDepthwise(plain)):
        given = x.clone().requires_grad_()
        y = module(given)
        loss = (y * torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)).sum()
        results.append((y, *torch.autograd.grad(loss, [given, plain.weight])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(6, 6, 4, padding=2, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding=2, stride=3, dilation=2, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding=0, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False, padding_mode="circular"),
        nn.Conv1d(6, 6, 3, padding=1, groups=6, bias=False),
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(other):
    assert not FastDepthwise.replaces(other)


def test_pools_that_differ_in_how_they_count_are_of_two_kinds():
    counting, other = (nn.AvgPool2d(3, 1, 1, count_include_pad=flag) for flag in (True, False))
    assert repr(counting) == repr(other)
    assert described(counting) != described(other)


def test_fusing_draws_no_random_numbers():
    torch.manual_seed(0)
    supernet = made("darts_cell")
    before = torch.get_rng_state()
    fuse(supernet)
    assert torch.equal(torch.get_rng_state(), before)


def test_interleaved_parts_hold_every_number_once():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    parts = apart(x, 2)
    assert parts.shape == (8, 3, 2, 3)
    assert torch.equal(parts.flatten().sort().values, x.flatten())
    assert torch.equal(parts[:2], x[:, :, ::2, ::2])


def test_a_pointwise_convolution_is_a_matrix_product():
    plain = nn.Conv2d(5, 7, 1).double()
    assert FastPointwise.replaces(plain)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(FastPointwise(copy.deepcopy(plain))(x), plain(x))
