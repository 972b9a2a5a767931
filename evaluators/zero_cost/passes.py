"""The passes that proxies share: the batch with its derivatives, and forward passes on noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from evaluators.zero_cost.observation import Derivative, Pass, Step, Watched
from evaluators.zero_cost.subject import Inapplicable, Subject, ancestors, substituted
from evaluators.zero_cost.twice_differentiable import twice_differentiable
from nas.errors import ConfigurationError
from nas.holding import untrained
from nas.training import seeded

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
ONCE = "torch::autograd::Error"  # the node that stands for a missing second derivative
WITH_BIAS = (nn.modules.conv._ConvNd, nn.Linear)


@final
@dataclass(frozen=True)
class Batch(Pass):
    """The batch in `parts` of equal size, a step each, in training mode.

    Differentiates what is asked for: the loss of the part in the weights g; the sum of its outputs, and
    half that of their squares, in the weights; the sum of its outputs in its inputs, or in the
    embeddings of its tokens; w . (H g) for each weight, H the loss's Hessian, from g_stopped . g.
    """

    parts: int = 1

    def run(self, subject: Subject, watched: Watched) -> None:
        size = len(subject.inputs) // self.parts
        if size < 2:
            reason = f"{len(subject.inputs)} examples make no {self.parts} parts of two or more"
            raise Inapplicable(reason)
        for part in range(self.parts):
            here = slice(part * size, (part + 1) * size)
            step = Step(subject.inputs[here].detach())
            random = seeded(subject.seeds("batch"), str(step.inputs.device))
            with random, subject.prepared(), watched.step(step), _weights_alone(subject):
                if watched.wants(Derivative.CURVATURE):
                    # Attention's fused kernels are not differentiated twice, its products are.
                    with twice_differentiable(subject.network) as scales, sdpa_kernel(SDPBackend.MATH):
                        _differentiated(subject, watched, step, subject.targets[here], scales)
                else:
                    _differentiated(subject, watched, step, subject.targets[here], {})


def _weights_alone(subject: Subject) -> AbstractContextManager[None]:
    """Only the subject's weights have gradients."""
    weights = set(subject.weights)
    return untrained([p for p in subject.network.parameters() if p not in weights])


def _differentiated(
    subject: Subject, watched: Watched, step: Step, targets: Tensor, scales: Mapping[Tensor, Tensor]
) -> None:
    wanted = frozenset(d for d in Derivative if watched.wants(d))
    if Derivative.INPUTS in wanted and step.inputs.is_floating_point():
        step.inputs = step.inputs.clone().requires_grad_()
    with torch.set_grad_enabled(bool(wanted)):
        step.outputs = outputs = subject.network(step.inputs)
    if wanted & {Derivative.LOSS, Derivative.CURVATURE}:
        _of_loss(subject, step, targets, scales, wanted)
    if Derivative.SQUARES in wanted:
        with torch.enable_grad():
            squares = outputs.square().sum() / 2
        step.square_gradients = _in_weights(subject, step, squares, Derivative.SQUARES)
    if Derivative.OUTPUTS in wanted:
        step.output_gradients = _in_weights(subject, step, outputs.sum(), Derivative.OUTPUTS)
    if Derivative.INPUTS in wanted:
        step.input_gradient = _in_inputs(step, outputs)
    step.outputs = outputs.detach()


def _of_loss(
    subject: Subject,
    step: Step,
    targets: Tensor,
    scales: Mapping[Tensor, Tensor],
    wanted: frozenset[Derivative],
) -> None:
    """The loss's gradient, and where it is asked for the curvature along it."""
    curved = Derivative.CURVATURE in wanted
    more = bool(wanted - {Derivative.LOSS, Derivative.CURVATURE})
    assert step.outputs is not None
    step.backward = Derivative.LOSS
    loss = subject.loss(step.outputs, targets)
    gradients = torch.autograd.grad(
        loss, subject.weights, retain_graph=more or curved, create_graph=curved, allow_unused=True
    )
    step.backward = None
    step.gradients = tuple(g if g is None else g.detach() for g in gradients)
    if curved:
        step.curvature = _along(gradients, subject.weights, scales, keep=more)


def _in_weights(
    subject: Subject, step: Step, total: Tensor, kind: Derivative
) -> tuple[Tensor | None, ...]:
    """The gradient of a scalar in each of the subject's weights; the graph is kept."""
    step.backward = kind
    gradients = torch.autograd.grad(total, subject.weights, retain_graph=True, allow_unused=True)
    step.backward = None
    return gradients


def _in_inputs(step: Step, outputs: Tensor) -> Tensor | None:
    """The gradient of the outputs' sum, a row for every example; None where no inputs are seen."""
    inputs = [step.inputs] if step.inputs.is_floating_point() else step.embedded
    if not inputs:
        return None
    found = torch.autograd.grad(outputs.sum(), inputs, allow_unused=True)
    rows = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    return torch.cat([row.flatten(1) for row in rows], 1)


def _along(
    gradients: tuple[Tensor | None, ...],
    weights: tuple[nn.Parameter, ...],
    scales: Mapping[Tensor, Tensor],
    *,
    keep: bool,
) -> tuple[float, ...] | Inapplicable:
    """W . (H g) for every weight; where a scale stands for it, that is the derivative in the scale.

    Why there is none, where a layer has no second derivative.
    """
    products = [(g.detach() * g).sum() for g in gradients if g is not None and g.requires_grad]
    if not products:
        return (0.0,) * len(weights)
    total = torch.stack(products).sum()
    inputs = [*weights, *scales.values()]
    # Torch passes over a function that is differentiable once, where inputs are named, without a word.
    if any(node.name() == ONCE for node in ancestors(total)):
        return Inapplicable("a layer is differentiable once alone")
    try:
        found = torch.autograd.grad(total, inputs, retain_graph=keep, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return Inapplicable(f"a layer cannot be differentiated twice: {error}")
    own, scaled = found[: len(weights)], dict(zip(scales, found[len(weights) :], strict=True))
    sums = []
    for weight, product in zip(weights, own, strict=True):
        along = scaled.get(weight)
        direct = 0.0 if product is None else float((weight.detach() * product).sum())
        sums.append(direct if along is None else direct + float(along))
    return tuple(sums)


@final
@dataclass(frozen=True)
class Noise(Pass):
    """Forward passes on random inputs (batch_size, *input), in training mode, without gradients.

    `weights` are as drawn by the network itself, or `normal`: those of two or more dimensions from N(0,
    1) anew in every repeat, biases 0 and norms' scales 1. With a `perturbation` e every repeat has two
    steps, of x and of x + e z, z random too. With a `side`, images are drawn so high and wide, where
    the network takes them.
    """

    batch_size: int
    repeats: int = 1
    weights: Literal["drawn", "normal"] = "drawn"
    perturbation: float = 0.0
    side: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; it takes a whole number from 1."
                )

    def run(self, subject: Subject, watched: Watched) -> None:
        if self.perturbation and not subject.inputs.is_floating_point():
            raise Inapplicable("inputs are tokens, which are not perturbed")
        for repeat in range(self.repeats):
            x = subject.noise(self.batch_size, f"noise {repeat}", self.side)
            steps = [Step(x)]
            if self.perturbation:
                z = subject.noise(self.batch_size, f"perturbation {repeat}")
                steps.append(Step(x + self.perturbation * z))
            with self._weights(subject, repeat), subject.prepared(), torch.no_grad():
                for step in steps:
                    _run_without_gradients(subject, watched, step)

    @contextmanager
    def _weights(self, subject: Subject, repeat: int) -> Iterator[None]:
        if self.weights == "drawn":
            yield
            return
        generator = torch.Generator().manual_seed(subject.seeds(f"weights {repeat}"))
        parts = list(subject.network.parameters())
        fixed = _constants(subject.network)
        values = [
            torch.randn(p.shape, generator=generator).to(p) if p.dim() >= 2 else fixed.get(p, p.data)
            for p in parts
        ]
        with substituted(parts, values):
            yield


def _run_without_gradients(subject: Subject, watched: Watched, step: Step) -> None:
    with seeded(subject.seeds("pass"), str(step.inputs.device)), watched.step(step):
        shape = tuple(step.inputs.shape)
        same = shape[1:] == tuple(subject.inputs.shape[1:])
        refusals = (ValueError,) if same else (ValueError, RuntimeError)
        try:
            step.outputs = subject.network(step.inputs)
        except refusals as error:  # batch norm of one value; layers made for images of one size
            raise Inapplicable(f"it does not run on random inputs {shape}: {error}") from None


def _constants(network: nn.Module) -> dict[Tensor, Tensor]:
    """0 for the biases of convolutions, linear maps and norms, 1 for norms' scales."""
    found: dict[Tensor, Tensor] = {}
    for module in network.modules():
        if not isinstance(module, (*NORMS, *WITH_BIAS)):
            continue
        if module.bias is not None:
            found[module.bias] = torch.zeros_like(module.bias)
        if isinstance(module, NORMS) and module.weight is not None:
            found[module.weight] = torch.ones_like(module.weight)
    return found
