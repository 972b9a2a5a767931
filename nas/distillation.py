"""Self-distillation: earlier states of a network teach the present one, so that its minima are flatter.

    L_w = task loss + lambda KL(p_T(x) || p(x; w, alpha)),   p_T(x) = 1/K sum_k p(x; w_k, alpha_k)

Reference: Zhu, Li, Liu, Wang, Improving Differentiable Architecture Search via Self-Distillation, arXiv
2302.05629, 2023. Built from its abstract: everything that is marked as ours here is not verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from nas.errors import ConfigurationError
from nas.holding import assign, evaluated, restored
from nas.task import Task
from nas.training import seeded
from nas.validation import BatchNorm


@final
@dataclass(frozen=True)
class Distillation:
    """How much is learned from how many teachers. All values are ours: the abstract gives none.

    `teachers` is K, the number of earlier states kept; one is pushed every `every_epochs` epochs, and
    there is no distillation before the first. `weight` is lambda, `temperature` divides the logits of
    teachers and student (the term is multiplied by its square, so that gradients keep their size).
    `batch_norm` is the teachers': "stored" takes the statistics of their time, "batch" the batch's own.
    """

    teachers: int = 3
    every_epochs: int = 1
    weight: float = 1.0
    temperature: float = 1.0
    batch_norm: BatchNorm = "stored"

    def __post_init__(self) -> None:
        if self.teachers < 1 or self.every_epochs < 1 or self.weight < 0 or self.temperature <= 0:
            raise ConfigurationError(
                f"self-distillation was given teachers={self.teachers}, "
                f"every_epochs={self.every_epochs}, weight={self.weight} and "
                f"temperature={self.temperature}; the first two are at least 1, the weight at least 0 "
                "and the temperature above 0."
            )

    def loss(self, logits: Tensor, taught: Tensor | None) -> Tensor:
        """Lambda tau^2 KL(p_T || softmax(logits / tau)), the mean over examples and positions.

        Logits and taught (batch, ..., classes); 0 where there is no teacher yet.
        """
        if taught is None or self.weight == 0:
            return logits.new_zeros(())
        student = (logits / self.temperature).log_softmax(-1)
        # sum p_T (log p_T - log p), where p_T log p_T is 0 at p_T = 0
        divergence = (torch.special.xlogy(taught, taught) - taught * student).sum(-1).mean()
        scaled: Tensor = self.weight * self.temperature**2 * divergence
        return scaled


class VotingTeachers:
    """The last K states of a model, asked together: the mean of their probabilities (ours: the abstract
    says "voting", which a majority would be too).

    A state is every weight, alpha and buffer. `model` takes inputs (batch, *input) to logits (batch,
    ..., classes), and `relax` sets the supernet's weights from its alphas as they are, without
    randomness. Made after the model was moved to its device.
    """

    def __init__(
        self, model: nn.Module, relax: Callable[[], None], distillation: Distillation, every_steps: int
    ) -> None:
        if every_steps < 1:
            raise ConfigurationError(
                f"teachers were to come every {every_steps} steps; give 1 or more."
            )
        self.model, self.relax, self.distillation = model, relax, distillation
        self.every_steps = every_steps
        self.steps = 0
        self.ring: list[list[Tensor]] = []
        self._tensors = [*model.parameters(), *model.buffers()]

    def stepped(self) -> None:
        """A step of training was taken: every so many of them, the model becomes a teacher."""
        self.steps += 1
        if self.steps % self.every_steps == 0 and self.distillation.weight > 0:
            state = [tensor.detach().clone() for tensor in self._tensors]
            self.ring = [*self.ring, state][-self.distillation.teachers :]

    def probabilities(self, x: Tensor) -> Tensor | None:
        """p_T (batch, ..., classes) for inputs (batch, *input), without gradient; None at first.

        To be asked before the student's own forward pass, with the same inputs. The model and torch's
        random state are afterwards what they were; the supernet is to be relaxed anew.
        """
        if not self.ring:
            return None
        batch = self.distillation.batch_norm == "batch"
        total: Tensor | float = 0.0
        with (
            torch.no_grad(),
            restored(self._tensors),
            seeded(self.steps, str(x.device)),
            evaluated(self.model, batch_statistics=batch),
        ):
            for state in self.ring:
                assign(self._tensors, state)
                self.relax()
                total = total + (self.model(x) / self.distillation.temperature).softmax(-1)
        return total / len(self.ring)  # type: ignore[return-value]

    def state(self) -> dict[str, Tensor]:
        """The teachers and the number of steps as named tensors, for a checkpoint."""
        named = {
            f"{k}.{i}": tensor for k, state in enumerate(self.ring) for i, tensor in enumerate(state)
        }
        return {"steps": torch.tensor(self.steps)} | named

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, on the model's device."""
        self.steps = int(state["steps"])
        places = range(len(self._tensors))
        count = (len(state) - 1) // len(self._tensors)
        self.ring = [
            [state[f"{k}.{i}"].to(self._tensors[i].device, copy=True) for i in places]
            for k in range(count)
        ]


def check_task(task: Task) -> None:
    """Refuse a task without classes: there are no probabilities to learn from."""
    if task.train.targets.is_floating_point():
        raise ConfigurationError(
            f'self-distillation compares probabilities, and the targets of task "{task.name}" are '
            "numbers, not classes; take a searcher without it, such as darts."
        )
