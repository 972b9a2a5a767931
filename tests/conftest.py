from __future__ import annotations

import os

# The threads of two test processes would wait for each other. Read when numpy and torch are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

from pathlib import Path

import pytest
import torch

from nas import registry
from tests.command import Command

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def registered():
    """What a test loads from a file of its own is forgotten after it."""
    before = set(registry._loaded)
    yield
    for key in set(registry._loaded) - before:
        del registry._loaded[key]
        registry._made.pop(key, None)


@pytest.fixture
def nas_command(monkeypatch, capsys, tmp_path):
    """The command `nas`, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


@pytest.fixture
def data_folder(monkeypatch):
    """The folder of benchmark data; skips where there is none."""
    folder = Path(os.environ.get("NASGRAM_DATA", SHARED))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; set NASGRAM_DATA to the folder that holds it")
    monkeypatch.setenv("NASGRAM_DATA", str(folder))
    return folder
