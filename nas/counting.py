"""Exact counting of the derivations of a finite grammar, constraints between siblings included.

What a child answers matters to its parent, not how it was derived. So a symbol is counted by the
specs it gives back: `table(symbol, specs)` tells, for every tuple of specs out, how many derivations
take each of `specs` and give that tuple. A rule's `infer` is run once for each combination of its
children's answers; children that are referred to elsewhere (`Ref`) are tried tree by tree. Of the
many answers of a `Chain` or an `Each`, only the elements that `infer` looks at make a difference
(`_Parts`): a chain of which the last spec alone is read counts in time linear in its length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from nas.architecture import Architecture
from nas.derivation import Place, Walk
from nas.errors import SearchSpaceError
from nas.grammar import Chain, Each, Grammar, Misfit, Ref, Rule, Spec, Symbol, innermost

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
                outs = tuple(_settled(run.infer(symbol, spec)) for spec in specs)
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
        self.parts: dict[str, _Parts] = {}

    def infer(self, symbol: Symbol, spec: Spec) -> Any:  # Any: the spec out
        if self.counting.grammar.option(symbol, spec, self.rule.name) is not self.rule:
            raise Misfit("specs of different lengths")
        calls = (self._child(role, s) for role, s in self.rule.children.items())
        return self.rule.infer(spec, *calls)

    def _child(self, role: str, symbol: Symbol) -> Callable[..., Any]:  # Any: the spec out
        def call(spec: Spec, times: int = 1) -> Any:  # Any: the spec out
            spec = _settled(spec)
            if isinstance(symbol, Ref):
                return self._walk(symbol.role, spec)
            if role in self.counting.referred:
                return self._tree(role, symbol, spec)
            if isinstance(symbol, Chain | Each):
                if role not in self.parts:
                    self.parts[role] = _Parts(self.counting, symbol, self._env())
                return _Elements(self, self.parts[role], self.parts[role].ask(spec))
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

    def element(self, parts: _Parts, asked: int, index: int) -> Spec:
        """One element of a Chain's or Each's answer, branching over what it can be."""
        if (asked, index) not in parts.seen:
            out = self._branch(parts.answers(asked, index))
            parts.seen[asked, index] = out
        return parts.seen[asked, index]

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
        return owned + trees + [parts.bounds() for parts in self.parts.values()]

    def _measure(self, role: str, tree: Architecture) -> _Table:
        nodes = list(tree.nodes())
        depth = max(path.count("/") + bool(path) for path, _ in nodes) + 1
        return _Table(nodes=len(nodes), depth=depth, choices=len(nodes))

    def ways(self) -> int:
        ways = 1
        for role, (specs, outs) in self.asked.items():
            ways *= self.counting.table(self.rule.children[role], specs, self._env()).counts[outs]
        for parts in self.parts.values():
            ways *= parts.ways()
        return ways


class _Parts:
    """The derivations of a Chain or an Each, told by those elements of its answers that were seen.

    `asked` are the specs it was called with; `seen` maps (which of them, element) to a spec out. A
    state holds one flow for every asked spec; a Chain hands it on from element to element.
    """

    def __init__(self, counting: _Counting, symbol: Chain | Each, env: Env) -> None:
        self.counting, self.inner, self.env = counting, symbol.symbol, env
        self.chained = isinstance(symbol, Chain)
        self.asked: list[Any] = []  # Any: (spec, n) of a Chain, a tuple of specs of an Each
        self.seen: dict[tuple[int, int], Spec] = {}

    def ask(self, spec: Any) -> int:  # Any: as in `asked`
        """Call it with a spec; which of the asked ones it is. Misfit where no derivation takes it."""
        if spec not in self.asked:
            self.asked.append(spec)
            if len({self._length(s) for s in self.asked}) > 1:
                raise Misfit("specs of different lengths")
            if not self.ways():
                raise Misfit("no derivation takes these specs")
        return self.asked.index(spec)

    def _length(self, spec: Any) -> int:  # Any: as in `asked`
        return int(spec[1]) if self.chained else len(spec)

    @property
    def length(self) -> int:
        """How many elements it has."""
        return self._length(self.asked[0])

    def ways(self) -> int:
        """How many derivations give what was seen."""
        states = self._start()
        for index in range(self.length):
            states = self._step(states, index)
        return sum(states.values())

    def answers(self, asked: int, index: int) -> list[Spec]:
        """The specs that an element can be, given what was seen."""
        states = self._start()
        for before in range(index if self.chained else 0):
            states = self._step(states, before)
        found = dict.fromkeys(outs[asked] for _, outs, _ in self._outs(states, index))
        if not self.chained:  # the elements of an Each do not depend on each other
            return list(found)
        return [out for out in found if self._possible(asked, index, out)]

    def _possible(self, asked: int, index: int, out: Spec) -> bool:
        self.seen[asked, index] = out
        try:
            return self.ways() > 0
        finally:
            del self.seen[asked, index]

    def _start(self) -> Counter[Specs]:
        return Counter({tuple(spec[0] if self.chained else () for spec in self.asked): 1})

    def _step(self, states: Counter[Specs], index: int) -> Counter[Specs]:
        following: Counter[Specs] = Counter()
        for state, outs, ways in self._outs(states, index):
            following[outs if self.chained else state] += ways
        return following

    def _outs(self, states: Counter[Specs], index: int) -> Iterator[tuple[Specs, Specs, int]]:
        """(state before, specs out of the element, derivations) that agree with what was seen."""
        for state, ways in states.items():
            given = state if self.chained else tuple(spec[index] for spec in self.asked)
            specs = tuple(dict.fromkeys(given))
            for outs, more in self.counting.table(self.inner, specs, self.env).counts.items():
                each = tuple(outs[specs.index(spec)] for spec in given)
                if all(self.seen.get((j, index), out) == out for j, out in enumerate(each)):
                    yield state, each, ways * more

    def bounds(self) -> _Table:
        """The most nodes, nested rules and choices, its own node included."""
        table = _Table(nodes=1, depth=1)
        states = self._start()
        for index in range(self.length):
            inner = [self._table(state, index) for state in states]
            table.nodes += max(t.nodes for t in inner)
            table.depth = max(table.depth, 1 + max(t.depth for t in inner))
            table.choices += max(t.choices for t in inner)
            states = self._step(states, index)
        return table

    def _table(self, state: Specs, index: int) -> _Table:
        given = state if self.chained else tuple(spec[index] for spec in self.asked)
        return self.counting.table(self.inner, tuple(dict.fromkeys(given)), self.env)


class _Elements(Sequence[Any]):  # Any: specs
    """The tuple that a Chain or an Each answers, of which an element is decided when it is read."""

    def __init__(self, run: _Run, parts: _Parts, asked: int) -> None:
        self._run, self._parts, self._asked = run, parts, asked

    def __len__(self) -> int:
        return self._parts.length

    def __getitem__(self, index: Any) -> Any:  # Any: an index or a slice; specs
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        return self._run.element(self._parts, self._asked, range(len(self))[index])

    def __add__(self, other: tuple[Any, ...]) -> tuple[Any, ...]:  # Any: specs
        return (*self, *other)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))


def _settled(spec: Any) -> Any:  # Any: specs
    """A spec with the answers of chains in it decided."""
    if isinstance(spec, _Elements):
        return tuple(_settled(element) for element in spec)
    if type(spec) is tuple and any(isinstance(part, _Elements | tuple) for part in spec):
        return tuple(_settled(part) for part in spec)
    return spec


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
