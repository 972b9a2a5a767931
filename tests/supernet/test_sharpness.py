"""Curvature and gaps: against dense Hessians, closed forms and hand counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.bilevel import Levels, levels_of
from nas.errors import ConfigurationError
from nas.relaxation import Draw, SoftmaxMixture
from nas.selection import Probe
from nas.sharpness import count, discretization_gap, largest_eigenvalue, sharpness
from nas.supernet import Supernet
from tests.supernet.planted import edges, set_alphas, validation
from tests.supernet.test_supernet import RELAXED


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def levels(weights, alphas, buffers=()) -> Levels:
    return Levels(weights, alphas, torch.optim.SGD([*weights, *alphas], 0.1), buffers=buffers)


def test_the_largest_eigenvalue_is_that_of_the_dense_hessian():
    torch.manual_seed(0)
    supernet = Supernet(RELAXED["nasbench201"].space()).double().train()
    x = torch.randn(8, *supernet.space.spec.input).double()
    table = supernet.alphas.tables[0]

    def loss():
        SoftmaxMixture().relax(supernet, Draw(generator()))
        return nn.functional.cross_entropy(3 * supernet(x), torch.arange(8) % 5)

    given = levels_of(supernet, torch.optim.SGD(supernet.weights(), 0.1))
    before = [t.clone() for t in given.buffers]
    found = largest_eigenvalue(given, loss, generator())
    assert all(torch.equal(a, b) for a, b in zip(given.buffers, before, strict=True))

    (gradient,) = torch.autograd.grad(loss(), [table], create_graph=True)
    rows = [torch.autograd.grad(g, table, retain_graph=True)[0].flatten() for g in gradient.flatten()]
    dense = torch.linalg.eigvalsh(torch.stack(rows))
    assert found == pytest.approx(float(dense[-1]), rel=2e-3)


@pytest.mark.parametrize(
    "eigenvalues", [(-9.0, -1.0, 2.0, 3.0), (5.0, 5.0, 1.0, 0.0), (-4.0, -3.0, -2.0, -1.0)]
)
def test_the_largest_eigenvalue_is_not_the_largest_in_size(eigenvalues):
    torch.manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    hessian = q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T
    parts = [nn.Parameter(torch.randn(2, dtype=torch.float64)) for _ in range(2)]
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def loss():
        a = torch.cat(list(parts))
        return weight.sum() * (a @ hessian @ a) / 2

    found = largest_eigenvalue(levels([weight], parts), loss, generator())
    assert found == pytest.approx(max(eigenvalues), rel=2e-3)
    assert weight.requires_grad


def test_a_loss_without_curvature_has_eigenvalue_0():
    alpha, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    given = levels([nn.Parameter(torch.ones(1))], [alpha, unused])
    assert largest_eigenvalue(given, lambda: alpha.sum(), generator()) == 0.0


def test_sharpness_of_a_parabola_is_its_closed_form():
    # L = c ||w||^2 / 2: L(w + rho w / ||w||) - L(w) = c (rho ||w|| + rho^2 / 2)
    weights = [nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([0.0, 4.0]))]
    given = levels(weights, [])

    def loss():
        return 2.0 * sum((w**2).sum() for w in weights) / 2

    found = sharpness(given, loss, rho=0.05)
    assert found == pytest.approx(2.0 * (0.05 * 5 + 0.05**2 / 2), rel=1e-4)
    assert [w.tolist() for w in weights] == [[3.0], [0.0, 4.0]]
    with pytest.raises(ConfigurationError, match="rho=0"):
        sharpness(given, loss, rho=0)


def test_skip_connections_are_counted():
    space = RELAXED["darts_cell"].space()
    assert count(space.parse("DARTS_V1")) == 3 + 4 - 1
    assert count(space.parse("DARTS_V2")) == 2 + 3
    assert count(space.parse("DARTS_V2"), "dil_conv_3x3") == 1


def test_the_gap_is_the_score_that_discretizing_costs():
    supernet = Supernet(edges({"good": (1.0, 1.0), "bad": (-1.0, -1.0)}))
    set_alphas(supernet, {"e0": [1.0, 0.0]})
    y = torch.arange(20) % 2
    x = nn.functional.one_hot(y, 2).float()
    probe = Probe(
        supernet,
        lambda: SoftmaxMixture().relax(supernet, Draw(generator())),
        validation(supernet, x, y).measure,
    )
    assert discretization_gap(probe, supernet.space.parse("net(good)")) == 0.0
    assert discretization_gap(probe, supernet.space.parse("net(bad)")) == 100.0
    assert supernet.choices["e0"].weights is not None
