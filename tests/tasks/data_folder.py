"""Where the real data sets lie that tests may read: $NASGRAM_DATA, or shared/data beside the code."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def data_folder() -> Path | None:
    given = os.environ.get("NASGRAM_DATA")
    if given is not None:
        return Path(given)
    shared = (REPOSITORY / "shared" / "data", REPOSITORY.parent / "shared" / "data")
    return next((folder for folder in shared if folder.is_dir()), None)
