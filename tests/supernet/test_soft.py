"""Open choices between plain values, weighed by the rule that takes them."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from nas.bilevel import gradients
from nas.errors import SearchSpaceError
from nas.grammar import Each, Rule, values
from nas.mixture import Soft
from nas.relaxation import Draw, GumbelSample, SoftmaxMixture
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from nas.variation import sample
from tests.supernet.planted import set_alphas

FACTORS = (0.5, 2.0, -3.0)


class Gain(nn.Module):
    """Every feature by a factor of its own: (batch, features) -> (batch, features)."""

    def __init__(self, factors: list[float | Soft]) -> None:
        super().__init__()
        self.factors = factors
        self.bias = nn.Parameter(torch.randn(len(factors)))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.stack([self.factor(f) for f in self.factors]) + self.bias

    def factor(self, given: float | Soft) -> Tensor:
        if isinstance(given, Soft):
            return (given.weights() * torch.tensor(given.values)).sum()
        return torch.tensor(given)


def space(*, soft: tuple[str, ...] = ("gains",)) -> SearchSpace:
    def infer(spec: Signature, gains):
        for out in gains((spec.input, spec.input)):
            assert out in FACTORS or set(out.values) == set(FACTORS)
        return spec.output

    def build(spec: Signature, gains):
        return Gain(list(gains((spec.input, spec.input))[0]))

    rules = {
        "Net": [Rule("net", {"gains": Each("Factor")}, infer, build, soft=soft)],
        "Factor": values(*FACTORS),
    }
    return SearchSpace("Net", rules, Signature((2,), (2,)), name="gains")


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(space())


def test_values_are_weighed_by_softmax_of_their_alphas(supernet) -> None:
    set_alphas(supernet, {"gains/0": (0.1, 0.7, -0.2), "gains/1": (1.0, 0.0, 2.0)})
    SoftmaxMixture().relax(supernet, Draw(torch.Generator()))
    rows = [torch.tensor(r).softmax(0) for r in ((0.1, 0.7, -0.2), (1.0, 0.0, 2.0))]
    factors = torch.stack([(row * torch.tensor(FACTORS)).sum() for row in rows])
    x = torch.randn(5, 2)
    torch.testing.assert_close(supernet(x), x * factors + supernet.network.bias)


def test_every_alpha_has_the_gradient_of_its_value(supernet) -> None:
    draw = Draw(torch.Generator().manual_seed(0))
    for relaxation in (SoftmaxMixture(), GumbelSample()):
        relaxation.relax(supernet, draw)
        (table,) = supernet.alphas.tables
        (found,) = gradients(supernet(torch.ones(1, 2)).sum(), [table])
        assert found.abs().min() > 0


def test_selected_it_is_the_network_that_inherits_to_the_last_bit(supernet) -> None:
    x, rng = torch.randn(7, 2), random.Random(0)
    for _ in range(9):
        architecture = sample(supernet.space, rng)
        network = supernet.inherit(architecture)
        assert torch.equal(supernet(x), network(x))


def test_a_fixed_value_arrives_as_it_is() -> None:
    supernet = Supernet(space(), {"gains/0": "2.0"})
    first, second = supernet.network.factors
    assert first == 2.0
    assert isinstance(second, Soft)


def test_the_strongest_values_are_discretized(supernet) -> None:
    found = supernet.discretize({"gains/0": (0.0, 1.0, 0.0), "gains/1": (0.0, 0.0, 1.0)})
    assert str(found) == "net(each(2.0, -3.0))"


def test_without_a_soft_role_values_are_refused() -> None:
    with pytest.raises(SearchSpaceError, match=r'"gains/0" .* differ in what they give'):
        Supernet(space(soft=()))


def test_a_soft_role_that_is_none_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match='did you mean "gains"'):
        space(soft=("gain",))
