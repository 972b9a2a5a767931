"""The mixtures that take one tensor, such as the edges out of a node, computed together.

Options of one kind are computed side by side (`nas.stacking`), those without weights once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.mixture import Mixture, OpenChoice
from nas.stacking import Known, Layers, Seen, described, layers_of, norms_of, shared, stacked, stacks

Gate = tuple[OpenChoice, int]  # open where the choice has this number among those that are computed
Way = Sequence[Gate]


@final
class Member:
    """A mixture of the fan, with the gates on each of the ways to it."""

    def __init__(self, mixture: Mixture, ways: Sequence[Way]) -> None:
        self.choice, self.ways = mixture.choice, ways
        self.layers: list[Layers] = [layers_of(option) for option in mixture.options]

    @property
    def mixes(self) -> bool:
        """Whether it is reached, and mixes."""
        reached = any(all(n in choice.active for choice, n in way) for way in self.ways)
        return reached and self.choice.weights is not None


class Part(NamedTuple):
    """What a member gets, and what the norms of its options have seen."""

    y: Tensor
    seen: list[Seen]


Kind = dict[int, int]  # of members by number, the number of the option
Group = tuple[int, ...]  # members by number


@final
class Fan:
    """Mixtures that take the same tensor within a forward pass.

    `alone` are for every member the options that it has to compute itself: what they do is not known.
    """

    def __init__(self, members: Sequence[Member], known: Known) -> None:
        self.members, self.known = members, known
        self.kinds = _kinds(members)
        taken = {place for kind in self.kinds for place in kind.items()}
        self.alone = [
            [i for i in range(len(member.layers)) if (m, i) not in taken]
            for m, member in enumerate(members)
        ]

    def of(self, member: int, x: Tensor) -> Tensor | None:
        """The weighted sum of a member's options for x but those `alone`; None where there is none."""
        parts: dict[int, Part] = self.known.once(x, self, self._of_all)
        part = parts.pop(member, None) or self._parts(x, [member]).get(member)
        if part is None:
            return None
        self.known.seen.extend(part.seen)
        return part.y

    def _of_all(self, x: Tensor) -> dict[int, Part]:
        return self._parts(x, [m for m, member in enumerate(self.members) if member.mixes])

    def _parts(self, x: Tensor, numbers: Sequence[int]) -> dict[int, Part]:
        bundles: dict[Group, Bundle] = {}
        rows = {m: self._weights(m, x) for m in numbers}
        for kind in self.kinds:
            for group in self._groups(kind, numbers, x.device):
                bundle = bundles.setdefault(group, Bundle(len(group)))
                options = [self.members[m].layers[kind[m]] for m in group]
                bundle.add(options, x, torch.stack([rows[m][kind[m]] for m in group]), self.known)
        parts: dict[int, Part] = {}
        for group, bundle in bundles.items():
            for m, part in zip(group, bundle.parts(), strict=True):
                before = parts.get(m)
                parts[m] = part if before is None else Part(before.y + part.y, before.seen + part.seen)
        return parts

    def _weights(self, member: int, x: Tensor) -> Sequence[Tensor]:
        weights = self.members[member].choice.weights
        assert weights is not None
        return weights.to(x).unbind()

    def _groups(self, kind: Kind, numbers: Sequence[int], device: torch.device) -> Iterator[Group]:
        """The members whose option of the kind is active, apart by the modes of its layers.

        Side by side was tried on CPUs only: elsewhere each has a group of its own.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for m in numbers:
            if m in kind and kind[m] in self.members[m].choice.active:
                layers = self.members[m].layers[kind[m]]
                modes = tuple(layer.training for layer in layers)
                alone = () if device.type == "cpu" or shared(layers) else (m,)
                groups.setdefault((*modes, *alone), []).append(m)
        yield from map(tuple, groups.values())


def _kinds(members: Sequence[Member]) -> list[Kind]:
    """Options of equal layers; of the equal ones of one member, the first, the second and so on."""
    kinds: dict[tuple[str, int], Kind] = {}
    for m, member in enumerate(members):
        texts: list[str] = []
        for index, layers in enumerate(member.layers):
            if stacks(layers):
                texts.append(", ".join(map(described, layers)))
                kinds.setdefault((texts[-1], texts.count(texts[-1])), {})[m] = index
    return list(kinds.values())


@final
class Bundle:
    """What a group of k members gets: sums side by side, and terms that all of them share."""

    def __init__(self, size: int) -> None:
        self.sums: list[Tensor] = []  # (batch, k * channels, ...) each
        self.terms: list[Tensor] = []  # (batch, channels, ...) each
        self.weights: list[Tensor] = []  # of the terms, (k,) each
        self.seen: list[list[Seen]] = [[] for _ in range(size)]

    def add(self, options: Sequence[Layers], x: Tensor, weights: Tensor, known: Known) -> None:
        """Add options of one kind, weighed by (k,)."""
        if shared(options[0]):
            y, (found,) = stacked(options[:1], x, known)
            self.terms.append(y)
            self.weights.append(weights)
            seen = [
                [s._replace(norm=n) for s, n in zip(found, norms_of(o), strict=True)] for o in options
            ]
        else:
            y, seen = stacked(options, x, known, weights)
            self.sums.append(y)
        for notes, more in zip(self.seen, seen, strict=True):
            notes.extend(more)

    def parts(self) -> Iterator[Part]:
        """What each member gets."""
        total = _sum(self.sums) if self.sums else None
        if self.terms:
            handed = _Handed.apply(total, torch.stack(self.weights, 1), *self.terms)  # type: ignore[no-untyped-call]
        else:
            assert total is not None
            handed = total.chunk(len(self.seen), 1)
        return map(Part, handed, self.seen)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total.add_(term)  # nothing else has it yet
    return total


class _Handed(torch.autograd.Function):
    """Member m's channels of `total` plus sum_t w[m,t] term_t, for each of k members.

    total (batch, k * channels, ...) or None, w (k, terms), terms (batch, channels, ...) each.
    """

    @staticmethod
    def forward(
        ctx: Any, total: Tensor | None, weights: Tensor, *terms: Tensor
    ) -> tuple[Tensor, ...]:  # Any: autograd's context
        ctx.save_for_backward(weights, *terms)
        rows = [row.unbind() for row in weights.unbind()]
        if total is None:
            ys = [row[0] * terms[0] for row in rows]
        else:
            parts = total.chunk(len(rows), 1)
            ys = [torch.addcmul(y, terms[0], row[0]) for y, row in zip(parts, rows, strict=True)]
        for y, row in zip(ys, rows, strict=True):
            for term, weight in zip(terms[1:], row[1:], strict=True):
                y.addcmul_(term, weight)
        return tuple(ys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # Any: as above
        weights, *terms = ctx.saved_tensors
        for_total, for_weights, *for_terms = ctx.needs_input_grad
        columns = [column.unbind() for column in weights.unbind(1)]
        return (
            torch.cat(gradients, 1) if for_total else None,
            _products(gradients, terms) if for_weights else None,
            *(
                _combined(gradients, column) if wanted else None
                for column, wanted in zip(columns, for_terms, strict=True)
            ),
        )


def _products(gradients: Sequence[Tensor], terms: Sequence[Tensor]) -> Tensor:
    """The inner products of all gradients with all terms: (gradients, terms)."""
    return torch.stack([torch.stack([(g * term).sum() for term in terms]) for g in gradients])


def _combined(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    total = gradients[0] * weights[0]
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        total.addcmul_(gradient, weight)
    return total
