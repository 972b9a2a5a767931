"""What stands in a supernet where a choice is open: a weighted sum, elements to pick, or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from nas.errors import SearchSpaceError, unknown


class OpenChoice:
    """An open choice: its options by name, and how they are weighed or which of them is taken.

    One object serves every module that was built for the choice. `drawn` says which options may be
    chosen in the end: those of weight 0 are mixed only, unless there is no other. `picks` is how many
    of the elements are to be picked, 0 where one of the options is.
    """

    def __init__(self, path: str, names: Sequence[str], drawn: Sequence[bool], picks: int = 0) -> None:
        self.path, self.names, self.picks = path, list(names), picks
        self.drawn = [flag or not any(drawn) for flag in drawn]
        self._even = torch.full((len(names),), 1 / len(names))
        self.weights: Tensor | None = None
        self.active: list[int] = []
        self.open()

    def open(self) -> None:
        """All options alike, all elements kept."""
        self.weights = None if self.picks else self._even
        self.active = list(range(len(self.names)))

    def mix(self, weights: Tensor, active: Sequence[int] | None = None) -> None:
        """Weigh the options by (options,); those that are not `active` are left out, not computed."""
        self.weights = weights
        self.active = list(range(len(self.names))) if active is None else list(active)

    def select(self, rule: str) -> None:
        """Take one option as it is, or keep the elements that a rule such as pick_0_2 names."""
        if self.picks:
            self.keep([int(i) for i in rule.split("_")[1:]])
            return
        if rule not in self.names:
            raise SearchSpaceError(
                unknown(rule, f'an option that the supernet has at "{self.path}"', self.names)
            )
        self.weights, self.active = None, [self.names.index(rule)]

    def keep(self, elements: Sequence[int]) -> None:
        """Keep some elements of a pick."""
        self.weights, self.active = None, list(elements)


class Mixture(nn.Module):
    """y = sum_o w_o o(x) over the options of a choice; o(x) itself where one option is taken.

    DARTS (Liu et al., ICLR 2019), Section 2.2, equation 2, with w given from outside.
    """

    def __init__(self, choice: OpenChoice, options: Sequence[nn.Module]) -> None:
        super().__init__()
        self.choice = choice
        self.options = nn.ModuleList(options)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The inputs and output of every option."""
        active, weights = self.choice.active, self.choice.weights
        if weights is None:
            (taken,) = active
            return self.options[taken](*inputs)  # type: ignore[no-any-return]
        if not active:
            return torch.zeros_like(self.options[0](*inputs))
        weights = weights.to(inputs[0].device)
        total: Tensor = weights[active[0]] * self.options[active[0]](*inputs)
        for index in active[1:]:
            total = total + weights[index] * self.options[index](*inputs)
        return total


class Picked(nn.Module):
    """An element of an open pick: itself where it is kept, else zeros of its output's shape."""

    def __init__(self, choice: OpenChoice, index: int, element: nn.Module) -> None:
        super().__init__()
        self.choice, self.index, self.element = choice, index, element
        self._shapes: dict[torch.Size, torch.Size] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The element's input and output."""
        if self.index in self.choice.active:
            y: Tensor = self.element(x)
            self._shapes[x.shape[1:]] = y.shape[1:]
            return y
        if x.shape[1:] not in self._shapes:
            self._shapes[x.shape[1:]] = self._shape(x)
        return x.new_zeros(x.shape[0], *self._shapes[x.shape[1:]])

    @torch.no_grad()
    def _shape(self, x: Tensor) -> torch.Size:
        mode = {module: module.training for module in self.modules()}
        self.eval()
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            shape: torch.Size = self.element(x[:1]).shape[1:]
        for module, training in mode.items():
            module.training = training
        return shape


@final
@dataclass(frozen=True)
class Soft:
    """An open choice between plain values, handed to a rule that lists the role in `soft`.

    Its `infer` is given the values that options infer, where they differ; its `build` those that they
    build, with `weights` to weigh them in every forward pass.
    """

    values: tuple[Any, ...]  # Any: plain values of the rule's own kind
    choice: OpenChoice = field(compare=False, repr=False)

    def weights(self) -> Tensor:
        """The weights (options,) that are set now: 1 and zeros where one value is taken."""
        if self.choice.weights is not None:
            return self.choice.weights
        taken = torch.zeros(len(self.values))
        taken[self.choice.active] = 1.0
        return taken
