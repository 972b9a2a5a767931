"""The documentation: every example runs, every name is documented, every link leads somewhere.

The blocks of a page run in their order, in one empty folder: `python` in one namespace (a block that
begins with `# NAME.py` is saved under that name instead), lines of `bash` that begin with `nas`
through the command line, and a `toml` block that is a whole study or protocol is saved as
study.toml or protocol.toml. Trials and epochs are lowered.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
import types
from pathlib import Path

import pytest

import nas
from nas import found, registry
from nas.cli import cli
from nas.comparison import Protocol
from nas.errors import DataError
from nas.searching import read_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TRIALS = re.compile(r"(?<=--trials )\d+|(?<=^trials = )\d+", re.MULTILINE)
EPOCHS = re.compile(r"\bepochs( ?= ?)\d+")
MOST_TRIALS = 4
TAKES_BEST = ("docs/reuse.md",)  # their examples take a found file, best.json
MISSING = "was not found in"  # how an error begins that tells of absent data


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def lowered(text: str) -> str:
    text = TRIALS.sub(lambda m: str(min(int(m[0]), MOST_TRIALS)), text)
    return EPOCHS.sub(r"epochs\g<1>1", text)


def commands(text: str) -> list[list[str]]:
    """The arguments of every `nas` in a bash block, patterns expanded."""
    lines = text.replace("\\\n", " ").splitlines()
    calls = [call.strip() for line in lines for call in line.split("&&")]
    return [
        _expanded(shlex.split(call, comments=True)[1:]) for call in calls if call.startswith("nas ")
    ]


def _expanded(arguments: list[str]) -> list[str]:
    words: list[str] = []
    for word in arguments:
        words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    return words


def whole(tables: dict) -> str | None:
    """The file name of a TOML block that is a whole study or protocol."""
    if "protocol" in tables:
        return "protocol.toml"
    return "study.toml" if "space" in tables else None


class Page:
    """Runs the blocks of one page."""

    def __init__(self, command, module):
        self.command = command
        self.module = module

    def run(self, kind: str, text: str) -> None:
        if "onnx" in text:
            for package in ("onnx", "onnxscript", "onnxruntime"):
                pytest.importorskip(package)
        {"python": self.python, "bash": self.bash, "toml": self.toml}.get(kind, self.other)(text)

    def python(self, text: str) -> None:
        file = FILE.match(text)
        if file:
            Path(file[1]).write_text(text, encoding="utf-8")
            return
        code = compile(text, self.module.__name__, "exec")
        try:
            exec(code, vars(self.module))
        except DataError as error:
            if MISSING not in str(error):
                raise
            pytest.skip(str(error))

    def bash(self, text: str) -> None:
        for line in text.replace("\\\n", " ").splitlines():
            for arguments in commands(lowered(line)):
                try:
                    self.command(*arguments)
                except AssertionError as error:
                    if MISSING not in str(error):
                        raise
                    pytest.skip(str(error))

    def toml(self, text: str) -> None:
        file = whole(tomllib.loads(text))
        if file:
            Path(file).write_text(lowered(text), encoding="utf-8")

    def other(self, text: str) -> None:
        pass


@pytest.fixture
def page_runner(nas_command, monkeypatch, tmp_path):
    """A runner of examples that leaves neither modules nor registered parts behind."""
    module = types.ModuleType("documented")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(tmp_path)
    yield Page(nas_command, module)
    mine = {module.__name__}
    for name, other in list(sys.modules.items()):
        if str(tmp_path) in (getattr(other, "__file__", None) or ""):
            mine.add(name)
            del sys.modules[name]
    for key in [k for k, made in registry._made.items() if made.__module__ in mine]:
        del registry._made[key]
        registry._loaded.pop(key, None)


def make_best(command) -> None:
    """A found file, best.json, as the examples of some pages take it."""
    command(
        "search", "--study", "best", "--space", "nasbench201", "--task", "digits", "--trials", 1,
        "--set", "channels=4", "--set", "cells=1", "--set", "epochs=1",
    )  # fmt: skip
    outcome = nas.show("best")
    found.save(nas.load(outcome.files[outcome.front[0].number]), "best.json")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=named)
def test_examples_run(page, page_runner):
    if named(page) in TAKES_BEST:
        make_best(page_runner.command)
    for kind, text in blocks(page):
        page_runner.run(kind, text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_toml_blocks_are_studies_and_protocols(page):
    for text in (text for kind, text in blocks(page) if kind == "toml"):
        tables = tomllib.loads(text)
        match whole(tables):
            case "protocol.toml":
                assert Protocol.read(tables).searchers
            case "study.toml":
                assert read_study(tables, named(page)).search.space.name in registry.parts("space")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if "://" not in link and link[0] != "#"]
    assert [file for file in files if not (page.parent / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_name_no_place_of_ours(page):
    assert not re.search(r"(?<![\w.])/(work|root|home)/", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", nas.__all__)
def test_every_public_name_is_documented_with_an_example(name):
    sections = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").replace("\\", "").split("\n## ")
    section = next((s for s in sections if re.search(rf"\bnas\.{name}\b", s.partition("\n")[0])), "")
    assert f"nas.{name}" in section.partition("\n")[2] or f"import {name}" in section


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_part_is_named_in_the_readme(kind):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in registry.parts(kind) if f"`{name}`" not in text] == []


@pytest.mark.parametrize("command", ["", *cli.commands])
def test_every_command_has_help(nas_command, command):
    assert "Usage: " in nas_command(*command.split(), "--help")
