"""Found networks for use elsewhere: torch.export programs, ONNX files, and plain PyTorch source.

What is exported takes raw data: the task's constants are inside. Every export is loaded again and
compared with the network before it takes its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import logging
import math
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import ConfigurationError, DataError, NasgramError, unknown
from nas.found import Found, load
from nas.scaled import Scaled
from nas.source import source
from nas.space import Signature

Forward = Callable[[Tensor], Tensor]
Writer = Callable[[Found, Scaled, Path], tuple[Path, Forward]]

BATCHES = (1, 3)  # of the inputs compared; the example that is traced has 2
LARGEST_MESSAGE = 2**31 - 2**20  # bytes of one protobuf file, with room for the graph


def export(
    found: Found | Path | str, kind: str, out: Path | str | None = None, *, tolerance: float = 1e-5
) -> tuple[Path, ...]:
    """Write a trained network as "torch-export", "onnx" or "state-dict"; the files' paths.

    - torch-export: NAME.pt2, for torch.export.load, with a dynamic batch;
    - onnx: NAME.onnx, with a dynamic batch; "input" in, "output" out;
    - state-dict: NAME.py, a class Model that needs torch alone, and NAME.pt, its weights.

    `out` is a file or an existing folder; by default the files stand beside the found file. The
    export and the network may differ by `tolerance` times the largest output.
    """
    if kind not in _WRITERS:
        raise ConfigurationError(unknown(kind, "a kind of export", _WRITERS))
    if not isinstance(found, Found):
        found = load(found)
    target = _target(found, kind, out)
    model = found.pretrained()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
            written, forward = _WRITERS[kind](found, model, Path(folder) / target.name)
            _compare(model, forward, found.signature, kind, tolerance)
            del forward
            files = sorted(Path(folder).iterdir(), key=lambda file: file != written)
            return tuple(file.replace(target.with_name(file.name)) for file in files)
    except OSError as error:
        raise DataError(f'"{target}" cannot be written: {error.strerror or error}.') from error


def _target(found: Found, kind: str, out: Path | str | None) -> Path:
    """The file to write, its name fit to be imported where it is a Python module."""
    suffix = _SUFFIXES[kind]
    stem = found.path.stem if found.path else found.architecture.digest
    if kind == "state-dict":
        stem = _importable(stem)
    default = Path(found.path.parent if found.path else ".") / (stem + suffix)
    if out is None:
        return default
    path = Path(out)
    if path.is_dir():
        return path / default.name
    path = path.with_name(path.name.removesuffix(".pt").removesuffix(suffix) + suffix)
    if kind == "state-dict" and path.stem != _importable(path.stem):
        raise ConfigurationError(
            f'"{path.stem}" cannot be imported as a Python module of its own; give a name of letters, '
            f"digits and _ such as {_importable(path.stem)}{suffix}."
        )
    return path


def _importable(stem: str) -> str:
    name = re.sub(r"\W", "_", stem)
    taken = keyword.iskeyword(name) or name in sys.stdlib_module_names or name == "torch"
    return name if name.isidentifier() and not taken else f"model_{name}"


def _program(found: Found, model: Scaled, path: Path) -> tuple[Path, Forward]:
    with _quiet(), _refusal("torch-export"):
        program = torch.export.export(
            model, (_example(found),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, path)
        module: nn.Module = torch.export.load(path).module()
    return path, module


def _onnx(found: Found, model: Scaled, path: Path) -> tuple[Path, Forward]:
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ConfigurationError(
                f'exporting to ONNX needs the package {package}; run pip install "nasgram[onnx]".'
            )
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    with _quiet(), _refusal("onnx"):
        torch.onnx.export(
            model,
            (_example(found),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["input"],
            output_names=["output"],
            external_data=size > LARGEST_MESSAGE,
            verbose=False,
        )
        return path, _onnx_forward(path)


def _onnx_forward(path: Path) -> Forward:
    """An ONNX file as a function, run by onnxruntime where it is installed, else by onnx itself."""
    if importlib.util.find_spec("onnxruntime") is not None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    else:
        session = importlib.import_module("onnx.reference").ReferenceEvaluator(str(path))
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def _source(found: Found, model: Scaled, path: Path) -> tuple[Path, Forward]:
    written = source(model, "Model", _docstring(found, path.stem))
    weights = path.with_suffix(".pt")
    path.write_text(written.text, encoding="utf-8")
    torch.save({name: tensor.clone() for name, tensor in written.state.items()}, weights)
    names: dict[str, Any] = {}  # Any: what the file defines
    exec(compile(written.text, str(path), "exec"), names)  # noqa: S102, written above
    again: nn.Module = names["Model"]()
    again.load_state_dict(torch.load(weights, weights_only=True))
    return path, again.eval()


def _docstring(found: Found, stem: str) -> str:
    signature = found.signature
    metrics = [
        f"{n} = {m.value:.6g} {m.unit if m.unit != '1' else ''}".rstrip() + f" ({m.split})"
        for n, m in found.metrics.items()
    ]
    given, out = (", ".join(map(str, s)) for s in (signature.input, signature.output))
    kind = "raw inputs" if signature.vocabulary is None else f"tokens below {signature.vocabulary},"
    measured = f"\n\n    Measured: {', '.join(metrics)}." if metrics else ""
    return f"""Outputs (batch, {out}) for {kind} (batch, {given}); found by nasgram.

    Architecture: {found.architecture}{measured}

    from {stem} import Model
    model = Model()
    model.load_state_dict(torch.load("{stem}.pt"))
    model.eval()
    """


def _compare(
    model: Scaled, forward: Forward, signature: Signature, kind: str, tolerance: float
) -> None:
    """NasgramError where an export and its network differ on random inputs of the task's scale."""
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:
        x = signature.random(batch, generator) * model.input_std + model.input_mean
        with torch.no_grad(), _refusal(kind):
            wanted, given = model(x), forward(x)
        difference = float((wanted - given).abs().max()) if wanted.shape == given.shape else math.inf
        largest = float(wanted.abs().max())
        if not difference <= tolerance * largest:
            raise NasgramError(
                f"the {kind} export is not the network: on a batch of {batch}, outputs of up to "
                f"{largest:.3g} differ by {difference:.3g}, over the tolerance of {tolerance:g}; "
                "nothing was written, and another kind of export may fit."
            )


def _example(found: Found) -> Tensor:
    return torch.zeros(2, *found.signature.input, dtype=found.signature.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on their own progress and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _refusal(kind: str) -> Iterator[None]:
    """What an exporter raises on a network that it cannot take, as one sentence."""
    try:
        yield
    except NasgramError:
        raise
    except OSError:
        raise
    except Exception as error:  # exporters raise errors of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}".rstrip(".")
        others = " or ".join(f'"{k}"' for k in _WRITERS if k != kind)
        raise NasgramError(
            f"the network cannot be exported as {kind} ({reason}); try {others}."
        ) from error


_WRITERS: dict[str, Writer] = {"torch-export": _program, "onnx": _onnx, "state-dict": _source}
_SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx", "state-dict": ".py"}
