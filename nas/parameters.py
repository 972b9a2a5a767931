"""The choices of an architecture as Optuna's categorical parameters, one for each."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas.architecture import Architecture
from nas.derivation import Choice
from nas.grammar import Pick
from nas.space import SearchSpace


class Parameters(NamedTuple):
    """The rule taken at every choice, and the rules that could have been, by the parameter's name."""

    values: dict[str, str]
    distributions: dict[str, BaseDistribution]


def parameters(space: SearchSpace, architecture: Architecture) -> Parameters:
    """One categorical parameter for every choice that the architecture made."""
    found = Parameters({}, {})
    nodes = dict(architecture.nodes())
    for path, choice in space.choices(architecture).items():
        name = parameter_name(choice)
        found.values[name] = nodes[path].rule
        found.distributions[name] = distribution(choice)
    return found


def parameter_name(choice: Choice) -> str:
    """The path, with k of n for a Pick, whose options depend on n."""
    name = choice.path or str(choice.symbol)
    if isinstance(choice.symbol, Pick) and isinstance(choice.spec, tuple):
        return f"{name} ({choice.symbol.k} of {len(choice.spec)})"
    return name


def distribution(choice: Choice) -> CategoricalDistribution:
    """All rules of the choice's symbol, those that do not fit or are not drawn too."""
    return categorical(tuple(rule.name for rule in choice.every))


@cache
def categorical(names: tuple[str, ...]) -> CategoricalDistribution:
    """The categorical distribution over names; one object for equal ones."""
    return CategoricalDistribution(names)
