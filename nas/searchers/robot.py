"""RoBoT: weights of training-free metrics learned from few evaluations, then the best mix's ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np

from nas import registry
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.pool_source import Candidates, Rows, Source, tried
from nas.problem import Problem
from nas.ranking import Transform, Values, normalised, precision_at
from nas.searcher import Proposal, Searcher
from nas.trial import History, Trial
from nas.upper_confidence import bounds, proposed

TINY = 1e-12  # a mix that does not vary


@registry.searcher("robot")
@final
@dataclass(frozen=True)
class Robot(Searcher):
    """RoBoT: Bayesian optimization over the weights of a mix of metrics, then greedy exploitation.

    With metrics M_i of a pool, each brought to [0, 1], and weights w: M(a; w) = sum_i w_i M_i(a).

    1. Propose weights w of [-1, 1]^k whose best architecture of the pool, a(w) by M(.; w), is new, and
       evaluate it: at first 1 or -1, by each metric's direction; then by the upper confidence bound of
       a Gaussian process that compares weights by the metrics' ranks of their a(w). Of weights with one
       a(w) those are taken whose mix correlates most with the values so far.
    2. Keep the weights of the best value, of equals the later: w~.
    3. Propose the best untried by M(.; w~), until `budget` distinct architectures were evaluated.

    Step 1 takes the share `exploration` of the budget, or less where no weights choose anything new. A
    missing metric counts 0, an architecture without any is left out. Infeasible ones have the worst
    value so far. A trial notes its `weights`, the `phase`, and the `precision`: of the evaluated
    architectures, the share of the better half by the mix, and by each metric alone, that is in the
    better half by the objective.

    Deviations: ranks are the default transform (`minmax` is the paper's, which one outlier spoils). The
    paper's process compares the weights themselves, of which some twenty values say little where there
    are more than a few metrics; it proposes weights `budget` times, known architectures among them, so
    that what they save is the share of step 3. The first weights there are random. The bound is
    maximized over random weights, many of few metrics: see `nas.upper_confidence`. Where an
    architecture exceeds a limit, the next best by the mix is a(w). With `exploration` 1 step 3 is left
    out, unless no weights choose anything new.

    Reference: He, Shu, Dai, Low, Robustifying and Boosting Training-Free Neural Architecture Search,
    ICLR 2024, and its code (the bound's 2.576 is that of the library there, recalled).
    """

    source: Source = Source()
    budget: int = 20
    exploration: float = 0.75
    transform: Transform = "rank"
    kappa: float = 2.576

    def __post_init__(self) -> None:
        if self.budget < 1 or self.kappa < 0:
            raise ConfigurationError(
                f"budget {self.budget} and kappa {self.kappa} do not do; budget takes 1 or more, kappa "
                "0 or more."
            )
        if not 0 < self.exploration <= 1:
            raise ConfigurationError(
                f"exploration is {self.exploration}; it takes a share of the budget above 0, up to 1."
            )

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal | None:
        if len(problem.objectives) != 1:
            raise ConfigurationError('searcher "robot" takes one objective; give one --objective.')
        mixes = _Mixes(self.source.candidates(problem), self.transform, problem)
        if len(tried(history)) >= self.budget:
            return None
        explored = list(_explored(history, mixes.candidates))
        if len(explored) < max(1, round(self.exploration * self.budget)):
            proposal = self._explored(mixes, explored, history, context)
            if proposal is not None:
                return proposal
        return self._exploited(mixes, explored, history)

    def _explored(
        self, mixes: _Mixes, explored: Sequence[_Explored], history: History, context: Context
    ) -> Proposal | None:
        """The next weights with their best architecture; None where none choose a new one."""
        candidates, best = mixes.candidates, np.array(mixes.candidates.signs, float)
        weights, known = best[None], {candidates.rows[str(e.trial.architecture)]: e for e in explored}
        if known or history.running:
            rng = np.random.default_rng(context.stream("weights", context.number).getrandbits(64))
            weights = proposed(_best(explored, mixes.problem).weights if known else best, rng)
        tops = mixes.tops(weights)
        old = [candidates.rows[text] for text in tried(history) if text in candidates.rows]
        new = ~np.isin(tops, old)
        weights, tops = weights[new], tops[new]
        if len(tops) == 0:
            return None
        rows, values = list(known), _values(list(known.values()), mixes.problem)
        row = int(tops[0])
        if known:
            row = int(tops[np.argmax(bounds(mixes.ranks[rows], values, mixes.ranks[tops], self.kappa))])
        weights = weights[tops == row]
        chosen = weights[mixes.agreements(weights, rows, values).argmax()] if known else weights[0]
        architecture = mixes.problem.space.parse(candidates.texts[row])
        return Proposal(architecture, {"phase": "exploration"} | mixes.notes(chosen, history))

    def _exploited(
        self, mixes: _Mixes, explored: Sequence[_Explored], history: History
    ) -> Proposal | None:
        """The best untried architecture by the best weights."""
        if not explored:
            return None
        weights = _best(explored, mixes.problem).weights
        scores = mixes.scores(weights)
        for _, architecture in mixes.candidates.best(scores, mixes.problem, tried(history)):
            return Proposal(architecture, {"phase": "exploitation"} | mixes.notes(weights, history))
        return None


@dataclass(frozen=True)
class _Explored:
    """Weights, and the trial of their best architecture."""

    weights: Values
    trial: Trial


@dataclass(frozen=True, eq=False)
class _Mixes:
    """The mixes of a pool's metrics."""

    candidates: Candidates
    transform: Transform
    problem: Problem

    def scores(self, weights: Values) -> Values:
        """M(.; weights): (rows,)."""
        scores: Values = _normalised(self.candidates, self.transform) @ weights
        return scores

    @property
    def ranks(self) -> Values:
        """The metrics' ranks in [0, 1]: (rows, metrics)."""
        return _normalised(self.candidates, "rank")

    def tops(self, weights: Values) -> Rows:
        """By each of several weights (mixes, metrics) the best row within the limits: (mixes,)."""
        columns = _normalised(self.candidates, self.transform)
        return self.candidates.tops(columns, weights, self.problem)

    def agreements(self, weights: Values, rows: Sequence[int], values: Sequence[float]) -> Values:
        """How each of several mixes correlates with the values of some rows: (mixes,)."""
        scores = _normalised(self.candidates, self.transform)[rows] @ weights.T
        away = scores - scores.mean(axis=0)
        lengths = np.linalg.norm(away, axis=0)
        found: Values = (np.array(values) - np.mean(values)) @ away / np.maximum(lengths, TINY)
        return found

    def notes(self, weights: Values, history: History) -> dict[str, Any]:  # Any: JSON values
        names = self.candidates.names
        notes: dict[str, Any] = {"weights": dict(zip(names, weights.tolist(), strict=True))}
        rows = self.candidates.rows
        trials = [t for t in history.completed if t.reused is None and str(t.architecture) in rows]
        if len(trials) < 2:
            return notes
        count = len(trials) // 2
        taken = [rows[str(t.architecture)] for t in trials]
        objective = np.array([self.problem.values(t)[0] for t in trials])
        columns = _normalised(self.candidates, self.transform)[taken]
        precision = {
            n: precision_at(x, objective, count) for n, x in zip(names, columns.T, strict=True)
        }
        mix = precision_at(columns @ weights, objective, count)
        return notes | {"precision": {"at": count, "mix": mix, "metrics": precision}}


@lru_cache(maxsize=8)
def _normalised(candidates: Candidates, transform: Transform) -> Values:
    return normalised(candidates.values, transform)


def _explored(history: History, candidates: Candidates) -> Iterator[_Explored]:
    """The weights so far, in their order, as the trials' notes have them."""
    for trial in sorted(history.trials, key=lambda t: t.number):
        if trial.notes.get("phase") != "exploration":
            continue
        weights = trial.notes["weights"]
        if set(weights) != set(candidates.names) or str(trial.architecture) not in candidates.rows:
            raise ConfigurationError(
                f"this is not the pool that trial {trial.number} came from, as its metrics or "
                "architectures are others; put that one back, or begin a study of another name."
            )
        yield _Explored(np.array([weights[name] for name in candidates.names]), trial)


def _best(explored: Sequence[_Explored], problem: Problem) -> _Explored:
    """The one of the best value, of equals the later."""
    values = np.array(_values(explored, problem))
    return explored[int(np.flatnonzero(values == values.max())[-1])]


def _values(explored: Sequence[_Explored], problem: Problem) -> list[float]:
    """What the weights came to; infeasible: the worst that any came to."""
    found = [problem.values(e.trial)[0] if e.trial.completed else None for e in explored]
    worst = min((value for value in found if value is not None), default=0.0)
    return [worst if value is None else value for value in found]
