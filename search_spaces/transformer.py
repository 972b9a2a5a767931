"""Encoders of the FlexiBERT kind, in which every layer has an operation and sizes of its own.

Reference: Tuli et al., FlexiBERT: Are Current Transformer Architectures too Homogeneous and Rigid?,
JAIR 2023; the options are those of Serianni and Kalita, Training-free Neural Architecture Search for
RNNs and Transformers, ACL 2023.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

from nas import registry
from nas.complexity import Complexity
from nas.errors import ConfigurationError
from nas.grammar import Chain, Misfit, Rule, Symbol, terminal, values
from nas.space import SearchSpace, Signature
from search_spaces.encoder_recipe import CONVOLUTION, notation
from search_spaces.operations.sequence import (
    NORMALIZATIONS,
    Flow,
    Normalization,
    feed_forward,
    feed_forward_cost,
    layer_norm_cost,
)
from search_spaces.operations.sequence_ends import flow_of, head, head_cost, stem, stem_cost
from search_spaces.operations.transformer import (
    DynamicConvolution,
    Mixing,
    SoftmaxAttention,
    Transform,
    attention_cost,
    dynamic_convolution_cost,
    transform_cost,
)

Call = Callable[..., Any]  # Any: a spec out
Make = Callable[..., tuple[Any, Any]]  # Any: a product and its spec out


@registry.space("transformer")
def transformer(
    widths: tuple[int, ...] = (128, 256),
    depths: tuple[int, ...] = (2, 4),
    heads: tuple[int, ...] = (2, 4),
    feed_forward_widths: tuple[int, ...] = (512, 1024),
    feed_forward_depths: tuple[int, ...] = (1, 3),
    kernels: tuple[int, ...] = (5, 9),
    normalization: str = "post",
) -> SearchSpace:
    """FlexiBERT: transformers whose layers have operations, heads and feed-forward parts of their own.

    For tokens (length,) or numbers (channels, length). An output (length, features) is causal; no layer
    is a Fourier or cosine transform there, since these see the whole sequence. Chosen are a width, a
    depth, and for each layer an operation (attention by dot products or multiplicative, transform by
    Fourier or cosines, dynamic convolution), its heads, and the width and depth of its feed-forward
    part: widths * sum over depths d of (operations * heads * widths * depths)^d, 10,621,440 by default
    for one output. Left out: dropout, operations that differ between the heads of one layer, widths
    that differ between layers.
    """
    lists = {"widths": widths, "depths": depths, "heads": heads, "kernels": kernels}
    lists |= {"feed_forward_widths": feed_forward_widths, "feed_forward_depths": feed_forward_depths}
    for name, given in lists.items():
        if not given or min(given) < 1:
            raise ConfigurationError(
                f"transformer was given {name}={given}; it takes whole numbers from 1."
            )
    if normalization not in NORMALIZATIONS:
        raise ConfigurationError(
            f'"{normalization}" is no place for the norms; allowed: {", ".join(NORMALIZATIONS)}.'
        )
    norms = NORMALIZATIONS[normalization]
    attentions = (_attention_rule("dot_product"), _attention_rule("multiplicative"))
    transforms = (_transform_rule("fourier"), _transform_rule("cosine"))
    return SearchSpace(
        start="Network",
        rules={
            "Network": (_network_rule(norms),),
            "Width": values(*widths),
            "Depth": values(*depths),
            "Layer": (_layer_rule(norms),),
            "Operation": (*attentions, *transforms, *map(_convolution_rule, kernels)),
            "Heads": values(*heads),
            "FeedForwardWidth": values(*feed_forward_widths),
            "FeedForwardDepth": values(*feed_forward_depths),
        },
        spec=Signature((64,), (64, 65), 65),
        notation=notation(),
    )


def _network_rule(norms: Normalization) -> Rule:
    """Lift with positions, layers, norm (where they stand before the parts), head."""

    def infer(signature: Signature, width: Call, depth: Call, layers: Call) -> tuple[int, ...]:
        layers((flow_of(signature, width(signature)), depth(signature)))
        return signature.output

    def build(signature: Signature, width: Make, depth: Make, layers: Make) -> nn.Module:
        flow = flow_of(signature, width(signature)[0])
        parts = {
            "stem": stem(signature, flow),
            "layers": layers((flow, depth(signature)[0]))[0],
            "norm": nn.LayerNorm(flow.features) if norms.last else nn.Identity(),
            "head": head(signature, flow),
        }
        return nn.Sequential(OrderedDict(parts))

    def cost(signature: Signature, width: Call, depth: Call, layers: Call) -> Complexity:
        flow = flow_of(signature, width(signature))
        ends = stem_cost(signature, flow) + head_cost(signature, flow)
        return ends + layer_norm_cost(flow) if norms.last else ends

    children: dict[str, Symbol] = {"width": "Width", "depth": "Depth", "layers": Chain("Layer")}
    return Rule("network", children, infer, build, cost=cost)


def _layer_rule(norms: Normalization) -> Rule:
    """An operation over positions, then a feed-forward part, each a residual part with its norm."""

    def infer(flow: Flow, operation: Call, heads: Call, width: Call, depth: Call) -> Flow:
        number = heads(flow)
        if flow.features % number:
            raise Misfit(f"{flow.features} features are no multiple of {number} heads")
        operation(Mixing(flow, number))
        width(flow)
        depth(flow)
        return flow

    def build(flow: Flow, operation: Make, heads: Make, width: Make, depth: Make) -> nn.Module:
        parts = {
            "operation": operation(Mixing(flow, heads(flow)[0]))[0],
            "feed_forward": feed_forward(flow.features, width(flow)[0], depth(flow)[0]),
        }
        placed = {name: norms.residual(part, flow.features) for name, part in parts.items()}
        return nn.Sequential(OrderedDict(placed))

    def cost(flow: Flow, operation: Call, heads: Call, width: Call, depth: Call) -> Complexity:
        return feed_forward_cost(flow, width(flow), depth(flow)) + layer_norm_cost(flow) * 2

    children = {
        "operation": "Operation",
        "heads": "Heads",
        "feed_forward_width": "FeedForwardWidth",
        "feed_forward_depth": "FeedForwardDepth",
    }
    return Rule("layer", children, infer, build, cost=cost)


def _attention_rule(name: str) -> Rule:
    multiplicative = name == "multiplicative"
    return terminal(
        name,
        lambda mixing: SoftmaxAttention(mixing, multiplicative=multiplicative),
        cost=lambda mixing: attention_cost(mixing, multiplicative=multiplicative),
    )


def _transform_rule(name: str) -> Rule:
    def infer(mixing: Mixing) -> Mixing:
        if mixing.flow.causal:
            raise Misfit(
                f"a {name} transform sees later positions, and there is an output at every position"
            )
        return mixing

    return terminal(
        name,
        lambda mixing: Transform(mixing, cosine=name == "cosine"),
        infer=infer,
        cost=lambda mixing: transform_cost(mixing, cosine=name == "cosine"),
    )


def _convolution_rule(kernel: int) -> Rule:
    return terminal(
        f"{CONVOLUTION}{kernel}",
        lambda mixing: DynamicConvolution(mixing, kernel),
        cost=lambda mixing: dynamic_convolution_cost(mixing, kernel),
    )
