"""What proxies look at: a fresh network, one batch and a loss, left as they were found.

B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from nas.holding import restored
from nas.space import Signature

IN_PLACE: tuple[type[Any], ...] = (  # Any: what they share is a flag, not a class
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.Hardtanh),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.Threshold),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
)


class Inapplicable(Exception):
    """Raised where a proxy has no meaning for a network, or cannot be computed; its text says why."""


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A network at its initialisation and the data that it is looked at with.

    `inputs` (B, *input) are as the network takes them, scaled; `loss(outputs, targets)` is a scalar of
    its outputs (B, *output). `seeds(key)` is a seed for what a pass draws: it depends on the study and
    the key alone, so that a whole pool meets the same noise.
    """

    network: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    signature: Signature
    seeds: Callable[[str], int]

    @cached_property
    def weights(self) -> tuple[nn.Parameter, ...]:
        """The parameters that count as layers' weights: those trained, of two or more dimensions.

        On usual networks these are the weights of convolutions and linear maps, and no bias or scale of
        a norm; embeddings, recurrent matrices and the coefficients of splines count too.
        """
        return tuple(p for p in self.network.parameters() if p.requires_grad and p.dim() >= 2)

    def live(self, *kinds: type[nn.Module]) -> tuple[nn.Module, ...]:
        """The modules of these kinds on a path from input to output, in the network's order.

        Of tokens, which have no gradient, those on a path to the output.
        """
        found = self._paths.modules
        return tuple(m for m in self.network.modules() if m in found and isinstance(m, kinds))

    def refusal(self) -> str | None:
        """Why no proxy has a meaning for it; None if some may."""
        if not self.weights:
            return "the network has no weights"
        if len(self.inputs) < 2:
            return f"the batch has {len(self.inputs)} example, and examples are compared"
        return self._paths.refusal

    def noise(self, batch: int, key: str, side: int = 0) -> Tensor:
        """Inputs (batch, *input) drawn at random: numbers of mean 0 and deviation 1, or tokens.

        With a `side`, images are (batch, channels, side, side).
        """
        generator = torch.Generator().manual_seed(self.seeds(key))
        signature, shape = self.signature, self.signature.input
        if side and len(shape) != 3:
            raise Inapplicable(f"inputs {shape} are no images, and have no side to set")
        if side:
            signature = replace(signature, input=(shape[0], side, side))
        return signature.random(batch, generator).to(self.inputs)

    @contextmanager
    def prepared(self, *, training: bool = True) -> Iterator[None]:
        """The network in a mode for the block, without operations in place; as it was after it."""
        modes = {module: module.training for module in self.network.modules()}
        in_place: list[Any] = [m for m in modes if isinstance(m, IN_PLACE) and m.inplace]
        with restored(list(self.network.buffers())):
            try:
                self.network.train(training)
                for each in in_place:
                    each.inplace = False
                yield
            finally:
                for module, mode in modes.items():
                    module.training = mode
                for each in in_place:
                    each.inplace = True

    @cached_property
    def _paths(self) -> _Paths:
        """What is on a path to the output, from a forward pass of two examples."""
        x = self.inputs[:2].detach().clone()
        if x.is_floating_point():
            x.requires_grad_()
        called: list[tuple[nn.Module, Node | None]] = []

        def hear(module: nn.Module, inputs: object, output: Any) -> None:  # Any: of any module
            called.extend((module, t.grad_fn) for t in tensors(output))

        with self.prepared(), ExitStack() as stack, torch.random.fork_rng(_cards(x)):
            for module in self.network.modules():
                stack.callback(module.register_forward_hook(hear).remove)
            with torch.enable_grad():
                outputs = self.network(x)
        graph = ancestors(outputs)
        nodes = _after(x, graph) if x.requires_grad else set(graph)
        modules = frozenset(module for module, node in called if node in nodes)
        return _Paths(modules, self._refusal(nodes, graph))

    def _refusal(self, nodes: set[Node], graph: Mapping[Node, list[Node]]) -> str | None:
        if self.inputs.is_floating_point() and not nodes:
            return "the input does not reach the output"
        if not any(torch.autograd.graph.get_gradient_edge(w).node in graph for w in self.weights):
            return "no weight reaches the output"
        return None


@dataclass(frozen=True)
class _Paths:
    modules: frozenset[nn.Module]
    refusal: str | None


def ancestors(outputs: Tensor) -> dict[Node, list[Node]]:
    """Every node of the graph that the outputs were computed by, with those that take what it gives."""
    if outputs.grad_fn is None:
        return {}
    takers: dict[Node, list[Node]] = {outputs.grad_fn: []}
    todo = [outputs.grad_fn]
    while todo:
        taker = todo.pop()
        for node, _ in taker.next_functions:
            if node is None:
                continue
            if node not in takers:
                takers[node] = []
                todo.append(node)
            takers[node].append(taker)
    return takers


def _after(x: Tensor, takers: Mapping[Node, list[Node]]) -> set[Node]:
    """The nodes of a graph that depend on x."""
    begin = torch.autograd.graph.get_gradient_edge(x).node
    todo = [begin] if begin in takers else []
    seen = set(todo)
    while todo:
        for taker in takers[todo.pop()]:
            if taker not in seen:
                seen.add(taker)
                todo.append(taker)
    return seen


def _cards(x: Tensor) -> list[torch.device]:
    return [x.device] if x.device.type == "cuda" else []


def tensors(value: Any) -> list[Tensor]:  # Any: what a module may return
    """The tensors of what a module took or returned."""
    items = value if isinstance(value, tuple | list) else (value,)
    return [item for item in items if isinstance(item, Tensor)]


@contextmanager
def substituted(parts: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Other numbers in tensors for the block, of other types too; the tensors' own are put back."""
    before = [part.data for part in parts]
    try:
        for part, value in zip(parts, values, strict=True):
            part.data = value
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.data = value


@contextmanager
def hooked(handles: Sequence[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Hooks that are removed after the block."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
