"""Mixers of a sequence's positions, feed-forward parts, residual norms, lifts and heads.

What flows is a `Flow`: tensors are (batch, length, features). Where it is causal, an output at a
position depends on the inputs up to it; elsewhere on the whole sequence (a GRU reads from the first
position on in either case).

B batch, L length, F features, C channels, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.complexity import Complexity, activation, convolution, linear
from nas.sequence_parts import FeedForward, TokenMixer, View

DEVIATION = 0.02  # of embeddings and positions as they are drawn, as in GPT-2


class Flow(NamedTuple):
    """A sequence's length and features, and whether no position may depend on later ones."""

    length: int
    features: int
    causal: bool


class Positioned(nn.Module):
    """y_t = lift(x)_t + p_t, with a learned vector p_t for every position: inputs -> (B, L, F)."""

    def __init__(self, lift: nn.Module, length: int, features: int) -> None:
        super().__init__()
        self.lift = lift
        self.positions = nn.Parameter(DEVIATION * torch.randn(length, features))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lift(x) + self.positions
        return y


def token_lift(vocabulary: int, features: int) -> nn.Embedding:
    """A learned vector for every token: (B, L) -> (B, L, F)."""
    embedding = nn.Embedding(vocabulary, features)
    nn.init.normal_(embedding.weight, std=DEVIATION)
    return embedding


class LinearLift(nn.Module):
    """One linear map of the channels at every position: (B, C, L) -> (B, L, F)."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, features)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.transpose(1, 2))
        return y


class DepthwiseConvolution(nn.Module):
    """A convolution of every feature by itself, dilated: (B, L, F) -> (B, L, F).

    y_t = b + sum over i < kernel of w_i x_{t - r + i dilation}, r = dilation (kernel - 1) where causal
    and half of that elsewhere; zeros lie around the sequence.

    Reference: van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016, Section 2.1 (causal
    and dilated).
    """

    def __init__(self, flow: Flow, kernel: int, dilation: int) -> None:
        super().__init__()
        reach = dilation * (kernel - 1)
        self.pad = (reach, 0) if flow.causal else (reach // 2, reach - reach // 2)
        size = flow.features
        self.convolution = nn.Conv1d(size, size, kernel, dilation=dilation, groups=size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(functional.pad(x.transpose(1, 2), self.pad))  # (B, F, L)
        return y.transpose(1, 2)


def depthwise_convolution_cost(flow: Flow, kernel: int) -> Complexity:
    """What `DepthwiseConvolution` costs."""
    size = flow.features
    return convolution((size, size), (kernel,), (flow.length,), groups=size) + Complexity(size)


class Attention(TokenMixer):
    """Self-attention of H heads: (B, L, F) -> (B, L, F).

    For each head, y_t = sum over s of softmax_s(q_t . k_s / sqrt(F / H)) v_s, over s <= t where causal;
    q, k and v are linear in x without bias, and a linear map joins the heads.

    Reference: Vaswani et al., Attention Is All You Need, NeurIPS 2017, Section 3.2.
    """

    def __init__(self, flow: Flow, heads: int) -> None:
        super().__init__()
        self.heads = (heads, flow.features // heads)
        self.causal = flow.causal
        self.queries_keys_values = nn.Linear(flow.features, 3 * flow.features, bias=False)
        self.out = nn.Linear(flow.features, flow.features)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x).chunk(3, dim=2)
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # (B, H, L, F/H)
        joined: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, F) -> (B, H, L, F/H)."""
        return torch.unflatten(x, 2, self.heads).transpose(1, 2)

    def projections(self) -> Sequence[View]:
        return [View(self.queries_keys_values, partial(_third, i)) for i in range(3)]

    def probabilities(self) -> View:
        return View(self.queries_keys_values, self._weighed)

    def _weighed(self, queries_keys_values: Tensor) -> Tensor:
        """softmax_s(q_t . k_s / sqrt(F / H)), over s <= t where causal: (B, H, L, L)."""
        q, k = (self._heads(_third(i, queries_keys_values)) for i in range(2))
        scores = q @ k.transpose(2, 3) / math.sqrt(self.heads[1])
        if self.causal:
            later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        return scores.softmax(-1)


def _third(index: int, x: Tensor) -> Tensor:
    """(B, L, 3F) -> (B, L, F)."""
    return x.chunk(3, dim=2)[index]


def attention_cost(flow: Flow) -> Complexity:
    """What `Attention` costs, with any number of heads; the half that a causal one masks is counted."""
    products = 2 * flow.length**2 * flow.features
    maps = everywhere(flow, 3 * flow.features, bias=False) + everywhere(flow, flow.features)
    return maps + Complexity(macs=products, flops=products)


class Recurrent(nn.Module):
    """The states of a gated recurrent unit: (B, L, F) -> (B, L, F).

    h_t = (1 - z_t) n_t + z_t h_{t-1}, h_0 = 0, with z_t = s(W_z x_t + U_z h_{t-1}),
    r_t = s(W_r x_t + U_r h_{t-1}) and n_t = tanh(W_n x_t + r_t (U_n h_{t-1})); s is the logistic
    function, and each product has a bias.

    Reference: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014 (the
    form of torch.nn.GRU, r_t after the product).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, features, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gru(x)[0]
        return y


def recurrent_cost(flow: Flow) -> Complexity:
    """What `Recurrent` costs: two maps to three gates at every position."""
    weights = 6 * flow.features**2
    macs = flow.length * weights
    return Complexity(weights + 6 * flow.features, macs, macs, flow.length * flow.features)


def feed_forward(features: int, hidden: int, num_hidden: int = 1) -> FeedForward:
    """Linear maps through hidden layers, a GELU after each of these: (B, L, F) -> (B, L, F)."""
    widths = [features, *[hidden] * num_hidden]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return FeedForward(*layers, nn.Linear(widths[-1], features))


def feed_forward_cost(flow: Flow, hidden: int, num_hidden: int = 1) -> Complexity:
    """What `feed_forward` costs."""
    inner = flow._replace(features=hidden)
    more = everywhere(inner, hidden) * (num_hidden - 1)
    gelus = activation((hidden, flow.length)) * num_hidden
    return everywhere(flow, hidden) + more + gelus + everywhere(inner, flow.features)


class PreNorm(nn.Module):
    """y = x + part(norm(x)), norm over the features: (B, L, F) -> (B, L, F)."""

    def __init__(self, part: nn.Module, features: int) -> None:
        super().__init__()
        self.part = part
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.part(self.norm(x))
        return y


class PostNorm(nn.Module):
    """y = norm(x + part(x)), norm over the features: (B, L, F) -> (B, L, F)."""

    def __init__(self, part: nn.Module, features: int) -> None:
        super().__init__()
        self.part = part
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x + self.part(x))
        return y


@dataclass(frozen=True)
class Normalization:
    """Where the norms stand: those of the residual parts, and one after the last layer or none.

    Reference: Xiong et al., On Layer Normalization in the Transformer Architecture, ICML 2020.
    """

    residual: type[PreNorm] | type[PostNorm]
    last: bool


NORMALIZATIONS = {"pre": Normalization(PreNorm, last=True), "post": Normalization(PostNorm, last=False)}


def layer_norm_cost(flow: Flow) -> Complexity:
    """What a norm over the features costs, with scale and shift."""
    size = flow.length * flow.features
    return Complexity(2 * flow.features, 0, 2 * size, size)


class MeanHead(nn.Module):
    """A linear map of the mean over all positions: (B, L, F) -> (B, outputs)."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean(1))
        return y


def everywhere(flow: Flow, outputs: int, *, bias: bool = True) -> Complexity:
    """What one linear map of the features costs at every position."""
    once = linear(flow.features, outputs, bias=bias)
    return Complexity(
        once.params, flow.length * once.macs, flow.length * once.flops, flow.length * outputs
    )
