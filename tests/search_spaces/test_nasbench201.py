from __future__ import annotations

import os
import random
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from nas import registry
from nas.architecture import Architecture
from nas.complexity import measure
from nas.errors import ConfigurationError, SearchSpaceError
from nas.grammar import Misfit
from nas.space import Signature
from nas.variation import sample
from search_spaces.nasbench201 import (
    EDGES,
    benchmark_class,
    function_class,
    isomorphism_class,
    operations,
    write,
)
from tests.assertions import match_weights

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
LANDMARK = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
)
DATA = Path(os.environ.get("NASGRAM_DATA", Path(__file__).parents[2] / "../shared/data"))

space = cache(lambda: registry.make("space", "nasbench201"))
small = cache(lambda: registry.make("space", "nasbench201", {"channels": 4, "cells": 1}))


@cache
def cells() -> tuple[Architecture, ...]:
    return tuple(space().enumerate())


@cache
def tables() -> dict[str, np.ndarray]:
    file = DATA / "nasbench201" / "nb201.npz"
    if not file.is_file():
        pytest.skip("the table nasbench201/nb201.npz is not here; set NASGRAM_DATA to its folder")
    with np.load(file) as arrays:
        names = ("ops", "arch_str", "iso_class_nb201", "c10_params_m", "c10_flops_m")
        return {name: arrays[name] for name in names}


def cell(*ops: str) -> Architecture:
    return space().parse(f"network(cell({', '.join(ops)}))")


def test_there_are_15625_cells():
    assert space().size() == len(set(cells())) == 15_625
    assert [operations(a) for a in cells()] == list(product(OPERATIONS, repeat=6))


def test_merging_skips_leaves_12751():
    assert len({isomorphism_class(a, zero=False) for a in cells()}) == 12_751


def test_the_benchmarks_own_rule_leaves_6466():
    assert len({benchmark_class(a) for a in cells()}) == 6_466


def test_the_strict_form_leaves_4930_and_only_merges_classes_of_the_benchmark():
    assert len({function_class(a) for a in cells()}) == 4_930
    assert len({(benchmark_class(a), function_class(a)) for a in cells()}) == 6_466


def test_15284_cells_connect_input_and_output():
    def connected(architecture: Architecture) -> bool:
        reached = {0}
        for (source, target), op in zip(EDGES, operations(architecture), strict=True):
            if op != "none" and source in reached:
                reached.add(target)
        return 3 in reached

    assert sum(map(connected, cells())) == 15_284


def test_classes_equal_those_of_the_shipped_table():
    table = tables()
    rows = [space().parse(str(text)) for text in table["arch_str"]]
    pairs = set(zip(map(benchmark_class, rows), table["iso_class_nb201"].tolist(), strict=True))
    assert len(pairs) == 6_466
    assert np.array_equal([[OPERATIONS.index(o) for o in operations(a)] for a in rows], table["ops"])


def test_every_string_of_the_benchmark_reads_and_writes_back():
    table = tables()
    assert [write(space().parse(str(text))) for text in table["arch_str"]] == table["arch_str"].tolist()


def test_every_cell_reads_back_from_the_benchmarks_string():
    assert all(space().parse(write(a)) == a for a in cells())


def test_index_3558_has_the_published_cost():
    table = tables()
    architecture = space().parse(str(table["arch_str"][3558]))
    counts = Counter(operations(architecture))
    cost = space().complexity(architecture)
    assert (counts["nor_conv_3x3"], counts["nor_conv_1x1"]) == (3, 2)
    assert round(cost.macs / 1e6, 3) == 121.816
    assert round(cost.flops / 1e6, 3) == 124.127
    assert round(cost.params / 1e6, 3) == 0.858


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("|nor_conv_3x3~0|+|none~0|", "is not a cell of NAS-Bench-201"),
        (LANDMARK.replace("~2", "~1"), "is not a cell of NAS-Bench-201"),
        (LANDMARK + "|", "is not a cell of NAS-Bench-201"),
        (LANDMARK.replace("avg_pool_3x3", "avg_pool_5x5"), 'did you mean "avg_pool_3x3"'),
    ],
)
def test_a_malformed_string_is_refused_in_one_sentence(text, what):
    with pytest.raises(SearchSpaceError, match=what):
        space().parse(text)


# Closed formulas of the accuracy tables, (constant, a 3x3, a 1x1, a pool), at 5 cells of 16, 32, 64.
WIDTHS = (16, 32, 64)
PARAMS = (0, *(sum(5 * (k * c * c + 2 * c) for c in WIDTHS) for k in (9, 1)), 0)
CIFAR = (35_819_520, 4_362_240, 1_290_240)
DATASETS = {
    "cifar10": (Signature((3, 32, 32), (10,)), 73_306, (7_943_872, *CIFAR)),
    "cifar100": (Signature((3, 32, 32), (100,)), 79_156, (7_949_632, *CIFAR)),
    "imagenet16": (Signature((3, 16, 16), (120,)), 80_456, (1_993_792, 8_954_880, 1_090_560, 322_560)),
}


def features(architecture: Architecture) -> tuple[int, int, int, int]:
    ops = operations(architecture)
    return 1, ops.count("nor_conv_3x3"), ops.count("nor_conv_1x1"), ops.count("avg_pool_3x3")


def dot(factors: tuple[int, ...], numbers: tuple[int, ...]) -> int:
    return sum(f * n for f, n in zip(factors, numbers, strict=True))


@pytest.mark.parametrize("name", DATASETS)
def test_costs_equal_the_closed_formulas(name):
    signature, params, flops = DATASETS[name]
    there = space().at(signature)
    for a in cells() if name == "cifar10" else cells()[::15]:
        cost, n = there.complexity(a), features(a)
        assert cost.params == params + dot(PARAMS, n)
        assert cost.flops == dot(flops, n)
        if name == "cifar10":
            assert cost.macs == dot((7_783_040, 35_389_440, 3_932_160, 0), n)


def test_costs_equal_the_shipped_table():
    table = tables()
    for row in range(0, 15_625, 50):
        cost = space().complexity(space().parse(str(table["arch_str"][row])))
        assert cost.params / 1e6 == pytest.approx(table["c10_params_m"][row], abs=1e-9)
        assert cost.flops / 1e6 == pytest.approx(table["c10_flops_m"][row], abs=1e-9)


@pytest.mark.parametrize("index", [0, 777, 3905, 12_345, 15_624])
def test_a_built_network_measures_what_the_formula_says(index):
    architecture = cells()[index]
    network = space().build(architecture)
    assert measure(network, (3, 32, 32)) == space().complexity(architecture)
    assert len(list(network.children())) == 1 + 17 + 1


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 9)])
def test_any_size_of_image_works(size):
    there = small().at(Signature((2, *size), (3,)))
    architecture = there.parse(LANDMARK)
    assert there.build(architecture).eval()(torch.randn(1, 2, *size)).shape == (1, 3)
    assert there.complexity(architecture) == measure(there.build(architecture), (2, *size))


@pytest.mark.parametrize(
    ("signature", "what"),
    [
        (Signature((8,), (2,)), "is not an image"),
        (Signature((3, 0, 4), (2,)), "is not an image"),
        (Signature((3, 8, 8), (2, 2)), "is not one vector"),
    ],
)
def test_a_signature_that_is_no_image_classifiers_is_refused(signature, what):
    with pytest.raises(SearchSpaceError, match=what):
        sample(small().at(signature), random.Random(0))
    with pytest.raises(Misfit, match=what):
        small().rules["Network"][0].infer(signature, lambda shape, times: shape)


def test_a_skeleton_without_cells_is_refused():
    with pytest.raises(ConfigurationError, match="at least 1"):
        registry.make("space", "nasbench201", {"cells": 0})


def test_one_text_rebuilds_at_another_skeleton_and_signature():
    found = sample(small(), random.Random(0))
    large = registry.make("space", "nasbench201", {"channels": 8, "cells": 2})
    again = large.at(Signature((1, 8, 8), (3,)))
    assert again.build(again.parse(str(found)))(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def cell_output(architecture: Architecture, x: torch.Tensor) -> torch.Tensor:
    """The output of a cell whose every edge has weights drawn by the text of its term."""
    ops = operations(architecture)
    module = small().build(architecture)[1].double()
    texts: list[list[str]] = [["0"], [], [], []]
    for (source, target), op, edge in zip(EDGES, ops, module.edges, strict=True):
        if op == "skip_connect":
            texts[target] += texts[source]
        elif op != "none" and texts[source]:
            term = f"({'+'.join(sorted(texts[source]))})@{op}"
            texts[target].append(term)
            match_weights(edge, int.from_bytes(term.encode(), "big") % 2**31)
    with torch.no_grad():
        return module(x)


def test_cells_of_equal_function_give_equal_outputs_and_others_differ():
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_class: dict[str, list[Architecture]] = {}
    for a in cells():
        if "avg_pool_3x3" not in operations(a):  # pools are linear, which the form does not use
            by_class.setdefault(function_class(a), []).append(a)
    rng = random.Random(0)
    seen: list[torch.Tensor] = []
    for text in rng.sample(sorted(by_class), 150):
        members = rng.sample(by_class[text], min(3, len(by_class[text])))
        outs = [cell_output(a, x) for a in members]
        for out in outs[1:]:
            torch.testing.assert_close(out, outs[0], rtol=1e-9, atol=1e-9)
        assert all((outs[0] - other).abs().max() > 1e-6 for other in seen), text
        seen.append(outs[0])


def test_a_cell_of_none_gives_constant_logits():
    network = small().build(cell(*["none"] * 6))
    logits = network(torch.randn(8, 3, 32, 32))
    assert torch.equal(logits, logits[:1].expand(8, -1))


def test_a_cell_of_skips_adds_its_input_four_times():
    module = small().build(cell(*["skip_connect"] * 6))[1]
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(module(x), 4 * x)


def test_networks_are_traced_and_exported():
    network = small().build(space().parse(LANDMARK)).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = network(x)
        torch.testing.assert_close(fx.symbolic_trace(network)(x), wanted)
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), wanted)


def test_edges_are_plain_modules_of_the_operations():
    module = small().build(cell(*OPERATIONS, "none"))[1]
    kinds = [type(edge).__name__ for edge in module.edges]
    assert kinds == ["Zero", "Identity", "Sequential", "Sequential", "AvgPool2d", "Zero"]
    assert torch.equal(module.edges[0](x := torch.randn(1, 4, 2, 2)), torch.zeros_like(x))
    assert isinstance(module.edges[2][1], nn.Conv2d)


def test_seeded_samples_stay_the_same():
    rng = random.Random(201)
    assert [write(sample(space(), rng)) for _ in range(3)] == GOLDEN


GOLDEN = [
    "|none~0|+|skip_connect~0|none~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|avg_pool_3x3~0|nor_conv_3x3~1|none~2|",
    "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
]
