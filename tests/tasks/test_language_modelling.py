from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evaluators import datasets
from evaluators.tasks.tinyshakespeare import encoded
from nas import registry
from nas.errors import ConfigurationError, DataError
from nas.evaluation import Context
from nas.language import Windows, cross_entropy, language_modelling, perplexity
from nas.scaled import Scaled
from nas.training import Recipe, evaluate, train

SMALL = Windows(context=8, valid=0.1, test=0.1)


def periodic(length: int = 2000) -> np.ndarray:
    """A sequence of 5 tokens, each by 2 more than the one three before it."""
    tokens = np.random.default_rng(0).integers(0, 5, length)
    for i in range(3, length):
        tokens[i] = (tokens[i - 3] + 2) % 5
    return tokens


def test_targets_are_the_inputs_one_token_on() -> None:
    tokens = np.arange(1000) % 50
    task = language_modelling("mine", tokens, 50, SMALL)
    for split in (task.train, task.valid, task.test):
        assert torch.equal(split.targets, (split.inputs + 1) % 50)
    assert task.signature.vocabulary == 50
    assert (task.signature.input, task.signature.output) == ((8,), (8, 50))


def test_the_parts_follow_one_another_and_every_token_is_predicted_once() -> None:
    task = language_modelling("mine", np.arange(1000), 1000, SMALL)
    predicted = {p: getattr(task, p).targets.flatten().tolist() for p in ("train", "valid", "test")}
    assert predicted["train"] == list(range(1, 793))  # 799 pairs in windows of 8
    assert predicted["valid"] == list(range(801, 897))
    assert predicted["test"] == list(range(901, 997))


def test_a_stride_overlaps_training_windows_alone() -> None:
    apart = language_modelling("mine", np.arange(1000), 1000, SMALL)
    over = language_modelling("mine", np.arange(1000), 1000, replace(SMALL, stride=1))
    assert over.train.inputs[:, 0].tolist() == list(range(792))
    assert torch.equal(over.valid.inputs, apart.valid.inputs)


def test_the_loss_of_frequencies_is_their_entropy() -> None:
    targets = torch.tensor([[0, 0, 1], [0, 1, 2]])
    shares = torch.tensor([3, 2, 1]) / 6
    outputs = shares.log().expand(2, 3, 3)
    entropy = -float((shares * shares.log()).sum())
    assert cross_entropy(outputs, targets) == pytest.approx(entropy)
    assert perplexity(outputs, targets) == pytest.approx(math.exp(entropy))


def test_even_chances_are_as_hard_as_all_tokens() -> None:
    assert perplexity(torch.zeros(2, 3, 7), torch.zeros(2, 3, dtype=torch.int64)) == pytest.approx(7)


def test_a_perplexity_beyond_numbers_is_infinite() -> None:
    outputs = torch.tensor([[[0.0, 1e6]]])
    assert perplexity(outputs, torch.zeros(1, 1, dtype=torch.int64)) == math.inf


def test_tokens_go_into_the_network_as_they_are() -> None:
    task = language_modelling("mine", periodic(), 5, SMALL)
    model = Scaled(nn.Embedding(5, 5), task.scaling)
    assert torch.equal(model(task.valid.inputs), model.network(task.valid.inputs))
    again = Scaled(nn.Embedding(5, 5), task.scaling)
    again.load_state_dict(model.state_dict())
    assert again(task.valid.inputs).dtype == torch.float32


@pytest.mark.parametrize("mixer", ["convolution(5, 1)", "attention(2)", "gru"])
def test_a_sequence_mixer_learns_what_tokens_before_say(mixer: str) -> None:
    task = language_modelling("mine", periodic(), 5, replace(SMALL, context=16))
    space = registry.make("space", "sequence_mixer").at(task.signature)
    torch.manual_seed(0)
    network = space.build(space.parse(f"network(32, pre, 1, chain(layer({mixer}, 2)))"))
    recipe = Recipe(epochs=25, batch_size=8, optimizer="adam", learning_rate=0.01, weight_decay=0.0)
    trained = train(network, task, recipe, Context(0))
    chance = 3 / 16 * math.log(5)  # of the first three tokens, that nothing before says
    assert trained.scores["loss"] < chance + 0.1
    assert trained.scores["perplexity"] == pytest.approx(math.exp(trained.scores["loss"]))
    assert evaluate(trained.model, task.valid, task.scores) == trained.scores


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((3, 4), int), r"of shape \(3, 4\)"),
        (np.zeros(50), "are float64"),
        (np.full(50, 9), "from 9 to 9; with a vocabulary of 5 they are numbers from 0 to 4"),
        (-np.ones(50, int), "from -1"),
        (np.zeros(50, int), "the validation part has 5 tokens, and a window takes 8 and one to"),
    ],
    ids=["two axes", "floats", "too great", "negative", "too short"],
)
def test_what_is_no_sequence_of_tokens_is_refused(tokens: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        language_modelling("mine", tokens, 5, SMALL)


@pytest.mark.parametrize("settings", [{"context": 0}, {"stride": 0}, {"valid": 0.0}, {"test": 0.96}])
def test_windows_check_their_numbers(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="take"):
        replace(Windows(), **settings)


def test_characters_are_numbered_by_their_code_points() -> None:
    characters, tokens = encoded("hé ho!\n")
    assert characters == "\n !hoé"
    assert "".join(characters[i] for i in tokens) == "hé ho!\n"


@pytest.mark.parametrize("zipped", [False, True])
def test_a_text_is_read_gzipped_or_not(tmp_path: Path, zipped: bool) -> None:
    content = ("To be, or not to be: " * 50).encode()
    path = tmp_path / "text"
    path.write_bytes(gzip.compress(content) if zipped else content)
    task = registry.make("task", "tinyshakespeare", {"path": str(path), "context": 16})
    assert task.signature.vocabulary == len(set("To be, or not to be: "))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\x1f\x8b\x00")
    with pytest.raises(DataError, match="cannot be read as a text"):
        registry.make("task", "tinyshakespeare", {"path": str(tmp_path / "text")})


@pytest.fixture
def plays(shared_data: Path):
    if datasets.find("tinyshakespeare") is None:
        pytest.skip(f"tinyshakespeare is not in {shared_data}")
    return registry.make("task", "tinyshakespeare")


def test_the_plays_have_the_stated_splits(plays) -> None:
    assert [len(s) for s in (plays.train, plays.valid, plays.test)] == [15_685, 871, 871]
    assert plays.signature.vocabulary == 65


def test_frequencies_and_pairs_score_on_the_plays_as_stated(plays) -> None:
    x, y = (t.numpy() for t in (plays.train.inputs, plays.train.targets))
    single = np.bincount(y.ravel(), minlength=65) + 1
    pairs = np.ones((65, 65))
    np.add.at(pairs, (x.ravel(), y.ravel()), 1)
    pairs /= pairs.sum(1, keepdims=True)
    x, y = (t.numpy() for t in (plays.valid.inputs, plays.valid.targets))
    assert -np.log((single / single.sum())[y]).mean() == pytest.approx(3.33, abs=0.005)
    assert -np.log(pairs[x, y]).mean() == pytest.approx(2.47, abs=0.005)
