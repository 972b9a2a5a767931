"""GDAS: one sampled option of every choice is trained at a time, drawn by alphas that learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import FirstOrder
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.problem import Problem
from nas.relaxation import GumbelSample
from nas.searcher import InnerSearch, Searcher
from nas.stopping import Stopping
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("gdas")
@final
@dataclass(frozen=True)
class Gdas(Searcher):
    """GDAS: sample one option of every choice with Gumbel noise, learn the alphas through the sample.

    1. For every batch one option of each choice is drawn, by its probability; it alone is computed. Its
       alphas have the gradient of a softmax at a temperature that falls from `first_temperature` to
       `last_temperature`.
    2. Steps of alphas and weights as in darts.
    3. After `epochs`, the architecture of the largest alphas is proposed.

    Cost: the passes of the training split forward and backward, one for each epoch of the search; one
    option is computed at a time, so that a pass takes about as long as that of one architecture.

    Reference: Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019;
    250 epochs and the temperatures as in NAS-Bench-201's code (recalled).
    """

    supernet: SupernetSettings = SupernetSettings(epochs=250)
    relaxation: GumbelSample = GumbelSample()
    stopping: Stopping = Stopping()

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        method = Method(self.relaxation, FirstOrder(), stopping=self.stopping)
        return gradient_search(problem, self.supernet, method, context)
