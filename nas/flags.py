"""From the flags of the command line to the tables of a study file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas import configuration, registry, searching
from nas.configuration import StudyConfiguration
from nas.conversion import convert
from nas.errors import ConfigurationError, unknown

QUICK_START: Mapping[str, Any] = {  # Any: TOML values
    "space": {"name": "nasbench201", "channels": 8, "cells": 1},
    "searcher": {"name": "regularized_evolution", "population_size": 10},
    "task": {"name": "digits"},
}
STUDY_FLAGS = ("name", "trials", "seconds", "storage", "device", "threads", "workers")


def study_configuration(
    file: Path | None,
    loaded: Sequence[Path],
    given: Mapping[str, Any],  # Any: options
) -> StudyConfiguration:
    """The study that a file (or none) and the flags on top of it describe."""
    tables = _file_tables(file)
    if file is None and not given["space"]:
        tables |= {key: dict(table) for key, table in QUICK_START.items()}
    for key in ("space", "task", "searcher", "pruner"):
        if given[key] and _name_of(tables.get(key)) != given[key]:
            tables[key] = {"name": given[key]}
    if given["evaluators"]:
        tables["evaluator"] = [{"name": name} for name in given["evaluators"]]
    if given["objectives"]:
        tables["objective"] = list(given["objectives"])
    tables |= {"seed": given["seed"]} if given["seed"] is not None else {}
    tables["limits"] |= numbers("--limit", given["limits"])
    tables["study"] |= {key: given[key] for key in STUDY_FLAGS if given[key] is not None}
    tables["load"] += [str(path.resolve()) for path in loaded]
    tables = {"searcher": "regularized_evolution", "evaluator": "training"} | tables
    for path in tables["load"]:
        registry.load(Path(path))
    if given["finalists"] is not None:
        tables["finalists"] = {**_finalists(tables), "count": given["finalists"]}
    apply_settings(tables, given["settings"])
    return searching.read_study(tables, str(file or "the flags"), results=given["results"])


def _file_tables(file: Path | None) -> dict[str, Any]:  # Any: TOML values
    """The tables of a study file, those that flags add to filled in; empty ones without a file."""
    tables = configuration.read_toml(file) if file else {}
    for key in ("limits", "study"):
        if not isinstance(tables.setdefault(key, {}), dict):
            raise ConfigurationError(f"{key} of {file} is {tables[key]!r}; it takes a table, [{key}].")
    loaded = convert(tables.get("load", ()), tuple[str, ...], f'"load" of {file}')
    tables["load"] = [str(_beside(file, Path(path))) for path in loaded]
    return tables


def _beside(file: Path | None, path: Path) -> Path:
    """A path that a file names: relative to it, or to the working directory."""
    if file is not None and (file.parent / path).is_file():
        return (file.parent / path).resolve()
    return path.resolve()


def _finalists(tables: Mapping[str, Any]) -> dict[str, Any]:  # Any: TOML values
    table = tables.get("finalists", {})
    return dict(table) if isinstance(table, dict) else {"count": table}


def _name_of(table: object) -> object:
    return table.get("name") if isinstance(table, dict) else table


def numbers(flag: str, given: Sequence[str]) -> dict[str, float]:
    """The numbers that a flag gave as METRIC=NUMBER, by their metrics."""
    found = {}
    for text in given:
        metric, _, value = text.partition("=")
        try:
            found[metric] = float(value)
        except ValueError:
            raise ConfigurationError(
                f'{flag} "{text}" is not METRIC=NUMBER, such as params=1e6.'
            ) from None
    return found


def apply_settings(tables: dict[str, Any], settings: Sequence[str]) -> None:  # Any: TOML values
    """Put every KEY=VALUE into the table of the part that has that setting."""
    parts = _part_tables(tables)
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigurationError(f'--set "{text}" is not KEY=VALUE.')
        owner, _, name = key.rpartition(".")
        if owner == "finalists":
            tables["finalists"] = {**_finalists(tables), name: value}
            continue
        owners = [
            (kind, table)
            for kind, table in parts
            if (not owner or owner in (kind, table["name"]))
            and name in registry.options(kind, table["name"])
        ]
        if len(owners) > 1:
            named = ", ".join(f"{kind}.{name}" for kind, _ in owners)
            raise ConfigurationError(f'--set "{key}" could be {named}; give the longer name.')
        if not owners:
            known = [f"{k}.{o}" for k, t in parts for o in registry.options(k, t["name"])]
            raise ConfigurationError(unknown(key, "a setting of the parts named", known))
        owners[0][1][name] = value


def _part_tables(tables: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:  # Any: TOML values
    """The (kind, table) of every part that is named; a name alone becomes a table, in place."""
    found = []
    for kind in registry.KINDS:
        if kind not in tables:
            continue
        listed = tables[kind] if isinstance(tables[kind], list) else [tables[kind]]
        parts = [{"name": part} if isinstance(part, str) else part for part in listed]
        tables[kind] = parts if isinstance(tables[kind], list) else parts[0]
        found += [(kind, part) for part in parts if isinstance(part, dict) and "name" in part]
    return found
