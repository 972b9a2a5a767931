"""MNIST-1D: ten shapes in noisy sequences, on which kinds of networks differ at little cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluators.datasets import located
from evaluators.tasks.arrays import read_pairs
from nas import registry
from nas.arrays import Holdout, classification
from nas.errors import DataError
from nas.task import Task

NUM_VALID = 800
KNOWN_GOOD = 55.0


@registry.task("mnist1d")
def mnist1d(path: Path | None = None) -> Task:
    """Shapes of ten digits as sequences of 40 steps, moved, stretched and noisy; from $NASGRAM_DATA.

    3,200 training and 800 validation sequences (1, 40), a fixed and class-balanced draw from the
    official 4,000; the official 1,000 are the test split. Answering one class scores about 10%;
    measured on validation, logistic regression 33% and a perceptron of two hidden layers 58%.

    Reference: Greydanus, Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024 (arXiv:2011.14439;
    Apache 2.0).
    """
    file = located("mnist1d", path)
    pairs = read_pairs(file)
    if "test" not in pairs:
        raise DataError(f'"{file}" lacks x_test, y_test; give x_train, y_train, x_test, y_test.')
    (x, y), (x_test, y_test) = pairs["train"], pairs["test"]
    holdout = Holdout(valid=NUM_VALID, test=(x_test[:, None], y_test))
    task = classification("mnist1d", x[:, None], y, holdout)
    return replace(task, known_good=KNOWN_GOOD)
