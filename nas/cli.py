"""The command line `nas`: the only file of the framework that imports from the other two packages.

Each command stands here with the options it declares, which is why the file is long.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from nas import registry
from nas.errors import ConfigurationError, NasgramError
from nas.options import (
    EVALUATORS,
    FINALISTS,
    JSON,
    LIMITS,
    RESULTS,
    SET,
    SPACE,
    STORAGE,
    TASK,
    WORKERS,
    machine,
    names,
    studies,
)
from nas.pool_commands import correlate, join, score
from nas.version import VERSION

if TYPE_CHECKING:
    from nas.configuration import FinalistsConfiguration, StudyConfiguration
    from nas.searching import Outcome

INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error a user can mend is one sentence and exit code 2."""
    try:
        status = cli.main(prog_name="nas", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except NasgramError as error:
        for note in getattr(error, "__notes__", ()):  # the traceback of a worker
            click.echo(note, err=True)
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Begin with:
  nas list spaces                         what can be searched
  nas search --trials 10                  a first search, on handwritten digits
  nas show STUDY                          what a study found
  nas export FILE --to onnx               take the winner elsewhere
""",
)
@click.version_option(VERSION, prog_name="nas")
@click.option(
    "--load",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A Python file that registers parts of your own; may be repeated.",
)
@click.pass_context
def cli(context: click.Context, /, *, files: tuple[Path, ...]) -> None:
    """Search neural architectures, and reuse what was found as plain PyTorch modules."""
    context.obj = _located
    for file in files:
        registry.load(file)


def _located(name: str) -> Path:
    """The file of a data set, for commands in files that do not import the evaluators."""
    from evaluators.datasets import located

    return located(name)


cli.add_command(score)
cli.add_command(join)
cli.add_command(correlate)


def print_json(value: Any) -> None:  # Any: JSON values
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@cli.command("list")
@click.argument("plural", metavar="KIND", type=click.Choice(list(registry.KINDS.values())))
@JSON
def list_parts(plural: str, *, as_json: bool) -> None:
    """List the spaces, tasks, searchers, evaluators, pruners or proxies that can be named."""
    singular = {word: kind for kind, word in registry.KINDS.items()}
    found = registry.parts(singular[plural])
    if as_json:
        print_json([{"name": p.name, "description": p.summary} for p in found.values()])
        return
    width = max((len(name) for name in found), default=0)
    for name, part in found.items():
        click.echo(f"{name:<{width}}  {part.summary}")


@cli.command()
@click.argument("kind", type=click.Choice(list(registry.KINDS)))
@click.argument("name")
@JSON
def describe(kind: str, name: str, *, as_json: bool) -> None:
    """Describe a part: its docstring, and its settings with their defaults."""
    import inspect

    made = registry.get(kind, name)
    settings = registry.options(kind, name)
    text = inspect.cleandoc(made.__doc__ or "")
    examples = dict(made().examples) if kind == "space" else {}
    if as_json:
        defaults = {key: repr(option.default) for key, option in settings.items()}
        told = {"name": name, "description": text, "settings": defaults}
        print_json(told | ({"examples": examples} if examples else {}))
        return
    click.echo(f"{name}\n\n{text}\n")
    if settings:
        click.echo("Settings:")
    for key, option in settings.items():
        click.echo(f"  {key} = {option.default!r}")
    if examples:
        click.echo(f"Known architectures, by these names: {', '.join(examples)}")


@cli.command()
@click.option("--space", required=True, metavar="NAME", shell_complete=names("space"))
@click.option("-n", "count", default=1, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True)
@TASK
@SET
@JSON
def sample(
    *,
    space: str,
    count: int,
    seed: int,
    task: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw architectures from a space, at the shapes of --task or the space's own."""
    import random

    from nas.flags import apply_settings
    from nas.variation import sample as draw

    tables: dict[str, Any] = {"space": {"name": space}}  # Any: TOML values
    if task:
        tables["task"] = {"name": task}
    apply_settings(tables, settings)
    made = _make(tables["space"], "space")
    if task:
        made = made.at(_make(tables["task"], "task").signature)
    rng = random.Random(seed)
    drawn = [draw(made, rng) for _ in range(count)]
    if not as_json:
        for architecture in drawn:
            click.echo(str(architecture))
        return
    print_json(
        [
            {
                "architecture": str(a),
                "digest": a.digest,
                **({made.notation.name: made.notation.write(a)} if made.notation else {}),
                **{name: int(count) for name, count in made.complexity(a).metrics().items()},
            }
            for a in drawn
        ]
    )


def _make(table: Mapping[str, Any], kind: str) -> Any:  # Any: parts and their settings
    rest = {k: v for k, v in table.items() if k != "name"}
    return registry.make(kind, table["name"], rest)


@cli.command(
    epilog="""\b
Examples:
  nas search --space nasbench201 --set cells=1 --set channels=8 --task digits --trials 30
  nas search --space kan --task function_fit --searcher regularized_evolution --set population_size=10
  nas search --objective accuracy:maximize --objective params:minimize \\
             --evaluator complexity --evaluator training
  nas search study.toml --trials 100
"""
)
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[STUDY.TOML]")
@SPACE
@TASK
@click.option("--searcher", metavar="NAME", shell_complete=names("searcher"))
@EVALUATORS
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="METRIC:DIRECTION",
    help="maximize or minimize; repeated: a Pareto search. Default: the evaluator's first metric.",
)
@LIMITS
@click.option("--trials", type=click.IntRange(1), help="Trials in all.  [default: 20]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Seconds of this run.")
@click.option("--seed", type=int, help="Determines every draw.  [default: 0]")
@click.option(
    "--pruner",
    metavar="NAME",
    shell_complete=names("pruner"),
    help="Give up trials that look poor while they train: see `nas list pruners`.",
)
@click.option("--study", "name", metavar="NAME", help="An existing one of this setup is resumed.")
@STORAGE
@machine
@WORKERS
@FINALISTS
@SET
@RESULTS
@JSON
@click.pass_context
def search(context: click.Context, /, *, file: Path | None, **given: Any) -> None:  # Any: options
    """Search for architectures: by flags, or as a STUDY.TOML says, or by a file with flags on top.

    With neither: the cells of NAS-Bench-201 in a small skeleton, on handwritten digits, by
    regularized evolution.
    """
    from nas import flags, searching

    loaded = context.find_root().params["files"]
    configuration = flags.study_configuration(file, loaded, given)
    _report(
        lambda: searching.search(configuration, results=given["results"], watch=_watch()),
        configuration.name,
        as_json=given["as_json"],
    )


def _watch() -> Any:  # Any: a nas.searching.Watch, imported where needed
    from nas.terminal import watching

    return watching


def _report(run: Callable[[], Outcome], name: str, *, as_json: bool) -> None:
    """Run a study and print what it came to; stopped by hand, say how to go on."""
    try:
        outcome = run()
    except KeyboardInterrupt:
        click.echo(f"\nStopped; nothing is lost. Go on with:  nas resume {name}", err=True)
        sys.exit(INTERRUPTED)
    from nas.printing import print_outcome

    print_outcome(outcome, as_json=as_json, top=10)


@cli.command()
@click.argument("study", shell_complete=studies)
@click.option("--trials", type=click.IntRange(1), help="Trials in all, instead of the study's own.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Seconds of this run.")
@STORAGE
@machine
@WORKERS
@FINALISTS
@RESULTS
@JSON
def resume(
    *,
    study: str,
    trials: int | None,
    seconds: float | None,
    storage: str | None,
    device: str | None,
    threads: int | None,
    workers: int | None,
    finalists: int | None,
    results: Path,
    as_json: bool,
) -> None:
    """Go on with a study: retry what was interrupted, then search to its budget or a new one."""
    from nas import searching

    configuration = searching.stored(study, storage=storage, results=results)
    budget = replace(
        configuration.budget,
        trials=trials or configuration.budget.trials,
        seconds=seconds or configuration.budget.seconds,
    )
    configuration = replace(
        configuration,
        budget=budget,
        device=device or configuration.device,
        threads=threads or configuration.threads,
        workers=workers or configuration.workers,
        finalists=_finalists(configuration, finalists),
    )
    _report(
        lambda: searching.search(configuration, results=results, watch=_watch()),
        study,
        as_json=as_json,
    )


def _finalists(configuration: StudyConfiguration, count: int | None) -> FinalistsConfiguration | None:
    """A study's finalists, as many as are asked for."""
    from nas.configuration import FinalistsConfiguration

    if count is None:
        return configuration.finalists
    return replace(configuration.finalists or FinalistsConfiguration(0), count=count)


@cli.command()
@click.argument("study", metavar="STUDY|FILE", shell_complete=studies)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Trials to show.")
@click.option(
    "--svg", type=click.Path(path_type=Path), help="Draw the (best) architecture into this file."
)
@click.option(
    "--under",
    multiple=True,
    metavar="METRIC=NUMBER",
    help="Only trials with at most this much, such as params=1e6; may be repeated.",
)
@click.option(
    "--reference",
    multiple=True,
    metavar="METRIC=NUMBER",
    help="Of the hypervolume's reference point, so that studies compare; default: a tenth of the range "
    "worse than the worst.",
)
@STORAGE
@RESULTS
@JSON
def show(
    *,
    study: str,
    top: int,
    svg: Path | None,
    under: tuple[str, ...],
    reference: tuple[str, ...],
    storage: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Show a study (table, curve, best trials, Pareto front) or a found architecture's file."""
    from nas import drawing, searching
    from nas.flags import numbers
    from nas.found import load
    from nas.printing import print_found, print_outcome

    if study.endswith(".json") or Path(study).is_file():
        if under or reference:
            raise ConfigurationError(f'--under and --reference take a study, and "{study}" is a file.')
        found = load(Path(study))
        architecture = found.architecture
        files = click.get_current_context().find_root().params["files"]
        print_found(found, as_json=as_json, loaded=[str(file) for file in files])
    else:
        outcome = searching.show(study, storage=storage, results=results)
        if under:
            outcome = searching.under(outcome, numbers("--under", under))
        point = numbers("--reference", reference)
        print_outcome(outcome, as_json=as_json, top=top, reference=point)
        if not outcome.front:
            return
        architecture = outcome.front[0].architecture
    if svg is not None:
        svg.write_text(drawing.svg(architecture), encoding="utf-8")
        click.echo(f"Drawn into {svg}", err=True)


@cli.command("dashboard")
@click.argument("study", shell_complete=studies)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at.")
@click.option("--port", default=8080, show_default=True, help="Where taken, the next free one.")
@click.option("--browser/--no-browser", default=True, help="Open the page.  [default: browser]")
@STORAGE
@RESULTS
def open_dashboard(
    *, study: str, host: str, port: int, browser: bool, storage: str | None, results: Path
) -> None:
    """Open optuna-dashboard on a study (extra "dashboard"): it only reads, and follows a search."""
    from nas import dashboard, searching

    configuration = searching.stored(study, storage=storage, results=results)
    file = results / "studies" / study / "study.toml"
    app = dashboard.dashboard(configuration, file if file.is_file() else None)
    with dashboard.serve(app, host, port) as server:
        click.echo(address := f"http://{host}:{server.server_port}{app.page}")
        click.echo(f"Showing {study}; Ctrl-C ends it.", err=True)
        dashboard.answer(server, address if browser else None)
    click.echo("\nStopped.", err=True)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@TASK
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: FILE-trained.json.")
@click.option("--seed", default=0, show_default=True)
@machine
@SET
@JSON
def train(
    *,
    file: Path,
    task: str | None,
    output: Path | None,
    seed: int,
    device: str | None,
    threads: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a found architecture anew: longer, wider, deeper or on another task, from its text.

    --set takes the settings of the space (channels=32) and of the training (epochs=50).
    """
    from nas import retraining
    from nas.flags import apply_settings
    from nas.found import TaskName, load
    from nas.printing import print_found
    from nas.terminal import watching_one

    found = load(file)
    tables: dict[str, Any] = {  # Any: TOML values
        "space": {"name": found.space.name, **found.space.settings},
        "evaluator": {"name": "training"},
    }
    if task is not None:
        tables["task"] = {"name": task}
    elif found.task is not None:
        tables["task"] = {"name": found.task.name, **found.task.settings}
    apply_settings(tables, settings)
    named = tables.get("task")
    how = retraining.Retraining(
        space=_settings(tables["space"]),
        task=TaskName(named["name"], _settings(named)) if named else None,
        recipe=registry.make("evaluator", "training", _settings(tables["evaluator"])).recipe,
        seed=seed,
        device=device or "cpu",
        threads=threads or 1,
    )
    trained = retraining.train(found, how, output=output, watch=watching_one)
    print_found(trained, as_json=as_json)


def _settings(table: Mapping[str, Any]) -> dict[str, Any]:  # Any: TOML values
    return {k: v for k, v in table.items() if k != "name"}


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(["torch-export", "onnx", "state-dict"]),
    help="torch-export: a .pt2 program; onnx: an .onnx model; state-dict: plain PyTorch source and "
    "its weights.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: beside FILE.")
def export(*, file: Path, kind: str, output: Path | None) -> None:
    """Export a trained architecture, for use where nasgram is not installed."""
    from nas import exporting

    for path in exporting.export(file, kind, output):
        click.echo(path)


@cli.command()
@click.argument("protocol", type=click.Path(path_type=Path))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@RESULTS
@JSON
def compare(*, protocol: Path, jobs: int, results: Path, as_json: bool) -> None:
    """Compare searchers over seeds at equal cost, as a PROTOCOL.TOML says; resumable.

    Writes runs.csv (a row a run), anytime.csv and report.md into RESULTS/benchmarks/NAME.
    """
    from nas import comparison
    from nas.terminal import watching_one

    try:
        done = comparison.compare(protocol, jobs=jobs, results=results, watch=watching_one)
    except KeyboardInterrupt:
        click.echo(f"\nStopped; nothing is lost. Go on with:  nas compare {protocol}", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        print_json(done.tables())
        return
    click.echo((done.folder / "report.md").read_text(encoding="utf-8"))
    click.echo(f"Written to {done.folder}", err=True)


@cli.command()
@click.argument("name", required=False)
@click.option("--path", type=click.Path(path_type=Path), help="Check this file or folder.")
@JSON
def data(*, name: str | None, path: Path | None, as_json: bool) -> None:
    """List the data sets and tables that can be read, and where they come from; check one by NAME."""
    from evaluators import datasets
    from nas.terminal import print_table

    if name is None:
        catalog = [_catalog_row(datasets.find(d.name), d) for d in datasets.all_datasets()]
        if as_json:
            print_json(catalog)
            return
        print_table("Data sets", list(catalog[0]), [list(row.values()) for row in catalog])
        click.echo(f"Folders of ${datasets.VARIABLE} are looked into first. Check one: nas data NAME")
        return
    facts = datasets.check(name, path)
    if as_json:
        print_json([fact._asdict() for fact in facts])
    else:
        rows = [[f.fact, f.expected, f.found, "ok" if f.ok else "WRONG"] for f in facts]
        print_table(f"{name}", ["fact", "expected", "found", ""], rows)
    if not all(f.ok for f in facts):
        raise ConfigurationError(f'the data set "{name}" is not as published; see the table.')


def _catalog_row(found: Path | None, dataset: Any) -> dict[str, str]:  # Any: evaluators' DataSet
    return {
        "name": dataset.name,
        "what": dataset.what,
        "source": dataset.source,
        "licence": dataset.licence,
        "found": str(found) if found else f"no: {dataset.how}",
    }


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(nas completion bash)"."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "nas", "_NAS_COMPLETE").source())


if __name__ == "__main__":
    main()
