"""Scores of transformers against slow ones, and the truths that they keep."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from nas.sequence_parts import TokenMixer
from search_spaces.operations.sequence import Attention, Flow
from search_spaces.operations.transformer import Mixing, SoftmaxAttention
from tests.evaluators.zero_cost.sequence_subjects import (
    VOCABULARY,
    Lstm,
    encoder,
    mixer,
    of_classes,
    of_tokens,
    recurrent,
    tokens,
)
from tests.evaluators.zero_cost.subjects import images, measured, reason, score, subject

DOT = "layer(dot_product, 2, 6, 1)"
NAMES = (
    *("head_confidence", "softmax_confidence", "head_importance", "synaptic_diversity"),
    *("feed_forward_saliency", "feed_forward_distance"),
)


def embedded(network: nn.Module) -> Tensor:
    return network.stem(tokens()).detach()


def operation(network: nn.Module, layer: int = 0) -> nn.Module:
    return network.layers.stages[layer].operation.part


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


@pytest.mark.parametrize("normalized", [False, True])
def test_head_confidence_is_the_mean_highest_query_key_and_value(normalized):
    network = encoder(DOT)
    part, x = operation(network), embedded(network)
    means = []
    for layer in (part.query, part.key, part.value):
        y = linear(layer, x).detach()
        tops = [max(float(y[b, t, f]) for t in range(9)) for b in range(6) for f in range(8)]
        means.append(sum(tops) / len(tops))
    expected = sum(means) / (3 if normalized else 1)
    text = f"head_confidence(normalized={str(normalized).lower()})"
    assert score(of_tokens(network), text) == pytest.approx(expected, rel=1e-5)


def test_head_confidence_takes_the_weights_of_multiplicative_attention_along_the_sequence():
    network = encoder("layer(multiplicative, 2, 6, 1)")
    part, x = operation(network), embedded(network)
    found = [linear(layer, x) for layer in (part.query, part.key, part.value)]
    heads = found[0].unflatten(2, (2, 4))
    found.append(torch.einsum("blhd,hde->blhe", heads, part.weight.matrices).flatten(2))
    expected = sum(float(y.detach().amax(1).mean()) for y in found)
    assert score(of_tokens(network), "head_confidence") == pytest.approx(expected, rel=1e-5)


def test_softmax_confidence_is_the_mean_highest_probability_by_hand():
    network = encoder(DOT)
    part, x = operation(network), embedded(network)
    q, k = (linear(layer, x).detach() for layer in (part.query, part.key))
    tops = []
    for b in range(6):
        for h in range(2):
            mine = slice(4 * h, 4 * h + 4)
            for t in range(9):
                scores = [float(q[b, t, mine] @ k[b, s, mine]) / 2 for s in range(9)]
                total = sum(map(math.exp, scores))
                tops.append(math.exp(max(scores)) / total)
    expected = sum(tops) / len(tops)
    assert score(of_tokens(network), "softmax_confidence") == pytest.approx(expected, rel=1e-5)


class Alone(nn.Module):
    """Embedding, one mixer, linear map."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Embedding(VOCABULARY, 8)
        self.head = nn.Linear(8, VOCABULARY)
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self.lift(x)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["head_confidence", "softmax_confidence", "head_importance"])
def test_attention_in_one_call_scores_as_the_same_in_parts(name, causal):
    flow = Flow(9, 8, causal)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fused = Attention(flow, 2)
        apart = SoftmaxAttention(Mixing(flow, 2), multiplicative=False)
        with torch.no_grad():
            for i, part in enumerate((apart.query, apart.key, apart.value)):
                part.weight.copy_(fused.queries_keys_values.weight[8 * i : 8 * i + 8])
                part.bias.zero_()
            apart.out.load_state_dict(fused.out.state_dict())
        first, second = (score(of_tokens(Alone(part)), name) for part in (fused, apart))
    assert first == pytest.approx(second, rel=1e-4)


def gradients(network: nn.Module) -> None:
    network(tokens()).sum().backward()


@pytest.mark.parametrize("name", ["feed_forward_saliency", "head_importance", "synaptic_diversity"])
@pytest.mark.parametrize("kind", ["dot_product", "multiplicative", "fourier", "dynamic_convolution_3"])
def test_saliencies_are_those_of_gradients_of_the_outputs_sum(name, kind):
    network = encoder(f"layer({kind}, 2, 6, 2)", "layer(dot_product, 4, 6, 1)", normalization="pre")
    given = of_tokens(copy.deepcopy(network))
    gradients(network)
    total = 0.0
    for i, layer in enumerate(network.layers.stages):
        part = layer.feed_forward.part if name.startswith("feed") else operation(network, i)
        weights = [m.weight for m in part.modules() if isinstance(m, nn.Linear)]
        if kind == "multiplicative" and i == 0 and not name.startswith("feed"):
            weights.append(part.weight.matrices)
        for w in weights:
            pairs = [(w, w.grad)] if w.dim() == 2 else list(zip(w, w.grad, strict=True))
            for value, slope in pairs:
                total += float(_term(name, value.detach(), slope))
    assert score(given, name) == pytest.approx(total, rel=1e-3)


def _term(name: str, weight: Tensor, gradient: Tensor) -> Tensor:
    if name == "synaptic_diversity":
        return torch.linalg.svdvals(weight).sum() * torch.linalg.svdvals(gradient).sum()
    return (weight * gradient).abs().sum()


def stacked(depth: int) -> nn.Module:
    """Layers of the same weights that hardly change what flows, so that they see and give the same."""
    network = encoder(*[DOT] * depth, normalization="pre")
    with torch.no_grad():
        network.stem.load_state_dict(encoder(DOT, seed=1).stem.state_dict())
        network.head.load_state_dict(encoder(DOT, seed=1).head.state_dict())
        one = encoder(DOT, normalization="pre", seed=2).layers.stages[0]
        one.operation.part.out.weight.mul_(1e-3)
        one.operation.part.out.bias.zero_()
        one.feed_forward.part[-1].weight.mul_(1e-3)
        one.feed_forward.part[-1].bias.zero_()
        for layer in network.layers.stages:
            layer.load_state_dict(one.state_dict())
        network.stem.positions.mul_(50)
        network.stem.lift.weight.mul_(50)
    return network


@pytest.fixture(scope="module")
def by_depth():
    plain = {depth: measured(of_tokens(stacked(depth)), *NAMES).values for depth in (1, 2, 4)}
    texts = [f"{name}(normalized=true)" for name in NAMES]
    mean = {depth: measured(of_tokens(stacked(depth)), *texts).values for depth in (1, 2, 4)}
    return plain, mean


@pytest.mark.parametrize("name", NAMES)
def test_a_sum_rises_linearly_with_equal_layers(by_depth, name):
    one, two, four = (by_depth[0][depth][name] for depth in (1, 2, 4))
    assert two == pytest.approx(2 * one, rel=0.02)
    assert four == pytest.approx(4 * one, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_normalized_it_does_not(by_depth, name):
    one, two, four = (by_depth[1][depth][f"{name}_normalized"] for depth in (1, 2, 4))
    assert two == pytest.approx(one, rel=0.02)
    assert four == pytest.approx(one, rel=0.02)


def test_what_mixes_by_fixed_numbers_has_no_softmax():
    network = encoder("layer(fourier, 2, 6, 1)")
    assert "no softmax" in reason(of_tokens(network), "softmax_confidence")
    assert score(of_tokens(network), "head_confidence") > 0


def test_a_softmax_that_is_a_module_counts():
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.softmax = nn.Linear(8, 4), nn.Softmax(-1)

        def forward(self, x: Tensor) -> Tensor:
            weights = self.softmax(self.score(x))
            return x * weights.repeat(1, 1, 2)

    network = Alone(Pooled())
    probabilities = network.part.score(network.lift(tokens())).softmax(-1)
    expected = float(probabilities.amax(-1).mean().detach())
    assert score(of_tokens(network), "softmax_confidence") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["head_confidence", "head_importance", "synaptic_diversity"])
@pytest.mark.parametrize(
    "given",
    [of_tokens(Lstm()), subject(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), images())],
    ids=["recurrent", "images"],
)
def test_networks_without_attention_are_refused(given, name):
    assert "no attention or other mixer" in reason(given, name)


@pytest.mark.parametrize("name", ["feed_forward_saliency", "feed_forward_distance"])
def test_networks_without_feed_forward_parts_are_refused(name):
    assert "feed-forward part" in reason(of_tokens(Lstm()), name)


@pytest.mark.parametrize("name", NAMES)
def test_attention_of_the_sequence_mixers_has_every_score(name):
    assert score(of_tokens(mixer("attention(2)", 2)), name) > 0


@pytest.mark.parametrize("kind", ["dot_product", "multiplicative", "dynamic_convolution_3"])
def test_probabilities_sum_to_1(kind):
    network, sums = encoder(f"layer({kind}, 2, 6, 1)"), []
    view = operation(network).probabilities()
    view.module.register_forward_hook(lambda m, i, y: sums.append(view.read(y).sum(-1)))
    network(tokens())
    torch.testing.assert_close(sums[0], torch.ones_like(sums[0]))


@pytest.mark.parametrize("kind", ["multiplicative", "cosine", "dynamic_convolution_3"])
def test_projections_have_the_flows_shape(kind):
    network, shapes = encoder(f"layer({kind}, 2, 6, 1)"), []
    part = operation(network)
    assert isinstance(part, TokenMixer)
    for view in part.projections():
        view.module.register_forward_hook(lambda m, i, y, v=view: shapes.append(v.read(y).shape))
    network(tokens())
    assert shapes
    assert set(shapes) == {(6, 9, 8)}


ALL = (
    *("hidden_covariance", "jacob_cov", "jacob_cosine", "activation_distance", "hidden_saliency"),
    *("synaptic_saliency", "fisher", "grad_norm", "snip", "naswot", "epe_nas", "grasp", *NAMES),
)


@pytest.fixture(
    scope="module",
    params=[
        of_tokens(recurrent("gru", 2)),
        of_classes(encoder(DOT, "layer(dynamic_convolution_3, 2, 6, 1)")),
    ],
    ids=["recurrent", "transformer"],
)
def together(request):
    return request.param, measured(request.param, *ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_score_of_a_sequence_network_is_the_same_in_company(together, name):
    given, expected = together
    alone = measured(given, name)
    for metric, value in alone.values.items():
        assert expected.values[metric] == pytest.approx(value, rel=1e-6)
    for metric, why in alone.missing.items():
        assert expected.missing[metric] == why


def test_sequence_networks_are_left_as_they_were(together):
    network = together[0].network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    measured(together[0], *ALL)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(not m._forward_hooks for m in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
