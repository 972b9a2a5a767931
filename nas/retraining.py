"""Training a found architecture anew: longer, at another width or depth, or on another task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas import registry
from nas.architecture import Architecture
from nas.errors import ConfigurationError, DataError
from nas.evaluation import Context
from nas.found import Found, Measured, Provenance, TaskName, load, save
from nas.progress import WatchOne, unwatched
from nas.space import SearchSpace
from nas.task import Task
from nas.training import Recipe, evaluate, seeded
from nas.training import train as fit


@dataclass(frozen=True)
class Retraining:
    """How to train: the space's settings that change, the task (None: the one it was found on), ...

    `command` is kept with what is found, as what regenerates it.
    """

    space: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    task: TaskName | None = None
    recipe: Recipe = Recipe()
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    command: str | None = None


def train(
    found: Found | Path,
    how: Retraining | None = None,
    *,
    output: Path | None = None,
    watch: WatchOne = unwatched,
) -> Found:
    """Train a found architecture from fresh weights, and save it with its weights and test scores.

    It goes to `output`, by default beside the file it comes from under NAME-trained.json.
    """
    found = found if isinstance(found, Found) else load(Path(found))
    how = how or Retraining()
    output = output or _beside(found)
    name = how.task or found.task
    if name is None:
        raise ConfigurationError("the architecture was found on no task; name one, with --task.")
    task: Task = registry.make("task", name.name, name.settings)
    settings = {**found.space.settings, **how.space}
    space: SearchSpace = registry.make("space", found.space.name, settings).at(task.signature)
    architecture = space.parse(str(found.architecture))
    with watch() as progress:
        context = Context(how.seed, device=how.device, threads=how.threads, progress=progress)
        return _trained(_Anew(space, architecture, task, name), how, context, found, output)


@dataclass(frozen=True)
class _Anew:
    space: SearchSpace
    architecture: Architecture
    task: Task
    name: TaskName


def _trained(anew: _Anew, how: Retraining, context: Context, found: Found, output: Path) -> Found:
    with seeded(context.seed):
        network = anew.space.build(anew.architecture)
    trained = fit(network, anew.task, how.recipe, context)
    if trained.infeasible is not None:
        raise DataError(f"the training failed: {trained.infeasible}; change its settings with --set.")
    model = trained.model.cpu()
    test = evaluate(model, anew.task.test, anew.task.scores)
    units = {score.metric.name: score.metric.unit for score in anew.task.scores}
    metrics = {n: Measured(v, units[n], "validation") for n, v in trained.scores.items()}
    metrics |= {f"test_{n}": Measured(v, units[n], "test") for n, v in test.items()}
    made = Found(
        anew.space,
        anew.architecture,
        metrics=metrics,
        task=anew.name,
        provenance=Provenance(
            found.provenance.study, found.provenance.trial, seed=context.seed, command=how.command
        ),
    )
    return save(made, output, model.state_dict())


def _beside(found: Found) -> Path:
    if found.path is None:
        raise ConfigurationError("the found architecture is in no file; name the output.")
    return found.path.with_name(f"{found.path.stem}-trained.json")
