"""nasgram: neural architecture search over grammars.

The names below do what the command line does; see docs/api.md for each with an example. They are
imported when they are first used, so that ``import nas`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nas.version import VERSION

if TYPE_CHECKING:
    from nas.comparison import compare
    from nas.exporting import export
    from nas.found import load
    from nas.problem import Objective, Problem
    from nas.registry import make, parts
    from nas.retraining import train
    from nas.searching import resume, search, show
    from nas.study import Budget, Study
    from nas.task import Task
    from nas.variation import sample

__version__ = VERSION

_HOMES = {
    "Budget": "nas.study",
    "Objective": "nas.problem",
    "Problem": "nas.problem",
    "Study": "nas.study",
    "Task": "nas.task",
    "compare": "nas.comparison",
    "export": "nas.exporting",
    "load": "nas.found",
    "make": "nas.registry",
    "parts": "nas.registry",
    "resume": "nas.searching",
    "sample": "nas.variation",
    "search": "nas.searching",
    "show": "nas.searching",
    "train": "nas.retraining",
}

__all__ = [
    "Budget",
    "Objective",
    "Problem",
    "Study",
    "Task",
    "__version__",
    "compare",
    "export",
    "load",
    "make",
    "parts",
    "resume",
    "sample",
    "search",
    "show",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
