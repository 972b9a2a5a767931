from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas import registry
from nas.complexity import measure
from nas.errors import ConfigurationError, SearchSpaceError
from nas.space import SearchSpace, Signature
from nas.supernet import Supernet
from nas.variation import sample
from search_spaces.operations.recurrent import Node, Program, RecurrentLayer, Size, node_cost
from search_spaces.recurrent_recipe import EXAMPLES, program_of
from tests.assertions import assert_causal, example_input

TOKENS = Signature((8,), (8, 7), 7)
NUMBERS = Signature((2, 9), (5,))
SIZE = Size(6, 3, 4)
RNN = (
    '{"f": {"op": "linear", "input": ["x", "h_prev_0"]}, '
    '"h_new_0": {"op": "activation_tanh", "input": ["f"]}}'
)


def space(signature: Signature = TOKENS, **settings: object) -> SearchSpace:
    small = {"features": 5, "hidden": 6}
    return registry.make("space", "recurrent_cell", small | settings).at(signature)


def program(text: str) -> Program:
    return program_of(space().parse(text).children[0])


def layer_of(text: str, size: Size = SIZE) -> RecurrentLayer:
    torch.manual_seed(0)
    return RecurrentLayer(size, program(text)).double()


def drawn(count: int) -> list[str]:
    rng, of = random.Random(0), space()
    return [str(sample(of, rng)) for _ in range(count)]


def weight(layer: RecurrentLayer, node: str, source: str) -> Tensor:
    """The matrix by which a linear node multiplies a source."""
    cell = layer.cell
    rows = cell.readers[source].index(node) * cell.features
    return cell.maps[source].weight[rows : rows + cell.features]


def bias(layer: RecurrentLayer, node: str) -> Tensor:
    cell = layer.cell
    if node in cell.biases:
        return cell.biases[node]
    rows = cell.readers["x"].index(node) * cell.features
    return cell.maps["x"].bias[rows : rows + cell.features]


def slow_layer(layer: RecurrentLayer, x: Tensor) -> Tensor:
    """Node by node and step by step, all states (batch, length, states, features)."""
    written = layer.cell.program
    states = [torch.zeros(len(x), layer.size.features, dtype=x.dtype) for _ in written.outputs]
    seen = []
    for t in range(x.shape[1]):
        values = {"x": x[:, t]} | {f"h{i}": state for i, state in enumerate(states)}
        for name, node in written.named():
            a = [values[i] for i in node.inputs]
            if node.operation == "linear":
                terms = [v @ weight(layer, name, s).T for v, s in zip(a, node.inputs, strict=True)]
                values[name] = sum(terms) + bias(layer, name)
            else:
                values[name] = {
                    "sum": lambda a: sum(a),
                    "prod": lambda a: torch.stack(a).prod(0),
                    "blend": lambda a: a[0] * a[1] + (1 - a[0]) * a[2],
                    "tanh": lambda a: a[0].tanh(),
                    "sigmoid": lambda a: a[0].sigmoid(),
                    "leaky_relu": lambda a: functional.leaky_relu(a[0]),
                }[node.operation](a)
        states = [values[name] for name in written.outputs]
        seen.append(torch.stack(states, 1))
    return torch.stack(seen, 1)


_PLAIN = "binary(linear, x, h0)"
SPECIAL = {
    "early": "network(cell1(binary(linear, h0, unary(tanh, binary(linear, unary(linear, x), x)))))",
    "early-state": f"network(cell2(binary(sum, h1, {_PLAIN}), unary(sigmoid, unary(linear, x))))",
    "three": f"network(cell1(ternary(prod, h0, unary(linear, x), ternary(sum, h0, n0, {_PLAIN}))))",
}


@pytest.mark.parametrize("text", [*SPECIAL.values(), *EXAMPLES, *drawn(25)])
def test_a_layer_is_its_program_run_node_by_node(text: str) -> None:
    layer, x = layer_of(text), torch.randn(2, 6, 3, dtype=torch.float64)
    seen: list[Tensor] = []
    layer.states.register_forward_hook(lambda module, inputs, output: seen.append(output))
    y = layer(x)
    torch.testing.assert_close(seen[0], slow_layer(layer, x))
    assert torch.equal(y, seen[0][:, :, 0])


def test_what_depends_on_the_input_alone_is_computed_before_the_steps() -> None:
    layer = layer_of(SPECIAL["early"])
    assert layer.cell.program.early() == ("n0", "n1", "n2")
    calls: list[tuple[int, ...]] = []
    for module in layer.cell.modules():
        if isinstance(module, nn.Linear | nn.Tanh):
            module.register_forward_hook(lambda m, i, output: calls.append(tuple(output.shape)))
    layer(torch.randn(2, 6, 3, dtype=torch.float64))
    whole = [shape for shape in calls if len(shape) == 3]
    assert whole == [(2, 6, 8), (2, 6, 4), (2, 6, 4), (2, 6, 4)]  # maps of x, n0, n2; tanh
    assert len(calls) == len(whole) + 6  # the map of h0, at every step


def copied(layer: RecurrentLayer, torch_layer: nn.Module, gates: list[str | None]) -> None:
    """Give a layer of torch the weights of the gates' linear nodes, in torch's order."""
    with torch.no_grad():
        for name, source in (("weight_ih_l0", "x"), ("weight_hh_l0", "h0")):
            getattr(torch_layer, name).copy_(torch.cat([weight(layer, g, source) for g in gates]))
        torch_layer.bias_ih_l0.copy_(torch.cat([bias(layer, g) for g in gates]))
        torch_layer.bias_hh_l0.zero_()


def test_the_example_rnn_is_that_of_torch() -> None:
    layer, other = layer_of("rnn"), nn.RNN(3, 4, batch_first=True).double()
    copied(layer, other, ["n0"])
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), other(x)[0])


def test_the_example_lstm_is_that_of_torch() -> None:
    layer, other = layer_of("lstm"), nn.LSTM(3, 4, batch_first=True).double()
    copied(layer, other, ["n5", "n2", "n7", "n0"])  # input, forget, candidate, output gates
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), other(x)[0])


def test_the_example_gru_is_that_of_torch() -> None:
    layer, other = layer_of("gru"), nn.GRU(3, 4, batch_first=True).double()
    reset, update, of_input, of_state = "n3", "n0", "n2", "n5"
    with torch.no_grad():
        pairs = [(reset, reset), (update, update), (of_input, of_state)]
        other.weight_ih_l0.copy_(torch.cat([weight(layer, a, "x") for a, _ in pairs]))
        other.weight_hh_l0.copy_(torch.cat([weight(layer, b, "h0") for _, b in pairs]))
        other.bias_ih_l0.copy_(torch.cat([bias(layer, a) for a, _ in pairs]))
        other.bias_hh_l0.zero_()
        other.bias_hh_l0[-4:] = bias(layer, of_state)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), other(x)[0])


def test_gru_with_the_reset_before_the_product_is_its_equation() -> None:
    layer = layer_of("gru_reset_before")
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    h, states = torch.zeros(2, 4, dtype=torch.float64), []

    def linear(node: str, t: int, source: str, value: Tensor) -> Tensor:
        return (
            x[:, t] @ weight(layer, node, "x").T
            + value @ weight(layer, node, source).T
            + bias(layer, node)
        )

    for t in range(6):
        z, r = (linear(node, t, "h0", h).sigmoid() for node in ("n0", "n2"))
        h = z * h + (1 - z) * linear("n5", t, "n4", r * h).tanh()
        states.append(h)
    torch.testing.assert_close(layer(x), torch.stack(states, 1))


def test_no_output_depends_on_a_later_input() -> None:
    of = space()
    for text in drawn(6):
        assert_causal(of.build(of.parse(text)), example_input(of))


@pytest.mark.parametrize(
    "node",
    [
        Node("linear", ("x", "h0", "n0")),
        Node("linear", ("h0",)),
        Node("tanh", ("h0",)),
        Node("blend", ("h0", "n0", "n1")),
    ],
    ids=lambda node: f"{node.operation}-{len(node.inputs)}",
)
def test_a_node_s_cost_is_what_it_adds_to_a_layer(node: Node) -> None:
    before = (Node("linear", ("x", "h0")), Node("sigmoid", ("n0",)))
    with_it, without = (
        measure(RecurrentLayer(SIZE, Program(nodes, ("n0",))), (6, 3))
        for nodes in ((*before, node), before)
    )
    assert with_it == without + node_cost(SIZE, node)


def recipes(data_folder: Any) -> list[dict[str, Any]]:
    file = data_folder / "nlp_nas_tables" / "nasbench_nlp_wikitext2_curves.json.gz"
    if not file.is_file():
        pytest.skip("the table of recipes is not there")
    with gzip.open(file) as stream:
        runs: list[dict[str, Any]] = json.load(stream)
    return list({run["recepie"]: run for run in runs}.values())


def test_every_published_recipe_has_its_published_number_of_parameters(data_folder: Any) -> None:
    of = registry.make(
        "space", "recurrent_cell", {"features": 400, "hidden": 600, "num_layers": 3, "tied": True}
    ).at(Signature((2,), (2, 33278), 33278))
    found = recipes(data_folder)
    assert len(found) == 291
    for run in found:
        assert of.complexity(of.parse(run["recepie"])).params == run["num_params"]


def test_every_published_recipe_reads_back_and_runs(data_folder: Any) -> None:
    of = space(Signature((3,), (3, 5), 5), num_layers=1)
    x = example_input(of, 2)
    for run in recipes(data_folder):
        architecture = of.parse(run["recepie"])
        assert of.parse(of.notation.write(architecture)) == architecture
        same_up_to_names(json.loads(run["recepie"]), json.loads(of.notation.write(architecture)))
        y = of.build(architecture)(x)
        assert y.shape == (2, 3, 5)
        assert y.isfinite().all()


def same_up_to_names(recipe: dict[str, Any], written: dict[str, Any]) -> None:
    """The same nodes behind each new state, input by input."""
    pairs = {f"h_new_{i}": f"h_new_{i}" for i in range(3) if f"h_new_{i}" in recipe}
    waiting = list(pairs.items())
    while waiting:
        one, other = waiting.pop()
        if one not in recipe:
            assert one == other
            continue
        assert recipe[one]["op"] == written[other]["op"]
        for a, b in zip(recipe[one]["input"], written[other]["input"], strict=True):
            assert pairs.setdefault(a, b) == b
            waiting.append((a, b))
    assert len(set(pairs.values())) == len(pairs)
    assert len(recipe) == len(written)


def test_a_recipe_is_read_in_any_order() -> None:
    turned = json.dumps(dict(reversed(json.loads(RNN).items())))
    assert space().parse(RNN) == space().parse(turned) == space().parse("rnn")


def test_a_recipe_is_written_with_its_states_named() -> None:
    of = space()
    assert of.notation is not None
    assert of.notation.write(of.parse("rnn")) == RNN.replace('"f"', '"node_0"')


LINEAR = {"op": "linear", "input": ["x", "h_prev_0"]}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"h_new_0": {"op": "linaer", "input": ["x"]}}, 'given at "h_new_0"; did you mean "linear"'),
        ({"h_new_0": {"op": "blend", "input": ["x", "x"]}}, "gives 2 inputs to blend; give it 3"),
        ({"h_new_0": {"op": "linear", "input": ["x", "nod"]}, "node": LINEAR}, 'did you mean "node"'),
        (
            {"h_new_0": {"op": "linear", "input": ["a"]}, "a": {"op": "linear", "input": ["h_new_0"]}},
            "cannot be read: h_new_0 needs a needs h_new_0",
        ),
        ({"h_new_0": LINEAR, "a": LINEAR}, "no new state depends on a; leave it out"),
        (
            {"h_new_0": {"op": "linear", "input": ["x", "a0"]}}
            | {f"a{i}": {"op": "linear", "input": ["x", f"a{i + 1}"]} for i in range(999)},
            "more than 145 nodes are nested",
        ),
        ({"h_new_1": LINEAR}, "give h_new_0, and up to h_new_2"),
        ({f"h_new_{i}": LINEAR for i in range(4)}, "give h_new_0, and up to h_new_2"),
        ({"h_new_0": ["linear", "x"]}, "is no recipe"),
        (
            {"h_new_0": {"op": "elementwise_sum", "input": ["x", "h_prev_0"]}},
            "taken by linear maps alone",
        ),
    ],
    ids=["operation", "inputs", "name", "cycle", "unused", "nested", "gap", "four", "form", "input"],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_with_the_reason(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchSpaceError, match=message):
        space().parse(json.dumps(recipe))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell1(binary(sum, x, h0))", "the input is taken by linear maps alone"),
        ("cell1(binary(linear, x, x))", "x is taken twice in one place"),
        ("cell1(binary(linear, x, h1))", "no state h1 in a cell of 1"),
        ("cell1(binary(linear, x, n0))", "n0 is not complete here"),
        ("cell1(unary(tanh, h0))", "the cell never reads x"),
        ("cell2(binary(linear, x, h0), unary(tanh, h0))", "the cell never reads h1"),
        ("cell2(binary(linear, x, ternary(linear, h0, h1, x)), n1)", "n1 is taken twice"),
    ],
)
def test_what_is_no_cell_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(SearchSpaceError, match=message):
        space().parse(f"network({text})")


def test_linear_maps_of_one_value_are_read_and_never_drawn() -> None:
    rng, of = random.Random(1), space()
    assert of.contains(of.parse("gru"))
    for _ in range(200):
        for node in program_of(sample(of, rng).children[0]).nodes:
            assert node.operation != "linear" or len(node.inputs) > 1
            assert node.operation not in ("sum", "prod") or len(node.inputs) == 2


def test_samples_are_as_they_were() -> None:
    found = drawn(4)
    assert found[0] == "network(cell1(binary(linear, x, h0)))"
    assert found[2] == (
        "network(cell1(unary(tanh, binary(linear, unary(sigmoid, binary(linear, "
        "unary(sigmoid, binary(linear, h0, x)), h0)), x))))"
    )


def shuffled(text: str, rng: random.Random) -> str:
    """The recipe with its nodes, the inputs of symmetric ones, and the later states reordered."""
    of = space()
    assert of.notation is not None
    recipe = json.loads(of.notation.write(of.parse(text)))
    for node in recipe.values():
        if node["op"] != "blend":
            rng.shuffle(node["input"])
    text = json.dumps(dict(rng.sample(list(recipe.items()), len(recipe))))
    if "h_new_2" in recipe and rng.random() < 0.5:
        for kind in ("new", "prev"):
            one, two = f"h_{kind}_1", f"h_{kind}_2"
            text = text.replace(one, "?").replace(two, one).replace("?", two)
    return text


def test_cells_that_are_written_otherwise_have_one_canonical_text() -> None:
    of, rng = space(), random.Random(3)
    assert of.canonical is not None
    same = 0
    for text in drawn(60):
        one, other = of.parse(text), of.parse(shuffled(text, rng))
        same += of.canonical(one) == of.canonical(other)
    assert same >= 59  # nodes that look alike from below may keep their order


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"binary(sum, unary(tanh, {_PLAIN}), n0)", f"binary(sum, unary(tanh, {_PLAIN}), {_PLAIN})"),
        (
            f"ternary(blend, h0, {_PLAIN}, unary(tanh, h0))",
            f"ternary(blend, {_PLAIN}, h0, unary(tanh, h0))",
        ),
    ],
    ids=["shared weights", "order of a blend"],
)  # fmt: skip
def test_different_functions_keep_different_canonical_texts(one: str, other: str) -> None:
    of = space()
    assert of.canonical is not None
    texts = {of.canonical(of.parse(f"network(cell1({text}))")) for text in (one, other)}
    assert len(texts) == 2


def test_tied_weights_are_one_matrix() -> None:
    of = space(Signature((4,), (4, 7), 7), tied=True)
    network = of.build(of.parse("lstm"))
    assert network.head.weight is network.lift.weight
    assert network.layer1.size == Size(4, 6, 5)


@pytest.mark.parametrize("signature", [NUMBERS, Signature((4,), (4, 6), 7), Signature((4,), (7,), 7)])
def test_tied_weights_take_and_give_the_same_tokens(signature: Signature) -> None:
    with pytest.raises(SearchSpaceError, match="the same tokens out at every position"):
        space(signature, tied=True).parse("rnn")


def test_the_same_text_is_a_network_of_any_sequence() -> None:
    for signature in (TOKENS, NUMBERS, Signature((30,), (4,), 100), Signature((3, 8), (8, 2))):
        of = space(signature)
        assert of.build(of.parse("lstm"))(signature.random(2)).shape == (2, *signature.output)


def test_a_network_takes_sequences_of_another_length() -> None:
    of = space()
    network = of.build(of.parse("lstm")).eval()
    x = example_input(of)
    torch.testing.assert_close(network(x[:, :3]), network(x)[:, :3])


def test_it_is_recursive_and_not_relaxed() -> None:
    of = space()
    assert not of.finite
    with pytest.raises(SearchSpaceError, match="cannot be relaxed"):
        Supernet(of, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hidden": 0}, "each is at least 1"), ({"max_nodes": 5}, "its smallest cell has 6")],
)
def test_settings_that_make_no_space_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        space(**settings)
