"""Shared passes give what single ones do, leave the network as it was, and refuse with reasons."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from evaluators.zero_cost.evaluator import ZeroCost
from evaluators.zero_cost.naming import proxy
from evaluators.zero_cost.subject import Subject
from evaluators.zero_cost.suite import measure, plan
from nas import registry
from nas.errors import ConfigurationError
from nas.training import seeded
from tests.evaluators.zero_cost.subjects import convolutional, images, measured, reason, score, subject

NAMES = sorted(registry.parts("proxy"))
QUICK = {
    "zen": "zen(repeats=1)",
    "swap": "swap(repeats=1)",
    "linear_regions": "linear_regions(batch_size=16)",
}
BATCH = ("grad_norm", "snip", "plain", "fisher", "jacob_cov", "naswot", "epe_nas")


@pytest.fixture
def given():
    return subject(convolutional(), images())


@pytest.fixture(scope="module")
def together():
    return measured(subject(convolutional(), images()), *(QUICK.get(n, n) for n in NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_has_alone_what_it_has_in_company(given, together, name):
    alone = measured(given, QUICK.get(name, name))
    assert alone.values or alone.missing
    for metric, value in alone.values.items():
        assert together.values[metric] == pytest.approx(value, rel=1e-6)
    for metric, why in alone.missing.items():
        assert together.missing[metric] == why


@pytest.mark.parametrize("name", NAMES)
def test_the_network_and_the_random_state_are_as_before(name):
    network = convolutional(in_place=True)
    network[1].eval()
    next(network.parameters()).requires_grad_(False)
    given = subject(network, images())
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    identities = [(id(p), p.data_ptr(), p.dtype) for p in network.parameters()]
    flags = [(m.training, getattr(m, "inplace", None)) for m in network.modules()]
    trained = [p.requires_grad for p in network.parameters()]
    hooks = [len(m._forward_hooks) for m in network.modules()]
    state = torch.get_rng_state()
    measured(given, QUICK.get(name, name))
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert [(id(p), p.data_ptr(), p.dtype) for p in network.parameters()] == identities
    assert [(m.training, getattr(m, "inplace", None)) for m in network.modules()] == flags
    assert [p.requires_grad for p in network.parameters()] == trained
    assert [len(m._forward_hooks) for m in network.modules()] == hooks
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_same_again_whatever_was_drawn_before(given, name):
    first = measured(given, QUICK.get(name, name))
    torch.rand(3)
    assert measured(subject(convolutional(), images()), QUICK.get(name, name)) == first


def test_proxies_of_the_batch_share_one_pass():
    assert len(plan([proxy(name) for name in BATCH])) == 1


def test_proxies_of_the_batch_run_the_network_once(given):
    runs = []
    given.network.register_forward_hook(lambda *_: runs.append(1))
    score(given, "l2_norm")
    before = len(runs)  # one run finds what is on a path
    measured(given, *BATCH)
    assert len(runs) == before + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_states_metrics_with_names_and_directions(name):
    for metric in proxy(name).metrics:
        assert metric.name.isidentifier()
        assert metric.direction in ("maximize", "minimize")
        assert not metric.shared


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_says_when_it_misleads(name):
    text = registry.get("proxy", name).__doc__
    assert "misleads" in text.lower()
    assert "Reference:" in text


class Attentive(nn.Module):
    """Attention over three parts of a vector, by torch's fused kernels where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lift(x)
        y = nn.functional.scaled_dot_product_attention(y.unsqueeze(1), y.unsqueeze(1), y.unsqueeze(1))
        return self.head(y.squeeze(1).mean(1))


def test_attention_is_differentiated_twice():
    x = torch.randn(12, 3, 6, generator=torch.Generator().manual_seed(0))
    assert math.isfinite(score(subject(Attentive(), x), "grasp"))


class Once(torch.autograd.Function):
    """A function that has a gradient, and that none."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class Cubed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


def test_a_layer_without_second_derivative_takes_grasp_alone_away():
    given = subject(nn.Sequential(nn.Flatten(), nn.Linear(128, 4), Cubed(), nn.Linear(4, 3)), images())
    found = measured(given, "grasp", "snip", "jacob_cov")
    assert "differentiable once" in found.missing["grasp"]
    assert found.values.keys() == {"snip", "jacob_cov"}


class Dead(nn.Module):
    """The input does not reach the output."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolutional()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.zeros_like(x))


@pytest.mark.parametrize(
    ("network", "x", "why"),
    [
        (Dead(), images(), "the input does not reach the output"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), images(), "the network has no weights"),
        (convolutional(), images(1), "the batch has 1 example"),
    ],
    ids=["dead", "no-weights", "batch-of-one"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_means_nothing_is_refused(network, x, why, name):
    assert why in reason(subject(network, x), name)


SMOOTH = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.GELU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("naswot", "no ReLU"),
        ("swap", "no ReLU"),
        ("linear_regions", "no ReLU"),
        ("zen", "no batch norm"),
        ("meco", "no convolution, batch norm or ReLU"),
        ("az_nas", "no chain of blocks"),
    ],
)
def test_what_a_network_lacks_is_the_reason(name, why):
    assert why in reason(subject(SMOOTH, images()), name)


class OneHot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 7).float()


def of_words(*, embedded: bool) -> Subject:
    with seeded(0):
        first, features = (nn.Embedding(7, 4), 4) if embedded else (OneHot(), 7)
        hidden = nn.Linear(6 * features, 64)
        network = nn.Sequential(first, nn.Flatten(), hidden, nn.ReLU(), nn.Linear(64, 3))
    x = torch.randint(7, (12, 6), generator=torch.Generator().manual_seed(0))
    return subject(network, x, vocabulary=7)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("jacob_cov", "no trained nn.Embedding"),
        ("jacob_cosine", "no trained nn.Embedding"),
        ("epe_nas", "no trained nn.Embedding"),
        ("zen", "tokens"),
    ],
)
def test_tokens_that_are_not_embedded_have_no_gradient(name, why):
    assert why in reason(of_words(embedded=False), name)


def test_other_scores_take_tokens():
    given = of_words(embedded=True)
    names = ("synflow", "naswot", "snip", "zico", "jacob_cov", "jacob_cosine", "epe_nas")
    found = measured(given, *names)
    assert not found.missing
    assert all(map(math.isfinite, found.values.values()))


def test_what_is_not_finite_is_missing_with_the_reason():
    network = convolutional()
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    found = measured(subject(network, images()), "grad_norm", "synflow", "jacob_cov", "naswot")
    assert not {"grad_norm", "synflow", "jacob_cov"} & found.values.keys()
    assert found.missing["grad_norm"] == "grad_norm is nan"


def test_units_off_the_path_do_not_count():
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.dead = convolutional(), nn.Sequential(nn.Conv2d(2, 9, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x)
            return self.inner(x)

    plain, branched = (subject(n, images()) for n in (convolutional(), Branched()))
    assert score(branched, "naswot") == pytest.approx(score(plain, "naswot"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("synflo", 'did you mean "synflow"'),
        ("zen(repeat=2)", 'did you mean "repeats"'),
        ("zen(2)", "is not setting=value"),
        ("zen(repeats=0)", "repeats is 0"),
        ("a b", "names no proxy"),
        ("zico(parts=1)", "parts are 1"),
        ("swap(batch_size=63)", "batch_size is 63"),
    ],
)
def test_a_name_that_is_wrong_is_told_the_way_out(text, why):
    with pytest.raises(ConfigurationError, match=why):
        ZeroCost((text,))


def test_settings_are_those_of_the_text():
    assert proxy(" zen( repeats = 2, batch_size=8 )") == registry.make(
        "proxy", "zen", {"repeats": 2, "batch_size": 8}
    )


def test_an_empty_suite_measures_nothing(given):
    found = measure(given, [])
    assert not found.values
    assert not found.missing
