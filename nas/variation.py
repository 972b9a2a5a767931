"""Drawing, mutating, crossing and listing neighbors: written once, by re-deriving, for every space."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from nas.architecture import Architecture, brief, join
from nas.derivation import Choice, Choose
from nas.errors import SearchSpaceError
from nas.grammar import Misfit, Rule
from nas.space import MAX_RESTARTS, SearchSpace

ATTEMPTS = 100
STRICT_ATTEMPTS = 50
STRICT_RESTARTS = 3  # where the whole is too large
RESTARTS_UNTIL_FREE = 20


def sample(space: SearchSpace, rng: random.Random) -> Architecture:
    """A random architecture: each choice by the weights of its options."""
    return space.derive(by_weight(rng)).architecture


def mutate(space: SearchSpace, parent: Architecture, rng: random.Random) -> Architecture:
    """The parent with one choice, drawn uniformly, made differently.

    Choices elsewhere are kept by their paths; what the new option opens is drawn. A choice that cannot
    be made differently beside the others is passed over. Where that is so of all that were tried, as
    siblings constrain each other, more and more kept choices are drawn anew too, until the whole fits.
    SearchSpaceError where the space has no other architecture.
    """
    plan = _plan(parent)
    paths = list(space.choices(parent))
    for attempt in range(ATTEMPTS if paths else 0):
        path = rng.choice(paths)
        variant = _Variant(space, plan, len(plan), changed=path)
        child = variant.derive(rng, strict=attempt < STRICT_ATTEMPTS)
        if child is not None and child != parent:
            return child
    raise SearchSpaceError(
        f"{brief(parent)} has no choice that can be made differently; the space may hold only this one."
    )


def crossover(
    space: SearchSpace, first: Architecture, second: Architecture, rng: random.Random
) -> Architecture:
    """The first parent with one subtree replaced by a subtree of the second that derives the same
    symbol. Tries for a child unlike both parents in which both fit as they are; then choices that do
    not fit are drawn."""
    sources: dict[object, list[str]] = {}
    for path, choice in space.choices(second).items():
        sources.setdefault(choice.symbol, []).append(path)
    symbols = {path: choice.symbol for path, choice in space.choices(first).items()}
    targets = [path for path, symbol in symbols.items() if symbol in sources]
    own, other = _plan(first), _plan(second)
    child = first
    for attempt in range(ATTEMPTS if targets else 0):
        target = rng.choice(targets)
        source = rng.choice(sources[symbols[target]])
        plan = {p: r for p, r in own.items() if not _within(p, target)}
        plan |= {target + p[len(source) :]: rule for p, rule in other.items() if _within(p, source)}
        variant = _Variant(space, plan, max(len(own), len(other)))
        child = variant.derive(rng, strict=attempt < STRICT_ATTEMPTS) or child
        if child not in (first, second):
            break
    return child


class Move(NamedTuple):
    """A change of one choice: the option to take at a path."""

    path: str
    rule: str


def moves(space: SearchSpace, architecture: Architecture) -> list[Move]:
    """Every change of one choice, in the order of paths and rules."""
    taken = _plan(architecture)
    return [
        Move(path, rule.name)
        for path, choice in space.choices(architecture).items()
        for rule in choice.options
        if rule.name != taken[path]
    ]


def apply_move(
    space: SearchSpace, architecture: Architecture, move: Move, rng: random.Random
) -> Architecture | None:
    """The architecture after a move; None where it does not fit the rest. What it opens is drawn."""
    plan = _plan(architecture) | {move.path: move.rule}
    child = _Variant(space, plan, len(plan)).derive(rng, strict=True)
    if child is None:
        return None
    nodes = dict(child.nodes())
    return child if move.path in nodes and nodes[move.path].rule == move.rule else None


def neighbors(
    space: SearchSpace, architecture: Architecture, rng: random.Random
) -> Iterator[Architecture]:
    """The architectures one change of a choice away, in the order of `moves`."""
    for move in moves(space, architecture):
        child = apply_move(space, architecture, move, rng)
        if child is not None:
            yield child


def by_weight(rng: random.Random) -> Choose:
    """A `choose` that draws by the weights of the options."""

    def choose(choice: Choice) -> str:
        options = choice.options
        if not options:
            raise Misfit(f"no option of {choice.symbol} is drawn")
        if choice.weigh is None:
            sums = _sums(options)
        else:
            sums = tuple(accumulate(choice.weigh(choice)))
            if not sums[-1]:
                raise Misfit(f"no option of {choice.symbol} is drawn")
        return options[bisect(sums, rng.random() * sums[-1], 0, len(sums) - 1)].name

    return choose


@lru_cache(maxsize=4096)
def _sums(options: tuple[Rule, ...]) -> tuple[float, ...]:
    return tuple(accumulate(rule.weight for rule in options))


class _Unfit(Exception):
    """A kept choice does not fit."""


@dataclass(frozen=True)
class _Variant:
    """A derivation that keeps a plan of choices by their paths, but for the one at `changed`."""

    space: SearchSpace
    plan: Mapping[str, str]
    given_nodes: int
    changed: str | None = None

    def derive(self, rng: random.Random, *, strict: bool) -> Architecture | None:
        """The architecture; None where `strict` and a choice that is to be kept does not fit.

        Else a choice that does not fit is drawn. When the derivation begins anew, as kept choices
        exclude each other, fewer of them are kept.
        """
        draw = by_weight(rng)

        def choose(choice: Choice) -> str:
            planned = self.plan.get(choice.path)
            if choice.path == self.changed:
                options = tuple(r for r in choice.options if r.name != planned)
                if strict and not options:
                    raise _Unfit
                return draw(choice._replace(options=options or choice.options))
            loosened = (
                not strict
                and choice.restart > 0
                and rng.random() < choice.restart / RESTARTS_UNTIL_FREE
            )
            if loosened or not any(rule.name == planned for rule in choice.every):
                return draw(choice)
            if planned in choice.rejected:
                if strict:
                    raise _Unfit
                return draw(choice)
            return str(planned)

        restarts = STRICT_RESTARTS if strict else MAX_RESTARTS
        try:
            return self.space.derive(
                choose, max_restarts=restarts, given_nodes=self.given_nodes
            ).architecture
        except _Unfit:
            return None
        except SearchSpaceError:
            if strict:
                return None
            raise


def _plan(architecture: Architecture) -> dict[str, str]:
    return {path: node.rule for path, node in architecture.nodes()}


def _within(path: str, root: str) -> bool:
    return path == root or root == "" or path.startswith(join(root, ""))
