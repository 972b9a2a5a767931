"""sharpDARTS' search: the strongest option in full (Max-W), and cosine power annealing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import FirstOrder
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.learning_rates import CosinePower
from nas.problem import Problem
from nas.relaxation import MaxWMixture
from nas.searcher import InnerSearch, Searcher
from nas.stopping import Stopping
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("sharpdarts")
@final
@dataclass(frozen=True)
class SharpDarts(Searcher):
    """sharpDARTS: darts with Max-W regularization and cosine power annealing.

    1. Every open choice computes the sum of its options weighted by 1 - max_j w_j + w_o, w =
       softmax(alpha) (`maximum`: whether gradients go through the maximum).
    2. Steps as in darts; the weights' learning rate rises for `warmup_epochs` and then falls by cosine
       power annealing of a `power`.
    3. After `epochs`, the architecture of the largest alphas is proposed.

    Cost: as darts. Its blocks are a space, sharpdarts.

    Reference: Hundt, Jain, Hager, sharpDARTS: Faster and More Accurate Differentiable Architecture
    Search, arXiv 1903.09900, 2019.
    """

    supernet: SupernetSettings = SupernetSettings(epochs=120, final_learning_rate=1e-4)
    relaxation: MaxWMixture = MaxWMixture()
    power: float = 2.0
    warmup_epochs: int = 5
    stopping: Stopping = Stopping()

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        given = self.supernet
        rates = CosinePower(
            given.learning_rate, given.final_learning_rate, self.power, self.warmup_epochs
        )
        method = Method(self.relaxation, FirstOrder(), learning_rate=rates, stopping=self.stopping)
        return gradient_search(problem, given, method, context)
