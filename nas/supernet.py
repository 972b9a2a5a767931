"""A supernet: a space with its choices left open, one network that holds every architecture's weights.

Wherever a choice is open, `build` gets a mixture of all its options in place of one. Strengths (alphas)
live once for every choice path, however often what stands there is built, so that cells built from one
child are tied without further ado. An open `Pick` hands on all elements; which of them are kept is told
when the architecture is discretized.

Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 2.2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.alphas import Alphas
from nas.architecture import Architecture
from nas.derivation import Choice, Place
from nas.errors import SearchSpaceError, unknown
from nas.grammar import Pick, Spec
from nas.inheritance import CallSites, Site, build_discrete
from nas.mixture import Mixture, OpenChoice, Picked, Soft
from nas.relaxing import OpenPlace, Relaxing
from nas.space import SearchSpace
from nas.variation import by_weight


class Supernet(nn.Module):
    """The network of a space whose choices are open, but for those that `fixed` names.

    `fixed` maps a path, or the last role of paths, to the name of a rule. Until weights are given by
    `mix`, all options of a choice have the same. SearchSpaceError, with the path and the reason, where
    a choice can be neither mixed nor left: values, options that disagree in what they give, recursion.
    Choices may be decided one by one (`decide`): they stay so whatever is mixed, and keep their alphas.
    """

    def __init__(self, space: SearchSpace, fixed: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.space = space
        relaxing = Relaxing(space, fixed or {})
        self._root = relaxing.run()
        self.choices: dict[str, OpenChoice] = dict(_choices(self._root))
        self.fixed = relaxing.taken
        self._sites: dict[str, Site] = {}
        self.network: nn.Module = self._build(self._root, space.spec, "")
        self.alphas = Alphas([c for c in self.choices.values() if not c.picks])
        self.drawn = self.alphas.mask(self.choices)  # of the options that may be chosen in the end
        self.decided: dict[str, str] = {}
        self._kept: dict[str, Tensor] = {}
        self.open()

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for x, (batch, *input), with the weights that are set."""
        return self.network(x)  # type: ignore[no-any-return]

    def weights(self) -> list[nn.Parameter]:
        """The parameters of the network: all but the alphas."""
        return list(self.network.parameters())

    def mix(
        self, weights: Mapping[str, Tensor], active: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """Set the weights (options,) of choices that are not decided, and which options are computed.

        `active` gives the numbers of the options that are; all are where it has no entry.
        """
        active = active or {}
        for path, given in weights.items():
            if path not in self.decided:
                self.choices[path].mix(given, active.get(path))

    def open(self) -> None:
        """Weigh all options alike and keep all picked elements, but where it is decided."""
        for path, choice in self.choices.items():
            choice.open()
            if path in self.decided:
                choice.select(self.decided[path])

    def decide(self, decided: Mapping[str, str]) -> None:
        """Settle choices, by path, on a rule each; all others are open again.

        The alphas of a settled choice are what they are now: see `keep_decided`.
        """
        for path, rule in decided.items():
            if path not in self.choices:
                raise SearchSpaceError(unknown(path, "an open choice of the supernet", self.choices))
            self.choices[path].select(rule)  # refuses what is no option, before anything is settled
        rows = self.alphas.rows()
        self._kept = {
            path: self._kept[path] if path in self._kept else rows[path].detach().clone()
            for path in decided
            if path in rows
        }
        self.decided = dict(decided)
        self.open()

    @torch.no_grad()
    def keep_decided(self) -> None:
        """Give decided choices' alphas the values back that they had when they were decided.

        An optimizer moves them without a gradient too, by weight decay and by its moments.
        """
        rows = self.alphas.rows()
        for path, values in self._kept.items():
            rows[path].copy_(values)

    def pending(self, decided: Mapping[str, str]) -> list[OpenChoice]:
        """The choices that can be decided after these: those below an option wait until it is taken."""
        return list(_pending(self._root, decided))

    def select(self, architecture: Architecture) -> None:
        """Take the architecture's option at every choice: the network is then that architecture's."""
        walk = self.space.walk(architecture)
        for choice in self.choices.values():
            choice.open()
        for place in _owned(walk.root):
            if place.path in self.choices:
                assert place.rule is not None
                self.choices[place.path].select(place.rule.name)
            elif self.fixed.get(place.path, place.node.rule) != place.node.rule:
                raise SearchSpaceError(
                    f'the architecture has "{place.node.rule}" at "{place.path}", where the supernet '
                    f'was fixed to "{self.fixed[place.path]}"; relax that choice, or take another one.'
                )

    def inherit(self, architecture: Architecture) -> nn.Module:
        """The architecture's own network with the weights and buffers that it has in the supernet."""
        self.select(architecture)
        walk = self.space.walk(architecture)
        sites: dict[str, Site] = {}
        network: nn.Module = build_discrete(walk, walk.root, (self.space.spec, ""), sites)
        floats = (t for t in self.network.state_dict().values() if t.is_floating_point())
        if (example := next(floats, None)) is not None:
            network.to(example.device, example.dtype)
        for name, site in sites.items():
            site.copy(self._sites[name])
        network.train(self.training)
        return network

    def discretize(self, strength: Mapping[str, Sequence[float]]) -> Architecture:
        """The admissible architecture of the greatest summed strength, what is decided being taken.

        `strength` gives for open choices (picks aside) a number for each option; where it gives none,
        all count 0. Of an open `Pick` those elements are kept that are worth most. Options of weight 0
        are left out. Exact where choices do not exclude each other; else an option that does not fit
        gives way to the next best.
        """
        value = _Value(strength)

        def best(place: OpenPlace, choice: Choice) -> str:
            return max((r.name for r in choice.options), key=lambda n: value.of_option(place, n))

        return self._derive(best)

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture, as the space draws it, with what is fixed and decided."""
        draw = by_weight(rng)

        def drawn(place: OpenPlace, choice: Choice) -> str:
            return draw(choice)

        return self._derive(drawn)

    def _derive(self, choose: Callable[[OpenPlace, Choice], str]) -> Architecture:
        places = {place.path: place for place in _places(self._root)}

        def taken(choice: Choice) -> str:
            settled = self.fixed.get(choice.path) or self.decided.get(choice.path)
            if settled is not None and settled not in choice.rejected:
                return settled
            place = places[choice.path]
            left = tuple(r for r in choice.options if place.picks or r.name in place.names)
            if not left:
                raise SearchSpaceError(
                    f'no option that fits beside the others is left at "{choice.path}" of the '
                    "supernet; fix other choices."
                )
            return choose(place, choice._replace(options=left))

        return self.space.derive(taken).architecture

    def _build(self, place: OpenPlace, spec: Spec, site: str) -> Any:  # Any: a product
        """The product of a place: one rule's, or a mixture of those that are open."""
        if place.picks:
            assert isinstance(spec, tuple)
            elements = {
                i: self._build(child, spec[i], f"{site}/{i}#1")
                for i, child in enumerate(place.elements)
            }
            self._sites[site] = Site((), ())
            return {i: Picked(place.choice, i, made) for i, made in elements.items()}
        made = {name: self._build_option(place, name, (spec, site)) for name in place.names}
        if len(made) == 1:
            return next(iter(made.values()))
        if place.soft and not any(isinstance(product, nn.Module) for product in made.values()):
            return Soft(tuple(made.values()), place.choice)
        for name, product in made.items():
            if not isinstance(product, nn.Module):
                raise place.refusal(f'"{name}" builds {product!r}, which is no module to mix')
        return Mixture(place.choice, list(made.values()))

    def _build_option(self, place: OpenPlace, name: str, at: tuple[Spec, str]) -> Any:  # Any: as above
        rule, children = place.options[name].rule, place.options[name].children
        steps = CallSites(at[1], rule, picks=isinstance(place.symbol, Pick))
        below: list[Any] = []  # Any: as above

        def factory(index: int, child: OpenPlace) -> Any:  # Any: spec -> (product, spec out)
            def make(spec: Spec) -> tuple[Any, Any]:  # Any: as above
                made = self._build(child, spec, steps.of(index))
                below.append(made)
                return made, child.outs[spec]

            return make

        product = rule.build(at[0], *(factory(i, c) for i, c in enumerate(children)))
        self._sites[steps.name] = Site(product, below)
        return product


class _Value:
    """What the best derivation below a place is worth, in summed strength."""

    def __init__(self, strength: Mapping[str, Sequence[float]]) -> None:
        self.strength = strength
        self.known: dict[int, float] = {}

    def of(self, place: OpenPlace) -> float:
        """The worth of a place, its best option taken."""
        if id(place) not in self.known:
            self.known[id(place)] = self._of(place)
        return self.known[id(place)]

    def _of(self, place: OpenPlace) -> float:
        if place.picks:
            best = sorted((self.of(element) for element in place.elements), reverse=True)
            return sum(best[: place.picks])
        drawn = [n for n in place.names if place.options[n].rule.weight > 0] or place.names
        return max(self.of_option(place, name) for name in drawn)

    def of_option(self, place: OpenPlace, name: str) -> float:
        """The worth of one option with the best below it."""
        if place.picks:
            return sum(self.of(place.elements[int(i)]) for i in name.split("_")[1:])
        if name not in place.options or name not in place.names:
            return float("-inf")
        own = 0.0
        if len(place.names) > 1:
            given = self.strength.get(place.path)
            own = float(given[place.names.index(name)]) if given is not None else 0.0
        return own + sum(self.of(child) for child in place.options[name].owned)


def _places(place: OpenPlace) -> Iterator[OpenPlace]:
    yield place
    for element in place.elements:
        yield from _places(element)
    for name in place.names:
        for child in place.options[name].owned:
            yield from _places(child)


def _pending(place: OpenPlace, decided: Mapping[str, str]) -> Iterator[OpenChoice]:
    taken = decided.get(place.path)
    if place.picks:
        if taken is None:
            yield place.choice
        kept = range(len(place.elements)) if taken is None else map(int, taken.split("_")[1:])
        for index in kept:
            yield from _pending(place.elements[index], decided)
        return
    if len(place.names) > 1 and taken is None:
        yield place.choice
        return
    for child in place.options[taken or place.names[0]].owned:
        yield from _pending(child, decided)


def _choices(root: OpenPlace) -> Iterator[tuple[str, OpenChoice]]:
    for place in _places(root):
        if place.picks or len(place.names) > 1:
            yield place.path, place.choice


def _owned(place: Place) -> Iterator[Place]:
    yield place
    for child in place.owned:
        yield from _owned(child)
