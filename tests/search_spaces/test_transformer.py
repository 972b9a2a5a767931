from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest
import torch
from scipy import fft
from torch import Tensor, nn

from nas import registry
from nas.complexity import Complexity, measure
from nas.errors import ConfigurationError, SearchSpaceError
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from nas.variation import sample
from search_spaces.operations.sequence import Flow, feed_forward, feed_forward_cost
from search_spaces.operations.transformer import (
    DynamicConvolution,
    Mixing,
    SoftmaxAttention,
    Transform,
    attention_cost,
    dynamic_convolution_cost,
    transform_cost,
)
from tests.assertions import assert_admissible, assert_causal, example_input

TOKENS = Signature((11,), (11, 7), 7)
ONE = Signature((11,), (5,), 7)
NUMBERS = Signature((2, 9), (5,))
SMALL = {"widths": (8,), "feed_forward_widths": (6, 10)}
CAUSAL = ["dot_product", "multiplicative", "dynamic_convolution_5", "dynamic_convolution_9"]
OPERATIONS = [*CAUSAL, "fourier", "cosine"]


def space(signature: Signature = ONE, **settings: object) -> SearchSpace:
    return registry.make("space", "transformer", SMALL | settings).at(signature)


def text(operation: str, *, heads: int = 2, hidden: int = 1) -> str:
    layer = f"layer({operation}, {heads}, 6, {hidden})"
    return f"network(8, 2, chain({layer}, {layer}))"


def test_the_size_is_its_closed_form() -> None:
    default = registry.make("space", "transformer")
    assert default.at(ONE).size() == 2 * (48**2 + 48**4) == 10_621_440
    assert default.at(TOKENS).size() == 2 * (32**2 + 32**4)
    few = space(depths=(1,), kernels=(3,), heads=(2,), feed_forward_depths=(1,))
    assert few.size() == 5 * 2 == len(set(few.enumerate()))


@pytest.mark.parametrize("normalization", ["pre", "post"])
@pytest.mark.parametrize("operation", CAUSAL)
def test_no_operation_looks_ahead(operation: str, normalization: str) -> None:
    of = space(TOKENS, normalization=normalization)
    architecture = of.parse(text(operation, hidden=3))
    assert_admissible(of, architecture)
    assert_causal(of.build(architecture), example_input(of))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_where_one_vector_is_put_out_the_operations_look_both_ways(operation: str) -> None:
    torch.manual_seed(0)
    network = space(NUMBERS).build(space(NUMBERS).parse(text(operation))).eval()
    before = network[:-1]  # without the mean
    x = NUMBERS.random(2)
    other = x.clone()
    other[:, :, 4] += 1
    changed = (before(x) - before(other)).abs().amax((0, 2)) > 1e-7
    assert changed[2:7].all()


@pytest.mark.parametrize("operation", ["fourier", "cosine"])
def test_a_transform_is_refused_where_every_position_has_an_output(operation: str) -> None:
    with pytest.raises(SearchSpaceError, match=f"a {operation} transform sees later positions"):
        space(TOKENS).parse(text(operation))


def test_samples_are_as_they_were() -> None:
    of, rng = space(), random.Random(0)
    assert str(sample(of, rng)) == (
        "network(8, 4, chain(layer(fourier, 4, 6, 3), layer(dynamic_convolution_5, 2, 6, 1), "
        "layer(dynamic_convolution_9, 4, 10, 1), layer(cosine, 4, 6, 3)))"
    )


def mixing(length: int = 6, *, causal: bool = False) -> Mixing:
    return Mixing(Flow(length, 8, causal), 2)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("multiplicative", [True, False])
def test_attention_is_its_equation(causal: bool, multiplicative: bool) -> None:
    torch.manual_seed(0)
    layer = SoftmaxAttention(mixing(causal=causal), multiplicative=multiplicative).double()
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    q, k, v = layer.query(x), layer.key(x), layer.value(x)
    y = torch.zeros_like(x)
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        asked = q[..., part]
        if multiplicative:
            asked = asked @ layer.weight.matrices[head]
        for t in range(6):
            seen = range(t + 1) if causal else range(6)
            scores = torch.stack([(asked[:, t] * k[:, s, part]).sum(1) / 2 for s in seen], 1)
            weights = scores.softmax(1)
            y[:, t, part] = sum(weights[:, i, None] * v[:, s, part] for i, s in enumerate(seen))
    torch.testing.assert_close(layer(x), layer.out(y))


def test_attention_agrees_with_torch() -> None:
    torch.manual_seed(0)
    layer, other = SoftmaxAttention(mixing(), multiplicative=False), nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        parts = (layer.query, layer.key, layer.value)
        other.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        other.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    other.out_proj = layer.out
    x = torch.randn(6, 3, 8)
    torch.testing.assert_close(layer(x.transpose(0, 1)).transpose(0, 1), other(x, x, x)[0])


def test_the_fourier_transform_is_the_real_part_of_torch_s() -> None:
    torch.manual_seed(0)
    layer, x = Transform(mixing(), cosine=False), torch.randn(3, 6, 8)
    inner = layer.input(x)
    heads = [torch.fft.fft2(inner[..., h : h + 4], norm="ortho").real for h in (0, 4)]
    torch.testing.assert_close(layer(x), layer.out(torch.cat(heads, 2)))


def test_the_cosine_transform_is_scipy_s() -> None:
    torch.manual_seed(0)
    layer, x = Transform(mixing(), cosine=True), torch.randn(3, 6, 8)
    inner = layer.input(x).detach().numpy()
    heads = [fft.dctn(inner[..., h : h + 4], axes=(1, 2), norm="ortho") for h in (0, 4)]
    expected = layer.out(torch.cat([torch.from_numpy(head) for head in heads], 2))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_the_dynamic_convolution_is_its_equation(causal: bool) -> None:
    torch.manual_seed(0)
    layer = DynamicConvolution(mixing(causal=causal), 5).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    value, y = layer.value(x), torch.zeros(2, 6, 8, dtype=torch.float64)
    logits = layer.kernel(layer.query(x) * layer.key(layer.span(x)))
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        taps = logits[..., 5 * head : 5 * head + 5].softmax(2)
        for t in range(6):
            for i in range(5):
                source = t - (4 if causal else 2) + i
                if 0 <= source < 6:
                    y[:, t, part] += taps[:, t, i, None] * value[:, source, part]
    torch.testing.assert_close(layer(x), layer.out(y))


@pytest.mark.parametrize("length", [1, 6, 13])
def test_the_cost_of_every_part_is_what_it_measures(length: int) -> None:
    here = mixing(length, causal=True)
    pairs: list[tuple[nn.Module, Complexity]] = [
        (SoftmaxAttention(here, multiplicative=m), attention_cost(here, multiplicative=m))
        for m in (True, False)
    ]
    pairs += [(Transform(here, cosine=c), transform_cost(here, cosine=c)) for c in (True, False)]
    pairs.append((DynamicConvolution(here, 5), dynamic_convolution_cost(here, 5)))
    pairs += [(feed_forward(8, 6, n), feed_forward_cost(here.flow, 6, n)) for n in (1, 3)]
    for layer, cost in pairs:
        assert measure(layer, (length, 8)) == cost


def test_what_scores_look_at_is_seen_by_hooks() -> None:
    of = space()
    network = of.build(of.parse(text("multiplicative", hidden=3)))
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda m, i, output, name=name: seen.update({name: output}))
    network(example_input(of, 3))
    at = "layers.stages.1.operation.part"
    probabilities = seen[f"{at}.softmax"]
    assert probabilities.shape == (3, 2, 11, 11)
    torch.testing.assert_close(probabilities.sum(3), torch.ones(3, 2, 11))
    for name in ("query", "key", "value"):
        assert seen[f"{at}.{name}"].shape == (3, 11, 8)
    assert seen[f"{at}.weight"].shape == (3, 2, 11, 4)
    part = network.get_submodule("layers.stages.1.feed_forward.part")
    shapes = [(m.in_features, m.out_features) for m in part if isinstance(m, nn.Linear)]
    assert shapes == [(8, 6), (6, 6), (6, 6), (6, 8)]


def encoders(data_folder: Any) -> list[dict[str, Any]]:
    file = data_folder / "nlp_nas_tables" / "flexibert_500.json.gz"
    if not file.is_file():
        pytest.skip("the table of encoders is not there")
    with gzip.open(file) as stream:
        runs: list[dict[str, Any]] = json.load(stream)
    return [run["hparams"]["model_hparam_overrides"] for run in runs]


def test_every_published_encoder_reads_back_and_has_its_dimensions(data_folder: Any) -> None:
    of = registry.make("space", "transformer").at(Signature((4,), (2,), 9))
    assert of.notation is not None
    found = encoders(data_folder)
    assert len(found) == 500
    for encoder in found:
        architecture = of.parse(json.dumps(encoder))
        assert json.loads(of.notation.write(architecture)) == encoder
    for encoder in found[::25]:
        network = of.build(of.parse(json.dumps(encoder))).eval()
        assert len(network.layers.stages) == len(encoder["nas_config"]["encoder_layers"])
        for stage, layer in zip(
            network.layers.stages, encoder["nas_config"]["encoder_layers"], strict=True
        ):
            assert stage.operation.part.heads[0] == layer["num_operation_heads"]
            linears = [m for m in stage.feed_forward.part if isinstance(m, nn.Linear)]
            assert linears[0].in_features == encoder["hidden_size"]
            assert [m.out_features for m in linears[:-1]] == (
                [layer["feed_forward_dimension"]] * layer["num_feed_forward"]
            )
        assert network(example_input(of, 2)).isfinite().all()


def encoder(**layer: object) -> str:
    given: dict[str, object] = {
        "operation_type": "SA",
        "operation_parameter": "SDP",
        "num_operation_heads": 2,
        "feed_forward_dimension": 6,
        "num_feed_forward": 1,
    }
    layers = [given | layer] * 2
    return json.dumps({"hidden_size": 8, "nas_config": {"encoder_layers": layers}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (encoder(operation_parameter="WAM"), '"SA WAM" is not an operation.*did you mean "SA WMA"'),
        (encoder(num_operation_heads=3), '"3" is not a rule'),
        (encoder(operation_type="DSC", operation_parameter=7), "dynamic_convolution_7"),
        (encoder(num_feed_forward="many"), "is no encoder of FlexiBERT"),
        ('{"hidden_size": 8}', "give hidden_size, and in nas_config the encoder_layers"),
    ],
    ids=["operation", "heads", "kernel", "type", "field"],
)
def test_what_is_no_encoder_is_refused_with_the_reason(given: str, message: str) -> None:
    with pytest.raises(SearchSpaceError, match=message):
        space().parse(given)


def test_its_operations_are_relaxed_where_the_sizes_are_fixed() -> None:
    of = space(NUMBERS)
    fixed = {
        "depth": "2",
        "heads": "2",
        "feed_forward_width": "6",
        "feed_forward_depth": "1",
    }
    supernet = Supernet(of, fixed)
    assert [len(choice.names) for choice in supernet.choices.values()] == [6, 6]
    architecture = supernet.sample(random.Random(0))
    x = example_input(of)
    torch.testing.assert_close(supernet.eval().inherit(architecture)(x), supernet(x))


def test_heads_that_do_not_divide_the_width_are_not_drawn() -> None:
    of = space(widths=(6,), depths=(1,), heads=(2, 4))
    assert of.size() == 6 * 2 * 2
    with pytest.raises(SearchSpaceError, match="6 features are no multiple of 4 heads"):
        of.parse("network(6, 1, chain(layer(fourier, 4, 6, 1)))")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, "it takes whole numbers from 1"),
        ({"kernels": (0,)}, "it takes whole numbers from 1"),
        ({"normalization": "both"}, "allowed: pre, post"),
    ],
)
def test_settings_that_make_no_space_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        space(**settings)
