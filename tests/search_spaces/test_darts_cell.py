from __future__ import annotations

import random
from functools import cache
from itertools import product
from math import comb, prod

import networkx as nx
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import nas
from nas import registry
from nas.architecture import Architecture
from nas.complexity import measure
from nas.errors import ConfigurationError, SearchSpaceError
from nas.evaluation import Context
from nas.found import Found
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from nas.training import Recipe, train
from nas.variation import sample
from search_spaces.genotype import nodes_of, read, renumbered, write
from search_spaces.operations.cell import AuxiliaryHead, Cell, CellNetwork
from search_spaces.operations.layers import FactorizedReduce, HalvedConvolution, build
from search_spaces.operations.separable import DARTS, DroppedPath, Edge, Form, sharp

PUBLISHED = {"DARTS_V1": 3_169_414, "DARTS_V2": 3_349_342}  # 20 cells, 36 channels, CIFAR-10
HEAD = 476_426  # of the auxiliary head there
FORMS = ("evaluation", "search")


@cache
def space(name: str = "darts_cell", **settings: object) -> SearchSpace:
    made: SearchSpace = registry.make("space", name, settings)
    return made


def small(name: str = "darts_cell", **settings: object) -> SearchSpace:
    return space(name, channels=4, cells=3, **settings)


def operation(
    name: str, shape: tuple[int, ...], stride: int = 1, form: str = "evaluation"
) -> nn.Module:
    kind, _, kernel = name.rpartition("_")
    kind, size = (kind, int(kernel)) if kernel.isdigit() else (name, 0)
    return build(DARTS[kind](Edge(shape, stride), size, Form(form)), shape)  # type: ignore[arg-type]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# the published cells


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_cells_have_their_published_parameters(name):
    there = space(channels=36, cells=20)
    architecture = there.parse(name)
    with torch.device("meta"):
        assert count(there.build(architecture)) == PUBLISHED[name]
    assert there.complexity(architecture).params == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_auxiliary_head_adds_its_published_parameters(name):
    there = space(channels=36, cells=20, auxiliary_weight=0.4)
    architecture = there.parse(name)
    with torch.device("meta"):
        assert count(there.build(architecture)) == PUBLISHED[name] + HEAD
    assert there.complexity(architecture).params == PUBLISHED[name] + HEAD


def test_a_cell_found_small_is_rebuilt_large_from_the_same_text():
    found = Found(space(channels=16, cells=8, form="search"), space().parse("DARTS_V2"))
    with torch.device("meta"):
        large = found.build(channels=36, cells=20, form="evaluation")
    assert count(large) == PUBLISHED["DARTS_V2"]


def test_channels_double_at_the_cells_after_one_and_two_thirds():
    network = space(channels=4, cells=8).build(space().parse("DARTS_V1"))
    shapes: list[tuple[int, ...]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, inputs, out: shapes.append(tuple(out.shape[1:])))
    network(torch.randn(2, 3, 16, 16))
    assert shapes == [(16, 16, 16)] * 2 + [(32, 8, 8)] * 3 + [(64, 4, 4)] * 3


# the grammar


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "drawn"), [("darts", 7), ("darts7", 7), ("s2", 2), ("s3", 2), ("s4", 2)]
)
def test_the_size_is_the_closed_form(name, drawn, nodes):
    a_cell = prod(comb(j + 2, 2) * drawn**2 for j in range(nodes))
    assert space(nodes=nodes, operations=name).size() == a_cell**2
    assert space("darts_cell_1d", nodes=nodes, operations=name).size() == a_cell**2


def test_there_are_14_edges_and_8_operations():
    relaxed = space().grammar
    assert len(relaxed.options("Edge", Edge((4, 8, 8)), every=True)) == 8
    assert sum(j + 2 for j in range(4)) == 14


def test_none_is_read_and_never_drawn():
    rng = random.Random(0)
    assert all("none" not in str(sample(space(), rng)) for _ in range(50))
    text = "network(cell(pick_0_1(none, none)), cell(pick_0_1(none, skip_connect)))"
    there = small(nodes=1).at(Signature((3, 8, 8), (5,)))
    network = there.build(there.parse(text))
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 5)


def test_seeded_samples_stay_the_same():
    assert str(sample(space(nodes=2), random.Random(4))) == GOLDEN


GOLDEN = (
    "network(cell(pick_0_1(avg_pool_3x3, max_pool_3x3), pick_0_2(avg_pool_3x3, max_pool_3x3)), "
    "cell(pick_0_1(skip_connect, dil_conv_5x5), pick_1_2(dil_conv_3x3, avg_pool_3x3)))"
)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"cells": 2}, "cells from 3"),
        ({"channels": 1}, "channels from 2"),
        ({"nodes": 0}, "nodes from 1"),
        ({"operations": "s6"}, "s6"),
        ({"drop_path_probability": 1.0}, "the second below 1"),
        ({"auxiliary_weight": -1.0}, "numbers from 0"),
        ({"form": "found"}, "evaluation"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, what):
    with pytest.raises(ConfigurationError, match=what):
        registry.make("space", "darts_cell", settings)


@pytest.mark.parametrize(
    ("name", "signature", "what"),
    [
        ("darts_cell", Signature((1, 40), (10,)), "is not an image"),
        ("darts_cell_1d", Signature((3, 8, 8), (10,)), "is not a sequence"),
        ("darts_cell_1d", Signature((8,), (10,), 5), "tokens"),
        ("darts_cell", Signature((3, 8, 8), (10, 2)), "is not one vector"),
    ],
)
def test_a_signature_that_the_cells_do_not_take_is_refused(name, signature, what):
    with pytest.raises(SearchSpaceError, match=what):
        space(name).at(signature).parse(str(sample(space(name), random.Random(0))))


# genotypes


def test_the_order_of_a_nodes_pairs_does_not_matter():
    swapped = (
        space()
        .examples["DARTS_V1"]
        .replace(
            "('sep_conv_3x3', 1), ('sep_conv_3x3', 0)", "('sep_conv_3x3', 0), ('sep_conv_3x3', 1)", 1
        )
    )
    assert swapped != space().examples["DARTS_V1"]
    assert space().parse(swapped) == space().parse("DARTS_V1")
    assert space().parse(swapped).digest == space().parse("DARTS_V1").digest


def test_genotypes_are_read_as_they_are_printed_and_as_they_stand_in_files():
    text = space().examples["DARTS_V2"]
    listed = text.replace("range(2, 6)", "[2, 3, 4, 5]")
    for other in (f"DARTS_V2 = {text}", listed, f"  {text}\n", text.replace(", ", ",\n    ")):
        assert space().parse(other) == space().parse("DARTS_V2")


def test_every_sample_reads_back_from_its_genotype():
    rng = random.Random(1)
    for there in (space(), space("darts_cell_1d"), space(nodes=3), space("sharpdarts")):
        for _ in range(20):
            architecture = sample(there, rng)
            assert there.parse(write(architecture)) == architecture


GENOTYPE = "Genotype(normal={}, normal_concat={}, reduce={}, reduce_concat=range(2, 3))"
PAIRS = "[('skip_connect', 0), ('sep_conv_3x3', 1)]"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Genotype(normal=[", "it is not Genotype"),
        ("Genotype(1, 2)", "it is not Genotype"),
        (f"Genotype(normal={PAIRS})", "it takes normal, normal_concat, reduce, reduce_concat"),
        (GENOTYPE.format(PAIRS, "range(2, 4)", PAIRS), "normal_concat is range"),
        (GENOTYPE.format(PAIRS, "range(10**12)", PAIRS), "it is not Genotype"),
        (GENOTYPE.format(PAIRS, "range(0, 1000000000000)", PAIRS), "normal_concat is range"),
        (GENOTYPE.format("[('skip_connect', 0)]", "[2]", PAIRS), "two pairs"),
        (GENOTYPE.format("[('skip_connect', 0), 3]", "[2]", PAIRS), "two pairs"),
        (GENOTYPE.format("[('skip_connect', 0), ('none', 0)]", "[2]", PAIRS), "takes input 0 twice"),
        (GENOTYPE.format("__import__('os').getcwd()", "[2]", PAIRS), "it is not Genotype"),
        (GENOTYPE.format("[('sepp_conv_3x3', 0), ('none', 1)]", "[2]", PAIRS), 'mean "sep_conv_3x3"'),
        (GENOTYPE.format("[('skip, x', 0), ('none', 1)]", "[2]", PAIRS), "skip, x"),
        (GENOTYPE.format("[('none', 0), ('none', 2)]", "[2]", PAIRS), "pick_0_2"),
    ],
)
def test_a_genotype_that_is_none_of_the_space_is_refused_in_one_sentence(text, what):
    with pytest.raises(SearchSpaceError, match=what):
        space(nodes=1).parse(text)


def test_other_texts_are_no_genotypes():
    assert read("network(cell(a), cell(b))") is None
    assert read("Genotyped(normal=[])") is None


# cells that differ in the numbering of their nodes alone


def drawn_cells(nodes: int) -> list[Architecture]:
    """Every cell of the set s2, each beside the first cell as reduction."""
    options = ("skip_connect", "sep_conv_3x3")
    per_node = [
        [
            f"pick_{i}_{j}({a}, {b})"
            for j in range(n + 2)
            for i in range(j)
            for a, b in product(options, options)
        ]
        for n in range(nodes)
    ]
    there = space(nodes=nodes, operations="s2")
    cells = [f"cell({', '.join(parts)})" for parts in product(*per_node)]
    return [there.parse(f"network({cell}, {cells[0]})") for cell in cells]


def graph(architecture: Architecture) -> nx.DiGraph:
    drawn = nx.DiGraph()
    drawn.add_nodes_from([(0, {"kind": "0"}), (1, {"kind": "1"})])
    for number, node in enumerate(nodes_of(architecture.children[0]), 2):
        drawn.add_node(number, kind="node")
        for name, source in node:
            drawn.add_edge(source, number, op=name)
    return drawn


def test_the_canonical_texts_are_the_classes_of_isomorphic_cells():
    found: dict[str, list[tuple[nx.DiGraph, str]]] = {}
    for architecture in drawn_cells(3):
        drawn, text = graph(architecture), renumbered(architecture)
        key = str(sorted((op, min(i, 2), drawn.out_degree(j)) for i, j, op in drawn.edges.data("op")))
        known = found.setdefault(key, [])
        same = [t for g, t in known if nx.is_isomorphic(drawn, g, dict.__eq__, dict.__eq__)]
        assert same in ([text], []), architecture
        if not same:
            assert text not in [t for _, t in known]
            known.append((drawn, text))
    assert sum(map(len, found.values())) < 1152 == len(drawn_cells(3))


def test_renumbered_cells_give_their_nodes_in_another_order():
    there = small(nodes=2).at(Signature((3, 8, 8), (5,)))
    rest = "cell(pick_0_1(skip_connect, skip_connect), pick_0_1(skip_connect, skip_connect))"
    nodes = ("pick_0_1(sep_conv_3x3, dil_conv_5x5)", "pick_0_1(max_pool_3x3, dil_conv_3x3)")
    one, other = (there.parse(f"network(cell({a}, {b}), {rest})") for a, b in (nodes, nodes[::-1]))
    assert one != other
    assert there.canonical(one) == there.canonical(other)
    first, second = (there.build(a).cells[0] for a in (one, other))
    second.preprocess.load_state_dict(first.preprocess.state_dict())
    for i, j in ((0, 1), (1, 0)):
        second.nodes[i].load_state_dict(first.nodes[j].state_dict())
    x = torch.randn(2, 12, 8, 8)
    a, b = first(x, x).chunk(2, 1)
    assert torch.equal(torch.cat([b, a], 1), second(x, x))


# operations


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_separable_convolutions_have_the_parameters_of_their_equations(kernel, stride):
    c, k = 6, kernel
    once = c * k * k + c * c + 2 * c
    assert count(operation(f"sep_conv_{k}", (c, 8, 8), stride)) == 2 * once
    assert count(operation(f"dil_conv_{k}", (c, 8, 8), stride)) == once
    assert count(operation(f"sep_conv_{k}", (c, 8, 8), stride, "search")) == 2 * once - 4 * c


def test_a_separable_convolution_is_what_its_equation_says():
    module = operation("sep_conv_3", (4, 9, 7), 2)
    x = torch.randn(3, 4, 9, 7)
    w = [m.weight for m in module if isinstance(m, nn.Conv2d)]
    y = functional.conv2d(x.relu(), w[0], stride=2, padding=1, groups=4)
    y = functional.batch_norm(functional.conv2d(y, w[1]), None, None, training=True)
    y = functional.conv2d(functional.conv2d(y.relu(), w[2], padding=1, groups=4), w[3])
    torch.testing.assert_close(module(x), functional.batch_norm(y, None, None, training=True))


def test_a_dilated_convolution_sees_every_second_place():
    module = operation("dil_conv_5", (1, 21))
    x = torch.zeros(1, 1, 21)
    x[0, 0, 10] = 1
    seen = module[1](x)[0, 0].nonzero().flatten().tolist()
    assert seen == [6, 8, 10, 12, 14]


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pools_see_the_values_inside_the_map(kind):
    x = -torch.ones(1, 2, 5, 5)
    assert torch.equal(operation(f"{kind}_pool_3", (2, 5, 5), 2)(x), -torch.ones(1, 2, 3, 3))


@pytest.mark.parametrize("kind", ["max_pool_3", "avg_pool_3"])
def test_pools_are_bare_in_evaluation_and_normed_in_search(kind):
    assert not list(operation(kind, (4, 6, 6)).children())
    searched = operation(kind, (4, 6, 6), form="search")
    assert isinstance(searched[1], nn.BatchNorm2d)
    assert not searched[1].affine


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_is_affine_in_evaluation_alone(form):
    there = small(form=form)
    network = there.build(there.parse("DARTS_V2"))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {norm.affine for norm in norms} == {form == "evaluation"}


@pytest.mark.parametrize("size", [(8, 8), (6, 4)])
def test_a_factorized_reduction_of_even_sizes_is_as_published(size):
    module = build((FactorizedReduce(5),), (3, *size))
    x = torch.randn(2, 3, *size)
    halves = module[1]
    assert isinstance(halves, HalvedConvolution)
    y = torch.cat([halves.first(x.relu()), halves.second(x.relu()[:, :, 1:, 1:])], 1)
    torch.testing.assert_close(module(x), functional.batch_norm(y, None, None, training=True))


@pytest.mark.parametrize("shape", [(3, 1), (3, 7), (2, 1, 1), (3, 5, 8), (4, 7, 7)])
@pytest.mark.parametrize("name", [*DARTS])
def test_every_operation_gives_the_size_of_the_stride_rounded_up(name, shape):
    name = name if name in ("none", "noise", "skip_connect") else f"{name}_3"
    x = torch.randn(2, *shape)
    assert operation(name, shape)(x).shape == x.shape
    halved = tuple(-(-n // 2) for n in shape[1:])
    assert operation(name, shape, 2).eval()(x).shape == (2, shape[0], *halved)


def test_noise_does_not_depend_on_the_input():
    module = operation("noise", (8, 32, 32), 2)
    y = module(torch.full((4, 8, 32, 32), 100.0))
    assert float(y.mean()) == pytest.approx(0, abs=0.05)
    assert float(y.std()) == pytest.approx(1, abs=0.05)


def test_a_cell_sums_its_edges_and_joins_its_nodes():
    there = small(nodes=2).at(Signature((3, 8, 8), (5,)))
    text = (
        "network(cell(pick_0_1(sep_conv_3x3, avg_pool_3x3), pick_1_2(dil_conv_5x5, skip_connect)), {})"
    )
    rest = "cell(pick_0_1(skip_connect, skip_connect), pick_0_1(skip_connect, skip_connect))"
    cell = there.build(there.parse(text.format(rest))).cells[0]
    assert isinstance(cell, Cell)
    before, last = torch.randn(2, 12, 8, 8), torch.randn(2, 12, 8, 8)
    x0, x1 = cell.preprocess[0](before), cell.preprocess[1](last)
    x2 = cell.nodes[0]["0"](x0) + cell.nodes[0]["1"](x1)
    x3 = cell.nodes[1]["1"](x1) + x2
    torch.testing.assert_close(cell(before, last), torch.cat([x2, x3], 1))


def test_after_a_reduction_the_earlier_input_is_reduced():
    network = space(channels=4, cells=8).build(space().parse("DARTS_V1"))
    reduced = [isinstance(cell.preprocess[0][1], HalvedConvolution) for cell in network.cells]
    assert reduced == [False, False, False, True, False, False, True, False]
    assert not any(isinstance(cell.preprocess[1][1], HalvedConvolution) for cell in network.cells)


def test_a_strided_edge_leaves_the_inputs_of_a_reduction_alone():
    network = small().build(small().parse("DARTS_V1"))
    strides = [
        [op.stride for op in edges.values() if isinstance(op, nn.MaxPool2d)]
        for edges in network.cells[1].nodes
    ]
    assert strides == [[2, 2], [2], [2], []]
    assert isinstance(network.cells[1].nodes[1]["2"], nn.Identity)


# what training adds


def test_dropped_paths_are_zero_for_whole_examples_and_keep_the_mean():
    path = DroppedPath(0.5)
    x = torch.ones(4000, 2, 3)
    assert torch.equal(path(x), x)  # before the first epoch
    path.advance(0.5)
    y = path(x)
    assert y.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(path.eval()(x), x)


def test_every_operation_but_the_input_itself_is_dropped():
    there = small(drop_path_probability=0.2)
    cell = there.build(there.parse("DARTS_V2")).cells[0]
    operations = [op for edges in cell.nodes for op in edges.values()]
    dropped = [any(isinstance(m, DroppedPath) for m in op.modules()) for op in operations]
    assert dropped == [not isinstance(op, nn.Identity) for op in operations]
    assert sum(dropped) == 6


def test_the_auxiliary_head_stands_after_two_thirds_and_runs_in_training_alone():
    there = space(channels=4, cells=8, auxiliary_weight=0.4)
    network = there.build(there.parse("DARTS_V1"))
    assert isinstance(network, CellNetwork)
    seen: list[tuple[int, ...]] = []
    network.auxiliary.register_forward_hook(lambda _, inputs, out: seen.append(tuple(inputs[0].shape)))
    x = torch.randn(2, 3, 32, 32)
    assert network(x).shape == (2, 10)
    assert seen == [(2, 64, 8, 8)]
    network.eval()(x)
    assert len(seen) == 1


@pytest.mark.parametrize("shape", [(4, 2), (4, 9), (4, 2, 3), (4, 8, 8), (4, 5, 16)])
def test_the_auxiliary_head_takes_any_map_of_two_places(shape):
    head = AuxiliaryHead(shape, 5, 0.4)
    assert head(torch.randn(3, *shape)).shape == (3, 5)
    assert head.layers[1](torch.randn(3, *shape)).shape[2:] == (2,) * (len(shape) - 1)


def test_the_auxiliary_heads_windows_of_8_are_those_published():
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(AuxiliaryHead((4, 8, 8), 5, 0.4).layers[1](x), nn.AvgPool2d(5, 3)(x))


def test_a_map_too_small_for_the_auxiliary_head_is_refused():
    there = small(auxiliary_weight=0.4).at(Signature((1, 4, 4), (3,)))
    with pytest.raises(SearchSpaceError, match="set auxiliary_weight to 0"):
        there.parse("DARTS_V1")


def test_a_network_with_all_that_training_adds_learns():
    task = registry.make("task", "digits")
    there = small(auxiliary_weight=0.4, drop_path_probability=0.2).at(task.signature)
    torch.manual_seed(0)
    network = there.build(there.parse("DARTS_V2"))
    trained = train(network, task, Recipe(epochs=2, cutout=2), Context())
    assert trained.infeasible is None
    assert trained.scores["accuracy"] > 60
    paths = [m for m in network.modules() if isinstance(m, DroppedPath)]
    assert {path.now for path in paths} == {0.1}


# on sequences


def test_sequences_have_operations_along_the_length():
    there = small("darts_cell_1d")
    names = {rule.name for rule in there.rules["Edge"]}
    assert names >= {"sep_conv_3", "dil_conv_5", "max_pool_3", "skip_connect", "none"}
    network = there.build(sample(there, random.Random(0)))
    assert network(torch.randn(2, 1, 40)).shape == (2, 10)
    assert not any(isinstance(m, nn.Conv2d | nn.BatchNorm2d) for m in network.modules())


# sharpDARTS


@pytest.mark.parametrize(
    ("name", "drawn", "every"), [("sharp", 8, 9), ("sharper", 11, 12), ("darts", 7, 8)]
)
def test_the_sharp_sets_have_their_published_numbers_of_operations(name, drawn, every):
    there = space("sharpdarts", operations=name)
    assert len(there.rules["Edge"]) == every
    assert there.size() == (180 * drawn**8) ** 2


@pytest.mark.parametrize(
    ("name", "middle", "dilation"),
    [
        ("sep_conv", 6, 1),
        ("flood_conv", 24, 1),
        ("choke_conv", 5, 1),
        ("dil_conv", 6, 2),
        ("dil_flood_conv", 24, 2),
        ("dil_choke_conv", 5, 2),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_sharp_block_has_the_parameters_of_its_formula(name, middle, dilation, stride):
    c, k, m = 6, 3, middle
    module = build(sharp(5)[name](Edge((c, 8, 8), stride), k, Form()), (c, 8, 8))
    assert count(module) == c * k * k + c * m + 2 * m + m * k * k + m * c + 2 * c
    assert module(torch.randn(2, c, 8, 8)).shape == (2, c, 8 // stride, 8 // stride)
    convolutions = [m for m in module if isinstance(m, nn.Conv2d)]
    assert [conv.dilation[0] for conv in convolutions] == [dilation, 1, 1, 1]
    assert [conv.stride[0] for conv in convolutions] == [stride, 1, 1, 1]


def test_a_choke_without_channels_is_refused():
    with pytest.raises(ConfigurationError, match="choke_channels is 0"):
        registry.make("space", "sharpdarts", {"choke_channels": 0})


# tracing


@pytest.mark.parametrize("name", ["darts_cell", "darts_cell_1d", "sharpdarts"])
def test_networks_are_traced_and_exported(name):
    there = small(name, drop_path_probability=0.1, auxiliary_weight=0.4)
    network = there.build(sample(there, random.Random(3))).eval()
    x: Tensor = there.spec.random(2)
    with torch.no_grad():
        wanted = network(x)
        torch.testing.assert_close(fx.symbolic_trace(network)(x), wanted)
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), wanted)


def test_costs_are_what_networks_measure_at_full_size():
    there = space().at(Signature((3, 32, 32), (10,)))
    for architecture in (there.parse("DARTS_V1"), nas.sample(there, random.Random(2))):
        with torch.device("meta"):
            network = there.build(architecture)
            assert measure(network, (3, 32, 32), "meta") == there.complexity(architecture)


S1_NORMAL = ["ad", "ae", "ae", "ac", "ad", "ba", "ac", "ac", "ad", "ac", "ba", "ad", "de", "de"]
S1_REDUCTION = ["bf", "bd", "bf", "bf", "ae", "bf", "bc", "ad", "ae", "bf", "bf", "ae", "ae", "ae"]
NAMES = ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5", "avg_pool_3x3")
LETTERS = dict(zip("abcdef", NAMES, strict=True))


@pytest.mark.parametrize(("cell", "pairs"), [("normal", S1_NORMAL), ("reduction", S1_REDUCTION)])
def test_in_s1_every_edge_has_the_published_pair(cell, pairs):
    supernet = Supernet(small(operations="s1", form="search"))
    edges = [(j, i) for j in range(2, 6) for i in range(j)]
    for (node, source), pair in zip(edges, pairs, strict=True):
        found = set(supernet.choices[f"{cell}/{node}/{source}"].names)
        assert found == {LETTERS[letter] for letter in pair}


def test_s1_has_180_wirings_and_256_operations_a_cell():
    assert small(operations="s1").size() == (180 * 2**8) ** 2


def test_s1_draws_admissible_cells_and_refuses_others():
    space = small(operations="s1")
    rng = random.Random(0)
    for _ in range(20):
        assert space.contains(space.parse(str(sample(space, rng))))
    with pytest.raises(SearchSpaceError, match="this edge has skip_connect or dil_conv_3x3 alone"):
        space.parse(str(small().parse("DARTS_V1")))


def test_s1_is_for_four_nodes():
    with pytest.raises(ConfigurationError, match="14 edges were given, and cells of 2 nodes have 5"):
        small(operations="s1", nodes=2)
