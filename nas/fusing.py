"""Making a built supernet quicker without changing what it computes: a pass over its modules.

- Tensors are laid out channels-last, and 1x1 convolutions are matrix products on them.
- What options that leave a tensor begin with alike (a ReLU, a pool and its norm) is computed once.
- Where an option ends in a norm without scale, its weight in the mixture is the scale.
- On a CPU, depthwise convolutions with slow gradients are replaced (`nas.depthwise`).

Weights stay the same objects, so that `select`, `inherit` and optimizers go on as before. Second
derivatives are not to be had: take the plain supernet for the Hessian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, linear

from nas.depthwise import BLOCK, FastDepthwise
from nas.mixture import Mixture
from nas.supernet import Supernet

_SHARED = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d)


def fuse(supernet: Supernet) -> Supernet:
    """The supernet itself, made quicker: equal outputs and gradients up to rounding."""
    supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = Known()
    for mixture in supernet.modules():
        if isinstance(mixture, Mixture):
            for option in mixture.options:
                _share_first(option, known)
    on_cpu = next(iter(supernet.weights())).device.type == "cpu"
    for parent, name, module in list(_children(supernet)):
        if on_cpu and FastDepthwise.replaces(module) and _is_slow(module):
            setattr(parent, name, FastDepthwise(module))
        elif FastPointwise.replaces(module):
            setattr(parent, name, FastPointwise(module))
    for parent, name, module in list(_children(supernet)):
        if isinstance(module, Mixture):
            setattr(parent, name, FusedMixture(module))
    supernet.register_forward_pre_hook(_laid_out)
    supernet.register_forward_hook(known.forget)
    return supernet


def _is_slow(module: nn.Conv2d) -> bool:
    return module.kernel_size[0] > BLOCK or module.dilation[0] > 1


def _children(root: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:  # Any: a module
    for parent in root.modules():
        for name, child in parent.named_children():
            yield parent, name, child


def _laid_out(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    last = torch.channels_last
    return tuple(x.contiguous(memory_format=last) if x.dim() == 4 else x for x in inputs)


@dataclass(eq=False)
class Known:
    """What was computed in this forward pass, by tensor and function; the tensors are kept alive, so
    that no other one takes their identity."""

    results: dict[tuple[int, str], tuple[Tensor, nn.Module]] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)

    def forget(self, *_: Any) -> None:  # Any: what a hook is given
        """Forget all of it: the pass is over."""
        self.results.clear()
        self.held.clear()


def _share_first(option: nn.Module, known: Known) -> None:
    """Share what an option begins with, where that is the same for every option that has it."""
    if not isinstance(option, nn.Sequential) or not len(option):
        return
    first = option[0]
    if isinstance(first, nn.Sequential):
        _share_first(first, known)
    elif type(first) in _SHARED:
        option[0] = Shared(first, known)
        if len(option) > 1 and _is_plain_norm(option[1]) and not isinstance(first, nn.ReLU):
            option[1] = Shared(option[1], known)


@final
class Shared(nn.Module):
    """A function without weights that is computed once for a tensor within a forward pass.

    A norm shares its result while it trains, and takes over the statistics of the one that computed it.
    """

    def __init__(self, function: nn.Module, known: Known) -> None:
        super().__init__()
        self.function = function
        self._known = known
        self._name = repr(function)

    def forward(self, x: Tensor) -> Tensor:
        """The function's input and output."""
        norm = isinstance(self.function, nn.BatchNorm2d)
        if norm and not self.training:
            return self.function(x)  # type: ignore[no-any-return]
        key = id(x), self._name
        if key not in self._known.results:
            self._known.results[key] = self.function(x), self.function
            self._known.held.append(x)
            return self._known.results[key][0]
        y, other = self._known.results[key]
        if norm:
            for mine, theirs in zip(self.function.buffers(), other.buffers(), strict=True):
                mine.copy_(theirs)
        return y


@final
class FastPointwise(nn.Module):
    """A 1x1 convolution without stride as one matrix product, on the weights of another module.

    (batch, channels, height, width) -> (batch, channels out, height, width), both channels-last.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    @staticmethod
    def replaces(module: nn.Module) -> bool:
        """Whether a module is such a convolution."""
        if not isinstance(module, nn.Conv2d) or module.groups != 1:
            return False
        return module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """The height and width are kept."""
        return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


@final
class FusedMixture(nn.Module):
    """A mixture in which the weight is the scale of an option's last norm, where that has none."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.choice, self.options = mixture.choice, mixture.options
        self._parts = [_cut(option) for option in mixture.options]

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the mixture."""
        active, weights = self.choice.active, self.choice.weights
        if weights is None:
            (taken,) = active
            return self.options[taken](*inputs)  # type: ignore[no-any-return]
        if not active:
            return torch.zeros_like(self.options[0](*inputs))
        each = weights.to(inputs[0].device).unbind()
        total = self._weighed(active[0], each[active[0]], inputs)
        for index in active[1:]:
            total = total + self._weighed(index, each[index], inputs)
        y: Tensor = _DenseGradient.apply(total)  # type: ignore[no-untyped-call]
        return y

    def _weighed(self, index: int, weight: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        body, norm = self._parts[index]
        if norm is None:
            y: Tensor = weight * self.options[index](*inputs)
            return y
        for module in body:
            inputs = (module(*inputs),)
        return _normed(norm, inputs[0], weight)


class _DenseGradient(torch.autograd.Function):
    """Its input; the gradient, a slice where nodes were put side by side, is copied once for all that
    takes it and would be slow on a slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004  # Any: autograd's context
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004  # Any: as above
        last = torch.channels_last if gradient.dim() == 4 else torch.contiguous_format
        return gradient.contiguous(memory_format=last)


def _cut(option: nn.Module) -> tuple[list[nn.Module], nn.BatchNorm2d | None]:
    """What comes before an option's last norm, and the norm, where it has no scale of its own."""
    if isinstance(option, nn.Sequential) and len(option):
        last = option[-1]
        if _is_plain_norm(last):
            assert isinstance(last, nn.BatchNorm2d)
            return list(option)[:-1], last
        if isinstance(last, nn.Sequential):
            body, norm = _cut(last)
            if norm is not None:
                return [*list(option)[:-1], *body], norm
    return [], None


def _is_plain_norm(module: nn.Module) -> bool:
    plain = isinstance(module, nn.BatchNorm2d) and not module.affine
    return plain and module.momentum is not None


def _normed(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """The norm's output times the weight."""
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    own = norm.training or norm.running_mean is None
    scale = weight.to(x.dtype).expand(x.shape[1]).contiguous()
    assert norm.momentum is not None
    return batch_norm(x, norm.running_mean, norm.running_var, scale, None, own, norm.momentum, norm.eps)
