"""Rungs: the steps at which successive halving compares trials, r, r eta, r eta^2, ... of R in all."""

from __future__ import annotations

from collections.abc import Mapping

from nas.errors import ConfigurationError


def exponent(ratio: int, reduction_factor: int) -> int:
    """The largest k with eta^k <= ratio, in whole numbers: logarithms round (log_3 243 is below 5)."""
    k = 0
    while reduction_factor ** (k + 1) <= ratio:
        k += 1
    return k


def lowest_rung(num_steps: int, reduction_factor: int) -> int:
    """The lowest rung where none is given: R / eta^k rounded up, k the largest with eta^k <= R, or 1.

    The rungs then spread below R, and the highest leaves a trial most of its steps to save: 1, 3 of 9
    steps and 2, 6 of 10, where the rungs 1, 3, 9 of 10 would decide when nothing is left to save.
    """
    k = max(1, exponent(num_steps, reduction_factor))
    between = reduction_factor**k
    return -(-num_steps // int(between))


def rungs(lowest: int, num_steps: int, reduction_factor: int) -> list[int]:
    """The rungs below the last step, from the lowest on."""
    found, rung = [], lowest
    while rung < num_steps:
        found.append(rung)
        rung *= reduction_factor
    return found


def check_rungs(resources: Mapping[str, int | None], reduction_factor: int) -> None:
    """ConfigurationError where a resource, by its name, or the factor is out of its range."""
    for name, steps in resources.items():
        if steps is not None and steps < 1:
            raise ConfigurationError(f"{name} is {steps}; it takes a whole number of steps from 1.")
    if reduction_factor < 2:
        raise ConfigurationError(
            f"reduction_factor is {reduction_factor}; it takes a whole number from 2."
        )


def beyond(name: str, resource: int | None, num_steps: int) -> str | None:
    """Why a resource is none of this study: it lies beyond the last step of a whole evaluation."""
    if resource is None or resource <= num_steps:
        return None
    return (
        f"{name} is {resource} and a whole evaluation reports {num_steps} steps; it takes at most that."
    )
