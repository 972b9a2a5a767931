from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest

from nas import registry
from nas.conversion import convert
from nas.errors import ConfigurationError

SPACE = '''
from nas import registry
from nas.grammar import terminal
from nas.space import SearchSpace, Signature

@registry.space("{name}")
def made(width: int = 3):
    """A space of another package."""
    rules = {{"S": [terminal("a", None), terminal("b", None)]}}
    return SearchSpace("S", rules, Signature((width,), (3,)))
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody else's, found through an entry point."""
    folder = tmp_path / "elsewhere_spaces"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported by listing')")
    (folder / "good.py").write_text(SPACE.format(name="elsewhere"))
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("elsewhere", "elsewhere_spaces.good", "nasgram.spaces")
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [point] if group == "nasgram.spaces" else []
    )
    registry._found.cache_clear()
    yield folder
    registry._found.cache_clear()
    registry._made.pop(("space", "elsewhere"), None)
    for name in [n for n in sys.modules if n.startswith("elsewhere_spaces")]:
        del sys.modules[name]


def test_parts_of_another_package_are_listed_without_importing_it(package):
    part = registry.parts("space")["elsewhere"]
    assert part.summary == "A space of another package."
    assert "elsewhere_spaces" not in sys.modules


def test_parts_of_another_package_are_made(package):
    (package / "__init__.py").write_text("")
    made = registry.make("space", "elsewhere", {"width": "5"})
    assert made.spec.input == (5,)
    assert (made.name, made.settings) == ("elsewhere", {"width": 5})


def test_one_name_twice_is_an_error(package):
    (package / "good.py").write_text(SPACE.format(name="kan"))
    with pytest.raises(ConfigurationError, match='"kan" is registered twice') as said:
        registry.parts("space")
    assert "good.py" in str(said.value)


def test_a_file_of_parts_is_loaded_once_or_again(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SPACE.format(name="mine"))
    for _ in range(2):
        registry.load(file)
        assert registry.parts("space")["mine"].file == file
    assert registry.make("space", "mine").size() == 2
    registry._loaded.pop(("space", "mine"))
    registry._made.pop(("space", "mine"))


def test_settings_of_a_nested_field_stand_on_the_same_level():
    made = registry.make("evaluator", "training", {"epochs": 3, "optimizer": "adam"})
    assert (made.recipe.epochs, made.recipe.optimizer) == (3, "adam")


def test_an_unknown_setting_is_named_with_the_nearest():
    with pytest.raises(ConfigurationError, match='did you mean "tournament_size"'):
        registry.make("searcher", "regularized_evolution", {"tournament": 3})


def test_every_part_says_what_it_is():
    for kind in registry.KINDS:
        for part in registry.parts(kind).values():
            assert part.summary.endswith("."), part


@pytest.mark.parametrize(
    ("value", "wanted", "made"),
    [
        ("3", int, 3),
        ("1e3", int, 1000),
        (3.0, int, 3),
        ("2", float, 2.0),
        ("true", bool, True),
        ("False", bool, False),
        ("text", str, "text"),
        ("12", str, "12"),
        ("none", int | None, None),
        ("4", int | None, 4),
        ("4,8", tuple[int, ...], (4, 8)),
        ("(4, 8)", tuple[int, ...], (4, 8)),
        ([4, 8], tuple[int, ...], (4, 8)),
        ("4", tuple[int, ...], (4,)),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("edge", Literal["layer", "edge"], "edge"),
        ("200", Literal[200, 12], 200),
        ("x.npz", Path | None, Path("x.npz")),
    ],
)
def test_conversion(value, wanted, made):
    converted = convert(value, wanted, "it")
    assert converted == made
    assert type(converted) is type(made)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("three", int),
        ("3.5", int),
        (True, int),
        ("yes", bool),
        ("edges", Literal["layer", "edge"]),
        (["a"], tuple[int, ...]),
        (3, str),
    ],
)
def test_what_cannot_be_converted_is_named(value, wanted):
    with pytest.raises(ConfigurationError, match="it"):
        convert(value, wanted, "it")


def test_every_kind_has_an_entry_point_group_by_its_plural(monkeypatch):
    asked = []
    monkeypatch.setattr(registry, "entry_points", lambda group: asked.append(group) or [])
    for kind in registry.KINDS:
        registry._plugged(kind)
    assert {"nasgram.spaces", "nasgram.proxies"} <= set(asked)
