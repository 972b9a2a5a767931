from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.data_folder import data_folder


@pytest.fixture
def shared_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data sets, as $NASGRAM_DATA; skips where there is none."""
    folder = data_folder()
    if folder is None or not folder.is_dir():
        pytest.skip("no folder of data sets: set NASGRAM_DATA")
    monkeypatch.setenv("NASGRAM_DATA", str(folder))
    return folder
