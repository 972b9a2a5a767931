"""Building the network of a complete derivation: every instance its own module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nas.architecture import Architecture
from nas.complexity import Complexity
from nas.derivation import Place, Walk
from nas.grammar import Spec


@dataclass
class Builder:
    """Builds the places of a walk; `instances` counts the modules made at every path."""

    walk: Walk
    instances: Counter[str] = field(default_factory=Counter)

    def build(self, place: Place, spec: Spec) -> Any:  # Any: a module or a plain value
        """The product of a place for a spec, freshly made."""
        rule = self.walk.visit(place, spec).rule
        product = rule.build(spec, *(self._factory(child) for child in place.children))
        if isinstance(product, nn.Module):
            self.instances[place.path] += 1
        return product

    def _factory(self, place: Place) -> Callable[[Spec], tuple[Any, Any]]:  # Any: product, spec out
        def make(spec: Spec) -> tuple[Any, Any]:  # Any: as above
            return self.build(place, spec), self.walk.visit(place, spec).out

        return make


@dataclass(frozen=True, slots=True)
class _Below:
    """A child as `cost` sees it: called with a spec, it gives the spec out."""

    walk: Walk
    place: Place

    def __call__(self, spec: Spec, times: int = 1) -> Any:  # Any: the spec out
        return self.walk.visit(self.place, spec).out

    @property
    def architecture(self) -> Architecture:
        """The subtree."""
        return self.place.node


def stated_complexity(walk: Walk, spec: Spec) -> Complexity | None:
    """The sum of what the rules say they cost; None where one of them does not say."""
    walk.visit(walk.root, spec)
    known: dict[tuple[str, Spec], Complexity | None] = {}

    def total(place: Place, spec: Spec) -> Complexity | None:
        key = (place.path, spec)
        if key not in known:
            known[key] = _total(place, spec)
        return known[key]

    def _total(place: Place, spec: Spec) -> Complexity | None:
        visit = place.visits[spec]
        if visit.rule.cost is None:
            return None
        result: Complexity = visit.rule.cost(spec, *(_Below(walk, c) for c in place.children))
        for call in visit.calls:
            below = total(call.place, call.spec)
            if below is None:
                return None
            result = result + below * call.times
        return result

    return total(walk.root, spec)
