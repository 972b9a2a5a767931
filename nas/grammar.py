"""A grammar: symbols, the rules that derive them, and symbols that make their rules on demand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from torch import Tensor, nn

from nas.architecture import Architecture
from nas.complexity import Complexity
from nas.errors import SearchSpaceError, unknown

Spec = Hashable  # what flows between rules: any frozen value (a shape, a graph's features, ...)


class Misfit(Exception):
    """A rule cannot apply to what flows into it; raised by `infer`, caught while deriving."""


class TooLarge(Misfit):
    """A derivation exceeds the limits of its space: it begins anew, whatever option led there."""


@dataclass(frozen=True, slots=True)
class Each:
    """One child of `symbol` for every element of a tuple of specs; out: the tuple of their outs."""

    symbol: Symbol


@dataclass(frozen=True, slots=True)
class Pick:
    """`k` of the n elements of a tuple of specs, a child for each; out: ((index, out), ...)."""

    k: int
    symbol: Symbol


@dataclass(frozen=True, slots=True)
class Chain:
    """n children of `symbol` one after the other, from (spec, n); out: the spec after each of them."""

    symbol: Symbol


@dataclass(frozen=True, slots=True)
class Ref:
    """The nearest enclosing child of that role: chosen once, used again here, not in the tree twice."""

    role: str


Symbol = str | Each | Pick | Chain | Ref
Roles = tuple[tuple[str, Symbol, str | None], ...]  # role, symbol, path step; of a rule's children


@dataclass(frozen=True, eq=False)
class Rule:
    """One way to derive a symbol.

    Every child is handed to the functions below in the order of `children`:

    - `infer(spec, *children) -> spec out`: a child is called with the spec that it receives and
      gives its spec out; `child(spec, times=n)` announces n instances in the built network. Each
      child must be called at least once. Raise `Misfit` where the rule cannot apply.
    - `build(spec, *children) -> product`: a child is called with its spec and gives (product, spec
      out), a fresh product at every call. A product is an nn.Module, or a plain value.
    - `cost(spec, *children) -> Complexity`: what one instance costs beyond its children, whose
      spec out a call gives and whose subtree is `child.architecture`; less than nothing where they are
      built as one. None: not stated (the network is then measured on the meta device).

    `weight` is the probability within the symbol, up to normalisation. 0: accepted when read, but
    never drawn, counted or enumerated. Roles in `soft` may stay open in a supernet though they are
    plain values: they arrive as `nas.mixture.Soft`, and `infer` gives one spec for all of the values.
    """

    name: str
    children: Mapping[str, Symbol]
    infer: Callable[..., Any]  # Any: each rule has its own specs and number of children
    build: Callable[..., Any]  # Any: as above
    weight: float = 1.0
    cost: Callable[..., Complexity] | None = None
    soft: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for role in self.soft:
            if role not in self.children:
                raise SearchSpaceError(unknown(role, f'a role of rule "{self.name}"', self.children))
        if not self.name or self.weight < 0:
            raise SearchSpaceError(
                f'rule "{self.name}" has weight {self.weight}; '
                "a rule needs a name and a weight of at least 0."
            )
        if self.children and "/" in self.name:
            raise SearchSpaceError(
                f'rule "{self.name}" has children and a "/" in its name, which stands between the '
                "steps of a path; name it without."
            )
        for role in self.children:
            if not role or "/" in role or "." in role:
                raise SearchSpaceError(
                    f'rule "{self.name}" has the role "{role}"; a role is not empty and has no "/" '
                    'and no ".", which stand between the steps of a path.'
                )


def terminal(
    name: str,
    build: Callable[[Any], Any],  # Any: the spec and product of this rule's own kind
    *,
    infer: Callable[[Any], Any] = lambda spec: spec,  # Any: as above
    cost: Callable[[Any], Complexity] | None = None,  # Any: as above
    weight: float = 1.0,
) -> Rule:
    """A rule without children; by default its spec out is its spec in."""
    return Rule(name, {}, infer, build, weight, cost)


def values(*options: object) -> tuple[Rule, ...]:
    """Rules of a symbol whose options are plain values; each is named by the value and infers it."""
    return tuple(terminal(str(o), _always(o), infer=_always(o), cost=_no_cost) for o in options)


def _always(value: object) -> Callable[[Spec], object]:
    return lambda spec: value


class Stages(nn.Module):
    """The product of a `Chain`: its children one after the other; `stages` gives them singly."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x


@dataclass(frozen=True)
class Grammar:
    """The rules of every symbol, checked and indexed; structured symbols make theirs from the spec."""

    rules: Mapping[str, Sequence[Rule]]
    weigh: Mapping[Any, Callable[..., Sequence[float]]] = field(default_factory=dict)
    has_refs: bool = field(init=False)
    _drawn: dict[Hashable, tuple[Rule, ...]] = field(init=False, repr=False, default_factory=dict)
    _every: dict[Hashable, tuple[Rule, ...]] = field(init=False, repr=False, default_factory=dict)
    _branching: frozenset[Hashable] = field(init=False, repr=False)
    _roles: dict[tuple[Symbol, Rule], Roles] = field(init=False, repr=False, default_factory=dict)
    _steps: dict[tuple[Symbol, Rule], tuple[str, ...]] = field(
        init=False, repr=False, default_factory=dict
    )
    _leaves: dict[tuple[Symbol, Rule], Architecture] = field(
        init=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for symbol, rules in self.rules.items():
            self._check(symbol, rules)
            self._every[symbol] = tuple(rules)
            self._drawn[symbol] = tuple(r for r in rules if r.weight > 0)
        for weighed in self.weigh:
            if weighed not in self.rules:
                raise SearchSpaceError(unknown(weighed, "a symbol, given weights", self.rules))
        branching = (s for s, rs in self.rules.items() if sum(bool(r.children) for r in rs) > 1)
        object.__setattr__(self, "_branching", frozenset(branching))
        children = [c for rs in self.rules.values() for r in rs for c in r.children.values()]
        object.__setattr__(self, "has_refs", any(isinstance(c, Ref) for c in children))

    def _check(self, symbol: str, rules: Sequence[Rule]) -> None:
        if not rules:
            raise SearchSpaceError(f'symbol "{symbol}" has no rules; give it one or remove it.')
        names = [r.name for r in rules]
        if len(set(names)) < len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise SearchSpaceError(f'symbol "{symbol}" has rules of one name: {", ".join(twice)}.')
        roles = {role for rs in self.rules.values() for r in rs for role in r.children}
        for rule in rules:
            for child in rule.children.values():
                inner = innermost(child)
                if isinstance(inner, Ref):
                    if inner.role not in roles:
                        what = f'a role, asked for by rule "{rule.name}"'
                        raise SearchSpaceError(unknown(inner.role, what, sorted(roles)))
                elif inner not in self.rules:
                    what = f'a symbol, asked for by rule "{rule.name}"'
                    raise SearchSpaceError(unknown(inner, what, self.rules))

    def options(self, symbol: Symbol, spec: Spec, *, every: bool = False) -> tuple[Rule, ...]:
        """The rules of a symbol for a spec: those that are drawn, or every one (weight 0 too)."""
        index = self._every if every else self._drawn
        if isinstance(symbol, str):
            return index[symbol]
        key = (symbol, _size(symbol, spec))
        if key not in self._every:
            self._every[key] = _structured(symbol, key[1])
        return self._every[key]

    def option(self, symbol: Symbol, spec: Spec, name: str) -> Rule:
        """The rule of that name; SearchSpaceError with the nearest name where there is none."""
        rules = self.options(symbol, spec, every=True)
        for rule in rules:
            if rule.name == name:
                return rule
        raise SearchSpaceError(unknown(name, f"a rule of symbol {symbol}", (r.name for r in rules)))

    def roles(self, symbol: Symbol, rule: Rule) -> Roles:
        """For every child its role, its symbol, and the path step to it (None for a reference).

        The step is the role, after the rule's name where several rules of the symbol have children.
        """
        key = symbol, rule
        if key not in self._roles:
            prefix = f"{rule.name}." if symbol in self._branching else ""
            self._roles[key] = tuple(
                (role, s, None if isinstance(s, Ref) else prefix + role)
                for role, s in rule.children.items()
            )
        return self._roles[key]

    def steps(self, symbol: Symbol, rule: Rule) -> tuple[str, ...]:
        """The path steps to the children that stand in the tree (references do not)."""
        key = symbol, rule
        if key not in self._steps:
            self._steps[key] = tuple(s for _, _, s in self.roles(symbol, rule) if s is not None)
        return self._steps[key]

    def leaf(self, symbol: Symbol, rule: Rule) -> Architecture:
        """The node of a rule without children."""
        key = symbol, rule
        if key not in self._leaves:
            self._leaves[key] = Architecture(symbol, rule.name)
        return self._leaves[key]


def innermost(symbol: Symbol) -> str | Ref:
    """The named symbol or reference inside any number of Each, Pick and Chain."""
    while isinstance(symbol, Each | Pick | Chain):
        symbol = symbol.symbol
    return symbol


def _size(symbol: Symbol, spec: Any) -> int:  # Any: checked here
    if isinstance(symbol, Chain):
        if not (isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[1], int)):
            raise SearchSpaceError(f"{symbol} was given {spec!r}; it takes (spec, number of stages).")
        return spec[1]
    if not isinstance(spec, tuple):
        raise SearchSpaceError(f"{symbol} was given {spec!r}; it takes a tuple of specs.")
    return len(spec)


def _structured(symbol: Symbol, n: int) -> tuple[Rule, ...]:
    if isinstance(symbol, Each):
        children = {str(i): symbol.symbol for i in range(n)}
        return (Rule("each", children, _infer_each, _build_each, cost=_no_cost),)
    if isinstance(symbol, Chain):
        children = {str(i): symbol.symbol for i in range(n)}
        return (Rule("chain", children, _infer_chain, _build_chain, cost=_no_cost),)
    if isinstance(symbol, Pick):
        return tuple(_pick(symbol, indices) for indices in combinations(range(n), symbol.k))
    raise SearchSpaceError(f"{symbol} cannot be derived; derive what it refers to.")


def _no_cost(spec: Spec, *children: Callable[..., Any]) -> Complexity:  # Any: specs of any kind
    return Complexity()


def _infer_each(specs: tuple[Any, ...], *children: Callable[..., Any]) -> tuple[Any, ...]:
    return tuple(child(spec) for child, spec in zip(children, specs, strict=True))


def _build_each(specs: tuple[Any, ...], *children: Callable[..., Any]) -> tuple[Any, ...]:
    return tuple(child(spec)[0] for child, spec in zip(children, specs, strict=True))


def _infer_chain(spec: tuple[Any, int], *children: Callable[..., Any]) -> tuple[Any, ...]:
    flow, outs = spec[0], []
    for child in children:
        flow = child(flow)
        outs.append(flow)
    return tuple(outs)


def _build_chain(spec: tuple[Any, int], *children: Callable[..., Any]) -> Stages:
    flow, stages = spec[0], []
    for child in children:
        stage, flow = child(flow)
        stages.append(stage)
    return Stages(stages)


def _pick(symbol: Pick, indices: tuple[int, ...]) -> Rule:
    def infer(specs: tuple[Any, ...], *children: Callable[..., Any]) -> tuple[Any, ...]:
        return tuple((i, c(specs[i])) for i, c in zip(indices, children, strict=True))

    def build(specs: tuple[Any, ...], *children: Callable[..., Any]) -> dict[int, Any]:
        return {i: c(specs[i])[0] for i, c in zip(indices, children, strict=True)}

    name = "pick_" + "_".join(map(str, indices))
    return Rule(name, {str(i): symbol.symbol for i in indices}, infer, build, cost=_no_cost)
