"""What tells that a supernet will lose when it is discretized: curvature, skips, the gap itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.bilevel import Levels, Loss, gradients
from nas.errors import ConfigurationError
from nas.holding import restored, untrained
from nas.selection import Probe

SKIP = "skip_connect"


def largest_eigenvalue(
    levels: Levels, loss: Loss, generator: torch.Generator, *, iterations: int = 30
) -> float:
    """The largest eigenvalue of the Hessian of `loss` by the alphas, the weights as they are.

    By Lanczos' iteration from a random vector, orthogonalised in full, with products H v by
    differentiating twice; ended early where the value stays within a thousandth. `loss` is that of
    given batches, usually validation data. Buffers are kept. Used as a sign of collapse by Zela et al.,
    Understanding and Robustifying Differentiable Architecture Search, ICLR 2020.
    """
    with restored(levels.buffers), untrained(levels.weights):
        parts = torch.autograd.grad(loss(), list(levels.alphas), create_graph=True, allow_unused=True)
        live = [(a, g) for a, g in zip(levels.alphas, parts, strict=True) if g is not None]
        if not any(g.requires_grad for _, g in live):
            return 0.0
        alphas = [a for a, _ in live]
        flat = torch.cat([g.flatten() for _, g in live])

        def product(v: Tensor) -> Tensor:
            found = torch.autograd.grad(
                flat, alphas, v.to(flat), retain_graph=True, materialize_grads=True
            )
            return torch.cat([g.flatten() for g in found]).double().cpu()

        start = torch.randn(flat.numel(), generator=generator, dtype=torch.float64)
        return _lanczos(product, start, min(iterations, flat.numel()))


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> float:
    """The largest Ritz value: H V = V T with V orthonormal, T tridiagonal."""
    basis = [start / start.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    value = float("nan")
    for _ in range(iterations):
        v = product(basis[-1])
        diagonal.append(v @ basis[-1])
        span = torch.stack(basis)
        for _ in range(2):  # once is not enough for orthogonality in floating point
            v = v - span.T @ (span @ v)
        before, value = value, _top(diagonal, beside)
        norm = v.norm()
        if abs(value - before) <= 1e-3 * abs(value) or float(norm) <= 1e-10 * abs(value):
            break
        beside.append(norm)
        basis.append(v / norm)
    return value


def _top(diagonal: Sequence[Tensor], beside: Sequence[Tensor]) -> float:
    matrix = torch.diag(torch.stack(list(diagonal)))
    if beside:
        off = torch.stack(list(beside))
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(matrix)[-1])


def sharpness(levels: Levels, loss: Loss, rho: float = 0.05) -> float:
    """L(w + e) - L(w) with e = rho g / ||g||, g = grad_w L(w): how the loss rises at a distance rho.

    `loss` is that of fixed batches; values are compared at equal batches and equal rho. Weights and
    buffers are kept.

    Reference: after Foret et al., Sharpness-Aware Minimization, ICLR 2021, equation 2; that SD-DARTS
    (Zhu et al., 2023) is to be watched by it is ours.
    """
    if rho <= 0:
        raise ConfigurationError(f"sharpness was asked for at rho={rho}; the distance is above 0.")
    with restored([*levels.weights, *levels.buffers]), untrained(levels.alphas):
        value = loss()
        found = gradients(value, levels.weights)
        norms = [g.norm() for g in found if g is not None]
        norm = float(torch.stack(norms).norm()) if norms else 0.0
        if norm == 0:
            return 0.0
        with torch.no_grad():
            for weight, gradient in zip(levels.weights, found, strict=True):
                if gradient is not None:
                    weight.add_(gradient, alpha=rho / norm)
            return float(loss() - value)


def count(architecture: Architecture, rule: str = SKIP) -> int:
    """How often a rule stands in an architecture: of skip connections, many are a sign of collapse."""
    return sum(node.rule == rule for _, node in architecture.nodes())


def discretization_gap(probe: Probe, architecture: Architecture) -> float:
    """The supernet's score minus that of the architecture with the supernet's weights, in the score's
    unit; above 0 where discretizing harms. The supernet is relaxed afterwards.
    """
    with torch.no_grad():
        probe.relax()
        whole = probe.measure().score
        probe.supernet.select(architecture)
        alone = probe.measure().score
        probe.relax()
    return whole - alone
