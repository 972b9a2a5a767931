"""Many proxies of one network from few passes over it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from evaluators.zero_cost.observation import Observation, Observed, Pass, Watched
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Inapplicable, Subject


@final
@dataclass(frozen=True)
class Measured:
    """Values by metric, and for metrics that there are none of the reasons."""

    values: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def plan(proxies: Iterable[Proxy]) -> dict[Pass, list[Observation[Any]]]:
    """The passes that the proxies need, each once, with all that is observed in it."""
    passes: dict[Pass, list[Observation[Any]]] = {}
    for proxy in proxies:
        for observation in proxy.observations:
            seen = passes.setdefault(observation.seen_in, [])
            if observation not in seen:
                seen.append(observation)
    return passes


def measure(subject: Subject, proxies: Sequence[Proxy]) -> Measured:
    """The proxies' values: those that each would have alone, from the fewest passes.

    The network's weights, buffers and flags and torch's random state are as before. What does not apply
    is missing with its reason, and does not keep the others from being measured.
    """
    reason = subject.refusal()
    if reason is not None:
        return Measured(missing={m.name: reason for p in proxies for m in p.metrics})
    observed = Observed(_seen(subject, plan(proxies)))
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for proxy in proxies:
        names = [metric.name for metric in proxy.metrics]
        try:
            given = dict(zip(names, proxy.values(subject, observed), strict=True))
        except Inapplicable as refusal:
            missing |= dict.fromkeys(names, str(refusal))
            continue
        values |= {name: value for name, value in given.items() if math.isfinite(value)}
        missing |= {n: f"{n} is {value}" for n, value in given.items() if not math.isfinite(value)}
    return Measured(values, missing)


def _seen(
    subject: Subject, passes: Mapping[Pass, list[Observation[Any]]]
) -> dict[Observation[Any], list[Any] | Inapplicable]:
    seen: dict[Observation[Any], list[Any] | Inapplicable] = {}
    for single, observations in passes.items():
        watched = Watched(subject, observations)
        try:
            single.run(subject, watched)
        except Inapplicable as reason:
            watched.refuse(reason)
        seen |= watched.seen
    return seen
