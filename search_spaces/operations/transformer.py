"""What mixes the positions in a layer of a FlexiBERT encoder: attention, transforms, convolution.

What flows is a `Mixing`: a flow, tensors (batch, length, features), and a number of heads that the
features are divided among. Each of them ends in a linear map `out` that joins the heads.

Where to look, for scores that need no training (each is a `TokenMixer`, and says so): linear maps
`query`, `key`, `value` (attention and dynamic convolution), `input` (transforms), the map `weight` of
multiplicative attention, which puts out (B, H, L, D); `softmax`, which puts out the probabilities
(B, H, L, L) of attention, or the kernels (B, L, H, K) of a convolution; and the `FeedForward` of each
layer.

B batch, L length, F features, H heads, D = F / H features of a head, K kernel size.

Reference: Tuli et al., FlexiBERT: Are Current Transformer Architectures too Homogeneous and Rigid?,
JAIR 2023, Section 3 (which operations there are; recalled, as is what each is in detail, where it is
not from the references below).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.complexity import Complexity
from nas.sequence_parts import TokenMixer, View
from search_spaces.operations.sequence import (
    DepthwiseConvolution,
    Flow,
    depthwise_convolution_cost,
    everywhere,
)


class Mixing(NamedTuple):
    """A flow, and the heads that its features are divided among."""

    flow: Flow
    heads: int

    @property
    def head_features(self) -> int:
        """Features of one head."""
        return self.flow.features // self.heads


class HeadMap(nn.Module):
    """A square matrix for every head: (B, H, L, D) -> (B, H, L, D)."""

    def __init__(self, heads: int, features: int) -> None:
        super().__init__()
        bound = features**-0.5
        self.matrices = nn.Parameter(torch.empty(heads, features, features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrices


class SoftmaxAttention(TokenMixer):
    """Self-attention whose probabilities can be seen: (B, L, F) -> (B, L, F).

    For each head, y_t = sum over s of softmax_s(a_ts) v_s, over s <= t where causal, with
    a_ts = q_t . k_s / sqrt(D), or q_t W . k_s / sqrt(D) where `multiplicative`.

    Reference: Vaswani et al., Attention Is All You Need, NeurIPS 2017, Section 3.2 (dot products);
    Luong et al., Effective Approaches to Attention-based Neural Machine Translation, EMNLP 2015,
    Section 3.1 ("general", here with the root).
    """

    def __init__(self, mixing: Mixing, *, multiplicative: bool) -> None:
        super().__init__()
        flow, heads = mixing
        self.heads = (heads, mixing.head_features)
        self.query = nn.Linear(flow.features, flow.features)
        self.key = nn.Linear(flow.features, flow.features)
        self.value = nn.Linear(flow.features, flow.features)
        self.weight = HeadMap(heads, mixing.head_features) if multiplicative else nn.Identity()
        self.softmax = nn.Softmax(-1)
        self.out = nn.Linear(flow.features, flow.features)
        later = torch.ones(flow.length, flow.length, dtype=torch.bool).triu(1)
        self.register_buffer("later", later if flow.causal else None, persistent=False)
        self.later: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._heads(part(x)) for part in (self.query, self.key, self.value))
        scores = self.weight(q) @ k.transpose(2, 3) / math.sqrt(self.heads[1])  # (B, H, L, L)
        if self.later is not None:
            scores = scores.masked_fill(self.later, -math.inf)
        y = self.softmax(scores) @ v  # (B, H, L, D)
        joined: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, F) -> (B, H, L, D)."""
        return torch.unflatten(x, 2, self.heads).transpose(1, 2)

    def projections(self) -> Sequence[View]:
        maps = [View(part, _as_it_is) for part in (self.query, self.key, self.value)]
        return [*maps, View(self.weight, _joined)] if isinstance(self.weight, HeadMap) else maps

    def probabilities(self) -> View:
        return View(self.softmax, _as_it_is)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _joined(x: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, F)."""
    return x.transpose(1, 2).flatten(2)


def attention_cost(mixing: Mixing, *, multiplicative: bool) -> Complexity:
    """What `SoftmaxAttention` costs; the half that a causal one masks is counted."""
    flow, heads = mixing
    size = flow.length * flow.features
    products = 2 * flow.length * size
    total = everywhere(flow, flow.features) * 4
    total += Complexity(macs=products, flops=products, activations=heads * flow.length**2)
    weights = flow.features * mixing.head_features
    macs = flow.length * weights
    return total + Complexity(weights, macs, macs, size) * multiplicative


class Transform(TokenMixer):
    """A fixed transform along positions and along the features of a head: (B, L, F) -> (B, L, F).

    For each head, Y = Re(F_L X F_D) (Fourier) or C_L X C_D (cosine, of type II), each matrix scaled to
    be orthogonal or unitary, with X = input(x). Every position sees the whole sequence.

    Reference: Lee-Thorp et al., FNet: Mixing Tokens with Fourier Transforms, NAACL 2022, Section 3
    (without heads and linear maps, not scaled).
    """

    def __init__(self, mixing: Mixing, *, cosine: bool) -> None:
        super().__init__()
        flow, heads = mixing
        self.heads = (heads, mixing.head_features)
        self.input = nn.Linear(flow.features, flow.features)
        self.out = nn.Linear(flow.features, flow.features)
        make = cosine_matrices if cosine else fourier_matrices
        for name, size in (("along", flow.length), ("across", mixing.head_features)):
            self.register_buffer(name, make(size), persistent=False)
        self.along: Tensor  # (parts, L, L)
        self.across: Tensor  # (parts, D, D)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.unflatten(self.input(x), 2, self.heads).transpose(1, 2)  # (B, H, L, D)
        y = self.along[0] @ parts @ self.across[0].T
        for left, right in zip(self.along[1:], self.across[1:], strict=True):
            y = y - left @ parts @ right.T
        joined: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return joined

    def projections(self) -> Sequence[View]:
        return [View(self.input, _as_it_is)]

    def probabilities(self) -> None:
        return None


def fourier_matrices(size: int) -> Tensor:
    """The real and the negated imaginary part of the unitary Fourier matrix: (2, size, size)."""
    index = torch.arange(size)
    angle = 2 * math.pi / size * (index[:, None] * index % size)
    return torch.stack([angle.cos(), angle.sin()]) / math.sqrt(size)


def cosine_matrices(size: int) -> Tensor:
    """The orthogonal matrix of the cosine transform of type II: (1, size, size)."""
    index = torch.arange(size)
    matrix = (math.pi / size * index[:, None] * (index + 0.5)).cos() * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix[None]


def transform_cost(mixing: Mixing, *, cosine: bool) -> Complexity:
    """What `Transform` costs, its transforms as the matrix products that they are run as."""
    flow = mixing.flow
    macs = flow.length * flow.features * (flow.length + mixing.head_features) * (1 if cosine else 2)
    return everywhere(flow, flow.features) * 2 + Complexity(macs=macs, flops=macs)


class DynamicConvolution(TokenMixer):
    """Convolution by kernels that the span around a position makes: (B, L, F) -> (B, L, F).

    For each head, y_t = sum over i < K of softmax_i(W_f (q_t * k_t))_i v_{t - r + i}, where q, v are
    linear in x and k is a depthwise, then a pointwise convolution of x with K taps; r = K - 1 where
    causal (ours) and (K - 1) / 2 elsewhere; zeros lie around the sequence.

    Reference: Jiang et al., ConvBERT: Improving BERT with Span-based Dynamic Convolution, NeurIPS 2020,
    Section 3.2 (without the attention heads beside it).
    """

    def __init__(self, mixing: Mixing, kernel: int) -> None:
        super().__init__()
        flow, heads = mixing
        reach = kernel - 1
        self.heads = (heads, mixing.head_features)
        self.kernel_size = kernel
        self.pad = (0, 0, reach, 0) if flow.causal else (0, 0, reach // 2, reach - reach // 2)
        self.query = nn.Linear(flow.features, flow.features)
        self.span = DepthwiseConvolution(flow, kernel, 1)
        self.key = nn.Linear(flow.features, flow.features)
        self.value = nn.Linear(flow.features, flow.features)
        self.kernel = nn.Linear(flow.features, heads * kernel)
        self.softmax = nn.Softmax(-1)
        self.out = nn.Linear(flow.features, flow.features)

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.kernel(self.query(x) * self.key(self.span(x)))
        taps = self.softmax(torch.unflatten(kernels, 2, (self.heads[0], self.kernel_size)))
        spans = functional.pad(self.value(x), self.pad).unfold(1, self.kernel_size, 1)  # (B, L, F, K)
        values = torch.unflatten(spans, 2, self.heads)  # (B, L, H, D, K)
        y = (values @ taps[..., None])[..., 0]  # (B, L, H, D)
        joined: Tensor = self.out(y.flatten(2))
        return joined

    def projections(self) -> Sequence[View]:
        return [View(part, _as_it_is) for part in (self.query, self.key, self.value)]

    def probabilities(self) -> View:
        return View(self.softmax, _as_it_is)


def dynamic_convolution_cost(mixing: Mixing, kernel: int) -> Complexity:
    """What `DynamicConvolution` costs."""
    flow, heads = mixing
    taps = heads * kernel
    macs = flow.length * flow.features * kernel
    total = everywhere(flow, flow.features) * 4 + everywhere(flow, taps)
    total += depthwise_convolution_cost(flow, kernel)
    return total + Complexity(macs=macs, flops=macs, activations=flow.length * taps)
