from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline as ScipyBSpline
from torch import Tensor, fx, nn

from nas import registry
from nas.complexity import measure
from nas.errors import ConfigurationError, SearchSpaceError
from nas.space import Signature
from nas.variation import sample
from search_spaces.operations.kan import (
    Basis,
    BSpline,
    Chebyshev,
    KANLayer,
    RadialGaussian,
    edge_cost,
    layer_cost,
    update_grid,
)

BASES = (BSpline(), Chebyshev(), RadialGaussian())
each_basis = pytest.mark.parametrize("basis", BASES, ids=["b_spline", "chebyshev", "rbf"])
sizes = pytest.mark.parametrize(("grid_size", "degree"), [(5, 3), (3, 1), (10, 2), (4, 5)])


def space(**settings):
    return registry.make("space", "kan", settings)


def points(n: int = 201) -> Tensor:
    """(n, 1), within the half-open grid."""
    return torch.linspace(-1, 1, n, dtype=torch.float64).unsqueeze(1)


def functions(basis: Basis, u: Tensor) -> Tensor:
    """(batch, size) of a basis at u, (batch, 1)."""
    grid = basis.grid().double().repeat(1, 1)
    return basis.evaluate(u, grid)[:, 0]


def exact_grid(basis: BSpline) -> Tensor:
    steps = torch.arange(-basis.degree, basis.grid_size + basis.degree + 1, dtype=torch.float64)
    return (2 * steps / basis.grid_size - 1).unsqueeze(0)


@sizes
def test_b_splines_sum_to_one_inside_the_grid(grid_size, degree):
    basis = BSpline(grid_size, degree)
    total = basis.evaluate(points(), exact_grid(basis)).sum(-1)
    assert (total - 1).abs().max() < 2e-15


@sizes
def test_at_most_degree_plus_one_b_splines_are_not_zero(grid_size, degree):
    basis = BSpline(grid_size, degree)
    values = basis.evaluate(points(), exact_grid(basis))[:, 0]
    assert values.shape == (201, grid_size + degree)
    assert ((values != 0).sum(-1) <= degree + 1).all()
    assert (values >= 0).all()


@sizes
def test_b_splines_equal_those_of_scipy(grid_size, degree):
    basis = BSpline(grid_size, degree)
    u, grid = points()[:-1], exact_grid(basis)
    values = basis.evaluate(u, grid)[:, 0].numpy()
    knots = grid[0].numpy()
    for index in range(basis.size):
        oracle = ScipyBSpline(knots, np.eye(basis.size)[index], degree)(u[:, 0].numpy())
        np.testing.assert_allclose(values[:, index], oracle, atol=1e-12)


def test_b_splines_reproduce_a_cubic():
    basis = BSpline()
    values = basis.evaluate(points(), exact_grid(basis))[:, 0]
    cubic = points() ** 3 - 0.5 * points() ** 2 + 2 * points() - 1
    fitted = values @ torch.linalg.lstsq(values, cubic).solution
    torch.testing.assert_close(fitted, cubic, rtol=0, atol=1e-12)


def test_b_splines_far_outside_the_grid_are_zero():
    assert not functions(BSpline(), torch.tensor([[3.0], [-3.0]]).double()).any()


def test_chebyshev_polynomials_equal_those_of_numpy():
    oracle = np.polynomial.chebyshev.chebvander(points()[:, 0].numpy(), 7)
    np.testing.assert_allclose(functions(Chebyshev(), points()).numpy(), oracle, atol=1e-12)


def test_radial_gaussians_equal_the_closed_form():
    centers = np.linspace(-1, 1, 8)
    oracle = np.exp(-(((points().numpy() - centers) / (2 / 7)) ** 2))
    np.testing.assert_allclose(functions(RadialGaussian(), points()).numpy(), oracle, atol=1e-6)


@each_basis
def test_every_basis_has_grid_size_plus_degree_functions(basis):
    assert functions(basis, points()).shape == (201, 8)


def test_coefficients_of_untouched_functions_have_zero_gradient():
    layer = KANLayer((1, 1), [BSpline()], input_range=1.0)
    layer(torch.full((4, 1), math.atanh(-0.9))).sum().backward()
    touched = layer.coefficients.grad[0, 0] != 0
    assert touched.tolist() == [True] * 4 + [False] * 4


def edge_by_edge(layer: KANLayer, kinds: tuple[Basis, ...], kind: list[int], x: Tensor) -> Tensor:
    """The layer's equation as a plain double loop over edges."""
    y = torch.zeros(len(x), layer.outputs, dtype=x.dtype)
    for o in range(layer.outputs):
        for i in range(layer.inputs):
            xi = x[:, i : i + 1]
            values = functions(kinds[kind[o * layer.inputs + i]], torch.tanh(xi / layer.input_range))
            spline = values @ layer.coefficients[o, i]
            base = layer.base_weight[o, i] * torch.nn.functional.silu(xi[:, 0])
            y[:, o] += base + layer.spline_weight[o, i] * spline
    return y


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 2)])
def test_a_layer_of_mixed_edges_equals_a_loop_over_its_edges(size):
    kind = random.Random(0).choices(range(3), k=math.prod(size))
    layer = KANLayer(size, BASES, kind, input_range=1.5).double()
    x = 2 * torch.randn(7, size[0], dtype=torch.float64)
    torch.testing.assert_close(layer(x), edge_by_edge(layer, BASES, kind, x), rtol=0, atol=1e-12)


@each_basis
def test_a_layer_of_one_kind_equals_a_loop_over_its_edges(basis):
    layer = KANLayer((3, 2), [basis]).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), edge_by_edge(layer, (basis,), [0] * 6, x))


@each_basis
def test_costs_of_a_layer_equal_what_it_measures(basis):
    stated = layer_cost((3, 4), [basis]) + edge_cost(basis) * 12
    assert stated == measure(KANLayer((3, 4), [basis]), (3,))
    assert stated.params == 12 * (5 + 3 + 2)


def test_a_layer_from_two_to_three_has_60_parameters():
    assert sum(p.numel() for p in KANLayer((2, 3), [BSpline()]).parameters()) == 60


@each_basis
def test_outputs_stay_finite_and_of_the_inputs_scale(basis):
    torch.manual_seed(0)
    network = nn.Sequential(*(KANLayer((16, 16), [basis]) for _ in range(4)))
    out = network(torch.randn(256, 16))
    assert 0.1 < out.std() < 10
    assert network(1e4 * torch.randn(8, 16)).isfinite().all()


@each_basis
def test_a_small_network_fits_the_papers_example_far_better_than_a_line(basis):
    generator = torch.manual_seed(0)
    x = 2 * torch.rand(500, 2, generator=generator) - 1
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
    line = torch.cat([x, torch.ones(500, 1)], 1)
    residual = (line @ torch.linalg.lstsq(line, y).solution - y).square().mean().sqrt()
    network = nn.Sequential(KANLayer((2, 8), [basis]), KANLayer((8, 1), [basis]))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.sqrt() < 0.2 * residual


@pytest.mark.parametrize("kinds", [(BSpline(),), BASES], ids=["one kind", "mixed"])
def test_a_grid_update_keeps_the_outputs_on_the_samples(kinds):
    torch.manual_seed(0)
    kind = [0, 1, 2, 0, 0, 1] if len(kinds) > 1 else None
    layer = KANLayer((3, 2), kinds, kind).double()
    x = torch.randn(40, 3, dtype=torch.float64) ** 3
    before, grid = layer(x), layer.functions[0].grid.clone()
    coefficients = layer.coefficients.detach().clone()
    update_grid(layer, x[:7])  # 7 samples, 8 functions: the refit is exact
    torch.testing.assert_close(layer(x[:7]), before[:7], rtol=0, atol=1e-6)
    assert not torch.equal(layer.functions[0].grid, grid)
    assert (layer.functions[0].grid.diff() > 0).all()
    if kind:
        assert torch.equal(layer.coefficients[0, 1], coefficients[0, 1])


def test_a_refit_to_many_samples_leaves_a_small_residual():
    torch.manual_seed(0)
    layer = KANLayer((2, 3), [BSpline(20)]).double()
    x = torch.randn(500, 2, dtype=torch.float64)
    before = layer(x)
    update_grid(layer, x, uniform=0.5)
    assert (layer(x) - before).square().mean() < 0.05 * before.var()


def test_a_grid_update_stands_samples_that_are_all_equal():
    layer = KANLayer((1, 1), [BSpline()])
    update_grid(layer, torch.zeros(10, 1))
    assert layer(torch.zeros(2, 1)).isfinite().all()


@pytest.mark.parametrize("basis_per", ["layer", "edge"])
def test_networks_are_traced_and_exported(basis_per):
    there = space(basis_per=basis_per, widths=(3,))
    network = there.build(sample(there, random.Random(0)))
    x = torch.randn(4, 2)
    wanted = network(x)
    torch.testing.assert_close(fx.symbolic_trace(network)(x), wanted)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), wanted)


def test_the_default_space_has_5652_networks():
    assert space().size() == 5652 == sum(12**depth * 3 for depth in (1, 2, 3))


def test_a_basis_for_every_edge_counts_every_edge():
    found = space(basis_per="edge", widths=(1, 2), depths=(1,))
    assert found.size() == 3 ** (2 + 1) + 3 ** (4 + 2) == len(list(found.enumerate()))


@pytest.mark.parametrize("basis_per", ["layer", "edge"])
def test_parameters_are_ten_for_every_edge(basis_per):
    there = space(basis_per=basis_per).at(Signature((2, 3), (4,)))
    layers = "layer(8, rbf), layer(4, b_spline)", "chebyshev"
    if basis_per == "edge":
        sizes = (6 * 8, 8 * 4, 4 * 4)
        a, b, c = ("each(" + ", ".join(["rbf"] * n) + ")" for n in sizes)
        layers = f"layer(8, {a}), layer(4, {b})", c
    found = there.parse(f"kan(2, chain({layers[0]}), output({layers[1]}))")
    assert there.complexity(found).params == 10 * (6 * 8 + 8 * 4 + 4 * 4)


def test_a_wide_layer_of_mixed_edges_has_no_module_for_each_edge():
    there = space(basis_per="edge", widths=(64,), depths=(2,))
    network = there.build(sample(there, random.Random(0)))
    assert sum(1 for _ in network.modules()) < 20


def test_an_output_of_more_than_one_dimension_is_refused():
    with pytest.raises(SearchSpaceError, match="is not one vector"):
        sample(space().at(Signature((2,), (2, 2))), random.Random(0))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"widths": ()}, "at least 1"),
        ({"depths": (0,)}, "at least 1"),
        ({"bases": ("b_splin",)}, 'did you mean "b_spline"'),
        ({"bases": ()}, "at least one basis"),
        ({"input_range": 0.0}, "above 0"),
        ({"degree": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings, what):
    with pytest.raises(ConfigurationError, match=what):
        space(**settings)


def test_seeded_samples_stay_the_same():
    rng = random.Random(7)
    assert [str(sample(space(), rng)) for _ in range(3)] == GOLDEN


GOLDEN = [
    "kan(1, chain(layer(4, chebyshev)), output(b_spline))",
    "kan(2, chain(layer(8, b_spline), layer(16, b_spline)), output(chebyshev))",
    "kan(1, chain(layer(4, chebyshev)), output(rbf))",
]
