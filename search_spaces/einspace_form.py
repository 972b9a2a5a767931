"""One text for architectures of einspace that compute the same function.

Folded are: how a sequence is nested, computations and routings of identity, permutations one after
another, and the order of two whole inputs that are added.
"""

from __future__ import annotations

from nas.architecture import Architecture

CLONES = ("clone2", "clone4", "clone8")


def canonical(architecture: Architecture) -> str:
    """The network's operations in the order in which they are applied."""
    return _text(_operations(architecture.children[0]))


def _text(operations: list[str]) -> str:
    return " ".join(operations) or "identity"


def _operations(node: Architecture) -> list[str]:
    """What a module comes to: a sequence of operations, none of them the identity."""
    found: list[str] = []
    for part in _parts(node):
        operation = _branching(part) if part.rule == "branching" else part.rule
        if operation.startswith("permute") and found and found[-1].startswith("permute"):
            operation = _composed(found.pop(), operation)
        if operation != "identity":
            found.append(operation)
    return found


def _parts(node: Architecture) -> list[Architecture]:
    """The terminals and branchings that a module applies one after the other."""
    parts: list[Architecture] = []
    stack = [node]
    while stack:
        node = stack.pop()
        if node.rule in ("sequential", "routing", "computation"):
            stack.extend(reversed(node.children))
        else:
            parts.append(node)
    return parts


def _branching(node: Architecture) -> str:
    split, inner, join = node.children
    branches = [_text(_operations(branch)) for branch in inner.children]
    if split.rule in CLONES and join.rule == "add":
        branches.sort()
    return f"{split.rule}[{' | '.join(branches)}]{join.rule}"


def _composed(first: str, second: str) -> str:
    """One permutation for two: axis i of the result is axis first[second[i]]."""
    before, after = first.removeprefix("permute"), second.removeprefix("permute")
    order = "".join(before[int(axis) - 1] for axis in after)
    return "identity" if order == "".join(sorted(order)) else f"permute{order}"
