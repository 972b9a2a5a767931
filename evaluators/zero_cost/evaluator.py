"""Zero-cost proxies as an evaluator: scores of networks that are never trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from evaluators.zero_cost.naming import proxy
from evaluators.zero_cost.proxy import Proxy
from evaluators.zero_cost.subject import Subject
from evaluators.zero_cost.suite import measure, plan
from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError
from nas.evaluation import Context, Evaluation, Evaluator
from nas.problem import Problem
from nas.scaled import Scaled
from nas.task import Metric, Split
from nas.training import repeatable, seeded, threads, torch_device


@registry.evaluator("zero_cost")
@final
@dataclass(frozen=True)
class ZeroCost(Evaluator):
    """Zero-cost proxies of the fresh network, several from shared passes, without training.

    `proxies` are names with their settings, such as synflow or "zen(repeats=2)"; `nas list proxies`
    says which there are. The first one's metric is the default objective. Weights, the batch of
    `batch_size` examples of the training split and all noise follow from the study's seed alone, so
    that all architectures of a study meet the same. A proxy that does not apply is missing with its
    reason; where all are, the architecture is infeasible. Each evaluation costs 1.
    """

    proxies: tuple[str, ...] = ("synflow", "naswot", "jacob_cov", "zico")
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigurationError(
                f"batch_size is {self.batch_size}; it takes a whole number from 1."
            )
        plan(self._proxies)  # refuses settings that cannot be
        names = [metric.name for p in self._proxies for metric in p.metrics]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(
                    f'two proxies give the metric "{name}"; leave one of them out.'
                )
        if not names:
            raise ConfigurationError("no proxies are named; give at least one, such as synflow.")

    @cached_property
    def _proxies(self) -> tuple[Proxy, ...]:
        return tuple(proxy(text) for text in self.proxies)

    @property
    def cost_unit(self) -> str:
        return "evaluations"

    @property
    def needs_task(self) -> bool:
        return True

    @property
    def num_steps(self) -> int:
        return 0

    def metrics(self, problem: Problem) -> tuple[Metric, ...]:
        return tuple(metric for p in self._proxies for metric in p.metrics)

    def evaluate(self, problem: Problem, architecture: Architecture, context: Context) -> Evaluation:
        device = torch_device(context.device)
        with threads(context.threads), repeatable(device):
            try:
                measured = measure(self._subject(problem, architecture, context), self._proxies)
            except torch.OutOfMemoryError:
                return Evaluation(infeasible=f"out of memory on {context.device}")
        if not measured.values:
            reasons = dict.fromkeys(measured.missing.values())
            return Evaluation(infeasible="; ".join(reasons))
        return Evaluation(measured.values, missing=measured.missing)

    def test(
        self, problem: Problem, architecture: Architecture, weights: Mapping[str, Tensor] | None
    ) -> Mapping[str, float]:
        return {}

    def _subject(self, problem: Problem, architecture: Architecture, context: Context) -> Subject:
        task = problem.task
        assert task is not None
        device = torch_device(context.device)
        with seeded(context.seed, context.device):
            model = Scaled(problem.space.build(architecture), task.scaling).to(device)
        batch = self._batch(task.train, context)
        inputs = batch.inputs.to(device)
        if not model.takes_tokens:
            inputs = (inputs - model.input_mean) / model.input_std
        return Subject(
            model.network,
            inputs,
            batch.targets.to(device),
            lambda outputs, targets: task.loss(model.in_units(outputs), targets, 0.0),
            task.signature,
            lambda key: context.stream("zero_cost", key).getrandbits(32),
        )

    def _batch(self, split: Split, context: Context) -> Split:
        """The study's batch: examples drawn without replacement, the same for every architecture."""
        generator = torch.Generator().manual_seed(context.stream("zero_cost batch").getrandbits(32))
        index = torch.randperm(len(split), generator=generator)[: self.batch_size]
        return Split(split.inputs[index], split.targets[index])
