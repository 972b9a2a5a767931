"""Exact counting of the derivations of a finite grammar, constraints between siblings included.

What a child answers matters to its parent, not how it was derived. So a symbol is counted by the
specs it gives back: `table(symbol, specs)` tells, for every tuple of specs out, how many derivations
take each of `specs` and give that tuple. A rule's `infer` is run once for each combination of its
children's answers; children that are referred to elsewhere (`Ref`) are tried tree by tree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from nas.architecture import Architecture
from nas.derivation import Place, Walk
from nas.errors import SearchSpaceError
from nas.grammar import Grammar, Misfit, Ref, Rule, Spec, Symbol, innermost

T = TypeVar("T")
Specs = tuple[Spec, ...]
Env = tuple[tuple[str, Symbol, Architecture], ...]  # role, symbol, tree of what can be referred to


class Extent(NamedTuple):
    """How many derivations there are, and the most nodes, nested rules and choices of any of them."""

    size: int | float  # infinite where a symbol meets its own spec again on one path
    nodes: int | float
    depth: int | float
    choices: int | float


class _Infinite(Exception):
    pass


@dataclass
class _Table:
    counts: Counter[Specs] = field(default_factory=Counter)
    nodes: int = 0
    depth: int = 0
    choices: int = 0


def extent(grammar: Grammar, start: Symbol, spec: Spec, trees: Trees) -> Extent:
    """The extent of a grammar from a start symbol; `trees` enumerates a symbol's derivations."""
    try:
        table = _Counting(grammar, trees).table(start, (spec,), ())
    except _Infinite:
        return Extent(math.inf, math.inf, math.inf, math.inf)
    return Extent(table.counts.total(), table.nodes, table.depth, table.choices)


Trees = Callable[[Symbol, Spec, dict[str, Place]], Iterator[Architecture]]


class _Counting:
    def __init__(self, grammar: Grammar, trees: Trees) -> None:
        self.grammar = grammar
        self.trees = trees
        self.known: dict[tuple[Symbol, Specs, Env], _Table] = {}
        self.open: set[tuple[Symbol, Specs]] = set()
        self.reach = _references(grammar)
        self.referred = frozenset().union(*self.reach.values())

    def table(self, symbol: Symbol, specs: Specs, env: Env) -> _Table:
        key = (symbol, specs, self._visible(symbol, env))
        if key in self.known:
            return self.known[key]
        if (symbol, specs) in self.open:
            raise _Infinite
        self.open.add((symbol, specs))
        table = _Table()
        options = self.grammar.options(symbol, specs[0])
        for rule in options:
            self._add(table, symbol, rule, specs, key[2])
        table.nodes += 1
        table.depth += 1
        table.choices += len(options) > 1
        self.open.discard((symbol, specs))
        self.known[key] = table
        return table

    def _visible(self, symbol: Symbol, env: Env) -> Env:
        inner = innermost(symbol)
        reach = self.reach.get(inner, frozenset()) if isinstance(inner, str) else frozenset()
        return tuple(entry for entry in env if entry[0] in reach)

    def _add(self, table: _Table, symbol: Symbol, rule: Rule, specs: Specs, env: Env) -> None:
        """Run the rule's infer for every combination of its children's answers, and sum."""
        pending: list[tuple[int, ...]] = [()]
        while pending:
            run = _Run(self, rule, pending.pop(), pending, env)
            try:
                outs = tuple(run.infer(symbol, spec) for spec in specs)
            except Misfit:
                continue
            below = run.tables()
            table.counts[outs] += run.ways()
            table.nodes = max(table.nodes, sum(t.nodes for t in below))
            table.depth = max(table.depth, max((t.depth for t in below), default=0))
            table.choices = max(table.choices, sum(t.choices for t in below))


class _Run:
    """One run of a rule's infer: the children's answers are those of a prefix, then the first."""

    def __init__(
        self,
        counting: _Counting,
        rule: Rule,
        prefix: tuple[int, ...],
        pending: list[tuple[int, ...]],
        env: Env,
    ) -> None:
        self.counting, self.rule, self.env = counting, rule, env
        self.prefix, self.pending, self.position = prefix, pending, 0
        self.asked: dict[str, tuple[Specs, Specs]] = {}
        self.places: dict[str, Place] = {role: _place(s, tree) for role, s, tree in env}
        self.chosen: dict[str, Architecture] = {}

    def infer(self, symbol: Symbol, spec: Spec) -> Any:  # Any: the spec out
        if self.counting.grammar.option(symbol, spec, self.rule.name) is not self.rule:
            raise Misfit("specs of different lengths")
        calls = (self._child(role, s) for role, s in self.rule.children.items())
        return self.rule.infer(spec, *calls)

    def _child(self, role: str, symbol: Symbol) -> Callable[..., Any]:  # Any: the spec out
        def call(spec: Spec, times: int = 1) -> Any:  # Any: the spec out
            if isinstance(symbol, Ref):
                return self._walk(symbol.role, spec)
            if role in self.counting.referred:
                return self._tree(role, symbol, spec)
            specs, outs = self.asked.get(role, ((), ()))
            if spec in specs:
                return outs[specs.index(spec)]
            table = self.counting.table(symbol, (*specs, spec), self._env())
            answers = list(dict.fromkeys(o[-1] for o in table.counts if o[:-1] == outs))
            out = self._branch(answers)
            self.asked[role] = ((*specs, spec), (*outs, out))
            return out

        return call

    def _tree(self, role: str, symbol: Symbol, spec: Spec) -> Any:  # Any: the spec out
        if role not in self.chosen:
            found = list(self.counting.trees(symbol, spec, self.places))
            self.chosen[role] = self._branch(found)
            self.places = self.places | {role: _place(symbol, self.chosen[role])}
            self.env = (*self._env(), (role, symbol, self.chosen[role]))
        return self._walk(role, spec)

    def _env(self) -> Env:
        return tuple(entry for entry in self.env if entry[0] not in self.chosen) + tuple(
            entry for entry in self.env if entry[0] in self.chosen
        )

    def _walk(self, role: str, spec: Spec) -> Any:  # Any: the spec out
        if role not in self.places:
            raise SearchSpaceError(
                f'rule "{self.rule.name}" uses the role "{role}" before it is derived; call the child '
                "that is referred to first in infer."
            )
        place = self.places[role]
        walk = Walk(self.counting.grammar, place.symbol, place.node, "", self.places)
        return walk.out(spec)

    def _branch(self, answers: list[T]) -> T:
        if not answers:
            raise Misfit("no derivation takes these specs")
        if self.position == len(self.prefix):
            self.pending.extend((*self.prefix, i) for i in range(1, len(answers)))
            self.prefix = (*self.prefix, 0)
        self.position += 1
        return answers[self.prefix[self.position - 1]]

    def tables(self) -> list[_Table]:
        owned = [
            self.counting.table(self.rule.children[role], specs, self._env())
            for role, (specs, _) in self.asked.items()
        ]
        trees = [self._measure(role, tree) for role, tree in self.chosen.items()]
        return owned + trees

    def _measure(self, role: str, tree: Architecture) -> _Table:
        nodes = list(tree.nodes())
        depth = max(path.count("/") + bool(path) for path, _ in nodes) + 1
        return _Table(nodes=len(nodes), depth=depth, choices=len(nodes))

    def ways(self) -> int:
        ways = 1
        for role, (specs, outs) in self.asked.items():
            ways *= self.counting.table(self.rule.children[role], specs, self._env()).counts[outs]
        return ways


def _place(symbol: Symbol, tree: Architecture) -> Place:
    return Place("", symbol, tree, {})


def _references(grammar: Grammar) -> dict[str, frozenset[str]]:
    """For every symbol, the roles that its derivations may refer to."""
    reach: dict[str, frozenset[str]] = dict.fromkeys(grammar.rules, frozenset())
    changed = True
    while changed:
        changed = False
        for symbol, rules in grammar.rules.items():
            found: set[str] = set()
            for child in (innermost(c) for r in rules for c in r.children.values()):
                found |= {child.role} if isinstance(child, Ref) else reach[child]
            if found - reach[symbol]:
                reach[symbol] = frozenset(found)
                changed = True
    return reach
