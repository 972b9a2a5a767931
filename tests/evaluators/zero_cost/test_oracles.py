"""Fast scores against slow ones written for clarity."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evaluators.zero_cost.codes import _words
from evaluators.zero_cost.twice_differentiable import twice_differentiable
from nas.training import seeded
from tests.evaluators.zero_cost.subjects import convolutional, images, score, subject

TARGETS = torch.arange(12) % 3


@pytest.fixture
def smooth():
    """A network without dropout and, for finite differences, in double precision and smooth."""
    with seeded(3):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)
        ).double()


def layers(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def rectified(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(80, 3),
        )


def test_snip_is_the_gradient_of_a_mask_of_ones():
    network = rectified()
    masks = [torch.ones_like(layer.weight, requires_grad=True) for layer in layers(network)]
    weights = {
        name: p * masks[[id(layer.weight) for layer in layers(network)].index(id(p))]
        for name, p in network.named_parameters()
        if any(p is layer.weight for layer in layers(network))
    }
    outputs = torch.func.functional_call(copy.deepcopy(network), weights, (images(),))
    gradients = torch.autograd.grad(cross_entropy(outputs, TARGETS), masks)
    expected = sum(float(g.abs().sum()) for g in gradients)
    assert score(subject(network, images()), "snip") == pytest.approx(expected, rel=1e-5)


def test_grasp_is_a_finite_difference_of_gradients(smooth):
    x, weights = images().double(), [layer.weight for layer in layers(smooth)]

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(cross_entropy(smooth(x), TARGETS), weights))

    g, before = gradients(), [w.detach().clone() for w in weights]
    at = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            for w, old, direction in zip(weights, before, g, strict=True):
                w.copy_(old + step * direction)
        at.append(gradients())
    with torch.no_grad():
        for w, old in zip(weights, before, strict=True):
            w.copy_(old)
    products = [(up - down) / 2e-4 for up, down in zip(*at, strict=True)]
    expected = -sum(float((h * w).sum()) for h, w in zip(products, before, strict=True))
    assert score(subject(smooth, x), "grasp") == pytest.approx(expected, rel=1e-3)


def test_fisher_sums_the_squares_of_channels_for_every_weight():
    network, kept = rectified(), []
    for layer in layers(network):

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            output.retain_grad()
            kept.append((module, output))

        layer.register_forward_hook(keep)
    cross_entropy(network(images()), TARGETS).backward()
    expected = 0.0
    for layer, a in kept:
        for channel in range(a.shape[1]):
            products = (a * a.grad).detach()[:, channel].reshape(len(a), -1).sum(1)
            expected += layer.weight[channel].numel() * float(products.square().mean()) / 2
    assert score(subject(rectified(), images()), "fisher") == pytest.approx(expected, rel=1e-5)


def test_fisher_is_the_same_where_activations_overwrite_their_inputs():
    given, other = (subject(convolutional(in_place=b), images()) for b in (False, True))
    assert score(given, "fisher") == score(other, "fisher")


def codes(network: nn.Module, x: Tensor) -> np.ndarray:
    """(B, units): every ReLU's code."""
    found = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, i, o: found.append((i[0] > 0).flatten(1).numpy()))
    with torch.no_grad():
        network(x)
    return np.concatenate(found, 1)


def test_naswot_is_the_determinant_of_hamming_similarities():
    c = codes(rectified(), images())
    kernel = np.array([[(a == b).sum() for b in c] for a in c], float)
    assert kernel.diagonal().tolist() == [c.shape[1]] * 12
    expected = np.linalg.slogdet(kernel)[1]
    assert score(subject(rectified(), images()), "naswot") == pytest.approx(expected)


def input_gradients(network: nn.Module, x: Tensor) -> np.ndarray:
    x = x.clone().requires_grad_()
    network(x).sum().backward()
    return x.grad.flatten(1).numpy()


def test_jacob_cov_is_a_function_of_the_correlations_eigenvalues():
    v = np.linalg.eigvalsh(np.corrcoef(input_gradients(rectified(), images()))) + 1e-5
    assert score(subject(rectified(), images()), "jacob_cov") == pytest.approx(
        -np.sum(np.log(v) + 1 / v), rel=1e-3
    )


def test_epe_nas_sums_the_logs_of_correlations_by_class():
    rows = input_gradients(rectified(), images())
    sums = [np.log(np.abs(np.corrcoef(rows[(c == TARGETS).numpy()])) + 1e-5).sum() for c in range(3)]
    assert score(subject(rectified(), images()), "epe_nas") == pytest.approx(
        np.abs(sums).sum(), rel=1e-3
    )


def test_zico_sums_logs_of_inverse_variations():
    network, total, parts = rectified(), 0.0, []
    for half in (slice(0, 6), slice(6, 12)):
        loss = cross_entropy(network(images()[half]), TARGETS[half])
        parts.append(torch.autograd.grad(loss, [layer.weight for layer in layers(network)]))
    for first, second in zip(*parts, strict=True):
        both = np.stack([first.numpy(), second.numpy()]).astype(float)
        mean, std = np.abs(both).mean(0), both.std(0)
        total += np.log((mean[std > 0] / std[std > 0]).sum())
    assert score(subject(rectified(), images()), "zico") == pytest.approx(total, rel=1e-5)


def test_swap_counts_columns_of_codes_that_differ():
    on = torch.rand(30, 400, generator=torch.Generator().manual_seed(0)) > 0.9
    expected = len({row.tobytes() for row in on.T.numpy()})
    assert len(_words(on).unique()) == expected


def test_meco_sums_the_smallest_eigenvalues_of_maps():
    network = nn.Sequential(
        *list(rectified())[:5], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    )
    given = subject(network, images(side=12))
    x, maps = given.noise(1, "noise 0"), []
    for module in network[:5]:
        x = module(x)
        maps.append(np.corrcoef(x[0].flatten(1).detach().numpy()))
    expected = sum(np.linalg.eigvalsh(np.nan_to_num(m))[0] for m in maps)
    assert score(given, "meco") == pytest.approx(expected, abs=1e-5)


def test_the_tangent_kernel_is_that_of_jacobians():
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 3))
    parameters = dict(network.named_parameters())

    def output(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(network, values, (x.unsqueeze(0),)).sum()

    rows = torch.func.vmap(torch.func.grad(output), (None, 0))(parameters, images())
    matrix = torch.cat([r.flatten(1) for r in rows.values()], 1).detach().double()
    v = torch.linalg.eigvalsh(matrix @ matrix.T)
    assert score(subject(network, images()), "ntk_condition") == pytest.approx(
        float(v[-1] / v[0]), rel=1e-3
    )


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4)], ids=["vectors", "sequences"])
def test_the_second_derivative_of_batch_norm_is_torchs(affine, shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm1d(3, affine=affine, eps=0.1).double()
    mix = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view_as(x).sin()

    def second() -> Tensor:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad((norm(leaf) * mix).tanh().sum(), leaf, create_graph=True)
        return torch.autograd.grad((first * mix.roll(1)).sum(), leaf)[0]

    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, -2.0, 3.0]))
    expected = second()
    with twice_differentiable(norm):
        torch.testing.assert_close(second(), expected, rtol=1e-9, atol=1e-9)


def test_the_second_derivative_of_relu_is_torchs():
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    relu = nn.ReLU()

    def second() -> Tensor:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(relu(leaf.sin()).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad((first * first.detach().roll(1)).sum(), leaf)[0]

    expected = second()
    with twice_differentiable(relu):
        torch.testing.assert_close(second(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2, "padding": 2}, {"bias": False}],
    ids=lambda s: ",".join(s) or "plain",
)
def test_the_second_derivative_of_convolution_is_torchs(settings):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 6, 7, dtype=torch.float64, generator=generator)
    layer = nn.Conv2d(4, 6, 3, **settings).double()

    def first() -> tuple[Tensor, list[Tensor]]:
        leaf = x.clone().requires_grad_()
        both = [leaf, layer.weight]
        gradients = torch.autograd.grad(layer(leaf).sin().sum(), both, create_graph=True)
        return sum((g * g.detach().roll(1)).sum() for g in gradients), both

    mixed, both = first()
    of_x, of_weight = torch.autograd.grad(mixed, both)
    with twice_differentiable(layer) as scales:
        mixed, (leaf, _) = first()
        found, along = torch.autograd.grad(mixed, [leaf, scales[layer.weight]])
    torch.testing.assert_close(found, of_x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(along, (of_weight * layer.weight).sum().detach(), rtol=1e-9, atol=1e-9)
