"""Scores of recurrent networks against slow ones, and the truths that they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluators.zero_cost.correlation_score import correlation_score
from evaluators.zero_cost.naming import proxy
from evaluators.zero_cost.subject import Subject
from tests.evaluators.zero_cost.sequence_subjects import (
    VOCABULARY,
    Kept,
    Lstm,
    mixer,
    of_tokens,
    recurrent,
    tokens,
    with_cell,
)
from tests.evaluators.zero_cost.subjects import images, measured, reason, score, subject
from tests.evaluators.zero_cost.test_closed_forms import Rows

K = 1e-5
NAMES = ("hidden_covariance_first", "hidden_covariance_middle", "hidden_covariance_last")


def covariances(given: Subject) -> list[float]:
    found = measured(given, "hidden_covariance")
    assert not found.missing, found.missing
    return [found.values[name] for name in NAMES]


def first(network: nn.Module, x: Tensor | None = None) -> float:
    return covariances(of_tokens(network, x))[0]


@pytest.mark.parametrize("n", [2, 10])
def test_uncorrelated_rows_score_the_highest_there_is(n):
    found = correlation_score(torch.eye(n, dtype=torch.float64), 1000)
    assert found == pytest.approx(-n * (math.log(1 + K) + 1 / (1 + K)), rel=1e-12)


def test_every_row_that_says_the_same_as_others_costs_1e5():
    equal = torch.eye(4, dtype=torch.float64)
    equal[:2, :2] = 1
    assert correlation_score(equal, 1000) == pytest.approx(-1e5, rel=1e-3)


def by_hand(states: list[np.ndarray]) -> list[float]:
    """Of layers' states after each step, (B, L, F)."""
    scores = []
    for after in states:
        rows = np.array([np.concatenate([np.zeros_like(x[0]), *x[:-1]]) for x in after], float)
        v = np.linalg.eigvalsh(np.corrcoef(rows))
        scores.append(-sum(math.log(e + K) + 1 / (e + K) for e in v))
    return scores


@pytest.mark.parametrize("batch_first", [True, False])
def test_hidden_covariance_of_torchs_lstm_is_that_computed_by_hand(batch_first):
    network, seen = Lstm(batch_first=batch_first), []
    y = network.lift(tokens())
    for layer in network.layers:
        h = c = torch.zeros(len(y), 4)
        after = []
        for x in y.unbind(1):
            gates = x @ layer.weight_ih_l0.T + layer.bias_ih_l0
            i, f, g, o = (gates + h @ layer.weight_hh_l0.T + layer.bias_hh_l0).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            after.append(h)
        y = torch.stack(after, 1)
        seen.append(y.detach().numpy())
    assert covariances(of_tokens(network)) == pytest.approx(by_hand(seen), rel=1e-3)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_hidden_covariance_is_of_the_first_the_middle_and_the_last_layer(layers):
    network, seen = recurrent("lstm", layers), []
    y = network.lift(tokens())
    for name, part in network.named_children():
        if name.startswith("layer"):
            y = part(y)
            seen.append(y.detach().numpy())
    expected = [by_hand(seen)[i] for i in (0, layers // 2, layers - 1)]
    assert covariances(of_tokens(network)) == pytest.approx(expected, rel=1e-3)


def test_hidden_covariance_changes_with_the_scale_of_recurrent_weights():
    plain, large = (first(Lstm(scale=scale)) for scale in (1.0, 4.0))
    assert abs(plain - large) > 1


def test_hidden_covariance_needs_no_gradients():
    network, graded = Lstm(), []
    observations = proxy("hidden_covariance").observations
    assert not any(o.derivatives for o in observations)
    given = of_tokens(network)
    assert given.refusal() is None  # this one pass, which looks for what is on a path, has a graph
    network.lift.register_forward_hook(lambda *_: graded.append(torch.is_grad_enabled()))
    covariances(given)
    assert graded == [False]


def test_hidden_covariance_does_not_depend_on_the_order_of_the_batch():
    x = tokens()
    assert covariances(of_tokens(Lstm(), x.flip(0))) == pytest.approx(
        covariances(of_tokens(Lstm(), x)), rel=1e-4
    )


def test_sequences_that_are_equal_cost_1e5():
    x = tokens()
    x[1] = x[0]
    assert -1.1e5 < first(Lstm(), x) < -0.9e5


def saturated() -> nn.Module:
    network = recurrent("rnn", 1)
    with torch.no_grad():
        network.layer0.cell.maps["x"].bias.fill_(100.0)
    return network


def test_a_saturated_cell_scores_lowest():
    lowest = first(saturated())
    assert lowest == pytest.approx(-5e5, rel=0.01)
    assert all(lowest < first(network) for network in (Lstm(), recurrent("gru"), recurrent("rnn", 1)))


def test_a_cell_that_stays_at_its_first_state_is_flagged():
    class Beside(nn.Module):
        """Its outputs depend on the tokens past the cell."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = with_cell(Kept())

        def forward(self, x: Tensor) -> Tensor:
            lifted = self.inner[0](x)
            return self.inner[2](self.inner[1](lifted) + lifted)

    found = measured(of_tokens(Beside()), "hidden_covariance", "snip")
    assert "sequence of hidden states is constant" in found.missing["hidden_covariance_first"]
    assert "snip" in found.values


def test_one_step_has_no_state_before_it_but_0():
    given = of_tokens(Lstm(), tokens()[:, :1])
    assert "sequence of hidden states is constant" in reason(given, "hidden_covariance")


def test_the_gated_units_of_other_spaces_have_states_too():
    assert covariances(of_tokens(mixer("gru", 2)))[0] < -6


def test_of_a_two_way_layer_the_way_forward_counts():
    class TwoWay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(5, 3, batch_first=True, bidirectional=True)
            self.join = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.join(self.gru(x)[0])

    network = with_cell(TwoWay())
    states = network[1].gru(network[0](tokens()))[0][..., :3].detach().numpy()
    assert first(network) == pytest.approx(by_hand([states])[0], rel=1e-3)


@pytest.mark.parametrize(
    "name", ["hidden_covariance", "hidden_saliency", "synaptic_saliency"], ids=lambda n: n
)
def test_networks_without_recurrent_layers_are_refused(name):
    network = nn.Sequential(nn.Embedding(VOCABULARY, 4), nn.Linear(4, VOCABULARY))
    assert "no recurrent layer" in reason(of_tokens(network), name)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    assert "no recurrent layer" in reason(subject(flat, images()), name)


def test_a_batch_of_one_is_refused():
    assert "1 example" in reason(of_tokens(Lstm(), tokens(1)), "hidden_covariance")


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_hidden_saliency_sums_states_times_their_whole_derivatives(name):
    network, kept = recurrent(name, 2), []

    def keep(module: nn.Module, inputs: object, output: tuple[Tensor, ...]) -> None:
        output[0].retain_grad()
        kept.append(output[0])

    for part in (network.layer0, network.layer1):
        part.cell.register_forward_hook(keep)
    (network(tokens()).square().sum() / 2).backward()
    expected = sum(float((h.detach() * h.grad).abs().sum()) for h in kept if h.grad is not None)
    assert score(of_tokens(recurrent(name, 2)), "hidden_saliency") == pytest.approx(expected, rel=1e-4)


def test_hidden_saliency_of_a_sum_is_known():
    """One step back has the derivatives of all later steps: h_t = h_{t-1} + x_t, y = h."""
    network = nn.Sequential(nn.Embedding(VOCABULARY, 5), Kept(1.0))
    x = tokens()
    h = network[0](x).detach().cumsum(1)
    later = h.flip(1).cumsum(1).flip(1)
    given = subject(network, x, x, lambda y, t: y.square().mean(), VOCABULARY)
    assert score(given, "hidden_saliency") == pytest.approx(float((h * later).abs().sum()), rel=1e-5)


def test_the_steps_of_torchs_layers_are_not_seen_which_is_said():
    assert "not seen one by one" in reason(of_tokens(Lstm()), "hidden_saliency")


def test_synaptic_saliency_is_of_hidden_weights_and_the_decoder():
    network = recurrent("gru", 2)
    (network(tokens()).square().sum() / 2).backward()
    hidden = [
        m.weight
        for part in (network.layer0, network.layer1)
        for source, m in part.cell.maps.items()
        if source != "x"
    ]
    expected = sum(float((w.detach() * w.grad).abs().sum()) for w in (*hidden, network.head.weight))
    assert score(of_tokens(recurrent("gru", 2)), "synaptic_saliency") == pytest.approx(
        expected, rel=1e-4
    )


def test_synaptic_saliency_of_torchs_layers_is_of_weight_hh():
    network = Lstm(2)
    (network(tokens()).square().sum() / 2).backward()
    weights = [*(layer.weight_hh_l0 for layer in network.layers), network.head.weight]
    expected = sum(float((w.detach() * w.grad).abs().sum()) for w in weights)
    assert score(of_tokens(Lstm(2)), "synaptic_saliency") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["jacob_cov", "jacob_cosine"])
def test_the_gradient_in_tokens_is_that_in_their_embeddings(name):
    network = Lstm()
    inner = nn.Sequential(*[_First(layer) for layer in network.layers], network.head)
    embedded = network.lift(tokens()).detach()
    numbers = subject(inner, embedded, tokens(), each_number)
    assert score(of_tokens(network), name) == pytest.approx(score(numbers, name), rel=1e-3)


def each_number(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


class _First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def test_jacob_cosine_of_orthogonal_gradients_is_1():
    assert score(subject(Rows(torch.eye(4)), torch.zeros(4, 4)), "jacob_cosine") == 1


def test_jacob_cosine_of_equal_gradients_is_a_half():
    same = Rows(torch.ones(4, 4))
    assert score(subject(same, torch.zeros(4, 4)), "jacob_cosine") == pytest.approx(0.5)


def test_jacob_cosine_is_its_equation():
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    unit = (rows / rows.norm(dim=1, keepdim=True)).double().numpy()
    total = sum(abs(unit[i] @ unit[j]) ** 0.05 for i in range(5) for j in range(5) if i != j)
    found = score(subject(Rows(rows), torch.zeros(5, 7)), "jacob_cosine")
    assert found == pytest.approx(1 - total / (2 * 20), rel=1e-5)


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.GELU])
def test_activation_distance_knows_only_whether_activations_are_on(kind):
    def made(activation: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(128, 16), activation, nn.Linear(16, 3))

    with torch.random.fork_rng():
        rectified, other = (subject(made(m), images()) for m in (nn.ReLU(), kind()))
    assert score(other, "activation_distance") == score(rectified, "naswot")


def test_activation_distance_counts_every_step_of_a_cell():
    network, codes = recurrent("gru", 1), []

    def hear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        codes.append((inputs[0] > 0).flatten(1).numpy())

    for module in network.modules():
        if isinstance(module, nn.Tanh | nn.Sigmoid):
            module.register_forward_hook(hear)
    with torch.no_grad():
        network(tokens())
    c = np.concatenate(codes, 1)
    kernel = np.array([[(a == b).sum() for b in c] for a in c], float)
    found = score(of_tokens(recurrent("gru", 1)), "activation_distance")
    assert found == pytest.approx(np.linalg.slogdet(kernel)[1])
