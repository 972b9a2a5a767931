"""DARTS-PT: of a trained supernet those options are kept without which it is worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import FirstOrder, WeightsOnly
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.problem import Problem
from nas.relaxation import FixedUniform, SoftmaxMixture
from nas.searcher import InnerSearch, Searcher
from nas.selection import Perturbation
from nas.stopping import Stopping
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("perturbation_selection")
@final
@dataclass(frozen=True)
class PerturbationSelection(Searcher):
    """Perturbation selection (DARTS-PT): mask each option of a trained supernet, keep what it misses.

    1. Train a supernet for `epochs`, as darts does; without `train_alphas` its weights alone, with
       every option of a choice weighing the same.
    2. Draw an undecided choice. Measure the supernet on `measured_batches` of the alphas' half without
       each of its options in turn, and decide on the one whose removal leaves the worst score
       (`criterion`); `together` "cells" decides one choice of every cell at a time.
    3. Train on for `tuning_epochs`, by fresh optimizers at `tuning_rate` times the learning rate, which
       fall to `final_learning_rate` as half a cosine over all such epochs. Repeat from 2.
    4. Where nodes pick some of their inputs, delete those that it misses least.

    Options of weight 0 (`none`) are masked and taken nowhere. Cost: the passes of the training split
    forward and backward, one for each epoch of 1 and 3 (half of one without `train_alphas`); the
    measurements, which are forward alone, are not counted, as the evaluator training's are not.

    Reference: Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021,
    Algorithm 1; 50 epochs are for DARTS' space, 100 for NAS-Bench-201.
    """

    train_alphas: bool = True
    supernet: SupernetSettings = SupernetSettings()
    selection: Perturbation = Perturbation()
    stopping: Stopping = Stopping()

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        method = Method(
            SoftmaxMixture() if self.train_alphas else FixedUniform(),
            FirstOrder() if self.train_alphas else WeightsOnly(),
            self.selection,
            tuning_epochs=self.selection.tuning_epochs,
            tuning_rate=self.selection.tuning_rate,
            trains_alphas=self.train_alphas,
            stopping=self.stopping,
        )
        return gradient_search(problem, self.supernet, method, context)
