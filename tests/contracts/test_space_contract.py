"""What every registered space promises; a new space is tested the moment it exists."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice, pairwise
from typing import Any

import pytest

from nas import registry
from nas.architecture import Architecture
from nas.building import Builder
from nas.complexity import measure
from nas.errors import SearchSpaceError
from nas.space import SearchSpace, Signature
from nas.variation import apply_move, crossover, moves, mutate, neighbors, sample
from tests.assertions import (
    assert_admissible,
    assert_gradients_reach_live_parameters,
    example_input,
)

SAMPLES = 6


@dataclass(frozen=True)
class Case:
    """A space by its registered name, with settings and a signature that keep its tests quick."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    signature: Signature | None = None

    def make(self) -> SearchSpace:
        space: SearchSpace = registry.make("space", self.name, self.settings)
        return space if self.signature is None else space.at(self.signature)


# Spaces that are not named here are tested with their defaults.
VARIANTS = {
    "nasbench201": Case("nasbench201", {"channels": 4, "cells": 2}, Signature((3, 9, 8), (5,))),
    "kan": Case("kan", {"widths": [2, 5], "depths": [1, 2]}),
    "kan-edge": Case("kan", {"widths": [1, 3], "depths": [1, 2], "basis_per": "edge"}),
    "sequence_mixer": Case("sequence_mixer", {}, Signature((12,), (12, 7), 7)),
    "darts_cell": Case("darts_cell", {"channels": 2, "cells": 3}, Signature((3, 9, 8), (5,))),
    "darts_cell-search": Case(
        "darts_cell", {"channels": 2, "cells": 4, "form": "search"}, Signature((1, 8, 8), (3,))
    ),
    "darts_cell-training": Case(
        "darts_cell",
        {"channels": 2, "cells": 3, "nodes": 2, "auxiliary_weight": 0.4, "drop_path_probability": 0.2},
        Signature((3, 8, 8), (5,)),
    ),
    "darts_cell_1d": Case("darts_cell_1d", {"channels": 2, "cells": 3}, Signature((2, 13), (5,))),
    "sharpdarts": Case("sharpdarts", {"channels": 2, "cells": 3}, Signature((3, 9, 8), (5,))),
    "recurrent_cell": Case(
        "recurrent_cell", {"features": 5, "hidden": 6, "num_layers": 2}, Signature((9,), (9, 7), 7)
    ),
    "recurrent_cell-tied": Case(
        "recurrent_cell",
        {"features": 4, "hidden": 6, "num_layers": 3, "tied": True},
        Signature((6,), (6, 7), 7),
    ),
    "recurrent_cell-numbers": Case("recurrent_cell", {"features": 4}, Signature((2, 9), (5,))),
    "transformer": Case(
        "transformer",
        {"widths": [8, 12], "feed_forward_widths": [6, 10], "normalization": "pre"},
        Signature((11,), (11, 7), 7),
    ),
    "transformer-numbers": Case(
        "transformer", {"widths": [8], "feed_forward_widths": [6, 10]}, Signature((2, 9), (5,))
    ),
    "sequence_mixer-numbers": Case("sequence_mixer", {"widths": [8]}, Signature((2, 9), (5,))),
}
CASES = VARIANTS | {
    name: Case(name)
    for name in registry.parts("space")
    if name not in {case.name for case in VARIANTS.values()}
}


@cache
def space_of(case: str) -> SearchSpace:
    return CASES[case].make()


@cache
def drawn(case: str) -> tuple[Architecture, ...]:
    rng = random.Random(0)
    return tuple(sample(space_of(case), rng) for _ in range(SAMPLES))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def space(case: str) -> SearchSpace:
    return space_of(case)


@pytest.fixture
def architectures(case: str) -> tuple[Architecture, ...]:
    return drawn(case)


def test_samples_are_admissible_and_give_the_stated_output(space, architectures):
    for architecture in architectures:
        assert_admissible(space, architecture)


def test_mutants_are_admissible_and_differ(space, architectures):
    rng = random.Random(1)
    for parent in architectures:
        child = mutate(space, parent, rng)
        assert child != parent
        assert_admissible(space, child)


def test_children_of_two_parents_are_admissible(space, architectures):
    rng = random.Random(2)
    for first, second in pairwise(architectures):
        assert_admissible(space, crossover(space, first, second, rng))


def test_neighbors_are_admissible_and_distinct(space, architectures):
    found = list(islice(neighbors(space, architectures[0], random.Random(3)), 60))
    assert len(set(found)) == len(found)
    assert architectures[0] not in found
    assert all(space.contains(neighbor) for neighbor in found)


def test_neighbors_are_symmetric_where_no_choice_opens_or_closes_others(space, architectures):
    rng = random.Random(4)
    parent = architectures[0]
    for move in moves(space, parent)[:60]:
        child = apply_move(space, parent, move, rng)
        if child is None or _paths(child) != _paths(parent):
            continue
        back = move._replace(rule=parent.at(move.path).rule)
        assert apply_move(space, child, back, rng) == parent


def _paths(architecture: Architecture) -> list[str]:
    return [path for path, _ in architecture.nodes()]


def test_gradients_reach_every_live_parameter(space, architectures):
    for architecture in architectures:
        network = space.build(architecture)
        assert_gradients_reach_live_parameters(network, example_input(space))


def test_tokens_are_taken_or_refused_in_a_sentence(space):
    of_tokens = space.at(Signature((8,), (8, 5), 5))
    refusal = ""
    try:
        assert_admissible(of_tokens, sample(of_tokens, random.Random(6)))
    except SearchSpaceError as error:
        refusal = str(error)
    assert not refusal or "token" in refusal


def test_size_is_the_number_of_enumerated_architectures(space):
    if space.size() <= 20_000:
        found = list(space.enumerate())
        assert len(set(found)) == len(found) == space.size()
        return
    first = list(islice(space.enumerate(), 200))
    assert len(set(first)) == 200
    assert all(space.contains(architecture) for architecture in first)


def test_as_many_modules_are_built_on_each_path_as_infer_announces(space, architectures):
    for architecture in architectures:
        walk = space.walk(architecture)
        builder = Builder(walk)
        builder.build(walk.root, space.spec)
        announced = {path: sum(specs.values()) for path, specs in walk.uses(space.spec).items()}
        assert builder.instances
        for path, built in builder.instances.items():  # plain values are no instances
            assert built == announced[path], path


def test_complexity_by_formula_is_what_the_network_measures(space, architectures):
    for architecture in architectures:
        network = space.build(architecture)
        measured = measure(network, space.spec.input, dtype=space.spec.dtype)
        assert space.complexity(architecture) == measured


def test_the_same_seed_draws_the_same_architectures(case, space):
    rng = random.Random(0)
    assert tuple(sample(space, rng) for _ in range(SAMPLES)) == drawn(case)


def test_architectures_of_one_canonical_text_have_one_output(space, architectures):
    if space.canonical is None:
        pytest.skip("the space states no canonical text")
    outputs: dict[str, Any] = {}
    for architecture in islice(_varied(space, architectures), 300):
        out = space.spec_out(architecture)
        assert outputs.setdefault(space.canonical(architecture), out) == out


def _varied(space: SearchSpace, architectures: tuple[Architecture, ...]) -> Iterator[Architecture]:
    for architecture in architectures:
        yield architecture
        yield from neighbors(space, architecture, random.Random(5))


def test_the_other_notation_reads_what_it_writes(space, architectures):
    if space.notation is None:
        pytest.skip("the space has no other notation")
    for architecture in architectures:
        assert space.parse(space.notation.write(architecture)) == architecture
        assert space.notation.read(str(architecture)) is None
