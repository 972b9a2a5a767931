"""Values from a command line or a TOML file, turned into the types that a part's fields have."""

from __future__ import annotations

import ast
import re
import types
from collections import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from nas.errors import ConfigurationError, unknown

COMMA = re.compile(r",(?![^()]*\))")  # outside of parentheses


def convert(value: Any, wanted: Any, what: str) -> Any:  # Any: JSON values, typing forms
    """The value as the wanted type; ConfigurationError naming `what` where that cannot be.

    Text is read as a Python literal where the type is not text. Whole numbers written as 1e3 or 3.0 are
    integers; lists become tuples, as does text at its commas outside of parentheses. A mapping is a
    table, or text such as depth:2,width:8.
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any or wanted is object:
        return value
    if origin in (Union, types.UnionType):
        return _union(value, arguments, what)
    if origin is Literal:
        named = {str(argument): argument for argument in arguments}
        if str(value) not in named:
            raise ConfigurationError(unknown(str(value), f"allowed for {what}", named))
        return named[str(value)]
    if origin is abc.Mapping:
        return _mapping(value, arguments[1], what)
    if isinstance(value, str) and wanted not in (str, Path):
        value = {"true": True, "false": False}.get(value.lower(), literal(value))
    if origin is tuple:
        return _tuple(value, arguments, what)
    if wanted is bool and isinstance(value, bool):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is float and number:
        return float(value)
    if wanted is int and number and float(value).is_integer():
        return int(value)
    if wanted is Path and isinstance(value, str | Path):
        return Path(value)
    if wanted is str and isinstance(value, str):
        return value
    if isinstance(wanted, type) and isinstance(value, wanted) and not isinstance(value, bool):
        return value
    raise ConfigurationError(f"{what} is {value!r}; it takes {_name(wanted)}.")


def _union(value: Any, arguments: tuple[Any, ...], what: str) -> Any:  # Any: as in convert
    if type(None) in arguments and (value is None or value == "none"):
        return None
    kinds = [a for a in arguments if a is not type(None)]
    for kind in kinds:
        try:
            return convert(value, kind, what)
        except ConfigurationError:
            continue
    names = " or ".join(_name(a) for a in arguments)
    raise ConfigurationError(f"{what} is {value!r}; it takes {names}.")


def _tuple(value: Any, arguments: tuple[Any, ...], what: str) -> Any:  # Any: as in convert
    if isinstance(value, str):
        value = [item.strip() for item in COMMA.split(value)]
    items = value if isinstance(value, list | tuple) else (value,)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(convert(item, arguments[0], what) for item in items)
    if len(arguments) != len(items):
        raise ConfigurationError(f"{what} is {value!r}; it takes {len(arguments)} values.")
    return tuple(convert(i, a, what) for i, a in zip(items, arguments, strict=True))


def _mapping(value: Any, wanted: Any, what: str) -> dict[str, Any]:  # Any: as in convert
    """A mapping from text, of a table or of text; numbers of a table may stand for text."""
    if isinstance(value, str):
        parts = [part.strip().rpartition(":") for part in value.split(",") if part.strip()]
        if not all(key and sign for key, sign, _ in parts):
            raise ConfigurationError(f"{what} is {value!r}; it takes KEY:VALUE,KEY:VALUE.")
        value = {key.strip(): given.strip() for key, _, given in parts}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} is {value!r}; it takes a table, or KEY:VALUE,KEY:VALUE.")
    return {
        str(key): str(given) if wanted is str else convert(given, wanted, f'"{key}" of {what}')
        for key, given in value.items()
    }


def _name(wanted: Any) -> str:  # Any: a typing form
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if wanted is type(None):
        return "none"
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is tuple:
        return f"a list, each of it {_name(arguments[0])}"
    return plain.get(wanted, getattr(wanted, "__name__", str(wanted)))


def literal(name: str) -> object:
    """The Python literal that a rule's name spells, or the name itself."""
    try:
        return ast.literal_eval(name)
    except (ValueError, SyntaxError):
        return name


def plain(value: Any) -> Any:  # Any: as in convert
    """JSON and TOML values: tuples as lists, paths as text, and tables without what is None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
