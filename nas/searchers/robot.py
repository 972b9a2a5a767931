"""RoBoT: weights of training-free metrics learned from few evaluations, then the best mix's ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, final

import numpy as np

from nas import registry
from nas.architecture import Architecture
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

    1. Propose weights w of [-1, 1]^k, `budget` times in all: at first 1 or -1, by each metric's
       direction; then by the upper confidence bound of a Gaussian process over what earlier weights
       came to. The value of w is the objective of the pool's best architecture by M(.; w), a(w):
       evaluated where it is new, known where it is not. The process compares weights by the metrics'
       ranks of their a(w), of which alone the value is; of weights with one a(w) those are taken whose
       mix correlates most with the values so far.
    2. The weights of the best value, of equals the later, are kept: w~.
    3. Propose the best untried by M(.; w~), until `budget` distinct architectures were evaluated.

    The budget counts distinct architectures; nothing is proposed beyond it. A missing metric counts 0,
    an architecture without any is left out. Infeasible ones have the worst value so far. A trial notes
    its `weights`, the `phase`, the weights before it whose architecture was `known`, and the
    `precision`: of the evaluated architectures, the share of the better half by the mix, and by each
    metric alone, that is in the better half by the objective.

    Deviations: ranks are the default transform (`minmax` is the paper's, which one outlier spoils); the
    paper's process compares the weights themselves, which some twenty values say little of where there
    are more than a few metrics. Its length scale is fixed, the first weights are not random, and the
    bound is maximized over random weights, many with few metrics: see `nas.upper_confidence`. Where an
    architecture runs elsewhere or exceeds a limit, the next best by the mix is a(w). With
    `exploitation` none, step 3 is left out.

    Reference: He, Shu, Dai, Low, Robustifying and Boosting Training-Free Neural Architecture Search,
    ICLR 2024, and its code (the bound's 2.576 is that of the library there, recalled).
    """

    source: Source = Source()
    budget: int = 20
    transform: Transform = "rank"
    kappa: float = 2.576
    exploitation: Literal["greedy", "none"] = "greedy"

    def __post_init__(self) -> None:
        if self.budget < 1 or self.kappa < 0:
            raise ConfigurationError(
                f"budget {self.budget} and kappa {self.kappa} do not do; budget takes 1 or more, kappa "
                "0 or more."
            )

    def propose(self, problem: Problem, history: History, context: Context) -> Proposal | None:
        if len(problem.objectives) != 1:
            raise ConfigurationError('searcher "robot" takes one objective; give one --objective.')
        mixes = _Mixes(self.source.candidates(problem), self.transform, problem)
        if len(tried(history)) >= self.budget:
            return None
        explored = list(_explored(history))
        known: list[dict[str, Any]] = []  # Any: JSON values
        while len(explored) < self.budget:
            suggested = self._suggested(mixes, explored, history, context)
            if suggested is None:
                return None
            weights, architecture = suggested
            same = history.same(architecture)
            if same is None:
                notes = {"phase": "exploration", "known": known}
                return Proposal(architecture, notes | mixes.notes(weights, history))
            explored.append(_Explored(weights, same))
            known.append({"weights": weights.tolist(), "trial": same.number})
        return self._exploited(mixes, explored, history, known)

    def _suggested(
        self, mixes: _Mixes, explored: Sequence[_Explored], history: History, context: Context
    ) -> tuple[Values, Architecture] | None:
        """The next weights and their best architecture; None where all left run elsewhere."""
        seen = {mixes.candidates.rows[str(e.trial.architecture)]: e for e in explored}
        weights = np.array([mixes.candidates.signs], float)
        if seen:
            rng = np.random.default_rng(context.stream("weights", len(explored)).getrandbits(64))
            weights = proposed(_best(explored, mixes.problem).weights, rng)
        tops = mixes.tops(weights, history)
        if len(tops) == 0:
            return None
        row = int(tops[0])
        if seen:
            rows, values = list(seen), _values(list(seen.values()), mixes.problem)
            bound = bounds(mixes.ranks[rows], values, mixes.ranks[tops], self.kappa)
            row = int(tops[np.argmax(bound)])
            weights = weights[tops == row]
            weights = weights[mixes.agreements(weights, rows, values).argmax()][None]
        return weights[0], mixes.problem.space.parse(mixes.candidates.texts[row])

    def _exploited(
        self,
        mixes: _Mixes,
        explored: Sequence[_Explored],
        history: History,
        known: Sequence[dict[str, Any]],  # Any: JSON values
    ) -> Proposal | None:
        """The best untried architecture by the best weights."""
        if self.exploitation == "none":
            return None
        weights = _best(explored, mixes.problem).weights
        scores, notes = mixes.scores(weights), {"phase": "exploitation", "known": list(known)}
        for _, architecture in mixes.candidates.best(scores, mixes.problem, tried(history)):
            return Proposal(architecture, notes | mixes.notes(weights, history))
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

    def tops(self, weights: Values, history: History) -> Rows:
        """For each of several weights (mixes, metrics) the row of the best that keeps the limits and
        does not run elsewhere: (mixes,)."""
        running = {str(architecture) for architecture in history.running}
        columns = _normalised(self.candidates, self.transform)
        return self.candidates.tops(columns, weights, self.problem, running)

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


def _explored(history: History) -> Iterator[_Explored]:
    """The weights so far, in their order, as the trials' notes have them."""
    for trial in sorted(history.trials, key=lambda t: t.number):
        for known in trial.notes.get("known", ()):
            yield _Explored(np.array(known["weights"]), history.number(known["trial"]))
        if trial.notes.get("phase") == "exploration":
            yield _Explored(np.array(list(trial.notes["weights"].values())), trial)


def _best(explored: Sequence[_Explored], problem: Problem) -> _Explored:
    """The one of the best value, of equals the later."""
    values = np.array(_values(explored, problem))
    return explored[int(np.flatnonzero(values == values.max())[-1])]


def _values(explored: Sequence[_Explored], problem: Problem) -> list[float]:
    """What the weights came to; infeasible: the worst that any came to."""
    found = [problem.values(e.trial)[0] if e.trial.completed else None for e in explored]
    worst = min((value for value in found if value is not None), default=0.0)
    return [worst if value is None else value for value in found]
