"""What a study found: an architecture, its scores and its weights in a file, and modules made of it.

A found file is JSON. Reading it executes nothing from it: the space is made by its registered name,
and weights are safetensors in a file beside it. Every field is checked, with a sentence for each way in
which a file can be wrong, which makes this one longer than others.
"""

from __future__ import annotations

import json
import math
import os
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError, DataError, NasgramError, SearchSpaceError, unknown
from nas.scaled import Scaled
from nas.space import SearchSpace, Signature
from nas.task import Scaling
from nas.version import VERSION

FORMAT = "nasgram-found-1"
CONSTANTS = ("input_mean", "input_std", "output_mean", "output_std")  # of a task, in `Scaled`
SplitName = Literal["validation", "test"]
Json = Mapping[str, Any]  # Any: JSON values

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Measured:
    """A metric's value, its unit, and the split of the data that it was measured on."""

    value: float
    unit: str
    split: SplitName


@dataclass(frozen=True)
class TaskName:
    """A registered task's name and settings."""

    name: str
    settings: Json = field(default_factory=dict)


def versions() -> dict[str, str]:
    """The versions that results depend on: nasgram, torch, optuna (where installed) and python."""
    found = {"nasgram": VERSION, "python": platform.python_version()}
    for name in ("torch", "optuna"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Provenance:
    """Where a found architecture comes from: its study and trial, and what regenerates it."""

    study: str | None = None
    trial: int | None = None
    seed: int | None = None
    command: str | None = None
    versions: Mapping[str, str] = field(default_factory=versions)


@dataclass(frozen=True)
class Found:
    """An architecture of a registered space at a signature, with its metrics and where they are from.

    `weights` is the safetensors file of a trained `Scaled` network, and `path` the found file itself;
    both are None for what was not saved.
    """

    space: SearchSpace
    architecture: Architecture
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    task: TaskName | None = None
    provenance: Provenance = field(default_factory=Provenance)
    weights: Path | None = None
    path: Path | None = None

    @property
    def signature(self) -> Signature:
        """The shapes of one example in and out; SearchSpaceError where the space's spec is another."""
        if not isinstance(self.space.spec, Signature):
            raise SearchSpaceError(
                f'space "{self.space.name}" has the spec {self.space.spec!r}; a found architecture '
                "needs a Signature, the shapes in and out: give it one with space.at(Signature(...))."
            )
        return self.space.spec

    def build(self, *, signature: Signature | None = None, **settings: object) -> nn.Module:
        """The network with freshly drawn weights, in training mode.

        `settings` replace those of the space (`channels=32`), `signature` the shapes in and out; the
        architecture stays the same text.
        """
        space = self.space
        if settings:
            space = registry.make("space", space.name, {**space.settings, **settings})
        space = space.at(signature or self.signature)
        return space.build(space.parse(str(self.architecture)))

    def pretrained(self) -> Scaled:
        """The trained network in eval mode: inputs (batch, *signature.input) in the task's own units.

        Torch's random state is left as it was.
        """
        if self.weights is None:
            raise DataError(
                f"{self._title()} has no weights; train it first, with "
                f"`nas train {self.path or 'FILE'}`."
            )
        state = self.state() or {}
        with torch.random.fork_rng(devices=[]):
            network = self.space.build(self.architecture)
        scaling = self._scaling(self.weights, state)
        model = Scaled(network, scaling)
        _check_state(self.weights, model.state_dict(), state)
        model.load_state_dict(state)
        return model.eval()

    def state(self) -> dict[str, Tensor] | None:
        """The trained state of the `Scaled` network; None where none was saved."""
        if self.weights is None:
            return None
        return _read_weights(self.weights, self.architecture.digest)

    def _scaling(self, path: Path, state: Mapping[str, Tensor]) -> Scaling:
        missing = [name for name in CONSTANTS if name not in state]
        if missing:
            raise _corrupt(path, f"it lacks {', '.join(missing)}")
        shapes = (self.signature.input,) * 2 + (self.signature.output,) * 2
        for name, shape in zip(CONSTANTS, shapes, strict=True):
            given = tuple(state[name].shape)
            if not _broadcasts(given, shape):
                raise _corrupt(path, f"{name} has the shape {given}, examples have {shape}")
        return Scaling(*(state[name].clone() for name in CONSTANTS))

    def _title(self) -> str:
        return f'"{self.path}"' if self.path else "the found architecture"


def save(found: Found, path: Path | str, weights: Mapping[str, Tensor] | None = None) -> Found:
    """Write a found file, and its weights beside it; what is returned knows both paths.

    `weights` is the state of a `Scaled` network; where it is None, those that `found` has are kept.
    Each file is written whole or not at all, weights first. A tensor under several names is written
    once for each, so that tied weights are restored exactly.
    """
    path = Path(path)
    if not found.space.name:
        raise SearchSpaceError(
            "the space of a found architecture has no registered name, by which it is made again; "
            'make it with registry.make("space", NAME, settings).'
        )
    beside = path.with_suffix(".safetensors")
    if weights is not None:
        write_whole(beside, _weights_bytes(weights, found.architecture.digest))
    elif found.weights is not None and found.weights.resolve() != beside.resolve():
        write_whole(beside, _read_bytes(found.weights))
    has_weights = weights is not None or found.weights is not None
    saved = replace(found, path=path, weights=beside if has_weights else None)
    write_whole(path, _json_bytes(saved))
    return saved


def load(path: Path | str, space: SearchSpace | None = None) -> Found:
    """The found architecture of a file; `space` stands in for a space that is not registered."""
    path = Path(path)
    try:
        data = json.loads(_read_bytes(path).decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f'"{path}" is not JSON ({error}); it takes a found file of nasgram.') from error
    file = _File(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        given = data.get("format") if isinstance(data, dict) else None
        raise file.error(f'its format is {given!r}; this version reads "{FORMAT}"')
    signature = file.signature(data)
    try:
        made = (space if space is not None else file.space(data)).at(signature)
        architecture = file.architecture(data, made)
    except ConfigurationError as error:
        raise DataError(f'"{path}": {error}') from error
    except SearchSpaceError as error:
        raise SearchSpaceError(f'"{path}": {error}') from error
    return Found(
        made,
        architecture,
        metrics=file.metrics(data),
        task=file.task(data),
        provenance=file.provenance(data),
        weights=file.weights(data),
        path=path,
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it there, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f'"{path}" cannot be written: {error.strerror or error}.') from error


@dataclass(frozen=True)
class _File:
    """Reads the fields of a found file; DataError naming the file and the field where one is wrong."""

    path: Path

    def error(self, what: str) -> DataError:
        return DataError(f'"{self.path}" is not a whole found file: {what}.')

    def take(self, table: Json, key: str, kind: type[Kind], within: str = "") -> Kind:
        """A field of a type (a whole number is a number; true and false are neither)."""
        name = f"{within}.{key}" if within else key
        if key not in table:
            raise self.error(f'the field "{name}" is missing')
        value: Any = table[key]  # Any: JSON values
        wanted: tuple[type, ...] = (int, float) if kind is float else (kind,)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise self.error(f'the field "{name}" is {_shown(value)}; it takes {_JSON_NAMES[kind]}')
        return cast(Kind, value)

    def optional(self, table: Json, key: str, kind: type[Kind], within: str = "") -> Kind | None:
        """As `take`, or None where the field is null."""
        return None if table.get(key, "") is None else self.take(table, key, kind, within)

    def signature(self, data: Json) -> Signature:
        table = self.take(data, "signature", dict)
        shapes = []
        for key in ("input", "output"):
            shape = self.take(table, key, list, "signature")
            if not all(type(n) is int and n > 0 for n in shape):
                raise self.error(f'the field "signature.{key}" takes whole numbers above 0')
            shapes.append(tuple(shape))
        vocabulary = None
        if "vocabulary" in table:
            vocabulary = self.take(table, "vocabulary", int, "signature")
            if vocabulary < 1:
                raise self.error('the field "signature.vocabulary" takes a whole number above 0')
        return Signature(shapes[0], shapes[1], vocabulary)

    def space(self, data: Json) -> SearchSpace:
        table = self.take(data, "space", dict)
        name = self.take(table, "name", str, "space")
        settings = self.take(table, "settings", dict, "space")
        try:
            registry.get("space", name)
        except ConfigurationError as error:
            near = unknown(name, "a registered space", registry.parts("space")).partition(".")[0]
            raise self.error(
                f"{near}; where a file of your own defines it, load that first, with "
                "registry.load(FILE) or `nas --load FILE`"
            ) from error
        try:
            space: SearchSpace = registry.make("space", name, settings)
        except (TypeError, ValueError) as error:
            raise self.error(f'space "{name}" cannot be made with {settings}: {error}') from error
        return space

    def architecture(self, data: Json, space: SearchSpace) -> Architecture:
        table = self.take(data, "architecture", dict)
        text = self.take(table, "text", str, "architecture")
        digest = self.take(table, "digest", str, "architecture")
        try:
            architecture = space.parse(text)
        except RecursionError as error:
            raise self.error("the architecture's text is nested too deeply") from error
        if architecture.digest != digest:
            raise self.error(
                f'its digest is "{digest}", that of its architecture "{architecture.digest}"; '
                "one of the two was changed"
            )
        return architecture

    def metrics(self, data: Json) -> dict[str, Measured]:
        table = self.take(data, "metrics", dict)
        found = {}
        for name in table:
            within = f"metrics.{name}"
            row = self.take(table, name, dict, "metrics")
            value = float(self.take(row, "value", float, within))
            split = self.take(row, "split", str, within)
            if split not in get_args(SplitName):
                raise self.error(unknown(split, f'a split of "{within}"', get_args(SplitName))[:-1])
            if not math.isfinite(value):
                raise self.error(f'the field "{within}.value" is not finite')
            found[name] = Measured(value, self.take(row, "unit", str, within), split)  # type: ignore[arg-type]
        return found

    def task(self, data: Json) -> TaskName | None:
        table = self.optional(data, "task", dict)
        if table is None:
            return None
        return TaskName(
            self.take(table, "name", str, "task"), self.take(table, "settings", dict, "task")
        )

    def provenance(self, data: Json) -> Provenance:
        table = self.take(data, "provenance", dict)
        used = self.take(table, "versions", dict, "provenance")
        return Provenance(
            self.optional(table, "study", str, "provenance"),
            self.optional(table, "trial", int, "provenance"),
            self.optional(table, "seed", int, "provenance"),
            self.optional(table, "command", str, "provenance"),
            {name: self.take(used, name, str, "provenance.versions") for name in used},
        )

    def weights(self, data: Json) -> Path | None:
        name = self.optional(data, "weights", str)
        if name is None:
            return None
        if name != Path(name).name or "\\" in name:
            raise self.error(
                f'its weights are "{name}"; they are a file beside it, named without folders'
            )
        return self.path.with_name(name)


_JSON_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    list: "a list",
}


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _json_bytes(found: Found) -> bytes:
    space, notation = found.space, found.space.notation
    signature = found.signature
    data = {
        "format": FORMAT,
        "space": {"name": space.name, "settings": dict(space.settings)},
        "architecture": {"text": str(found.architecture), "digest": found.architecture.digest},
        # for readers: loading takes the space's own text
        "notation": notation and {"name": notation.name, "text": notation.write(found.architecture)},
        "signature": {k: v for k, v in vars(signature).items() if v is not None},
        "task": found.task and {"name": found.task.name, "settings": dict(found.task.settings)},
        "metrics": {name: vars(m) for name, m in found.metrics.items()},
        "weights": found.weights and found.weights.name,
        "provenance": {**vars(found.provenance), "versions": dict(found.provenance.versions)},
    }
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise DataError(
            f'"{found.path}" cannot be written as JSON ({error}); metrics are finite numbers, and '
            "settings are text, numbers, lists and tables."
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f'"{path}" cannot be read: {error.strerror or error}.') from error


def _weights_bytes(weights: Mapping[str, Tensor], digest: str) -> bytes:
    from safetensors.torch import save as dump

    missing = [name for name in CONSTANTS if name not in weights]
    if missing:
        raise DataError(
            f"the weights lack {', '.join(missing)}; give the state of a Scaled network, which holds "
            "the task's constants."
        )
    # safetensors refuses tensors that share memory, as tied weights do
    copies = {
        k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in weights.items()
    }
    content: bytes = dump(copies, {"architecture": digest})
    return content


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f'the weights "{path}" are missing; put that file beside the found file.')
    try:
        with safe_open(path, framework="pt") as file:
            of = (file.metadata() or {}).get("architecture", digest)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(path, str(error).partition("\n")[0]) from error
    if of != digest:
        raise _corrupt(path, f"it is of architecture {of}, the found file of {digest}")
    return state


def _check_state(path: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """DataError at the first name, shape or type in which two states differ."""
    for name in sorted(wanted.keys() ^ given.keys()):
        verb = "lacks" if name in wanted else "has, and the network lacks,"
        raise _corrupt(path, f'it {verb} "{name}"')
    for name, tensor in wanted.items():
        was, need = given[name], tensor
        if was.shape != need.shape or was.dtype != need.dtype:
            raise _corrupt(
                path,
                f'"{name}" is {was.dtype} {tuple(was.shape)}, in the network {need.dtype} '
                f"{tuple(need.shape)}",
            )


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to another one without growing it."""
    pairs = zip(reversed(given), reversed(shape), strict=False)
    return len(given) <= len(shape) and all(a in (1, b) for a, b in pairs)


def _corrupt(path: Path, what: str) -> NasgramError:
    return DataError(f'the weights "{path}" do not fit: {what}; train again with `nas train`.')
