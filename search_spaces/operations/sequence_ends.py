"""What stands before and after the layers of a network over a sequence: its stem and its head."""

from __future__ import annotations

from torch import nn

from nas.complexity import Complexity, linear
from nas.grammar import Misfit
from nas.space import Signature
from search_spaces.operations.sequence import (
    Flow,
    LinearLift,
    MeanHead,
    Positioned,
    everywhere,
    token_lift,
)


def flow_of(signature: Signature, width: int) -> Flow:
    """What flows between layers; Misfit where the signature is none of a sequence."""
    shape, out = signature.input, signature.output
    if signature.vocabulary is None and len(shape) != 2:
        raise Misfit(f"the input {shape} is not a sequence of numbers; give (channels, length)")
    if signature.vocabulary is not None and len(shape) != 1:
        raise Misfit(f"the input {shape} is not a sequence of tokens; give (length,)")
    if len(out) != 1 and (len(out) != 2 or out[0] != shape[-1]):
        raise Misfit(f"the output {out} is neither (features,) nor ({shape[-1]}, features)")
    return Flow(shape[-1], width, causal=len(out) == 2)


def stem(signature: Signature, flow: Flow) -> nn.Module:
    """Tokens or channels lifted to the flow's features, with positions."""
    lift: nn.Module = (
        LinearLift(signature.input[0], flow.features)
        if signature.vocabulary is None
        else token_lift(signature.vocabulary, flow.features)
    )
    return Positioned(lift, flow.length, flow.features)


def stem_cost(signature: Signature, flow: Flow) -> Complexity:
    """What `stem` costs."""
    return Complexity(params=flow.length * flow.features) + lift_cost(signature, flow)


def lift_cost(signature: Signature, flow: Flow) -> Complexity:
    """What it costs to lift tokens, or channels, to the flow's features."""
    if signature.vocabulary is None:
        return everywhere(flow._replace(features=signature.input[0]), flow.features)
    params = signature.vocabulary * flow.features
    return Complexity(params=params, activations=flow.length * flow.features)


def head(signature: Signature, flow: Flow) -> nn.Module:
    """A linear map at every position where the flow is causal; elsewhere of the mean over them."""
    outputs = signature.output[-1]
    return nn.Linear(flow.features, outputs) if flow.causal else MeanHead(flow.features, outputs)


def head_cost(signature: Signature, flow: Flow) -> Complexity:
    """What `head` costs."""
    outputs = signature.output[-1]
    return everywhere(flow, outputs) if flow.causal else linear(flow.features, outputs)
