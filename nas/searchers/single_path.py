"""Single path one-shot: a supernet trained one random path at a time ranks architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from nas import registry
from nas.bilevel import WeightsOnly
from nas.errors import ConfigurationError
from nas.evaluation import Context
from nas.gradient_search import Method, gradient_search
from nas.problem import Problem
from nas.relaxation import SinglePath
from nas.searcher import InnerSearch, Searcher
from nas.supernet_training import SupernetSettings
from nas.trial import History


@registry.searcher("single_path")
@final
@dataclass(frozen=True)
class SinglePathOneShot(Searcher):
    """Single path one-shot: train a supernet by uniform sampling, take the best path by its weights.

    1. For every batch an architecture is drawn as the space draws it, and its path alone is trained, on
       one half of the training split.
    2. `candidates` architectures within the study's limits are drawn and measured with the weights that
       they have in the supernet, on `measured_batches` of the other half, batch norm by the batches'
       own statistics; the best is proposed.

    The paper searches in step 2 by evolution and recomputes the statistics of batch norm. Cost: the
    passes of the training split forward and backward, half of one for each epoch; the measurements,
    which are forward alone, are not counted, as the evaluator training's are not.

    Reference: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV
    2020, Sections 3.2 and 3.3 (recalled); random search in step 2 is its baseline.
    """

    candidates: int = 100
    supernet: SupernetSettings = SupernetSettings()

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigurationError(f"candidates is {self.candidates}; it takes 1 or more.")

    def propose(self, problem: Problem, history: History, context: Context) -> InnerSearch:
        method = Method(SinglePath(), WeightsOnly(), trains_alphas=False, candidates=self.candidates)
        return gradient_search(problem, self.supernet, method, context)
