"""Residual networks over sequences: in each layer a mixer of positions and a feed-forward part.

Reference: Yu et al., MetaFormer Is Actually What You Need for Vision, CVPR 2022, Section 3 (the layer);
the options are those of its references in `search_spaces.operations.sequence`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas import registry
from nas.complexity import Complexity
from nas.errors import ConfigurationError
from nas.grammar import Chain, Misfit, Ref, Rule, Symbol, terminal, values
from nas.space import SearchSpace, Signature
from search_spaces.operations.sequence import (
    NORMALIZATIONS,
    Attention,
    DepthwiseConvolution,
    Flow,
    Normalization,
    Recurrent,
    attention_cost,
    depthwise_convolution_cost,
    feed_forward,
    feed_forward_cost,
    layer_norm_cost,
    recurrent_cost,
)
from search_spaces.operations.sequence_ends import flow_of, head, head_cost, stem, stem_cost

Child = Callable[..., Any]  # Any: a spec out, or a product and its spec out


def _check(options: dict[str, tuple[int, ...]]) -> None:
    for name, given in options.items():
        if not given or min(given) < 1:
            raise ConfigurationError(
                f"sequence_mixer was given {name}={given}; it takes whole numbers from 1."
            )


@dataclass(frozen=True)
class Mixers:
    """The convolutions' kernels and dilations and the attentions' heads to choose from."""

    kernels: tuple[int, ...] = (3, 5, 7)
    dilations: tuple[int, ...] = (1, 2, 4)
    heads: tuple[int, ...] = (2, 4)

    def __post_init__(self) -> None:
        _check({"kernels": self.kernels, "dilations": self.dilations, "heads": self.heads})


@registry.space("sequence_mixer")
def sequence_mixer(
    widths: tuple[int, ...] = (16, 32, 64, 128),
    depths: tuple[int, ...] = (1, 2, 3, 4),
    expansions: tuple[int, ...] = (1, 2, 4),
    mixers: Mixers = Mixers(),
) -> SearchSpace:
    """Layers of convolution, attention or GRU over a sequence of tokens or numbers.

    For tokens (length,) or numbers (channels, length). An output (length, features) is causal: that at
    a position depends on the inputs up to it. An output (features,) is of the mean over all positions,
    and every position sees the whole sequence. Chosen are a width, where the norms stand, the depth,
    and for each layer a mixer and how wide its feed-forward part is: 2 * widths * sum over depths d of
    (mixers * expansions)^d architectures, 13,820,832 by default. Left out: dropout, other encodings of
    positions, tied embeddings, two-way GRUs, outputs at every position that see the whole sequence.
    """
    _check({"widths": widths, "depths": depths, "expansions": expansions})
    return SearchSpace(
        start="Network",
        rules={
            "Network": (_network_rule(),),
            "Width": values(*widths),
            "Normalization": [_normalization_rule(name) for name in NORMALIZATIONS],
            "Depth": values(*depths),
            "Layer": (_layer_rule(),),
            "Mixer": (_convolution_rule(), _attention_rule(), _recurrent_rule()),
            "Kernel": values(*mixers.kernels),
            "Dilation": values(*mixers.dilations),
            "Heads": values(*mixers.heads),
            "Expansion": values(*expansions),
        },
        spec=Signature((64,), (64, 65), 65),
    )


def _network_rule() -> Rule:
    """Lift with positions, layers, norm (where they stand before the parts), head."""

    def infer(
        signature: Signature, width: Child, norms: Child, depth: Child, layers: Child
    ) -> tuple[int, ...]:
        norms(signature)
        layers((flow_of(signature, width(signature)), depth(signature)))
        return signature.output

    def build(
        signature: Signature, width: Child, norms: Child, depth: Child, layers: Child
    ) -> nn.Module:
        flow = flow_of(signature, width(signature)[0])
        parts = {
            "stem": stem(signature, flow),
            "layers": layers((flow, depth(signature)[0]))[0],
            "norm": nn.LayerNorm(flow.features) if norms(signature)[0].last else nn.Identity(),
            "head": head(signature, flow),
        }
        return nn.Sequential(OrderedDict(parts))

    def cost(
        signature: Signature, width: Child, norms: Child, depth: Child, layers: Child
    ) -> Complexity:
        flow = flow_of(signature, width(signature))
        ends = stem_cost(signature, flow) + head_cost(signature, flow)
        return ends + layer_norm_cost(flow) if norms(signature).last else ends

    children: dict[str, Symbol] = {
        "width": "Width",
        "normalization": "Normalization",
        "depth": "Depth",
        "layers": Chain("Layer"),
    }
    return Rule("network", children, infer, build, cost=cost)


def _normalization_rule(name: str) -> Rule:
    def same(spec: object) -> Normalization:
        return NORMALIZATIONS[name]

    return terminal(name, same, infer=same, cost=_free)


def _layer_rule() -> Rule:
    """A mixer of positions, then a feed-forward part, each a residual part with its norm."""

    def infer(flow: Flow, mixer: Child, expansion: Child, norms: Child) -> Flow:
        mixer(flow)
        expansion(flow)
        norms(flow)
        return flow

    def build(flow: Flow, mixer: Child, expansion: Child, norms: Child) -> nn.Module:
        hidden = expansion(flow)[0] * flow.features
        residual = norms(flow)[0].residual
        parts = {"mixer": mixer(flow)[0], "feed_forward": feed_forward(flow.features, hidden)}
        placed = {name: residual(part, flow.features) for name, part in parts.items()}
        return nn.Sequential(OrderedDict(placed))

    def cost(flow: Flow, mixer: Child, expansion: Child, norms: Child) -> Complexity:
        return feed_forward_cost(flow, expansion(flow) * flow.features) + layer_norm_cost(flow) * 2

    children: dict[str, Symbol] = {
        "mixer": "Mixer",
        "expansion": "Expansion",
        "normalization": Ref("normalization"),
    }
    return Rule("layer", children, infer, build, cost=cost)


def _convolution_rule() -> Rule:
    def infer(flow: Flow, kernel: Child, dilation: Child) -> Flow:
        kernel(flow)
        dilation(flow)
        return flow

    def build(flow: Flow, kernel: Child, dilation: Child) -> nn.Module:
        return DepthwiseConvolution(flow, kernel(flow)[0], dilation(flow)[0])

    def cost(flow: Flow, kernel: Child, dilation: Child) -> Complexity:
        return depthwise_convolution_cost(flow, kernel(flow))

    return Rule("convolution", {"kernel": "Kernel", "dilation": "Dilation"}, infer, build, cost=cost)


def _attention_rule() -> Rule:
    def infer(flow: Flow, heads: Child) -> Flow:
        number = heads(flow)
        if flow.features % number:
            raise Misfit(f"{flow.features} features are no multiple of {number} heads")
        return flow

    def build(flow: Flow, heads: Child) -> nn.Module:
        return Attention(flow, heads(flow)[0])

    return Rule(
        "attention", {"heads": "Heads"}, infer, build, cost=lambda flow, heads: attention_cost(flow)
    )


def _recurrent_rule() -> Rule:
    return terminal("gru", lambda flow: Recurrent(flow.features), cost=recurrent_cost)


def _free(spec: object) -> Complexity:
    return Complexity()
