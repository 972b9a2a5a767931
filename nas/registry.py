"""Names of spaces, tasks, searchers, evaluators, pruners and proxies; listed without importing them.

A part is a function or class under a decorator such as ``@registry.space("kan")``. The files of the
project's packages, and of what the entry-point groups ``nasgram.spaces``, ``nasgram.tasks``,
``nasgram.searchers``, ``nasgram.evaluators``, ``nasgram.pruners`` and ``nasgram.proxies`` name, are
read for such decorators; a part's module is imported when the part is used.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from nas.conversion import convert, plain
from nas.errors import ConfigurationError, unknown

KINDS = {
    "space": "spaces",
    "task": "tasks",
    "searcher": "searchers",
    "evaluator": "evaluators",
    "pruner": "pruners",
    "proxy": "proxies",
}  # each with its plural
PACKAGES = {
    "space": ("search_spaces",),
    "task": ("evaluators",),
    "searcher": ("nas.searchers",),
    "evaluator": ("evaluators",),
    "pruner": ("nas.pruners",),
    "proxy": ("evaluators.zero_cost",),
}

Made = TypeVar("Made", bound=Callable[..., Any])  # Any: parts of every kind
_made: dict[tuple[str, str], Callable[..., Any]] = {}  # Any: as above
_loaded: dict[tuple[str, str], Part] = {}


@dataclass(frozen=True)
class Part:
    """A registered name, the first line of its docstring, and where it is defined."""

    kind: str
    name: str
    summary: str
    module: str
    file: Path


def space(name: str) -> Callable[[Made], Made]:
    """Register a function that returns a SearchSpace."""
    return _register("space", name)


def task(name: str) -> Callable[[Made], Made]:
    """Register a function that returns a Task."""
    return _register("task", name)


def searcher(name: str) -> Callable[[Made], Made]:
    """Register a Searcher."""
    return _register("searcher", name)


def evaluator(name: str) -> Callable[[Made], Made]:
    """Register an Evaluator."""
    return _register("evaluator", name)


def pruner(name: str) -> Callable[[Made], Made]:
    """Register a Pruner."""
    return _register("pruner", name)


def proxy(name: str) -> Callable[[Made], Made]:
    """Register a zero-cost Proxy."""
    return _register("proxy", name)


def _register(kind: str, name: str) -> Callable[[Made], Made]:
    def add(made: Made) -> Made:
        other = _made.get((kind, name))
        if other is not None and inspect.getsourcefile(other) != inspect.getsourcefile(made):
            raise _twice(kind, name, [str(inspect.getsourcefile(x)) for x in (other, made)])
        _made[kind, name] = made
        return made

    return add


def parts(kind: str) -> dict[str, Part]:
    """Every part of a kind by its name, sorted; nothing is imported."""
    if kind not in KINDS:
        raise ConfigurationError(unknown(kind, "a kind of part", KINDS))
    found = dict(_found(kind))
    for (other, name), part in _loaded.items():
        if other == kind:
            if name in found and found[name].file != part.file:
                raise _twice(kind, name, [str(found[name].file), str(part.file)])
            found[name] = part
    return dict(sorted(found.items()))


def get(kind: str, name: str) -> Callable[..., Any]:  # Any: parts of every kind
    """The function or class registered under a name, its module imported."""
    if (kind, name) not in _made:
        known = parts(kind)
        if name not in known:
            raise ConfigurationError(unknown(name, f"a registered {kind}", known))
        importlib.import_module(known[name].module)
    return _made[kind, name]


def make(kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:  # Any: as above
    """A part made with its settings, which are checked; spaces and tasks carry name and settings."""
    given = converted(kind, name, settings or {})
    made, known = get(kind, name), options(kind, name)
    arguments: dict[str, Any] = {}  # Any: as above
    nested: dict[str, dict[str, Any]] = {}  # Any: as above
    for key, value in given.items():
        owner = known[key].owner
        if owner is None:
            arguments[key] = value
        else:
            nested.setdefault(owner, {})[key] = value
    for owner, values in nested.items():
        arguments[owner] = replace(_default(made, owner), **values)
    result = made(**arguments)
    if kind in ("space", "task"):
        result = replace(result, name=name, settings=plain(given))
    return result


def converted(kind: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:  # Any: as above
    """The settings of a part in the types that it takes; ConfigurationError where one cannot be."""
    known = options(kind, name)
    for key in settings:
        if key not in known:
            raise ConfigurationError(unknown(key, f'a setting of {kind} "{name}"', known))
    return {
        key: convert(value, known[key].type, f'setting "{key}" of {kind} "{name}"')
        for key, value in settings.items()
    }


@dataclass(frozen=True)
class Option:
    """A setting of a part: its type, its default, and the field that it is nested in, if any."""

    type: Any  # Any: a type or a typing form
    default: Any  # Any: a value of that type
    owner: str | None = None


def options(kind: str, name: str) -> dict[str, Option]:
    """The settings of a part by name; those of a field that is a dataclass stand on the same level."""
    made = get(kind, name)
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    found: dict[str, Option] = {}
    for key, parameter in inspect.signature(made).parameters.items():
        kind_of = hints.get(key, str)
        if inspect.isclass(kind_of) and is_dataclass(kind_of):
            inner = get_type_hints(kind_of)
            for f in fields(kind_of):
                default = getattr(parameter.default, f.name, None)  # None: a field of no default
                found[f.name] = Option(inner[f.name], default, owner=key)
        else:
            found[key] = Option(kind_of, parameter.default)
    return found


def load(path: Path | str) -> None:
    """Import a Python file, so that the parts that it registers can be named."""
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f'there is no file "{path}" to load parts from.')
    module = f"_nasgram_loaded_{path.resolve().stem}"
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f'"{path}" is not a Python file; parts are loaded from NAME.py.')
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:  # whatever the file does
        raise ConfigurationError(
            f'"{path}" cannot be loaded: {type(error).__name__}: {error}; mend it first.'
        ) from error
    for kind in KINDS:
        for part in _decorated(path.resolve(), module, kind):
            _loaded[kind, part.name] = part


@cache
def _found(kind: str) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for package in (*PACKAGES[kind], *_plugged(kind)):
        for file, module in _files(package):
            for part in _decorated(file, module, kind):
                if part.name in found and found[part.name].file != file:
                    raise _twice(kind, part.name, [str(found[part.name].file), str(file)])
                found[part.name] = part
    return found


def _plugged(kind: str) -> list[str]:
    points = entry_points(group=f"nasgram.{KINDS[kind]}")
    return sorted({point.value.partition(":")[0] for point in points})


def _files(package: str) -> Iterator[tuple[Path, str]]:
    """The Python files of a module or package and their module names, found without importing it."""
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f'the package "{package}" that parts are listed in is not installed.')
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        yield origin, package
        return
    path = origin.parent.joinpath(*rest)
    if path.with_suffix(".py").is_file():
        yield path.with_suffix(".py"), package
        return
    for file in sorted(path.rglob("*.py")):
        steps = file.relative_to(path).with_suffix("").parts
        names = [s for s in steps if s != "__init__"]
        yield file, ".".join((package, *names))


def _decorated(file: Path, module: str, kind: str) -> Iterator[Part]:
    source = file.read_text(encoding="utf-8")
    if f"registry.{kind}(" not in source:
        return
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="registry"), attr=attribute),
                    args=[ast.Constant(value=str(name))],
                ) if attribute == kind:
                    summary = (ast.get_docstring(node) or "").partition("\n")[0]
                    yield Part(kind, name, summary, module, file)


def _default(made: Callable[..., Any], key: str) -> Any:  # Any: a dataclass of the part's own
    return inspect.signature(made).parameters[key].default


def _twice(kind: str, name: str, files: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f'the {kind} "{name}" is registered twice, in {" and in ".join(files)}; rename one of them.'
    )
