"""The fusing pass and the depthwise convolution, against the plain modules in double precision."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from nas import registry
from nas.depthwise import FastDepthwise, apart
from nas.fusing import fuse
from nas.pointwise import FastPointwise
from nas.relaxation import Draw, SoftmaxMixture
from nas.space import Signature
from nas.supernet import Supernet

SPACES = {
    "nasbench201": (("nasbench201", {"channels": 4, "cells": 1}), Signature((3, 9, 8), (5,)), {}),
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
    "darts_cell_1d": (("darts_cell_1d", {"channels": 2, "cells": 3}), Signature((2, 13), (5,)), {}),
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


def outcome(supernet, x):
    """The output, and the gradients of alphas and weights, in the order of the parameters."""
    SoftmaxMixture().relax(supernet, Draw(torch.Generator()))
    y = supernet(x)
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()
    tensors = [*supernet.alphas.parameters(), *supernet.weights()]
    return y, torch.autograd.grad(loss, tensors, allow_unused=True)


@pytest.mark.parametrize("name", SPACES)
def test_a_fused_supernet_has_the_outputs_gradients_and_statistics_of_the_plain_one(name):
    plain, fused = pair(name)
    x = torch.randn(4, *plain.space.spec.input, dtype=torch.float64)
    for mode in (True, True, False):
        (y, gradients), (z, others) = (outcome(net.train(mode), x) for net in (plain, fused))
        torch.testing.assert_close(z, y, rtol=1e-9, atol=1e-9)
        for one, other in zip(gradients, others, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8)
    for one, other in zip(statistics(plain), statistics(fused), strict=True):
        torch.testing.assert_close(other, one)


def statistics(supernet):
    """The buffers of every call site's norms."""
    a = supernet.sample(random.Random(0))
    return list(supernet.inherit(a).buffers())


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
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("side", [3, 5, 7])
def test_a_depthwise_convolution_has_torch_s_output_and_gradients(side, dilation, size):
    padding = dilation * (side // 2)
    plain = nn.Conv2d(6, 6, side, padding=padding, dilation=dilation, groups=6, bias=False).double()
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
