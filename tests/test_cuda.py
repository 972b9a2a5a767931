"""What runs on a card gives what the processor gives; skipped where torch finds no CUDA device."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

import nas
from nas import registry
from nas.evaluation import Context
from nas.searcher import InnerSearch
from nas.storage import open_storage
from nas.study import Budget, Study
from nas.trial import History
from nas.variation import sample
from tests.assertions import example_input
from tests.contracts.test_evaluator_contract import SETTINGS
from tests.contracts.test_searcher_contract import fitting, make
from tests.contracts.test_space_contract import CASES, drawn, space_of
from tests.evaluators.networks import IMAGES, bars, cells, fixed, problem
from tests.evaluators.zero_cost.sequence_subjects import (
    encoder,
    mixer,
    of_classes,
    of_tokens,
    recurrent,
)
from tests.evaluators.zero_cost.subjects import convolutional, images, measured, subject
from tests.toys import Hashed

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),  # of torch's own threads
]

CUDA = "cuda"
TRAINED = ("training", "zero_cost", "latency", "weight_sharing")


SUBJECTS = {
    "convolutional": lambda: subject(convolutional(), images()),
    "recurrent": lambda: of_tokens(recurrent()),
    "transformer": lambda: of_classes(
        encoder(
            "layer(dot_product, 2, 6, 1)", "layer(multiplicative, 2, 6, 1)", "layer(fourier, 2, 6, 1)"
        )
    ),
    "mixer": lambda: of_tokens(mixer("attention(2)", 2)),
}


def moved(given, device, dtype):
    """A subject of the zero-cost proxies on a device, in a precision, without a device's own noise."""
    for module in given.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inputs = given.inputs.to(dtype) if given.inputs.is_floating_point() else given.inputs
    return replace(
        given,
        network=copy.deepcopy(given.network).to(device, dtype),
        inputs=inputs.to(device),
        targets=given.targets.to(device),
    )


@pytest.mark.parametrize("case", CASES)
def test_a_network_computes_what_it_does_on_the_processor(case):
    space = space_of(case)
    x = example_input(space)
    x = x.double() if x.is_floating_point() else x
    for architecture in drawn(case)[:3]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = space.build(architecture).double().eval()
        expected = network(x)
        there = copy.deepcopy(network).to(CUDA)
        y = there(x.to(CUDA))
        torch.testing.assert_close(y.cpu(), expected, rtol=1e-6, atol=1e-8)
        there.train()
        there(x.to(CUDA)).square().sum().backward()
        gradients = [p.grad for p in there.parameters() if p.grad is not None]
        assert all(g.is_cuda and bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("name", TRAINED)
def test_an_evaluator_gives_its_metrics_and_leaves_torch_as_it_was(name):
    options = registry.options("evaluator", name)
    given = {k: v for k, v in SETTINGS.items() if k in options and options[k].type is int}
    evaluator, asked = registry.make("evaluator", name, given), problem(cells(), bars())
    architecture = sample(asked.space, random.Random(0))
    before = torch.cuda.get_rng_state()
    first, second = (
        evaluator.evaluate(asked, architecture, Context(seed=1, device=CUDA)) for _ in range(2)
    )
    assert first.infeasible is None
    assert first.metrics.keys() | first.missing.keys() == {m.name for m in evaluator.metrics(asked)}
    assert all(math.isfinite(value) for value in first.metrics.values())
    if evaluator.cost_unit != "seconds":
        assert first.metrics == second.metrics
    evaluator.test(asked, architecture, first.weights)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("name", sorted(registry.parts("proxy")))
def test_a_proxy_gives_what_it_gives_on_the_processor(name, kind):
    given = SUBJECTS[kind]()
    here = measured(moved(given, "cpu", torch.float64), name)
    there = measured(moved(given, CUDA, torch.float64), name)
    assert here.missing.keys() == there.missing.keys()
    assert there.values == pytest.approx(here.values, rel=1e-6, nan_ok=True)


def test_proxies_share_their_passes():
    names = sorted(registry.parts("proxy"))
    given = moved(SUBJECTS["convolutional"](), CUDA, torch.float32)
    together = measured(given, *names)
    for name in names:
        alone = measured(given, name)
        values = {m: together.values[m] for m in alone.values}
        assert alone.values == pytest.approx(values, rel=1e-3, nan_ok=True), name


@pytest.mark.parametrize("name", sorted(registry.parts("searcher")))
def test_a_searcher_searches_there_and_one_seed_gives_one_study(name):
    searcher = make(name)
    given = fitting(searcher)
    if not isinstance(searcher.propose(given, History(), Context(device=CUDA)), InnerSearch):
        pytest.skip("it trains nothing")

    def run():
        study = Study("s", given, searcher, Hashed(), open_storage("memory"), device=CUDA)
        return [str(t.architecture) for t in study.run(Budget(trials=2))]

    assert run() == run()


def large():
    """A network of 256 MiB."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2**20), nn.ReLU(), nn.Linear(2**20, 3))


@pytest.mark.parametrize("name", ["training", "zero_cost", "latency"])
def test_too_little_memory_makes_an_architecture_infeasible(name):
    asked = problem(fixed(large, IMAGES), bars())
    [architecture] = asked.space.enumerate()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.001)
    try:
        made = registry.make("evaluator", name)
        result = made.evaluate(asked, architecture, Context(device=CUDA))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (result.infeasible or "").startswith("out of memory on cuda")


def test_from_search_to_export_by_the_commands(nas_command, tmp_path):
    space = ("--space", "kan", "--task", "function_fit")
    quick = ("--set", "epochs=1", "--set", "num_train=64", "--set", "optimizer=adam")
    searched = ("--searcher", "random", "--study", "s", "--trials", 4, "--workers", 2)
    told = nas_command.json("search", *space, *quick, *searched, "--device", CUDA)
    assert len(told["trials"]) == 4
    [best] = [trial for trial in told["trials"] if trial["best"]]
    model = nas.load(best["file"]).pretrained()
    assert not any(t.is_cuda for t in model.state_dict().values())
    nas_command("train", best["file"], "--device", CUDA, "--set", "epochs=2", "-o", "again.json")
    nas_command("export", "again.json", "--to", "state-dict")
    proxies = ("--evaluator", "zero_cost", "--set", "proxies=l2_norm,ntk_condition", "--sample", 6)
    pool = nas_command.json("score", *space, *proxies, "--device", CUDA, "--workers", 2, "-o", "p.npz")
    assert pool["architectures"] == 6
