"""Derivations of hundreds of nodes, of no registered space: chains, residual networks, at random."""

from __future__ import annotations

import random

from nas.architecture import Architecture


def node(rule: str, *children: Architecture) -> Architecture:
    return Architecture("M", rule, children)


def leaf(name: str) -> Architecture:
    return node("computation", node(name))


def in_a_row(*steps: Architecture) -> Architecture:
    return steps[0] if len(steps) == 1 else node("sequential", steps[0], in_a_row(*steps[1:]))


def in_halves(*steps: Architecture) -> Architecture:
    half = (len(steps) + 1) // 2
    return (
        steps[0]
        if len(steps) == 1
        else node("sequential", in_halves(*steps[:half]), in_halves(*steps[half:]))
    )


def from_the_left(*steps: Architecture) -> Architecture:
    made = steps[0]
    for step in steps[1:]:
        made = node("sequential", made, step)
    return made


def convolution(size: int, stride: int, width: int) -> Architecture:
    inner = leaf(f"linear_{width}")
    return node("routing", node(f"unfold_{size}_{stride}"), inner, node("fold"))


def residual(width: int, stride: int) -> Architecture:
    first = (convolution(3, stride, width), leaf("norm"), leaf("relu"))
    inner = in_a_row(*first, convolution(3, 1, width), leaf("norm"))
    skip = convolution(1, stride, width) if stride > 1 else leaf("identity")
    return node("branching", node("clone_2"), inner, skip, node("add"))


def residual_network(width_first: int = 64) -> Architecture:
    blocks = []
    for width, stride in zip((1, 2, 4, 8), (1, 2, 2, 2), strict=True):
        blocks += [residual(width_first * width, stride), leaf("relu")]
        blocks += [residual(width_first * width, 1), leaf("relu")] * 2
    return in_a_row(convolution(3, 1, width_first), leaf("norm"), *blocks, leaf("linear_10"))


def random_derivation(size: int, seed: int) -> Architecture:
    rng = random.Random(seed)

    def derive(budget: int) -> Architecture:
        if budget <= 2:
            return leaf(rng.choice(["norm", "relu", "softmax", "identity", "linear_16", "linear_64"]))
        kind = rng.choice(["sequential", "sequential", "branching", "routing"])
        cut = rng.randint(1, budget - 2)
        if kind == "sequential":
            return node(kind, derive(cut), derive(budget - 1 - cut))
        if kind == "routing":
            return node(kind, node(rng.choice(["unfold", "permute"])), derive(budget - 3), node("fold"))
        return node(kind, node("clone_2"), derive(cut), derive(budget - cut), node("add"))

    return derive(size)


def nested_branches(depth: int) -> Architecture:
    made = leaf("relu")
    for level in range(depth):
        made = node(
            "branching", node("clone_4"), made, node(("add", "concat_1", "concat_2")[level % 3])
        )
    return made
