"""Signs that a supernet collapses, on the curve of its search, and when it is ended because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from nas.errors import ConfigurationError
from nas.selection import shares
from nas.sharpness import SKIP, count, largest_eigenvalue
from nas.supernet_training import Trainer
from nas.training import seeded

Tables = list[Tensor]


@dataclass
class Seen:
    """The rows and the alphas of every epoch so far, as far as they are looked back at."""

    rows: list[dict[str, float]] = field(default_factory=list)
    alphas: list[Tables] = field(default_factory=list)

    def state(self) -> dict[str, Any]:  # Any: JSON values and tensors
        """For a checkpoint."""
        return {"rows": self.rows, "alphas": self.alphas}

    @staticmethod
    def of(state: Mapping[str, Any]) -> Seen:  # Any: as above
        """What `state` told."""
        return Seen(list(state["rows"]), list(state["alphas"]))


@final
@dataclass(frozen=True)
class Stopping:
    """When a search ends early; by default never.

    `skips` counts how often `skip_rule` stands in what the alphas would derive. Above `most_skips` the
    search ends with the alphas of the epoch before. With `eigenvalue_ratio` r the largest eigenvalue of
    the alphas' Hessian, on a batch of their half, is on the curve too; with k = `eigenvalue_window` and
    m(i) its mean over the k epochs up to i, the search ends with the alphas of epoch i - k as soon as
    m(i - k) / m(i) < r.

    Reference: Liang et al., DARTS+, arXiv 1909.06035, 2019 (skips; recalled); Zela et al.,
    Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, Section 4.3 (r = 0.75
    and k = 5; recalled). A supernet that is `fused` has no Hessian: it is then left plain.
    """

    most_skips: int | None = None
    skip_rule: str = SKIP
    eigenvalue_ratio: float | None = None
    eigenvalue_window: int = 5

    def __post_init__(self) -> None:
        ratio = self.eigenvalue_ratio
        if (ratio is not None and not 0 < ratio < 1) or self.eigenvalue_window < 1:
            raise ConfigurationError(
                f"early stopping was given eigenvalue_ratio={ratio} and "
                f"eigenvalue_window={self.eigenvalue_window}; the first is between 0 and 1, the second "
                "at least 1."
            )

    def diagnose(self, trainer: Trainer, epoch: int, done: float) -> dict[str, float]:
        """The signs, as numbers of a row; what follows is as if it had not been measured."""
        supernet = trainer.supernet
        derived = supernet.discretize(shares(supernet))
        found = {"skips": float(count(derived, self.skip_rule))}
        if self.eigenvalue_ratio is not None:
            generator = torch.Generator().manual_seed(epoch)
            with seeded(epoch, str(trainer.device)), trainer.unseen():
                loss = trainer.loss(trainer.measured_index(), done)
                found["eigenvalue"] = largest_eigenvalue(trainer.levels, loss, generator)
        return found

    def after(
        self, seen: Seen, row: Mapping[str, float], alphas: Tables
    ) -> tuple[str | None, Tables | None]:
        """Why the search ends after this epoch, if it does, and the alphas to end with."""
        seen.alphas.append(alphas)
        del seen.alphas[: -self.eigenvalue_window - 1]
        if self.most_skips is not None and row.get("skips", 0) > self.most_skips:
            back = seen.alphas[-2] if len(seen.alphas) > 1 else None
            return f"{row['skips']:g} times {self.skip_rule}", back
        values = [r["eigenvalue"] for r in seen.rows if "eigenvalue" in r]
        k, ratio = self.eigenvalue_window, self.eigenvalue_ratio
        if ratio is not None and len(values) >= 2 * k:
            before, now = _mean(values[-2 * k : -k]), _mean(values[-k:])
            if now > 0 and before / now < ratio:
                return f"the largest eigenvalue rose from {before:.3g} to {now:.3g}", seen.alphas[0]
        return None, None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
