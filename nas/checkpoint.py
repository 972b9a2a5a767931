"""Where long work stands, kept so that a process which is killed goes on where it stopped.

A state is made of JSON values and tensors, nested as one likes. It is one safetensors file, the JSON in
its header, written whole: a kill leaves the state before or the one after.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from nas.errors import StorageError
from nas.found import write_whole
from nas.storage import locked
from nas.version import VERSION

State = Mapping[str, Any]  # Any: JSON values and tensors, in mappings with text as keys and in lists
_TENSOR = "\0tensor"  # the one key of what stands in JSON for a tensor
_SUFFIX = ".safetensors"


class Checkpoint(ABC):
    """The place where one piece of long work keeps its state."""

    @abstractmethod
    def load(self) -> State | None:
        """The state that was saved last, tensors on the CPU; None where there is none."""

    @abstractmethod
    def save(self, state: State) -> None:
        """Keep a state in place of the one before."""

    @abstractmethod
    def remove(self) -> None:
        """Forget the state: the work is done."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[object]:
        """A block in which no other process is that asks for the same; it waits for those that are."""


@final
@dataclass(frozen=True)
class Unkept(Checkpoint):
    """Keeps nothing: work that is killed begins anew."""

    def load(self) -> State | None:
        return None

    def save(self, state: State) -> None:
        """Nothing."""

    def remove(self) -> None:
        """Nothing."""

    def alone(self) -> AbstractContextManager[object]:
        return nullcontext()


@final
@dataclass(frozen=True)
class FileCheckpoint(Checkpoint):
    """Keeps the state in a file. `owner` says whose it is: that of another owner is no state."""

    path: Path
    owner: str

    def load(self) -> State | None:
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                said = file.metadata() or {}
                if said.get("owner") != self.owner:
                    return None
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            state: State = _whole(json.loads(said["state"]), tensors)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise StorageError(
                f'the checkpoint "{self.path}" cannot be read ({error}); remove it, and the trial that '
                "it belongs to begins anew."
            ) from error
        return state

    def save(self, state: State) -> None:
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        said = {"owner": self.owner, "state": json.dumps(_parted(state, tensors))}
        write_whole(self.path, save(tensors, said))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        for remains in self.path.parent.glob(f".{self.path.name}.*"):  # of a write that was killed
            remains.unlink(missing_ok=True)

    def alone(self) -> AbstractContextManager[object]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return locked(self.path)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a study's trials, by their places, in a folder; none are kept without one.

    `identity` is what the study runs: a checkpoint of another study is none.
    """

    folder: Path | None
    identity: str

    def at(self, place: int) -> Checkpoint:
        """The checkpoint of the trial at a place."""
        return self._named(str(place))

    def common(self) -> Checkpoint:
        """The one that evaluations of all trials share, kept as long as the study."""
        return self._named("common")

    def _named(self, name: str) -> Checkpoint:
        if self.folder is None:
            return Unkept()
        owner = sha256(f"{VERSION}/{self.identity}/{name}".encode()).hexdigest()[:16]
        return FileCheckpoint(self.folder / f"{name}{_SUFFIX}", owner)

    def remove_told(self, told: set[int]) -> None:
        """Remove those of trials that were told, which a kill just after it leaves."""
        if self.folder is None:
            return
        for file in self.folder.glob(f"*{_SUFFIX}"):
            if file.stem.isdecimal() and int(file.stem) in told:
                self.at(int(file.stem)).remove()


def _parted(value: Any, tensors: dict[str, Tensor]) -> Any:  # Any: as in State
    """The JSON of a state; its tensors are put aside under names."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # safetensors refuses tensors that share memory
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _parted(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_parted(inner, tensors) for inner in value]
    return value


def _whole(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # Any: as in State
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _whole(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner, tensors) for inner in value]
    return value
