"""Which choices of a space can be left open: every option derived at once, checked, and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.architecture import join
from nas.errors import SearchSpaceError, unknown
from nas.grammar import Grammar, Misfit, Pick, Ref, Rule, Spec, Symbol
from nas.mixture import OpenChoice, Soft
from nas.space import SearchSpace


@dataclass
class Option:
    """A rule at an open place, with its children in the rule's order; `owned` leaves references out."""

    rule: Rule
    children: list[OpenPlace] = field(default_factory=list)
    owned: list[OpenPlace] = field(default_factory=list)


@dataclass(eq=False)
class OpenPlace:
    """A point of the relaxed tree: the options that are left, or the elements of an open pick.

    Where it is `soft`, the rule above takes its options weighed, though they are plain values.
    """

    path: str
    symbol: Symbol
    scope: dict[str, OpenPlace]
    title: str
    soft: bool = False
    options: dict[str, Option] = field(default_factory=dict)
    misfits: dict[str, str] = field(default_factory=dict)  # option -> why it does not fit somewhere
    picks: int = 0
    elements: list[OpenPlace] = field(default_factory=list)
    outs: dict[Spec, Any] = field(default_factory=dict)  # Any: the spec out
    _choice: OpenChoice | None = None

    @property
    def names(self) -> list[str]:
        """The options that fit wherever the place is used, in the order of the rules."""
        return [name for name in self.options if name not in self.misfits]

    @property
    def choice(self) -> OpenChoice:
        """The open choice at this place; the same at every call."""
        if self._choice is None:
            if self.picks:
                names = [str(i) for i in range(len(self.elements))]
                self._choice = OpenChoice(self.path, names, [True] * len(names), self.picks)
            else:
                drawn = [self.options[name].rule.weight > 0 for name in self.names]
                self._choice = OpenChoice(self.path, self.names, drawn)
        return self._choice

    def below(self, step: str, symbol: Symbol, scope: dict[str, OpenPlace], *, soft: bool) -> OpenPlace:
        """The place that a step leads to."""
        return OpenPlace(join(self.path, step), symbol, scope, self.title, soft)

    def refusal(self, reason: str) -> SearchSpaceError:
        """The error that this place cannot be relaxed."""
        out = "search the space by drawing, as regularized_evolution does"
        if self.options:
            out = f'fix it, such as {{"{self.path}": "{next(iter(self.options))}"}}'
        return SearchSpaceError(
            f'the choice "{self.path or self.symbol}" of {self.title} cannot be relaxed: {reason}; '
            f"{out}."
        )


class Relaxing:
    """Runs every option's `infer` from the start symbol; `taken` are the choices that were fixed."""

    def __init__(self, space: SearchSpace, fixed: Mapping[str, str]) -> None:
        self.space = space
        self.fixed = fixed
        self.taken: dict[str, str] = {}
        self._used: set[str] = set()
        self._roles: set[str] = set()
        self._entered: list[tuple[Symbol, Spec]] = []

    def run(self) -> OpenPlace:
        """The relaxed tree; SearchSpaceError, with path and reason, where there is none."""
        root = OpenPlace("", self.space.start, {}, f'space "{self.space.name or self.space.start}"')
        try:
            self.out(root, self.space.spec)
        except Misfit as misfit:
            raise root.refusal(f"no option fits {self.space.spec} ({misfit})") from None
        for key in self.fixed:
            if key not in self._used:
                what = f"a choice of {root.title} to fix, by path or role"
                raise SearchSpaceError(unknown(key, what, sorted(self._roles)))
        return root

    @property
    def grammar(self) -> Grammar:
        """The space's grammar."""
        return self.space.grammar

    def out(self, place: OpenPlace, spec: Spec) -> Any:  # Any: the spec out
        """What all options of a place give for a spec; refused where they disagree."""
        if spec in place.outs:
            return place.outs[spec]
        if isinstance(place.symbol, str) and (place.symbol, spec) in self._entered:
            raise place.refusal(f'"{place.symbol}" is derived again within itself, without end')
        self._entered.append((place.symbol, spec))
        try:
            place.outs[spec] = self._out(place, spec)
        finally:
            self._entered.pop()
        return place.outs[spec]

    def _out(self, place: OpenPlace, spec: Spec) -> Any:  # Any: as above
        rules = self.grammar.options(place.symbol, spec, every=True)
        fixed = self._fixed(place, rules, spec)
        if isinstance(place.symbol, Pick) and fixed is None:
            return self._picked(place, place.symbol.k, spec)
        outs: dict[str, Any] = {}  # Any: as above
        for rule in rules if fixed is None else (fixed,):
            try:
                outs[rule.name] = self._infer(place, rule, spec)
            except Misfit as misfit:
                place.misfits[rule.name] = str(misfit)
        fitting = {name: out for name, out in outs.items() if name not in place.misfits}
        if not fitting:
            raise Misfit(next(iter(place.misfits.values()), "no option"))
        if len(set(fitting.values())) > 1:
            told = ", ".join(f"{name} gives {out}" for name, out in list(fitting.items())[:3])
            if place.soft:
                return Soft(tuple(fitting.values()), place.choice)
            raise place.refusal(f"its options differ in what they give ({told})")
        return next(iter(fitting.values()))

    def _fixed(self, place: OpenPlace, rules: tuple[Rule, ...], spec: Spec) -> Rule | None:
        role = place.path.rpartition("/")[2].rpartition(".")[2]
        if len(rules) == 1:
            return rules[0]
        self._roles |= {role}
        for key in (place.path, role):
            if key in self.fixed:
                self._used.add(key)
                self.taken[place.path] = self.fixed[key]
                return self.grammar.option(place.symbol, spec, self.fixed[key])
        return None

    def _picked(self, place: OpenPlace, k: int, spec: Any) -> tuple[tuple[int, Any], ...]:  # Any: specs
        if not place.elements:
            assert isinstance(place.symbol, Pick)
            place.picks = k
            place.elements = [
                place.below(str(i), place.symbol.symbol, place.scope, soft=place.soft)
                for i in range(len(spec))
            ]
        return tuple((i, self.out(e, spec[i])) for i, e in enumerate(place.elements))

    def _infer(self, place: OpenPlace, rule: Rule, spec: Spec) -> Any:  # Any: the spec out
        if rule.name not in place.options:
            place.options[rule.name] = self._option(place, rule)
        children = place.options[rule.name].children
        return rule.infer(spec, *(self._call(child) for child in children))

    def _call(self, child: OpenPlace) -> Callable[..., Any]:  # Any: the spec out
        return lambda spec, times=1: self.out(child, spec)

    def _option(self, place: OpenPlace, rule: Rule) -> Option:
        option, scope = Option(rule), place.scope
        for role, symbol, step in self.grammar.roles(place.symbol, rule):
            if isinstance(symbol, Ref):
                option.children.append(scope[symbol.role])
                continue
            assert step is not None
            soft = role in rule.soft or (place.soft and not isinstance(place.symbol, str))
            child = place.below(step, symbol, scope, soft=soft)
            option.children.append(child)
            option.owned.append(child)
            scope = scope | {role: child}
        return option
