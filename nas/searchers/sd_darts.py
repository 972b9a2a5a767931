"""SD-DARTS: earlier states of the supernet vote, and teach the present one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import FirstOrder
from nas.distillation import Distillation
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.problem import Problem
from nas.relaxation import SoftmaxMixture
from nas.searcher import InnerSearch, Searcher
from nas.stopping import Stopping
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("sd_darts")
@final
@dataclass(frozen=True)
class SdDarts(Searcher):
    """SD-DARTS: darts whose weights also learn from the mean answer of its own earlier states.

    1. As darts; the supernet of every `every_epochs` epochs is kept, `teachers` of them at most.
    2. The weights' loss has `weight` times the divergence of the teachers' mean probabilities from the
       supernet's own added. The alphas' steps are those of darts.
    3. As darts.

    For tasks with classes. Ours, since the facts that this is built from are those of the abstract: how
    many teachers there are and when, that their vote is a mean, and that the weights alone are taught.
    Cost: as darts; the teachers' forward passes are not counted.

    Reference: Zhu, Li, Liu, Wang, Improving Differentiable Architecture Search via Self-Distillation,
    arXiv 2302.05629, 2023.
    """

    supernet: SupernetSettings = SupernetSettings()
    distillation: Distillation = Distillation()
    stopping: Stopping = Stopping()

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        method = Method(
            SoftmaxMixture(),
            FirstOrder(),
            stopping=self.stopping,
            distillation=self.distillation,
        )
        return gradient_search(problem, self.supernet, method, context)
