from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas import registry
from nas.complexity import Complexity, measure
from nas.errors import ConfigurationError, SearchSpaceError
from nas.space import SearchSpace, Signature
from nas.variation import sample
from search_spaces.operations.sequence import (
    Attention,
    DepthwiseConvolution,
    Flow,
    Recurrent,
    attention_cost,
    depthwise_convolution_cost,
    recurrent_cost,
)
from tests.assertions import assert_admissible, assert_causal, example_input

TOKENS = Signature((11,), (11, 7), 7)
NUMBERS = Signature((2, 9), (5,))
MIXERS = [f"convolution({k}, {d})" for k in (3, 5, 7) for d in (1, 2, 4)]
MIXERS += ["attention(2)", "attention(4)", "gru"]


def space(signature: Signature = TOKENS, **settings: object) -> SearchSpace:
    return registry.make("space", "sequence_mixer", settings).at(signature)


def built(text: str, signature: Signature = TOKENS) -> nn.Module:
    torch.manual_seed(0)
    return space(signature).build(space(signature).parse(text))


@pytest.mark.parametrize("seed", range(8))
def test_no_output_of_a_sample_depends_on_a_later_input(seed: int) -> None:
    of = space()
    torch.manual_seed(seed)
    assert_causal(of.build(sample(of, random.Random(seed))), example_input(of))


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_no_mixer_looks_ahead(mixer: str, placement: str) -> None:
    for signature in (TOKENS, Signature((2, 11), (11, 3))):
        of = space(signature)
        architecture = of.parse(
            f"network(16, {placement}, 2, chain(layer({mixer}, 1), layer({mixer}, 2)))"
        )
        assert_admissible(of, architecture)
        assert_causal(of.build(architecture), example_input(of))


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_looks_back(mixer: str) -> None:
    network = built(f"network(16, pre, 1, chain(layer({mixer}, 1)))").eval()
    x = example_input(space())
    other = x.clone()
    other[:, 2] = (x[:, 2] + 1) % 7
    changed = (network(x) - network(other)).abs().amax((0, 2)) > 1e-7
    assert not changed[:2].any()
    assert changed[3:].any()


@pytest.mark.parametrize("mixer", [m for m in MIXERS if m != "gru"])
def test_where_one_vector_is_put_out_the_mixers_look_both_ways(mixer: str) -> None:
    of = space(NUMBERS)
    network = built(f"network(16, pre, 1, chain(layer({mixer}, 1)))", NUMBERS).eval()
    before = network[:-1]  # without the mean
    x = example_input(of)
    other = x.clone()
    other[:, :, 4] += 1
    changed = (before(x) - before(other)).abs().amax((0, 2)) > 1e-7
    assert changed[4]
    assert changed[:4].any()
    assert changed[5:].any()


def test_the_size_is_its_closed_form() -> None:
    assert space().size() == 2 * 4 * sum((12 * 3) ** d for d in range(1, 5)) == 13_820_832
    few = space(widths=(8,), depths=(1, 2), expansions=(1,), kernels=(3,), dilations=(1,), heads=(2,))
    assert few.size() == 2 * (3 + 9) == len(set(few.enumerate()))


def test_attention_is_its_equation() -> None:
    torch.manual_seed(0)
    for causal in (True, False):
        layer = Attention(Flow(6, 8, causal), 2).double()
        x = torch.randn(3, 6, 8, dtype=torch.float64)
        torch.testing.assert_close(layer(x), slow_attention(layer, x, causal))


def slow_attention(layer: Attention, x: Tensor, causal: bool) -> Tensor:
    q, k, v = layer.queries_keys_values(x).split(8, dim=2)
    y = torch.zeros_like(x)
    for head in (slice(0, 4), slice(4, 8)):
        for t in range(6):
            seen = range(t + 1) if causal else range(6)
            scores = torch.stack([(q[:, t, head] * k[:, s, head]).sum(1) / 2 for s in seen], 1)
            weights = scores.softmax(1)
            y[:, t, head] = sum(weights[:, i, None] * v[:, s, head] for i, s in enumerate(seen))
    return layer.out(y)


@pytest.mark.parametrize("causal", [True, False])
def test_the_convolution_is_its_equation(causal: bool) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConvolution(Flow(9, 3, causal), 5, 2).double()
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    reach = 8 if causal else 4
    y = torch.zeros_like(x) + layer.convolution.bias
    for t in range(9):
        for i in range(5):
            source = t - reach + 2 * i
            if 0 <= source < 9:
                y[:, t] += layer.convolution.weight[:, 0, i] * x[:, source]
    torch.testing.assert_close(layer(x), y)


def test_the_recurrent_unit_is_its_equation() -> None:
    torch.manual_seed(0)
    layer = Recurrent(3).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    state, states = torch.zeros(2, 3, dtype=torch.float64), []
    w = layer.gru
    for t in range(5):
        of_input = functional.linear(x[:, t], w.weight_ih_l0, w.bias_ih_l0).chunk(3, 1)
        of_state = functional.linear(state, w.weight_hh_l0, w.bias_hh_l0).chunk(3, 1)
        r, z = (torch.sigmoid(of_input[i] + of_state[i]) for i in (0, 1))
        n = torch.tanh(of_input[2] + r * of_state[2])
        state = (1 - z) * n + z * state
        states.append(state)
    torch.testing.assert_close(layer(x), torch.stack(states, 1))


@pytest.mark.parametrize("length", [1, 6, 13])
def test_the_cost_of_every_mixer_is_what_it_measures(length: int) -> None:
    flow = Flow(length, 8, causal=True)
    pairs: list[tuple[nn.Module, Complexity]] = [
        (DepthwiseConvolution(flow, 5, 2), depthwise_convolution_cost(flow, 5)),
        (Attention(flow, 2), attention_cost(flow)),
        (Recurrent(8), recurrent_cost(flow)),
    ]
    for layer, cost in pairs:
        assert measure(layer, (length, 8)) == cost


def test_the_same_text_is_a_network_of_any_sequence() -> None:
    text = "network(16, post, 2, chain(layer(gru, 4), layer(attention(2), 1)))"
    for signature in (TOKENS, NUMBERS, Signature((30,), (4,), 100), Signature((3, 8), (8, 2))):
        network = built(text, signature)
        assert network(signature.random(2)).shape == (2, *signature.output)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (
            Signature((3, 8, 8), (10,)),
            r"\(3, 8, 8\) is not a sequence of numbers; give \(channels, len",
        ),
        (Signature((4,), (1,)), "is not a sequence of numbers"),
        (Signature((2, 8), (3,), 5), r"is not a sequence of tokens; give \(length,\)"),
        (Signature((8,), (9, 5), 5), r"output \(9, 5\) is neither \(features,\) nor \(8, features\)"),
    ],
    ids=["image", "vector", "two rows of tokens", "another length"],
)
def test_what_is_no_sequence_is_refused_in_a_sentence(signature: Signature, message: str) -> None:
    with pytest.raises(SearchSpaceError, match=message):
        sample(space(signature), random.Random(0))


@pytest.mark.parametrize("name", ["kan", "nasbench201"])
def test_other_spaces_refuse_tokens(name: str) -> None:
    of = registry.make("space", name).at(Signature((8, 8, 8), (5,), 9))
    with pytest.raises(SearchSpaceError, match="the input is tokens"):
        sample(of, random.Random(0))


def test_heads_that_do_not_divide_the_width_are_not_drawn() -> None:
    of = space(widths=(6,), depths=(1,), heads=(2, 4))
    assert of.size() == 2 * 3 * (9 + 1 + 1)
    with pytest.raises(SearchSpaceError, match="6 features are no multiple of 4 heads"):
        of.parse("network(6, pre, 1, chain(layer(attention(4), 1)))")


@pytest.mark.parametrize("settings", [{"widths": ()}, {"depths": (0,)}, {"kernels": ()}])
def test_options_are_checked(settings: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ConfigurationError, match="it takes whole numbers from 1"):
        space(**settings)
