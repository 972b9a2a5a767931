"""Published networks as architectures of einspace: the seeds of its paper's searches.

At 3x32x32 with ten classes they have the parameters of the official seeds: ResNet-18 without its max
pool 11,210,560, WideResNet-16-4 2,748,576, the transformer 4,269,568 and the mixer 2,434,048, their
heads not counted. The mixer's token factors fit 64 tokens.

Reference: Ericsson et al., einspace: Searching for Neural Architectures from Fundamental Operations,
NeurIPS 2024, Section 4 and Appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping

NORM, RELU, IDENTITY = "computation(norm)", "computation(relu)", "computation(identity)"


def seeds() -> Mapping[str, str]:
    """The texts by the networks' names."""
    return {
        "resnet18": f"network({_resnet18()})",
        "wide_resnet16_4": f"network({_wide_resnet16_4()})",
        "transformer": f"network({_transformer()})",
        "mlp_mixer": f"network({_mlp_mixer()})",
    }


def _sequence(*modules: str) -> str:
    """The modules one after the other, nested in halves, so that deep networks are shallow trees."""
    if len(modules) == 1:
        return modules[0]
    half = (len(modules) + 1) // 2
    return f"sequential({_sequence(*modules[:half])}, {_sequence(*modules[half:])})"


def _routing(pre: str, inner: str, post: str) -> str:
    return f"routing({pre}, {inner}, {post})"


def _branching(split: str, join: str, *inner: str) -> str:
    return f"branching({split}, each({', '.join(inner)}), {join})"


def _residual(inner: str, shortcut: str = IDENTITY) -> str:
    return _branching("clone2", "add", inner, shortcut)


def _linear(width: int) -> str:
    return f"computation(linear{width})"


def _convolution(unfold: str, width: int) -> str:
    return _routing(f"im2col{unfold}", _linear(width), "col2im")


def _resnet18() -> str:
    stem = (_convolution("3k1s1p", 64), NORM, RELU, _convolution("3k2s1p", 64))
    first = (_basic_block(64, 1), _basic_block(64, 1))
    rest = [_basic_block(width, stride) for width in (128, 256, 512) for stride in (2, 1)]
    return _sequence(*stem, *first, *rest)


def _basic_block(width: int, stride: int) -> str:
    """Convolution, norm, ReLU, convolution, norm beside the shortcut; ReLU."""
    first = (_convolution(f"3k{stride}s1p", width), NORM, RELU)
    inner = _sequence(*first, _convolution("3k1s1p", width), NORM)
    projected = _sequence(_convolution("1k2s0p", width), NORM)
    return _sequence(_residual(inner, IDENTITY if stride == 1 else projected), RELU)


def _wide_resnet16_4() -> str:
    stem = (_convolution("3k1s1p", 16), NORM, RELU)
    blocks = []
    for width, stride in ((64, 1), (128, 2), (256, 2)):
        blocks += [_wide_block(width, stride, f"1k{stride}s0p"), _wide_block(width, 1, None)]
    return _sequence(*stem, *blocks)


def _wide_block(width: int, stride: int, projection: str | None) -> str:
    """Convolution, norm, ReLU, convolution beside the shortcut; norm, ReLU."""
    first = (_convolution(f"3k{stride}s1p", width), NORM, RELU)
    inner = _sequence(*first, _convolution("3k1s1p", width))
    shortcut = IDENTITY if projection is None else _convolution(projection, width)
    return _sequence(_residual(inner, shortcut), NORM, RELU)


def _transformer() -> str:
    patches = (_routing("im2col4k4s0p", _linear(512), "identity"), "computation(pos_enc)")
    layer = (
        _residual(_attention()),
        NORM,
        _residual(_sequence(_linear(512), RELU, _linear(512))),
        NORM,
    )
    return _sequence(*patches, *(layer * 4))


def _attention() -> str:
    """Four heads of width 64: softmax(Q K^T / sqrt(64)) V, side by side, then a linear map."""
    keys = _routing("identity", _linear(64), "permute21")
    scores = _branching("clone2", "scaled_matmul", _linear(64), keys)
    weights = _sequence(scores, "computation(softmax)")
    head = _branching("clone2", "matmul", weights, _linear(64))
    return _sequence(_branching("clone4", "concat4axis2", head), _linear(512))


def _mlp_mixer() -> str:
    patches = (_routing("im2col4k4s0p", _linear(512), "identity"), "computation(pos_enc)")
    return _sequence(*patches, *([_residual(_mixing())] * 8))


def _mixing() -> str:
    """Norm, then maps over the 64 tokens, then over the features."""
    across = _routing("permute21", _linear(256), "identity")
    back = _routing("identity", _linear(64), "permute21")
    return _sequence(NORM, across, RELU, back, _linear(256), RELU, _linear(512))
