"""A search space is a grammar with a start symbol, limits, and the spec that flows into it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.architecture import Architecture, brief, read
from nas.building import Builder, stated_complexity
from nas.complexity import Complexity, measure
from nas.counting import Extent, extent
from nas.derivation import Choice, Choose, Derivation, Derived, Limits, Place, Walk, _At, _Child
from nas.errors import SearchSpaceError, unknown
from nas.grammar import Grammar, Misfit, Ref, Rule, Spec, Symbol

MAX_RESTARTS = 1000


@dataclass(frozen=True)
class Signature:
    """What flows into and out of a whole network: the shapes of one example, without the batch.

    Inputs are real numbers: (features,), a sequence (channels, length) as torch.nn.Conv1d takes it, or
    an image (channels, height, width). With a `vocabulary` they are tokens, whole numbers below it:
    (length,). An output is (features,), or (length, features) where there is one at every position.
    """

    input: tuple[int, ...]
    output: tuple[int, ...]
    vocabulary: int | None = None

    def __str__(self) -> str:
        kind = "" if self.vocabulary is None else f" tokens of {self.vocabulary}"
        return f"{self.input}{kind} -> {self.output}"

    @property
    def dtype(self) -> torch.dtype:
        """The type of the inputs' numbers."""
        return torch.float32 if self.vocabulary is None else torch.int64

    def random(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Inputs (batch, *input): tokens drawn evenly, or numbers of mean 0 and deviation 1."""
        if self.vocabulary is None:
            return torch.randn(batch, *self.input, generator=generator)
        return torch.randint(self.vocabulary, (batch, *self.input), generator=generator)


@dataclass(frozen=True)
class Notation:
    """Another published way to write the architectures of a space, read and written by functions.

    `read(text)` gives the space's own text, or None where the text is not in this notation.
    """

    name: str
    read: Callable[[str], str | None]
    write: Callable[[Architecture], str]


@dataclass(frozen=True)
class SearchSpace:
    """A grammar from a start symbol, for one spec: a value, made by a function and never subclassed.

    `spec` is what flows into the start symbol, a `Signature` for whole networks; `at` gives the same
    space for another one. `weigh` gives, for a symbol, the weights of a choice's options where they are
    not those of the rules. `canonical`, where given, maps architectures that compute the same function
    to one text, and `equivalences` names other such maps, as a benchmark may have its own; `classes`
    gives either by name. `examples` names known architectures. `settings` are the arguments that made
    the space (its skeleton); they are no part of an architecture.
    """

    start: str
    rules: Mapping[str, Sequence[Rule]]
    spec: Spec
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    limits: Limits = Limits()
    weigh: Mapping[str, Callable[[Choice], Sequence[float]]] = field(default_factory=dict)
    canonical: Callable[[Architecture], str] | None = None
    equivalences: Mapping[str, Callable[[Architecture], str]] = field(default_factory=dict)
    notation: Notation | None = None
    examples: Mapping[str, str] = field(default_factory=dict)
    grammar: Grammar = field(init=False, repr=False, compare=False)
    _extents: dict[Spec, Extent] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.start not in self.rules:
            raise SearchSpaceError(
                f'start symbol "{self.start}" has no rules; symbols: {", ".join(self.rules)}.'
            )
        object.__setattr__(self, "grammar", Grammar(self.rules, self.weigh))

    def at(self, spec: Spec) -> SearchSpace:
        """The same space for another spec."""
        return self if spec == self.spec else replace(self, spec=spec)

    def derive(
        self, choose: Choose, *, max_restarts: int = MAX_RESTARTS, given_nodes: int = 0
    ) -> Derived:
        """A derivation by `choose`, which maps a Choice to the name of one of its options.

        An option that does not fit is removed where that shows, which shifts the distribution of random
        draws slightly. Where none is left at the start symbol, or a limit on size is exceeded, the
        derivation begins anew, at most `max_restarts` times. Both are counted in what is returned.
        `given_nodes` is the size of the tree it is varied from, which it may reach in any case.
        """
        misfits = 0
        limits = self.limits.drawn(given_nodes)
        for restart in range(max_restarts + 1):
            run = Derivation(self.grammar, limits, choose, restart)
            try:
                architecture, out = run.visit(_At("", {}, 1), self.start, self.spec, 1)
            except Misfit as misfit:
                misfits += run.misfits
                reason = misfit
                continue
            return Derived(architecture, out, misfits + run.misfits, restart)
        raise SearchSpaceError(
            f"{self._title()} gave no architecture for {self.spec} in {max_restarts + 1} "
            f"derivations: {reason}."
        )

    def parse(self, text: str) -> Architecture:
        """The architecture a text spells, in the space's own form or its other notation, or the example
        it names.
        """
        text = self.examples.get(text.strip(), text)
        if self.notation is not None:
            text = self.notation.read(text) or text
        tree = read(text)
        self._check_extent(tree)
        walk = self._walk(tree)
        try:
            walk.out(self.spec)
        except Misfit as misfit:
            raise SearchSpaceError(
                f"{brief(text)} is not in {self._title()} for {self.spec}: {misfit}."
            ) from None
        self._check({"instances": (walk.instances(self.spec), self.limits.max_instances)})
        return walk.root.architecture()

    def contains(self, architecture: Architecture) -> bool:
        """Whether an architecture is a derivation of this space for its spec."""
        try:
            return self.parse(str(architecture)) == architecture
        except SearchSpaceError:
            return False

    def choices(self, architecture: Architecture) -> dict[str, Choice]:
        """For every path with more than one option, the choice that was made there."""
        walk = self.walk(architecture)
        found = {}
        for place in walk.root.below():
            spec = next(iter(place.visits))
            options = self.grammar.options(place.symbol, spec)
            if len(options) > 1:
                every = self.grammar.options(place.symbol, spec, every=True)
                found[place.path] = Choice(place.path, place.symbol, options, every, spec)
        return found

    def spec_out(self, architecture: Architecture) -> Any:  # Any: the spec out of the start symbol
        """What flows out of the network, without building it."""
        return self.walk(architecture).out(self.spec)

    def build(self, architecture: Architecture) -> nn.Module:
        """The network, its weights freshly drawn from torch's current random state."""
        module: nn.Module = Builder(walk := self.walk(architecture)).build(walk.root, self.spec)
        return module

    def complexity(self, architecture: Architecture) -> Complexity:
        """Parameters, multiply-adds and activations for one example, before building.

        By the formulas of the rules; where one states none, by running the network on torch's meta
        device, which takes no memory. SearchSpaceError where neither works.
        """
        stated = stated_complexity(self.walk(architecture), self.spec)
        if stated is not None:
            return stated
        if not isinstance(self.spec, Signature):
            raise SearchSpaceError(
                f"{self._title()} has rules without a cost and {self.spec} is no Signature; "
                "give every rule a cost."
            )
        try:
            with torch.device("meta"):
                network = self.build(architecture)
                return measure(network, self.spec.input, "meta", dtype=self.spec.dtype)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise SearchSpaceError(
                f"{brief(architecture)} cannot be measured before building ({reason}); give the rules "
                f"of {self._title()} a cost."
            ) from error

    def classes(self, name: str) -> Callable[[Architecture], str]:
        """The map to one text a class of equal architectures: `function`, the canonical form, or one
        of the space's `equivalences`.
        """
        known = dict(self.equivalences)
        if self.canonical is not None:
            known["function"] = self.canonical
        if name not in known:
            raise SearchSpaceError(unknown(name, f"an equivalence of {self._title()}", known))
        return known[name]

    def walk(self, architecture: Architecture) -> Walk:
        """The architecture walked through from the root for this space's spec."""
        walk = self._walk(architecture)
        try:
            walk.out(self.spec)
        except Misfit as misfit:
            raise SearchSpaceError(
                f"{brief(architecture)} does not fit {self.spec} in {self._title()}: {misfit}."
            ) from None
        return walk

    @property
    def extent(self) -> Extent:
        """Size, most nodes, most nested rules and most choices, without regard to the limits."""
        if self.spec not in self._extents:
            self._extents[self.spec] = extent(self.grammar, self.start, self.spec, self._trees)
        return self._extents[self.spec]

    @property
    def finite(self) -> bool:
        """Whether the grammar has finitely many derivations, the limits aside."""
        return self.extent.size != math.inf  # math.isfinite takes no integer beyond a float

    def size(self) -> int | float:
        """How many architectures there are, exactly; infinite for a recursive grammar."""
        bound = self.extent
        limits = self.limits
        if not self.finite or (bound.nodes <= limits.max_nodes and bound.depth <= limits.max_depth):
            return bound.size
        return sum(1 for _ in self.enumerate())

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once: in the order of the rules, or the smallest first where they are
        infinitely many. Complete, so it may take long.
        """
        if self.finite:
            yield from self._enumerate(self.start, self.spec, {})
            return
        for nodes in range(1, self.limits.max_nodes + 1):
            smaller = replace(self, limits=replace(self.limits, max_nodes=nodes))
            for architecture in smaller._enumerate(self.start, self.spec, {}):
                if sum(1 for _ in architecture.nodes()) == nodes:
                    yield architecture

    def _trees(self, symbol: Symbol, spec: Spec, scope: dict[str, Place]) -> Iterator[Architecture]:
        return self._enumerate(symbol, spec, scope)

    def _enumerate(
        self, symbol: Symbol, spec: Spec, places: dict[str, Place]
    ) -> Iterator[Architecture]:
        """Backtracking by running again: a trail of (place, options) that is advanced at its end."""
        trail: list[tuple[int, list[str]]] = []
        while True:
            position = 0

            def choose(choice: Choice) -> str:
                nonlocal position
                if choice.rejected or not choice.options:
                    raise _DeadEnd
                if position == len(trail):
                    trail.append((0, _fitting(choice, self.limits.max_nodes - choice.nodes)))
                position += 1
                place, names = trail[position - 1]
                return names[place]

            run = Derivation(self.grammar, self.limits, choose)
            scope = {role: _finished(run, place) for role, place in places.items()}
            with suppress(Misfit, _DeadEnd):
                yield run.visit(_At("", scope, 1), symbol, spec, 1)[0]
            del trail[position:]
            while trail and trail[-1][0] + 1 == len(trail[-1][1]):
                trail.pop()
            if not trail:
                return
            trail[-1] = (trail[-1][0] + 1, trail[-1][1])

    def _walk(self, architecture: Architecture) -> Walk:
        return Walk(self.grammar, self.start, architecture)

    def _check_extent(self, tree: Architecture) -> None:
        """Refuse a tree that is too large or too deep, before anything recurses into it."""
        found = list(tree.nodes())
        depth = max(path.count("/") + bool(path) for path, _ in found) + 1
        nodes = (len(found), self.limits.max_nodes)
        self._check({"nodes": nodes, "nested rules": (depth, self.limits.max_depth)})

    def _check(self, given: Mapping[str, tuple[int, int]]) -> None:
        for what, (number, most) in given.items():
            if number > most:
                raise SearchSpaceError(
                    f"the architecture has {number:,} {what}; {self._title()} takes at most {most:,}."
                )

    def _title(self) -> str:
        return f'space "{self.name}"' if self.name else "the space"


class _DeadEnd(Exception):
    """An enumerated choice did not fit: go on with the next one."""


def _fitting(choice: Choice, most_nodes: int) -> list[str]:
    """The options but for those that certainly do not fit; _DeadEnd where none is left.

    Those are options without children that do not take the spec, and those with too many children for
    the nodes that may be.
    """
    names = [rule.name for rule in choice.options if _may_fit(rule, choice.spec, most_nodes)]
    if not names:
        raise _DeadEnd
    return names


def _may_fit(rule: Rule, spec: Spec, most_nodes: int) -> bool:
    if rule.children:
        return 1 + sum(not isinstance(s, Ref) for s in rule.children.values()) <= most_nodes
    try:
        rule.infer(spec)
    except Misfit:
        return False
    return True


def _finished(run: Derivation, place: Place) -> _Child:
    return _Child(run, _At("", {}, 1), place.symbol, 1, node=place.node)
