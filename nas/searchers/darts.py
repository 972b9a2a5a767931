"""DARTS: alphas by gradient on one half of the training data, weights on the other, the largest win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import FirstOrder
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.problem import Problem
from nas.relaxation import SoftmaxMixture
from nas.searcher import InnerSearch, Searcher
from nas.stopping import Stopping
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("darts")
@final
@dataclass(frozen=True)
class Darts(Searcher):
    """DARTS, first order: train a supernet's weights and alphas in turn, take the largest alphas.

    1. Every open choice of the space computes the sum of its options weighted by softmax(alpha).
    2. In every step the alphas take a step on a batch of one half of the training split, as if the
       weights did not depend on them, then the weights take one on a batch of the other half.
    3. After `epochs`, the admissible architecture of the largest summed softmax(alpha) is proposed;
       options of weight 0 (`none`) are never taken.

    What cannot be relaxed is to be fixed: `fixed` maps a path or role to a rule. A trial is a search of
    its own random streams. Cost: the passes of the training split forward and backward, one for each
    epoch of the search; the time of a pass grows with the options that it computes.

    Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 2,
    with xi = 0; the defaults are those of its code.
    """

    supernet: SupernetSettings = SupernetSettings()
    stopping: Stopping = Stopping()

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        method = Method(SoftmaxMixture(), FirstOrder(), stopping=self.stopping)
        return gradient_search(problem, self.supernet, method, context)
