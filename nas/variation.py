"""Drawing, mutating, crossing and listing neighbors: written once, by re-deriving, for every space."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nas.architecture import Architecture, join
from nas.derivation import Choice, Choose
from nas.errors import SearchSpaceError
from nas.grammar import Misfit
from nas.space import SearchSpace

ATTEMPTS = 100
RESTARTS_UNTIL_FREE = 20


def sample(space: SearchSpace, rng: random.Random) -> Architecture:
    """A random architecture: each choice by the weights of its options."""
    return space.derive(by_weight(rng)).architecture


def mutate(space: SearchSpace, parent: Architecture, rng: random.Random) -> Architecture:
    """The parent with one choice, drawn uniformly, made differently.

    Choices elsewhere are kept by their paths; what the new option opens is drawn, and so is a kept
    choice that no longer fits: where siblings constrain each other, more and more of them, until
    the whole fits. SearchSpaceError where the space has no other architecture.
    """
    plan = _plan(parent)
    paths = list(space.choices(parent))
    for _ in range(ATTEMPTS if paths else 0):
        path = rng.choice(paths)
        child = space.derive(_replay(plan, rng, changed={path: plan[path]})).architecture
        if child != parent:
            return child
    raise SearchSpaceError(
        f"{parent} has no choice that can be made differently; the space may hold only this one."
    )


def crossover(
    space: SearchSpace, first: Architecture, second: Architecture, rng: random.Random
) -> Architecture:
    """The first parent with one subtree replaced by a subtree of the second that derives the same
    symbol; choices that no longer fit are drawn. Tries for a child unlike both parents."""
    sources: dict[object, list[str]] = {}
    for path, choice in space.choices(second).items():
        sources.setdefault(choice.symbol, []).append(path)
    symbols = {path: choice.symbol for path, choice in space.choices(first).items()}
    targets = [path for path, symbol in symbols.items() if symbol in sources]
    own, other = _plan(first), _plan(second)
    child = first
    for _ in range(ATTEMPTS if targets else 0):
        target = rng.choice(targets)
        source = rng.choice(sources[symbols[target]])
        plan = {p: r for p, r in own.items() if not _within(p, target)}
        plan |= {target + p[len(source) :]: rule for p, rule in other.items() if _within(p, source)}
        child = space.derive(_replay(plan, rng)).architecture
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
    try:
        child = space.derive(_replay(plan, rng), max_restarts=0).architecture
    except SearchSpaceError:
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
        if not choice.options:
            raise Misfit(f"no option of {choice.symbol} is drawn")
        weights = [rule.weight for rule in choice.options]
        return rng.choices(choice.options, weights)[0].name

    return choose


def _replay(
    plan: Mapping[str, str], rng: random.Random, *, changed: Mapping[str, str] | None = None
) -> Choose:
    """A `choose` that keeps the plan where it fits, avoids `changed`, and draws the rest.

    When the derivation begins anew, as kept choices exclude each other, fewer of them are kept.
    """
    draw = by_weight(rng)

    def choose(choice: Choice) -> str:
        avoided = (changed or {}).get(choice.path)
        if avoided is not None:
            options = tuple(r for r in choice.options if r.name != avoided) or choice.options
            return draw(choice._replace(options=options))
        loosened = choice.restart > 0 and rng.random() < choice.restart / RESTARTS_UNTIL_FREE
        planned = None if loosened else plan.get(choice.path)
        rules = choice.every if planned is not None else ()
        if planned not in choice.rejected and any(rule.name == planned for rule in rules):
            return str(planned)
        return draw(choice)

    return choose


def _plan(architecture: Architecture) -> dict[str, str]:
    return {path: node.rule for path, node in architecture.nodes()}


def _within(path: str, root: str) -> bool:
    return path == root or root == "" or path.startswith(join(root, ""))
