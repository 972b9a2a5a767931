"""Tiny Shakespeare: predicting the next character of plays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluators.datasets import located
from evaluators.tasks.array_files import Values, read_text
from nas import registry
from nas.language import Windows, language_modelling
from nas.task import Task

KNOWN_GOOD = 2.2
WINDOWS = Windows()


@registry.task("tinyshakespeare")
def tinyshakespeare(path: Path | None = None, windows: Windows = WINDOWS) -> Task:
    """Plays of Shakespeare, character by character: predict the next of 65; from $NASGRAM_DATA.

    1,115,394 characters, each a token: its place among the 65 in the order of their code points. The
    first 90% train, the next 5% validate, the last 5% test, cut into windows of `context` characters
    side by side (15,685, 871 and 871 of 64). Scored in nats a character; measured on
    validation, even chances 4.17, frequencies of characters 3.33, of pairs 2.47, of triples 2.00.

    Reference: Karpathy, The Unreasonable Effectiveness of Recurrent Neural Networks, 2015 (char-rnn's
    data/tinyshakespeare; MIT, the plays in the public domain).
    """
    characters, tokens = encoded(read_text(located("tinyshakespeare", path)))
    task = language_modelling("tinyshakespeare", tokens, len(characters), windows)
    return replace(task, known_good=KNOWN_GOOD)


def encoded(text: str) -> tuple[str, Values]:
    """The different characters in order, and for each character (n,) of the text its place there."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    characters, tokens = np.unique(codes, return_inverse=True)
    return "".join(map(chr, characters.tolist())), tokens
