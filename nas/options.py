"""Options that several commands take, and what the shell completes them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from nas import registry

Command = TypeVar("Command", bound=Callable[..., Any])  # Any: click commands of any signature


def names(kind: str) -> Callable[..., list[CompletionItem]]:
    """Shell completion by the registered names of a kind."""

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        known = registry.parts(kind)
        return [
            CompletionItem(name, help=part.summary)
            for name, part in known.items()
            if name.startswith(incomplete)
        ]

    return complete


def studies(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Shell completion by the studies in the folder `results`."""
    found = sorted(Path("results/studies").glob(f"{incomplete}*/study.toml"))
    return [CompletionItem(path.parent.name) for path in found]


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
RESULTS = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="The folder that studies and reports are kept in.",
)
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of a part: population_size=10, or space.channels=8, task.num_train=2000, "
    "evaluator.epochs=5 where the bare name is not enough. May be repeated.",
)
SPACE = click.option(
    "--space", metavar="NAME", shell_complete=names("space"), help="See `nas list spaces`."
)
TASK = click.option(
    "--task", metavar="NAME", shell_complete=names("task"), help="See `nas list tasks`."
)
EVALUATORS = click.option(
    "--evaluator",
    "evaluators",
    multiple=True,
    metavar="NAME",
    shell_complete=names("evaluator"),
    help="Repeated: a cascade, cheapest first.",
)
LIMITS = click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="METRIC=NUMBER",
    help="Refuse more than this, such as params=1e6; before building where that can be told.",
)
STORAGE = click.option(
    "--storage",
    metavar="URL",
    help="journal:FILE, sqlite:///FILE or postgresql://…; default: a journal in the study's folder.",
)


def machine(command: Command) -> Command:
    """The options of what an evaluation runs on."""
    device = click.option("--device", metavar="NAME", help='"cpu", "cuda", "cuda:1"; default: cpu.')
    threads = click.option(
        "--threads",
        type=click.IntRange(1),
        help="Threads of one evaluation; default: 1. More pays for large networks.",
    )
    return device(threads(command))


WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that search together, each with its own --threads.  [default: 1]",
)


FINALISTS = click.option(
    "--finalists",
    type=click.IntRange(0),
    metavar="N",
    help="Train the best N fully when the search is over, ten times as long or as --set "
    "finalists.epochs=100 says, and score them on test data.",
)
