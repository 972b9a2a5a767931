"""Deriving an architecture (the only traversal that chooses) and walking one that is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from nas.architecture import Architecture, brief, join
from nas.errors import SearchSpaceError
from nas.grammar import Grammar, Misfit, Ref, Rule, Spec, Symbol, TooLarge

T = TypeVar("T")
ChildCall = Callable[..., Any]  # Any: a child's spec out; called with (spec, times=1)


class Choice(NamedTuple):
    """A point where a derivation chooses: which symbol, where, for which spec, among which rules.

    `options` are the drawn rules that are left, `every` all rules of the symbol: one of weight 0 may
    be chosen by its name too. `rejected` names what was chosen here before and did not fit. `depth` is
    the number of rules above, the root's own counted; `weigh` gives the space's weights of the options
    where they are not those of the rules; `nodes` is how many nodes the tree has so far.
    """

    path: str
    symbol: Symbol
    options: tuple[Rule, ...]
    every: tuple[Rule, ...]
    spec: Spec
    rejected: tuple[str, ...] = ()
    restart: int = 0  # how many times the derivation began anew
    depth: int = 1
    weigh: Callable[[Choice], Sequence[float]] | None = None
    nodes: int = 0


Choose = Callable[[Choice], str]


@dataclass(frozen=True)
class Limits:
    """Bounds on a derivation: nodes of the tree, instances in the built network, nested rules.

    `max_drawn_nodes` bounds what is drawn below `max_nodes`: a larger tree that is given is in the
    space, and what is varied from it may be as large as it is.
    """

    max_nodes: int = 10_000
    max_instances: int = 1_000_000
    max_depth: int = 150
    max_drawn_nodes: int | None = None

    def drawn(self, given_nodes: int = 0) -> Limits:
        """The limits of a tree that is drawn, or varied from one of so many nodes."""
        if self.max_drawn_nodes is None:
            return self
        return replace(self, max_nodes=min(self.max_nodes, max(self.max_drawn_nodes, given_nodes)))


class Derived(NamedTuple):
    """A derivation with its spec out, and how often an option did not fit or it began anew."""

    architecture: Architecture
    spec: Any  # Any: the spec out of the start symbol
    misfits: int
    restarts: int


@dataclass
class Derivation:
    """One top-down derivation; `choose` is asked wherever more than one rule is left."""

    grammar: Grammar
    limits: Limits
    choose: Choose
    restart: int = 0
    nodes: int = 0
    instances: int = 0
    misfits: int = 0

    def visit(
        self, at: _At, symbol: Symbol, spec: Spec, times: int
    ) -> tuple[Architecture, Any]:  # Any: the spec out
        """The derivation of a symbol and its spec out; an option that does not fit is removed."""
        if at.depth > self.limits.max_depth:
            raise Misfit(f"more than {self.limits.max_depth} nested rules")
        grammar = self.grammar
        every = grammar.options(symbol, spec, every=True)
        left = grammar.options(symbol, spec)
        rejected: tuple[str, ...] = ()
        while True:
            if len(every) == 1:
                rule = every[0]
            else:
                weigh = grammar.weigh.get(symbol)
                place = (at.path, symbol, left, every, spec, rejected)
                name = self.choose(Choice(*place, self.restart, at.depth, weigh, self.nodes))
                rule = next((r for r in every if r.name == name), None) or grammar.option(
                    symbol, spec, name
                )
            before = self.nodes, self.instances
            try:
                return self._apply(at, symbol, rule, spec, times)
            except TooLarge:
                raise
            except Misfit:
                self.nodes, self.instances = before
                self.misfits += 1
                rejected = (*rejected, rule.name)
                left = tuple([r for r in left if r is not rule])
                if not left:
                    raise

    def _apply(
        self, at: _At, symbol: Symbol, rule: Rule, spec: Spec, times: int
    ) -> tuple[Architecture, Any]:  # Any: the spec out
        self.nodes += 1
        self.instances += times
        if self.nodes > self.limits.max_nodes:
            raise TooLarge(f"more than {self.limits.max_nodes} nodes")
        if self.instances > self.limits.max_instances:
            raise TooLarge(f"more than {self.limits.max_instances} instances")
        if not rule.children:
            return self.grammar.leaf(symbol, rule), rule.infer(spec)
        path, scope, below = at.path, at.scope, at.depth + 1
        calls: list[ChildCall] = []
        owned: list[_Child] = []
        for role, inner, step in self.grammar.roles(symbol, rule):
            if step is None:
                assert isinstance(inner, Ref)
                calls.append(_Referred(scope, inner.role, times))
                continue
            child = _Child(self, _At(f"{path}/{step}" if path else step, scope, below), inner, times)
            calls.append(child)
            owned.append(child)
            if self.grammar.has_refs:  # a child may refer to those before it, never to itself
                scope = scope | {role: child}
        out = rule.infer(spec, *calls)
        children = tuple([child.node or child.finished(rule) for child in owned])
        return Architecture(symbol, rule.name, children, self.grammar.steps(symbol, rule)), out


class _At(NamedTuple):
    path: str
    scope: dict[str, _Child]
    depth: int


@dataclass(slots=True)
class _Child:
    """A child as `infer` sees it: the first call derives it, a later one checks it."""

    derivation: Derivation
    at: _At
    symbol: Symbol
    outer_times: int
    node: Architecture | None = None
    first: tuple[Spec, Any] | None = None  # Any: the spec out
    walk: Walk | None = None

    def __call__(self, spec: Spec, times: int = 1) -> Any:  # Any: the spec out
        return self.call(spec, times * self.outer_times)

    def call(self, spec: Spec, times: int) -> Any:  # Any: the spec out
        if self.node is None:
            self.node, out = self.derivation.visit(self.at, self.symbol, spec, times)
            self.first = spec, out
            return out
        if self.walk is None:
            scope = {role: c.place() for role, c in self.at.scope.items() if c.node is not None}
            self.walk = Walk(self.derivation.grammar, self.symbol, self.node, self.at.path, scope)
        out = self.walk.out(spec)
        self.derivation.instances += times * self.walk.instances(spec)
        if self.derivation.instances > self.derivation.limits.max_instances:
            raise TooLarge(f"more than {self.derivation.limits.max_instances} instances")
        return out

    def place(self) -> Place:
        assert self.node is not None
        scope = {role: c.place() for role, c in self.at.scope.items() if c.node is not None}
        return Place(self.at.path, self.symbol, self.node, scope)

    def finished(self, rule: Rule) -> Architecture:
        if self.node is None:
            raise SearchSpaceError(
                f'rule "{rule.name}" never calls its child at "{self.at.path}" in infer; call every '
                "child, and write a conditional part as rules of its own."
            )
        return self.node


@dataclass(slots=True)
class _Referred:
    """A reference as `infer` sees it: the call goes to the child that was derived for the role."""

    scope: dict[str, _Child]
    role: str
    outer_times: int

    def __call__(self, spec: Spec, times: int = 1) -> Any:  # Any: the spec out
        return _lookup(self.scope, self.role).call(spec, times * self.outer_times)


def _lookup(scope: Mapping[str, T], role: str) -> T:
    if role not in scope:
        raise SearchSpaceError(
            f'no enclosing rule has a child of role "{role}", which Ref("{role}") asks for here.'
        )
    return scope[role]


class Call(NamedTuple):
    """One call of a child by `infer`: where it goes, what flows in, how many instances it means."""

    place: Place
    spec: Spec
    times: int


class Visit(NamedTuple):
    """A node under one spec: its rule, its spec out, and the calls its `infer` made."""

    rule: Rule
    out: Any  # Any: the spec out
    calls: tuple[Call, ...]


@dataclass(eq=False)
class Place:
    """A node of a complete tree at its path, with the roles it can refer to."""

    path: str
    symbol: Symbol
    node: Architecture
    scope: dict[str, Place]
    rule: Rule | None = None
    children: list[Place] = field(default_factory=list)  # in the order of the rule, references too
    owned: list[Place] = field(default_factory=list)
    visits: dict[Spec, Visit] = field(default_factory=dict)

    def architecture(self) -> Architecture:
        """The subtree with its symbols and steps filled in."""
        assert self.rule is not None
        steps = tuple(c.path.removeprefix(self.path).lstrip("/") for c in self.owned)
        below = tuple(c.architecture() for c in self.owned)
        return Architecture(self.symbol, self.rule.name, below, steps)

    def below(self) -> list[Place]:
        """The place itself and every one below it, parents first."""
        found, stack = [], [self]
        while stack:
            found.append(stack.pop())
            stack.extend(reversed(found[-1].owned))
        return found


class Walk:
    """A complete tree read from the root: what flows in and out of every node, without choosing.

    The tree's symbols need not be known (as read from a text): they follow from the grammar.
    Raises Misfit where a rule cannot apply and SearchSpaceError where the tree is not of the grammar.
    """

    def __init__(
        self,
        grammar: Grammar,
        symbol: Symbol,
        node: Architecture,
        path: str = "",
        scope: dict[str, Place] | None = None,
    ) -> None:
        self.grammar = grammar
        self.root = Place(path, symbol, node, scope or {})
        self._instances: dict[tuple[str, Spec], int] = {}

    def out(self, spec: Spec) -> Any:  # Any: the spec out
        return self.visit(self.root, spec).out

    def visit(self, place: Place, spec: Spec) -> Visit:
        """How the node at a place answers a spec; computed once a spec."""
        if spec in place.visits:
            return place.visits[spec]
        rule = self._rule(place, spec)
        calls: list[Call] = []

        def child(at: Place) -> ChildCall:
            def call(spec: Spec, times: int = 1) -> Any:  # Any: the spec out
                calls.append(Call(at, spec, times))
                return self.visit(at, spec).out

            return call

        out = rule.infer(spec, *(child(c) for c in place.children))
        place.visits[spec] = Visit(rule, out, tuple(calls))
        return place.visits[spec]

    def instances(self, spec: Spec) -> int:
        """How many instances the built network has, the root's own included."""
        self.visit(self.root, spec)
        return self._count(self.root, spec)

    def _count(self, place: Place, spec: Spec) -> int:
        key = (place.path, spec)
        if key not in self._instances:
            calls = place.visits[spec].calls
            self._instances[key] = 1 + sum(c.times * self._count(c.place, c.spec) for c in calls)
        return self._instances[key]

    def uses(self, spec: Spec) -> dict[str, dict[Spec, int]]:
        """For every path, the specs it is built with and how many instances of each."""
        counts: dict[str, dict[Spec, int]] = {}

        def add(place: Place, spec: Spec, times: int) -> None:
            at = counts.setdefault(place.path, {})
            at[spec] = at.get(spec, 0) + times
            for call in place.visits[spec].calls:
                add(call.place, call.spec, times * call.times)

        self.visit(self.root, spec)
        add(self.root, spec, 1)
        return counts

    def _rule(self, place: Place, spec: Spec) -> Rule:
        rule = self.grammar.option(place.symbol, spec, place.node.rule)
        if place.rule is None:
            self._open(place, rule)
        elif place.rule is not rule:
            raise Misfit(f"{place.symbol} at {place.path!r} is used with specs of different lengths")
        return rule

    def _open(self, place: Place, rule: Rule) -> None:
        names = [role for role, s in rule.children.items() if not isinstance(s, Ref)]
        given = place.node.children
        if len(names) != len(given):
            raise SearchSpaceError(
                f'rule "{rule.name}" takes {len(names)} children'
                + (f" ({', '.join(names[:12])})" if names else "")
                + f", and {len(given)} were given in {brief(place.node, 80)}."
            )
        below = iter(given)
        scope = place.scope
        place.rule = rule
        for role, inner, step in self.grammar.roles(place.symbol, rule):
            if step is None:
                assert isinstance(inner, Ref)
                place.children.append(_lookup(scope, inner.role))
                continue
            child = Place(join(place.path, step), inner, next(below), scope)
            place.children.append(child)
            place.owned.append(child)
            if self.grammar.has_refs:
                scope = scope | {role: child}
