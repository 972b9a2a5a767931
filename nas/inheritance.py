"""Weights that a network takes over from another one, built by the same rules at the same calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas.derivation import Place, Walk
from nas.grammar import Pick, Rule, Spec


class Site:
    """What a rule built at one call site: where its own tensors are, those of its children left out.

    By module and name, since a module that is moved has other buffers. Buffers that are no part of a
    module's state follow from what it was built of, and are not taken over.
    """

    def __init__(self, product: Any, below: Sequence[Any]) -> None:  # Any: products
        theirs = {id(module) for made in below for module in _modules(made)}
        self.own = [
            (module, name)
            for module in _modules(product)
            if id(module) not in theirs
            for name in _state(module)
        ]

    @torch.no_grad()
    def copy(self, other: Site) -> None:
        """Take over the other site's numbers."""
        for (mine, name), (others, same) in zip(self.own, other.own, strict=True):
            assert name == same
            getattr(mine, name).copy_(getattr(others, name))


def _state(module: nn.Module) -> Iterator[str]:
    """The names of a module's own tensors that its state holds."""
    yield from (name for name, _ in module.named_parameters(recurse=False))
    derived = module._non_persistent_buffers_set
    yield from (name for name, _ in module.named_buffers(recurse=False) if name not in derived)


def _modules(product: Any) -> Iterator[nn.Module]:  # Any: a module, or a container or value
    if isinstance(product, nn.Module):
        yield from product.modules()
    elif isinstance(product, Mapping):
        for value in product.values():
            yield from _modules(value)
    elif isinstance(product, list | tuple):
        for value in product:
            yield from _modules(value)


class CallSites:
    """The names of the calls that a rule makes of its children, the same in a supernet as in a network.

    An element of a pick is called by its number, whichever others are picked beside it.
    """

    def __init__(self, outer: str, rule: Rule, *, picks: bool) -> None:
        self.name = outer if picks else f"{outer}.{rule.name}"
        self._steps = [f"{self.name}/{role}" for role in rule.children]
        self._calls = [0] * len(self._steps)

    def of(self, index: int) -> str:
        """The name of the next call of a child."""
        self._calls[index] += 1
        return f"{self._steps[index]}#{self._calls[index]}"


def build_discrete(
    walk: Walk, place: Place, at: tuple[Spec, str], sites: dict[str, Site]
) -> Any:  # Any: a product
    """The product of a place, and what was built at every call site, by its name."""
    rule = walk.visit(place, at[0]).rule
    steps = CallSites(at[1], rule, picks=isinstance(place.symbol, Pick))
    below: list[Any] = []  # Any: as above

    def factory(index: int, child: Place) -> Any:  # Any: spec -> (product, spec out)
        def make(spec: Spec) -> tuple[Any, Any]:  # Any: as above
            made = build_discrete(walk, child, (spec, steps.of(index)), sites)
            below.append(made)
            return made, walk.visit(child, spec).out

        return make

    product = rule.build(at[0], *(factory(i, c) for i, c in enumerate(place.children)))
    sites[steps.name] = Site(product, below)
    return product
