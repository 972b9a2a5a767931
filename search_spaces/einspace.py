"""einspace: whole networks derived from fundamental operations by a recursive grammar.

    S -> sequential(M, M) | branching(B, M.., A) | routing(P, M, R)
    M -> sequential(M, M) | branching(B, M.., A) | routing(P, M, R) | computation(C)

Reference: Ericsson et al., einspace: Searching for Neural Architectures from Fundamental Operations,
NeurIPS 2024, Section 3 and Appendices A.2 to A.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from nas import registry
from nas.complexity import Complexity, linear
from nas.derivation import Choice, Limits
from nas.errors import ConfigurationError
from nas.grammar import Each, Misfit, Rule, Symbol
from nas.space import SearchSpace, Signature
from search_spaces.einspace_form import canonical
from search_spaces.einspace_seeds import seeds
from search_spaces.operations.fundamental import (
    Branches,
    Branching,
    Flow,
    Fold,
    Joined,
    Shape,
    Unfold,
    aggregation_rules,
    branching_rules,
    computation_rules,
    convolution_1d_rules,
    convolution_of,
    drawn_unfolds,
    fold_rule,
    identity_rule,
    permute_rules,
    unfold_rules,
)

HEADS = ("tokens", "features")
COMPUTATION = "computation"
Make = Callable[..., tuple[Any, Any]]  # Any: a product and its spec out
Call = Callable[..., Any]  # Any: a spec out


@registry.space("einspace")
def einspace(
    computation_probability: float = 0.32,
    computation_growth: float = 0.0,
    max_nodes: int = 200,
    max_instances: int = 5000,
    head: str = "tokens",
) -> SearchSpace:
    """einspace: ConvNets, transformers, mixers and all between, from fundamental operations.

    Infinitely many architectures, for images (channels, height, width), which begin in image mode, and
    for (tokens, features), which begin in column mode. `computation_probability` is that of ending a
    module in a computation where every option is open (0.32 in the paper); with `computation_growth` g
    it is 1 - (1 - p)(1 - g)^d below d rules, so that deep trees end sooner. At most `max_nodes` nodes
    are drawn, and no network has more than `max_instances` parts. The head averages over all but the
    channels of a map, and over the `tokens` in column mode; "features" averages over the features
    there, as the published code does. Left out: the dense head of the paper's image-to-image tasks.
    """
    if head not in HEADS:
        raise ConfigurationError(f'"{head}" is no head of einspace; allowed: {", ".join(HEADS)}.')
    routes = (identity_rule(), *permute_rules())
    rules = _modules() | {
        "Network": (_network_rule(_Frame((2, 3), kept=1 if head == "features" else 2)),),
        "P": (*routes, *unfold_rules()),
        "R": (*routes, fold_rule()),
        "C": computation_rules(),
    }
    return SearchSpace(
        start="Network",
        rules=rules,
        spec=Signature((3, 32, 32), (10,)),
        limits=_limits(max_nodes, max_instances),
        weigh={"M": _weights(computation_probability, computation_growth), "P": drawn_unfolds},
        canonical=canonical,
        examples=seeds(),
    )


@registry.space("einspace_1d")
def einspace_1d(
    computation_probability: float = 0.32,
    computation_growth: float = 0.0,
    max_nodes: int = 200,
    max_instances: int = 5000,
) -> SearchSpace:
    """The 1-D variant of einspace: sequences (channels, length), with convolutions along the length.

    Nothing is unfolded; routing permutes only, and C gains 16 convolutions that keep the length. The
    head averages over the length. Settings as in einspace.
    """
    routes = (identity_rule(), *permute_rules())
    rules = _modules() | {
        "Network": (_network_rule(_Frame((2,), kept=1)),),
        "P": routes,
        "R": routes,
        "C": (*computation_rules(), *convolution_1d_rules()),
    }
    return SearchSpace(
        start="Network",
        rules=rules,
        spec=Signature((1, 40), (10,)),
        limits=_limits(max_nodes, max_instances),
        weigh={"M": _weights(computation_probability, computation_growth)},
        canonical=canonical,
    )


def _modules() -> dict[str, tuple[Rule, ...]]:
    modules = (_sequential_rule(), _branching_rule(), _routing_rule())
    return {
        "S": modules,
        "M": (*modules, _computation_rule()),
        "B": branching_rules(),
        "A": aggregation_rules(),
    }


@dataclass(frozen=True)
class _Frame:
    """What the backbone stands in: inputs of these ranks, and the axis of two that the head keeps."""

    ranks: tuple[int, ...]
    kept: int

    def flow(self, signature: Signature) -> Flow:
        """What flows into the backbone; Misfit where the signature is none of a classifier's."""
        if signature.vocabulary is not None:
            raise Misfit("the input is tokens, not numbers; give a shape of numbers")
        if len(signature.input) not in self.ranks or min(signature.input) < 1:
            ranks = " or ".join(map(str, self.ranks))
            raise Misfit(f"the input {signature.input} has not {ranks} axes")
        if len(signature.output) != 1:
            raise Misfit(f"the output {signature.output} is not one vector; give (classes,)")
        return Flow(signature.input)

    def axis(self, shape: Shape) -> int:
        """The axis, counted from 1, whose numbers the head's linear map takes."""
        return 1 if len(shape) == 3 else self.kept


def _network_rule(frame: _Frame) -> Rule:
    def infer(signature: Signature, backbone: Call) -> Shape:
        backbone(frame.flow(signature))
        return signature.output

    def build(signature: Signature, backbone: Make) -> nn.Module:
        body, out = backbone(frame.flow(signature))
        kept = frame.axis(out.shape)
        averaged = tuple(axis for axis in range(1, len(out.shape) + 1) if axis != kept)
        return _sequence(body, Head(out.shape[kept - 1], signature.output[0], averaged))

    def cost(signature: Signature, backbone: Call) -> Complexity:
        shape = backbone(frame.flow(signature)).shape
        return linear(shape[frame.axis(shape) - 1], signature.output[0])

    return Rule("network", {"backbone": "S"}, infer, build, cost=cost)


def _limits(max_nodes: int, max_instances: int) -> Limits:
    if max_nodes < 6 or max_instances < 6:
        raise ConfigurationError(
            f"einspace was given max_nodes={max_nodes} and max_instances={max_instances}; its smallest "
            "network has 6 of both."
        )
    return Limits(max_drawn_nodes=max_nodes, max_instances=max_instances)


def _weights(probability: float, growth: float) -> Callable[[Choice], Sequence[float]]:
    if not (0 < probability < 1 and 0 <= growth < 1):
        raise ConfigurationError(
            f"einspace was given computation_probability={probability} and "
            f"computation_growth={growth}; the first is above 0 and below 1, the second at least 0 "
            "and below 1."
        )

    def weigh(choice: Choice) -> Sequence[float]:
        """A computation by its probability, what else is left by equal shares of the rest."""
        ends = 1 - (1 - probability) * (1 - growth) ** choice.depth
        others = sum(rule.name != COMPUTATION for rule in choice.options)
        return [ends if r.name == COMPUTATION else (1 - ends) / others for r in choice.options]

    return weigh


def _sequential_rule() -> Rule:
    def infer(flow: Flow, first: Call, second: Call) -> Any:
        return second(first(flow))

    def build(flow: Flow, first: Make, second: Make) -> nn.Module:
        one, between = first(flow)
        return _sequence(one, second(between)[0])

    return Rule("sequential", {"first": "M", "second": "M"}, infer, build, cost=_no_cost)


def _branching_rule() -> Rule:
    def infer(flow: Flow, split: Call, inner: Call, join: Call) -> Any:
        branches: Branches = split(flow)
        alike = branches.factor > 2  # one module is derived, and built as often as there are branches
        flows = inner((branches.flow,) * (1 if alike else 2), times=branches.factor if alike else 1)
        return join(Joined(branches.factor, flows[0], flows[-1]))

    def build(flow: Flow, split: Make, inner: Make, join: Make) -> nn.Module:
        parts, branches = split(flow)
        alike = branches.factor > 2
        made: list[nn.Module] = []
        for _ in range(branches.factor if alike else 1):
            modules, flows = inner((branches.flow,) * (1 if alike else 2))
            made += modules
        return Branching(parts, made, join(Joined(branches.factor, flows[0], flows[-1]))[0])

    roles: dict[str, Symbol] = {"split": "B", "inner": Each("M"), "join": "A"}
    return Rule("branching", roles, infer, build, cost=_no_cost)


def _routing_rule() -> Rule:
    def infer(flow: Flow, pre: Call, inner: Call, post: Call) -> Any:
        return post(inner(pre(flow)))

    def build(flow: Flow, pre: Make, inner: Make, post: Make) -> nn.Module:
        before, tokens = pre(flow)
        module, mapped = inner(tokens)
        after = post(mapped)[0]
        if isinstance(before, Unfold) and isinstance(module, nn.Linear) and isinstance(after, Fold):
            return convolution_of(before, module)
        return _sequence(before, module, after)

    def cost(flow: Flow, pre: Call, inner: Call, post: Call) -> Complexity:
        """Patches and the fold are not stored where the three are one convolution."""
        if not _is_convolution(pre, inner, post):
            return Complexity()
        patches = pre(flow)
        stored = prod(patches.shape) + prod(post(inner(patches)).shape)
        return Complexity(activations=-stored)

    return Rule("routing", {"pre": "P", "inner": "M", "post": "R"}, infer, build, cost=cost)


def _is_convolution(pre: Call, inner: Call, post: Call) -> bool:
    before, module, after = (str(child.architecture) for child in (pre, inner, post))  # type: ignore[attr-defined]
    linear = module.startswith(f"{COMPUTATION}(linear")
    return before.startswith("im2col") and linear and after == "col2im"


def _computation_rule() -> Rule:
    def build(flow: Flow, operation: Make) -> Any:
        return operation(flow)[0]

    def infer(flow: Flow, operation: Call) -> Any:
        return operation(flow)

    return Rule(COMPUTATION, {"operation": "C"}, infer, build, cost=_no_cost)


def _no_cost(flow: Flow, *children: Call) -> Complexity:
    return Complexity()


def _sequence(*modules: nn.Module) -> nn.Sequential:
    """The modules one after the other, sequences among them opened."""
    flat: list[nn.Module] = []
    for module in modules:
        flat += module if isinstance(module, nn.Sequential) else [module]
    return nn.Sequential(*flat)


class Head(nn.Module):
    """A linear map of averages over the `averaged` axes: (batch, *shape) -> (batch, classes)."""

    def __init__(self, size: int, classes: int, averaged: tuple[int, ...]) -> None:
        super().__init__()
        self.averaged = averaged
        self.linear = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Averages, then the map."""
        return self.linear(x.mean(self.averaged))  # type: ignore[no-any-return]
