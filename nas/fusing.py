"""Making a built supernet quicker without changing what it computes: a pass over its modules.

- Tensors are laid out channels-last, and 1x1 convolutions are matrix products on them.
- Mixtures that take the same tensor are computed together (`nas.fan`): options of one kind side by
  side, those without weights once.
- The weight of an option that ends in a norm is the norm's scale.
- On a CPU, depthwise convolutions with slow gradients are replaced (`nas.depthwise`).

Weights stay the same objects, so that `select`, `inherit` and optimizers go on as before. Second
derivatives are not to be had: take the plain supernet for the Hessian.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from nas.depthwise import FastDepthwise
from nas.fan import Fan, Gate, Member, Way
from nas.holding import evaluated
from nas.mixture import Mixture, Picked
from nas.pointwise import FastPointwise
from nas.space import Signature
from nas.stacking import Known
from nas.supernet import Supernet


def fuse(supernet: Supernet) -> Supernet:
    """The supernet itself, made quicker: equal outputs and gradients up to rounding."""
    supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = Known()
    fans = _fans(supernet, known)
    on_cpu = next(iter(supernet.weights())).device.type == "cpu"
    for parent, name, module in list(_children(supernet)):
        if on_cpu and FastDepthwise.replaces(module) and FastDepthwise.pays(module):
            setattr(parent, name, FastDepthwise(module))
        elif FastPointwise.replaces(module):
            setattr(parent, name, FastPointwise(module))
    for parent, name, module in list(_children(supernet)):
        if isinstance(module, Mixture):
            setattr(parent, name, FusedMixture(module, *fans[module]))
    supernet.network.register_forward_pre_hook(known.finish)
    supernet.network.register_forward_pre_hook(_laid_out)
    supernet.network.register_forward_hook(known.finish, always_call=True)
    return supernet


def _children(root: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:  # Any: a module
    for parent in root.modules():
        for name, child in parent.named_children():
            yield parent, name, child


def _laid_out(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    last = torch.channels_last
    return tuple(x.contiguous(memory_format=last) if x.dim() == 4 else x for x in inputs)


def _fans(supernet: Supernet, known: Known) -> dict[Mixture, tuple[Fan, int]]:
    """The fan of every mixture, and its number there."""
    ways: dict[Mixture, list[Way]] = {}
    for mixture, way in _ways(supernet.network, ()):
        ways.setdefault(mixture, []).append(way)
    fans = {}
    for mixtures in _fed_alike(supernet, list(ways)):
        fan = Fan([Member(mixture, ways[mixture]) for mixture in mixtures], known)
        fans.update({mixture: (fan, number) for number, mixture in enumerate(mixtures)})
    return fans


def _ways(module: nn.Module, way: tuple[Gate, ...]) -> Iterator[tuple[Mixture, Way]]:
    """The mixtures below a module, with the gates before each."""
    if isinstance(module, Mixture):
        yield module, way
        for index, option in enumerate(module.options):
            yield from _ways(option, (*way, (module.choice, index)))
    elif isinstance(module, Picked):
        yield from _ways(module.element, (*way, (module.choice, module.index)))
    else:
        for child in module.children():
            yield from _ways(child, way)


def _fed_alike(supernet: Supernet, mixtures: list[Mixture]) -> list[list[Mixture]]:
    """The mixtures, those together that take the same tensor in a forward pass of zeros."""
    taken: dict[Mixture, list[Tensor]] = {mixture: [] for mixture in mixtures}

    def note(mixture: Mixture, inputs: tuple[Tensor, ...]) -> None:
        taken[mixture].extend(inputs)

    handles = [mixture.register_forward_pre_hook(note) for mixture in mixtures]
    x = _zeros(supernet)
    drawn = torch.random.fork_rng(devices=[x.device] if x.is_cuda else [])
    with torch.no_grad(), drawn, evaluated(supernet.network, batch_statistics=False):
        supernet(x)
    for handle in handles:
        handle.remove()
    groups: dict[object, list[Mixture]] = {}
    for mixture, inputs in taken.items():
        alike = id(inputs[0]) if len(inputs) == 1 else mixture
        groups.setdefault(alike, []).append(mixture)
    return list(groups.values())


def _zeros(supernet: Supernet) -> Tensor:
    spec, like = supernet.space.spec, next(iter(supernet.weights()))
    assert isinstance(spec, Signature)  # of a whole network
    kind = like.dtype if spec.vocabulary is None else torch.long
    return torch.zeros(2, *spec.input, dtype=kind, device=like.device)


@final
class FusedMixture(nn.Module):
    """A mixture whose options are computed with those of others, where that can be."""

    def __init__(self, mixture: Mixture, fan: Fan, number: int) -> None:
        super().__init__()
        self.choice, self.options = mixture.choice, mixture.options
        self._fan, self._number = fan, number

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the mixture."""
        active, weights = self.choice.active, self.choice.weights
        if weights is None:
            (taken,) = active
            return self.options[taken](*inputs)  # type: ignore[no-any-return]
        if not active:
            return torch.zeros_like(self.options[0](*inputs))
        total, left = None, list(range(len(self.options)))
        if len(inputs) == 1:
            total, left = self._fan.of(self._number, inputs[0]), self._fan.alone[self._number]
        for index in left:
            if index in active:
                y = weights[index].to(inputs[0].device) * self.options[index](*inputs)
                total = y if total is None else total + y
        assert total is not None
        return total
