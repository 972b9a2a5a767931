"""Steps of bilevel search: closed forms, an exact second-order gradient, and who moves when."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from nas.bilevel import (
    FirstOrder,
    Levels,
    Losses,
    SecondOrder,
    SingleLevel,
    WeightsOnly,
    levels_of,
)
from nas.errors import ConfigurationError
from nas.grammar import Rule
from nas.relaxation import Draw, SoftmaxMixture
from nas.selection import shares
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from search_spaces.operations.convolution import (
    Classifier,
    none_rule,
    nor_conv_rule,
    skip_connect_rule,
)
from tests.assertions import example_input
from tests.supernet.planted import edges
from tests.supernet.test_supernet import RELAXED

OPTIMIZATIONS = [FirstOrder(), SecondOrder(), SingleLevel(), WeightsOnly()]


def quadratic(rate: float):
    """L_train = w^2 - 2 alpha w + alpha^2, L_val = alpha w - 2 alpha + 1 (DARTS, Figure 2)."""
    w, alpha = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (-2.0, 2.0))
    sgd, alpha_sgd = torch.optim.SGD([w], rate), torch.optim.SGD([alpha], 0.05)
    levels = Levels([w], [alpha], sgd, alpha_sgd, gradient_clip=0.0)
    return levels, lambda: (w - alpha) ** 2, lambda: alpha * w - 2 * alpha + 1


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
def test_second_order_finds_the_closed_form_and_first_order_the_wrong_point(rate):
    # At w = alpha: d/dalpha L_val(w'(alpha), alpha) = alpha - 2 + 2 xi alpha = 0. The true optimum of
    # L_val(alpha, alpha) is alpha = 1, which xi = 0.5, a whole step, gives.
    found = {}
    for optimization in (FirstOrder(), SecondOrder()):
        levels, train, valid = quadratic(rate)
        for _ in range(600):
            optimization.step(levels, train, valid)
        found[type(optimization)] = float(levels.alphas[0].detach())
        assert float(levels.weights[0].detach()) == pytest.approx(found[type(optimization)], abs=1e-3)
    assert found[FirstOrder] == pytest.approx(2.0, abs=1e-3)
    assert found[SecondOrder] == pytest.approx(2 / (1 + 2 * rate), abs=1e-3)


class Small(nn.Module):
    """Two layers, mixed by alphas with softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.second = nn.Linear(5, 2)
        self.alpha = nn.Parameter(torch.randn(2, 3))

    def forward(self, x):
        w = self.alpha.softmax(-1)
        h = self.first(x)
        h = w[0, 0] * h + w[0, 1] * h.tanh() + w[0, 2] * h.sin()
        y = self.second(h)
        return w[1, 0] * y + w[1, 1] * y.tanh() + w[1, 2] * y**2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_finite_differences_agree_with_the_exact_second_order_gradient(momentum):
    torch.manual_seed(0)
    model = Small().double()
    data = [(torch.randn(8, 3).double(), torch.randn(8, 2).double()) for _ in range(2)]
    names = [name for name, _ in model.named_parameters() if name != "alpha"]
    weights = [model.get_parameter(name) for name in names]
    rate, decay = 0.05, 0.01
    sgd = torch.optim.SGD(weights, rate, momentum, weight_decay=decay)
    levels = Levels(weights, [model.alpha], sgd, gradient_clip=0.0)

    def loss(part):
        return ((model(data[part][0]) - data[part][1]) ** 2).mean()

    for _ in range(3):  # so that there is a momentum buffer
        levels.step_weights(lambda: loss(0))
    found = {
        eps: SecondOrder(eps).alpha_gradient(levels, lambda: loss(0), lambda: loss(1))[1][0]
        for eps in (0.01, 0.001)
    }

    inner = torch.autograd.grad(loss(0), weights, create_graph=True)
    stepped = {"alpha": model.alpha}
    for name, weight, gradient in zip(names, weights, inner, strict=True):
        buffer = sgd.state[weight].get("momentum_buffer")
        moved = 0.0 if buffer is None else momentum * buffer
        stepped[name] = weight - rate * (moved + gradient + decay * weight)
    output = functional_call(model, stepped, (data[1][0],))
    exact = torch.autograd.grad(((output - data[1][1]) ** 2).mean(), model.alpha)[0]

    first_order = torch.autograd.grad(loss(1), model.alpha)[0]
    errors = {eps: float((gradient - exact).norm()) for eps, gradient in found.items()}
    assert errors[0.01] < 1e-5
    assert errors[0.001] < 1e-5 * float(exact.norm())
    assert errors[0.001] == pytest.approx(errors[0.01] / 100, rel=0.1)
    assert float((first_order - exact).norm() / exact.norm()) > 1e-2


def small_supernet() -> tuple[Supernet, Levels]:
    torch.manual_seed(0)
    supernet = Supernet(RELAXED["nasbench201"].space()).train()
    levels = levels_of(
        supernet,
        torch.optim.SGD(supernet.weights(), 0.05, 0.9, weight_decay=3e-4),
        torch.optim.Adam(supernet.alphas.parameters(), 3e-3, (0.5, 0.999), weight_decay=1e-3),
    )
    return supernet, levels


def losses_of(supernet: Supernet):
    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(6, *supernet.space.spec.input, generator=generator)
        SoftmaxMixture().relax(supernet, Draw(torch.Generator()))
        return nn.functional.cross_entropy(supernet(x), torch.arange(6) % 5)

    return (lambda: loss(0)), (lambda: loss(1))


def copies(tensors):
    return [tensor.detach().clone() for tensor in tensors]


def same(tensors, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


def test_unrolled_passes_leave_weights_and_batch_norms_as_they_were():
    supernet, levels = small_supernet()
    train, valid = losses_of(supernet)
    levels.step_weights(train)
    before = copies([*levels.weights, *levels.buffers, *levels.alphas])
    momentum = copies(s["momentum_buffer"] for s in levels.optimizer.state.values())
    _, found = SecondOrder().alpha_gradient(levels, train, valid)
    assert same([*levels.weights, *levels.buffers, *levels.alphas], before)
    assert same([s["momentum_buffer"] for s in levels.optimizer.state.values()], momentum)
    assert all(bool(gradient.any()) for gradient in found)
    assert all(weight.grad is None for weight in levels.weights)


def test_second_order_differs_from_first_order_on_a_supernet_too():
    supernet, levels = small_supernet()
    train, valid = losses_of(supernet)
    _, (second,) = SecondOrder().alpha_gradient(levels, train, valid)
    (first,) = torch.autograd.grad(valid(), levels.alphas)
    assert float((second - first).norm() / first.norm()) > 1e-4


def test_steps_of_the_weights_leave_the_alphas():
    supernet, levels = small_supernet()
    train, _ = losses_of(supernet)
    alphas, weights = copies(levels.alphas), copies(levels.weights)

    def watched():
        assert not any(alpha.requires_grad for alpha in levels.alphas)
        return train()

    levels.step_weights(watched)
    assert same(levels.alphas, alphas)
    assert all(alpha.grad is None and alpha.requires_grad for alpha in levels.alphas)
    assert not same(levels.weights, weights)


@pytest.mark.parametrize("optimization", [FirstOrder(), SecondOrder()], ids=["first", "second"])
def test_steps_of_the_alphas_leave_the_weights_and_compute_nothing_for_them(optimization):
    supernet, levels = small_supernet()
    train, valid = losses_of(supernet)
    weights, alphas = copies(levels.weights), copies(levels.alphas)

    def looked_at(*_):
        assert same(levels.weights, weights)
        assert all(weight.grad is None for weight in levels.weights)

    def watched():
        if isinstance(optimization, FirstOrder):
            assert not any(weight.requires_grad for weight in levels.weights)
        return valid()

    levels.alpha_optimizer.register_step_pre_hook(looked_at)
    optimization.step(levels, train, watched)
    assert not same(levels.alphas, alphas)
    assert all(weight.requires_grad for weight in levels.weights)


@pytest.mark.parametrize("optimization", OPTIMIZATIONS, ids=lambda o: type(o).__name__)
def test_every_step_lowers_the_training_loss_and_gives_both_losses(optimization):
    supernet, levels = small_supernet()
    train, valid = losses_of(supernet)
    alphas = copies(levels.alphas)
    given = [optimization.step(levels, train, valid) for _ in range(12)]
    assert isinstance(given[0], Losses)
    assert float(given[-1].train) < float(given[0].train)
    has_valid = isinstance(optimization, FirstOrder | SecondOrder)
    assert (given[0].valid is not None) == has_valid
    assert same(levels.alphas, alphas) == isinstance(optimization, WeightsOnly)


@pytest.mark.parametrize("optimization", OPTIMIZATIONS, ids=lambda o: type(o).__name__)
def test_equal_starts_give_equal_steps(optimization):
    ends = []
    for _ in range(2):
        supernet, levels = small_supernet()
        for _ in range(3):
            optimization.step(levels, *losses_of(supernet))
        ends.append(copies([*levels.weights, *levels.alphas, *levels.buffers]))
    assert same(*ends)


def test_alphas_of_decided_choices_stay_in_every_step():
    supernet, levels = small_supernet()
    train, valid = losses_of(supernet)
    FirstOrder().step(levels, train, valid)  # gives Adam moments that would move them on
    supernet.decide({"cell/0-1": "nor_conv_3x3"})
    row = supernet.alphas.rows()["cell/0-1"].detach().clone()
    other = supernet.alphas.rows()["cell/0-2"].detach().clone()
    FirstOrder().step(levels, train, valid)
    assert torch.equal(supernet.alphas.rows()["cell/0-1"], row)
    assert not torch.equal(supernet.alphas.rows()["cell/0-2"], other)


def pairs_or_singles(count: int, seed: int):
    """8x8 images of four dots: class 1 where they lie in pairs side by side, else far apart."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.zeros(count, 1, 8, 8), torch.arange(count) % 2
    for image, label in zip(x, y.tolist(), strict=True):
        rows = torch.randperm(4, generator=generator)[:2] * 2
        columns = torch.randint(0, 4, (2,), generator=generator)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            image[0, row, column] = 1
            image[0, row, column + (1 if label else 3)] = 1
    return x, y


def one_edge() -> SearchSpace:
    """One operation between a fixed lift and a classifier of what is on average on the map."""

    def infer(signature, edge):
        edge((8, *signature.input[1:]))
        return signature.output

    def build(signature, edge):
        lift = nn.Conv2d(1, 8, 1)
        return nn.Sequential(lift, edge((8, *signature.input[1:]))[0], Classifier(8, 2))

    options = (none_rule(), skip_connect_rule(), nor_conv_rule(1), nor_conv_rule(3))
    rules = {"Net": (Rule("net", {"edge": "Op"}, infer, build),), "Op": options}
    return SearchSpace("Net", rules, Signature((1, 8, 8), (2,)))


@pytest.mark.parametrize("optimization", [FirstOrder(), SecondOrder()], ids=["first", "second"])
def test_alphas_find_the_only_operation_that_can_fit(optimization):
    # The two classes have equally many dots: an operation that sees one pixel cannot tell them apart.
    torch.manual_seed(0)
    supernet = Supernet(one_edge()).train()
    levels = levels_of(
        supernet,
        torch.optim.SGD(supernet.weights(), 0.1, 0.9),
        torch.optim.Adam(supernet.alphas.parameters(), 0.05, (0.5, 0.999)),
    )

    def loss(seed):
        x, y = pairs_or_singles(48, seed)

        def of():
            SoftmaxMixture().relax(supernet, Draw(torch.Generator()))
            return nn.functional.cross_entropy(supernet(x), y)

        return of

    for step in range(40):
        optimization.step(levels, loss(step), loss(1000 + step))
    assert str(supernet.discretize(shares(supernet))) == "net(nor_conv_3x3)"
    assert shares(supernet)["edge"][3] > 0.5


def test_second_order_takes_sgd_alone():
    levels, train, valid = quadratic(0.1)
    adam = Levels(
        levels.weights, levels.alphas, torch.optim.Adam(levels.weights), levels.alpha_optimizer
    )
    with pytest.raises(ConfigurationError, match="weights have Adam with 1; give one SGD"):
        SecondOrder().step(adam, train, valid)


def test_without_an_optimizer_alphas_are_not_trained():
    supernet = Supernet(edges({"a": (1.0, 1.0), "b": (2.0, 2.0)}))
    levels = levels_of(supernet, torch.optim.SGD(supernet.weights(), 0.1))
    with pytest.raises(ConfigurationError, match="no optimizer was given for the alphas"):
        FirstOrder().step(levels, lambda: supernet(torch.ones(1, 2)).sum(), lambda: torch.zeros(()))


def test_the_gradient_of_the_weights_is_clipped():
    weight = nn.Parameter(torch.zeros(3))
    levels = Levels([weight], [], torch.optim.SGD([weight], 1.0), gradient_clip=5.0)
    levels.step_weights(lambda: (weight * 1000).sum())
    assert float(weight.detach().norm()) == pytest.approx(5.0, rel=1e-4)


def test_inputs_have_the_shape_that_the_space_states():
    supernet, _ = small_supernet()
    assert supernet(example_input(supernet.space)).shape == (4, 5)
