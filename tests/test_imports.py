"""Imports point one way: search_spaces -> nas <- evaluators, and never in a circle."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nas", "search_spaces", "evaluators")
ALLOWED = {
    "nas": {"nas"},
    "search_spaces": {"nas", "search_spaces"},
    "evaluators": {"nas", "evaluators"},
}
COMMAND_LINE = "nas.cli"


def modules():
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            steps = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(s for s in steps if s != "__init__"), file


def imports(file, *, typing=True):
    tree = ast.parse(file.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_imports_stay_within_what_the_package_may_use(module):
    ours = {name for name in imports(MODULES[module]) if name.split(".")[0] in PACKAGES}
    allowed = set(PACKAGES) if module == COMMAND_LINE else ALLOWED[module.split(".")[0]]
    assert {name.split(".")[0] for name in ours} <= allowed


def test_no_module_imports_itself_through_others():
    graph = nx.DiGraph()
    for module, file in MODULES.items():
        for name in imports(file, typing=False):
            if name in MODULES and name not in PACKAGES:
                graph.add_edge(module, name)
    assert list(nx.simple_cycles(graph)) == []


@pytest.mark.parametrize("module", MODULES)
def test_files_have_a_room(module):
    assert module.split(".")[-1] not in {"utils", "helpers", "common", "core", "base", "misc"}
    assert len(MODULES[module].read_text().splitlines()) <= 600


@pytest.mark.parametrize("module", MODULES)
def test_the_library_never_imports_what_breaks_its_torch(module):
    assert not {n for n in imports(MODULES[module]) if n.split(".")[0] in {"torchvision", "torchaudio"}}


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [p.parent.relative_to(ROOT) for top in PACKAGES for p in (ROOT / top).rglob("__init__.py")]
    assert sorted(listed) == sorted(".".join(path.parts) for path in found)
