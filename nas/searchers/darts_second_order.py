"""DARTS with second-order steps: alphas see what a step of the weights does to the validation loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import SecondOrder
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.problem import Problem
from nas.relaxation import SoftmaxMixture
from nas.searcher import InnerSearch, Searcher
from nas.stopping import Stopping
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("darts_second_order")
@final
@dataclass(frozen=True)
class DartsSecondOrder(Searcher):
    """DARTS, second order: as darts, with alphas that look one step of the weights ahead.

    1. As darts.
    2. The alphas' step is by the gradient of the loss after a step of the weights, xi being their
       learning rate; its second part is a finite difference at a distance of `difference` / ||g||.
    3. As darts.

    Cost: the passes of the training split forward and backward, 2.5 for each epoch of the search: of
    every five batches one is of the alphas' half.

    Reference: Liu, Simonyan, Yang, DARTS: Differentiable Architecture Search, ICLR 2019, Section 2.3.
    """

    supernet: SupernetSettings = SupernetSettings()
    step: SecondOrder = SecondOrder()
    stopping: Stopping = Stopping()

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        method = Method(SoftmaxMixture(), self.step, stopping=self.stopping)
        return gradient_search(problem, self.supernet, method, context)
