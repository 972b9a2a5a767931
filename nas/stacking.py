"""Options of one kind as one option: their layers side by side, in the channels of one map.

Of k options that take the same tensor, convolutions are one with k times the groups (or, where they see
all channels of that tensor, k times the channels out), batch norms one over all channels. What comes
before the first of these is the same for all, and computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv1d, conv2d

from nas.depthwise import FastDepthwise, Moves, depthwise
from nas.pointwise import FastPointwise, pointwise

_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)

Layers = list[nn.Module]  # of an option, one after the other
Row = Sequence[Any]  # Any: layers of one kind, of an option each


def layers_of(option: nn.Module) -> Layers:
    """Its layers, sequences taken apart."""
    if type(option) is nn.Sequential:
        return [layer for part in option for layer in layers_of(part)]
    return [] if isinstance(option, nn.Identity) else [option]


def described(layer: nn.Module) -> str:
    """What it computes but for its weights; a layer's own text leaves some of it out."""
    fields = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    fields.pop("training")
    return f"{layer} {fields}"


def norms_of(layers: Layers) -> list[Any]:  # Any: batch norms
    """The batch norms among them."""
    return [layer for layer in layers if isinstance(layer, _NORMS)]


def stacks(layers: Layers) -> bool:
    """Whether options of such layers can be put side by side: pools come first, if at all."""
    after = [n for n, layer in enumerate(layers) if not _is_plain(layer)]
    late = layers[after[0] :] if after else []
    return all(_is_weighty(layer) or isinstance(layer, nn.ReLU) for layer in late)


def shared(layers: Layers) -> bool:
    """Whether options of such layers all give the same for the same tensor, as their modes are now."""
    return all(_is_plain(layer) or (_is_bare(layer) and _takes_the_batch(layer)) for layer in layers)


def _is_plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.ReLU):
        return not layer.inplace
    return isinstance(layer, _POOLS) and not getattr(layer, "return_indices", False)


def _is_weighty(layer: nn.Module) -> bool:
    if isinstance(layer, _NORMS):
        return layer.momentum is not None
    if not isinstance(layer, _CONVOLUTIONS):
        return False
    return layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)


def _is_bare(layer: nn.Module) -> bool:
    return isinstance(layer, _NORMS) and not layer.affine


def _takes_the_batch(norm: Any) -> bool:  # Any: a batch norm
    return bool(norm.training) or norm.running_mean is None


@dataclass(eq=False)
class Known:
    """What was computed in this forward pass, by tensor and name; the tensors are kept alive, so that
    no other one takes their identity. And what norms have seen in it."""

    seen: list[Seen] = field(default_factory=list)
    _found: dict[tuple[int, object], tuple[Tensor, Any]] = field(default_factory=dict)  # Any: results

    def once(self, x: Tensor, name: object, function: Callable[[Tensor], Any]) -> Any:  # Any: as above
        """The function of x, computed the first time."""
        key = id(x), name
        if key not in self._found:
            self._found[key] = x, function(x)
        return self._found[key][1]

    def finish(self, *_: Any) -> None:  # Any: what a hook is given
        """The pass is over: let norms follow, and forget all of it."""
        follow(self.seen)
        self.seen.clear()
        self._found.clear()


class Seen(NamedTuple):
    """The mean and variance (channels,) of a batch, which a norm is to follow."""

    norm: nn.BatchNorm1d | nn.BatchNorm2d
    mean: Tensor
    variance: Tensor


@torch.no_grad()
def follow(seen: Sequence[Seen]) -> None:
    """One step of the norms' running statistics."""
    alike: dict[float, list[Seen]] = {}
    for one in seen:
        if one.norm.running_mean is not None:
            assert one.norm.momentum is not None
            alike.setdefault(one.norm.momentum, []).append(one)
    for momentum, these in alike.items():
        torch._foreach_add_([s.norm.num_batches_tracked for s in these], 1)  # type: ignore[misc]
        pairs = [(s.norm.running_mean, s.mean) for s in these]
        pairs += [(s.norm.running_var, s.variance) for s in these]
        running, batch = zip(*pairs, strict=True)
        torch._foreach_lerp_(running, batch, momentum)


def stacked(
    options: Sequence[Layers], x: Tensor, known: Known, weights: Tensor | None = None
) -> tuple[Tensor, list[list[Seen]]]:
    """What k options of one kind give for x, side by side, and what the norms of each have seen.

    (batch, channels, *sizes) -> (batch, k * channels out, *sizes out), times the weights, (k,).
    """
    rows: list[Row] = list(zip(*options, strict=True))
    while rows and _is_plain(rows[0][0]):
        layer = rows.pop(0)[0]
        x = known.once(x, described(layer), layer)
    seen: list[list[Seen]] = [[] for _ in options]
    step = _step(rows[0][0]) if rows else 1
    if step > 1:
        x = known.once(x, ("every", step), lambda whole: whole[:, :, ::step, ::step])
    if not rows or not _is_dense(rows[0][0]):
        x = spread(x, len(options), known)
    for row in rows:
        if isinstance(row[0], _NORMS):
            last = row is rows[-1]
            x = _normed(row, x, weights if last else None, seen)
            weights = None if last else weights
        elif isinstance(row[0], nn.ReLU):
            x = x.relu_()  # nothing else has it: neither norms nor convolutions keep what they give
        else:
            x = _convolved(row, x, step if row is rows[0] else 1)
    if weights is not None:
        x = x * _each(weights, x).view(-1, *[1] * (x.dim() - 2))
    return x, seen


def spread(x: Tensor, times: int, known: Known) -> Tensor:
    """So many times x side by side: (batch, channels, ...) -> (batch, times * channels, ...)."""
    if times == 1:
        return x
    wide: Tensor = known.once(x, times, lambda given: torch.cat([given] * times, 1))
    return wide


def _is_dense(layer: nn.Module) -> bool:
    """Whether it sees all channels, so that many of a kind can see the channels of one map."""
    of_all = isinstance(layer, _CONVOLUTIONS) and layer.groups == 1
    return of_all and not FastDepthwise.replaces(layer)  # which one of one channel is


def _step(layer: nn.Module) -> int:
    """Every how many rows and columns a convolution sees; 1 where it is not known to leave out any."""
    if not FastDepthwise.replaces(layer):
        return 1
    assert isinstance(layer, nn.Conv2d)
    return layer.stride[0] if layer.stride == layer.dilation else 1


def _each(weights: Tensor, x: Tensor) -> Tensor:
    """The weight of every channel."""
    return weights.repeat_interleave(x.shape[1] // len(weights))


def _convolved(row: Row, x: Tensor, step: int) -> Tensor:
    """Convolutions of one kind as one; of x, every `step`-th row and column is left."""
    first = row[0]
    weight = _joined(row, "weight")
    bias = None if first.bias is None else _joined(row, "bias")
    moves = first.stride, first.padding, first.dilation
    stride, padding, dilation = (tuple(n // step for n in part) for part in moves)
    groups = x.shape[1] // (first.in_channels // first.groups)
    if x.device.type == "cpu" and FastDepthwise.replaces(first) and FastDepthwise.pays(first):
        return depthwise(x, weight, Moves(stride[0], dilation[0]))
    if groups == 1 and FastPointwise.replaces(first):
        return pointwise(x, weight, bias)
    convolution = conv2d if x.dim() == 4 else conv1d
    return convolution(x, weight, bias, stride, padding, dilation, groups)


def _normed(row: Row, x: Tensor, weights: Tensor | None, seen: list[list[Seen]]) -> Tensor:
    """Batch norms of one kind as one, their output times the weights; what they see is noted."""
    first = row[0]
    scale, shift = (_joined(row, name) if first.affine else None for name in ("weight", "bias"))
    if weights is not None:
        each = _each(weights, x)
        scale, shift = each if scale is None else each * scale, None if shift is None else each * shift
    if not _takes_the_batch(first):
        mean, variance = (_joined(row, name) for name in ("running_mean", "running_var"))
        return batch_norm(x, mean, variance, scale, shift, False, 0.0, first.eps)
    like = x if first.running_mean is None else first.running_mean
    mean, variance = like.new_zeros(2, x.shape[1])
    y = batch_norm(x, mean, variance, scale, shift, True, 1.0, first.eps)  # they are then the batch's
    parts = mean.chunk(len(row)), variance.chunk(len(row))
    for notes, *of_one in zip(seen, row, *parts, strict=True):
        notes.append(Seen(*of_one))
    return y


def _joined(row: Row, name: str) -> Tensor:
    tensors = [getattr(layer, name) for layer in row]
    joined: Tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
    return joined
