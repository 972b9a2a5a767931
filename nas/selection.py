"""Selections: how the architecture is read off a trained supernet, as a sequence of decisions."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, final

import torch

from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.mixture import OpenChoice
from nas.supernet import Supernet
from nas.validation import Measurement


class Decision(NamedTuple):
    """A choice that was settled on a rule, and what was measured for it: by option, or by element that
    was deleted, in the order it was (score, loss).
    """

    path: str
    rule: str
    measured: tuple[tuple[str, float, float], ...] = ()


@final
@dataclass(frozen=True)
class Decisions:
    """What was decided so far, and the order in which choices have their turn: plain data.

    `to_json` and `from_json` put it into a checkpoint; a selection goes on from it as if it had never
    stopped.
    """

    order: tuple[str, ...] = ()
    made: tuple[Decision, ...] = ()

    @property
    def rules(self) -> dict[str, str]:
        """What `Supernet.decide` takes."""
        return {decision.path: decision.rule for decision in self.made}

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """The decisions as JSON values."""
        made = [{"path": d.path, "rule": d.rule, "measured": d.measured} for d in self.made]
        return {"order": list(self.order), "made": made}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Decisions:  # Any: JSON values
        """The decisions that `to_json` gave."""
        made = [
            Decision(d["path"], d["rule"], tuple((n, s, ls) for n, s, ls in d["measured"]))
            for d in given["made"]
        ]
        return Decisions(tuple(given["order"]), tuple(made))


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """A trained supernet, how it is relaxed, and how it is measured.

    `relax` sets the weights of what is open, without randomness; `measure` scores the supernet as it is
    set, on the same batches every time (`Validation`).
    """

    supernet: Supernet
    relax: Callable[[], None]
    measure: Callable[[], Measurement]


class Selection(ABC):
    """Reads an architecture off a supernet, in steps between which the supernet may be trained on."""

    @abstractmethod
    def begin(self, supernet: Supernet, rng: random.Random) -> Decisions:
        """No decisions, and the order in which choices will have their turn."""

    @abstractmethod
    def pending(self, supernet: Supernet, decisions: Decisions) -> tuple[str, ...]:
        """The choices that the next step decides; none where all is decided."""

    @abstractmethod
    def num_steps(self, supernet: Supernet) -> int:
        """How many steps there are, at most: choices below options that are not taken have none."""

    @abstractmethod
    def step(self, probe: Probe, decisions: Decisions) -> Decisions:
        """The decisions after the next step."""

    @abstractmethod
    def architecture(self, supernet: Supernet, decisions: Decisions) -> Architecture:
        """The architecture, when nothing is pending."""


def decide(
    selection: Selection,
    probe: Probe,
    decisions: Decisions,
    tune: Callable[[Decisions], None] = lambda decisions: None,
) -> Decisions:
    """Take the steps that are left, from decisions that may come out of a checkpoint.

    `tune` is called with the decisions so far between two steps, when the supernet has taken them; it
    may train the supernet, and write them down.
    """
    supernet = probe.supernet
    supernet.decide(decisions.rules)
    while selection.pending(supernet, decisions):
        decisions = selection.step(probe, decisions)
        supernet.decide(decisions.rules)
        if selection.pending(supernet, decisions):
            tune(decisions)
    return decisions


@final
@dataclass(frozen=True)
class Magnitude(Selection):
    """The options of the largest softmax(alpha), all at once, as DARTS does.

    Options of weight 0 take part in the softmax and are never chosen. Of a pick those elements are kept
    whose best options weigh most.

    Reference: Liu, Simonyan, Yang, DARTS, ICLR 2019, Section 2.4.
    """

    def begin(self, supernet: Supernet, rng: random.Random) -> Decisions:
        return Decisions()

    def pending(self, supernet: Supernet, decisions: Decisions) -> tuple[str, ...]:
        return ()

    def num_steps(self, supernet: Supernet) -> int:
        return 0

    def step(self, probe: Probe, decisions: Decisions) -> Decisions:
        return decisions

    def architecture(self, supernet: Supernet, decisions: Decisions) -> Architecture:
        return supernet.discretize(shares(supernet))


def shares(supernet: Supernet) -> dict[str, list[float]]:
    """softmax(alpha) by path, of every choice."""
    tables = [table.detach().softmax(-1) for table in supernet.alphas.tables]
    return {path: row.tolist() for path, row in supernet.alphas.rows(tables).items()}


@final
@dataclass(frozen=True)
class Perturbation(Selection):
    """The option without which the supernet is worst, choice by choice.

    1. Draw an undecided choice. For each of its options, measure the supernet without it: its weight is
       0 and the others stay as they are, not renormalised; other choices are mixed, or decided.
    2. Take the option whose removal leaves the worst score, or the greatest loss (`criterion`); ties
       are broken by the other of the two, then by order.
    3. Train the supernet on; repeat until every choice is decided.
    4. Of every pick that is left (a node with more inputs than it keeps), delete, one after the other,
       the element whose removal leaves the best score, until as many remain as are picked.

    With `together` "cells" a step decides one choice below every child of the start symbol's rule, as
    the published code does with the normal and the reduction cell; "none" decides one choice a step.
    The searcher trains `tuning_epochs` between steps at `tuning_rate` times the search's learning rate.
    Left out: options of weight 0 are not measured, since they cannot be chosen. Choices below an option
    wait until it is taken, and are dropped with an option that is not. Ours: the same few batches for
    all measurements, in place of the whole validation split, and the loss as the tie-break.

    Reference: Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021,
    Algorithm 1; the topology step and the defaults after its code.
    """

    criterion: Literal["score", "loss"] = "score"
    together: Literal["cells", "none"] = "cells"
    tuning_epochs: int = 5
    tuning_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.criterion not in ("score", "loss") or self.together not in ("cells", "none"):
            raise ConfigurationError(
                f'perturbation was given criterion="{self.criterion}" and together="{self.together}"; '
                "the first is score or loss, the second cells or none."
            )
        if self.tuning_epochs < 0 or not 0 < self.tuning_rate <= 1:
            raise ConfigurationError(
                f"perturbation was given tuning_epochs={self.tuning_epochs} and "
                f"tuning_rate={self.tuning_rate}; the first is at least 0, the second above 0 and at "
                "most 1."
            )

    def begin(self, supernet: Supernet, rng: random.Random) -> Decisions:
        paths = list(supernet.choices)
        return Decisions(tuple(rng.sample(paths, len(paths))))

    def pending(self, supernet: Supernet, decisions: Decisions) -> tuple[str, ...]:
        turn = {path: number for number, path in enumerate(decisions.order)}
        left = sorted(supernet.pending(decisions.rules), key=lambda choice: turn[choice.path])
        stage = [c.path for c in left if not c.picks] or [c.path for c in left]
        if self.together == "none":
            return tuple(stage[:1])
        first: dict[str, str] = {}
        for path in stage:
            first.setdefault(_cell(path), path)
        return tuple(path for path in supernet.choices if path in first.values())

    def num_steps(self, supernet: Supernet) -> int:
        total = 0
        for picks in (False, True):
            cells = Counter(_cell(c.path) for c in supernet.choices.values() if bool(c.picks) == picks)
            counts = list(cells.values()) or [0]
            total += max(counts) if self.together == "cells" else sum(counts)
        return total

    @torch.no_grad()
    def step(self, probe: Probe, decisions: Decisions) -> Decisions:
        for path in self.pending(probe.supernet, decisions):
            probe.supernet.decide(decisions.rules)
            probe.relax()
            choice = probe.supernet.choices[path]
            decision = self._kept(choice, probe) if choice.picks else self._taken(choice, probe)
            decisions = replace(decisions, made=(*decisions.made, decision))
        probe.supernet.decide(decisions.rules)
        return decisions

    def architecture(self, supernet: Supernet, decisions: Decisions) -> Architecture:
        supernet.decide(decisions.rules)
        options = [d for d in decisions.made if not supernet.choices[d.path].picks]
        return supernet.discretize({d.path: self._strength(supernet, d) for d in options})

    def _taken(self, choice: OpenChoice, probe: Probe) -> Decision:
        """The option whose removal does the most harm."""
        assert choice.weights is not None
        weights, active = choice.weights, choice.active
        found = {}
        for index in (i for i, drawn in enumerate(choice.drawn) if drawn):
            masked = weights.clone()
            masked[index] = 0
            choice.mix(masked, [i for i in active if i != index])
            found[choice.names[index]] = probe.measure()
        choice.mix(weights, active)
        worst = min(found, key=lambda name: self._order(found[name]))
        return Decision(choice.path, worst, _rows(found.items()))

    def _kept(self, choice: OpenChoice, probe: Probe) -> Decision:
        """The elements that are left when those that matter least were deleted."""
        rows: list[tuple[str, Measurement]] = []
        kept = list(choice.active)
        while len(kept) > choice.picks:
            found = {}
            for element in kept:
                choice.keep([other for other in kept if other != element])
                found[element] = probe.measure()
            rows += [(str(element), measured) for element, measured in found.items()]
            kept.remove(max(found, key=lambda element: self._order(found[element])))
        return Decision(choice.path, "pick_" + "_".join(map(str, kept)), _rows(rows))

    def _strength(self, supernet: Supernet, decision: Decision) -> list[float]:
        """The ranks of the options, for a decision that does not fit beside the others."""
        found = {name: Measurement(score, loss) for name, score, loss in decision.measured}
        ranked = sorted(found, key=lambda name: self._order(found[name]), reverse=True)
        names = supernet.choices[decision.path].names
        return [float(ranked.index(name) + 1) if name in found else 0.0 for name in names]

    def _order(self, measured: Measurement) -> tuple[float, float]:
        """Less is worse."""
        score, loss = measured
        return (score, -loss) if self.criterion == "score" else (-loss, score)


def _rows(found: Iterable[tuple[str, Measurement]]) -> tuple[tuple[str, float, float], ...]:
    return tuple((name, score, loss) for name, (score, loss) in found)


def _cell(path: str) -> str:
    """The step below the start symbol's rule that leads there."""
    return path.partition("/")[0]
