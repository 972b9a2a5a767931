"""The commands that make pools and report on them: `nas score`, `nas join` and `nas correlate`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.errors import ConfigurationError
from nas.options import EVALUATORS, JSON, LIMITS, SET, SPACE, TASK, WORKERS, machine

if TYPE_CHECKING:
    from nas.pool import Pool
    from nas.scoring import Scoring
    from nas.truth import Locate

INTERRUPTED = 130
NUM_REASONS = 8  # that are told, the most common first
OUTPUT = click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The pool's file, .npz."
)


@click.command(
    epilog="""\b
Examples:
  nas score --space nasbench201 --evaluator complexity -o complexity.npz
  nas score --space nasbench201 --fold benchmark --evaluator table -o table.npz
  nas score --space einspace --sample 200 --evaluator complexity --workers 2 -o sample.npz
"""
)
@SPACE
@TASK
@EVALUATORS
@LIMITS
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Draw N; default: the whole space.")
@click.option(
    "--fold",
    metavar="NAME",
    help="Score one architecture of each class: `function` (the canonical form), or another "
    "equivalence that the space names.",
)
@click.option("--seed", default=0, show_default=True, help="Of the sample and of the evaluations.")
@click.option(
    "--seconds",
    type=float,
    help="Stop after so long; the pool holds what was scored, and the same command goes on.",
)
@machine
@WORKERS
@SET
@OUTPUT
@JSON
@click.pass_context
def score(
    context: click.Context, /, *, output: Path, as_json: bool, **given: Any
) -> None:  # Any: options
    """Score a whole finite space, or a sample of any, by evaluators, into a pool.

    Stopped or killed, the same command goes on; the architecture at hand is lost, one for each worker.
    A pool of the same setup is added to, as by a larger --sample.
    """
    from nas.scoring import score as run
    from nas.terminal import watching_one

    scoring = _scoring(context.find_root().params["files"], given)
    try:
        pool = run(scoring, output, watch=watching_one)
    except KeyboardInterrupt:
        click.echo("\nStopped; nothing is lost. Go on with the same command.", err=True)
        sys.exit(INTERRUPTED)
    _print_pool(pool, output, as_json=as_json)
    if len(pool) < pool.description["asked"]:
        click.echo("Stopped by the clock; the same command goes on.", err=True)


def _scoring(loaded: tuple[Path, ...], given: dict[str, Any]) -> Scoring:  # Any: options
    from nas.configuration import SearchConfiguration
    from nas.flags import apply_settings, numbers
    from nas.scoring import Scoring
    from nas.scoring_workers import Machine

    if not given["space"] or not given["evaluators"]:
        raise ConfigurationError("nas score takes a space and an evaluator: --space and --evaluator.")
    tables: dict[str, Any] = {  # Any: TOML values
        "space": {"name": given["space"]},
        "evaluator": [{"name": name} for name in given["evaluators"]],
        "limits": numbers("--limit", given["limits"]),
        "seed": given["seed"],
        "load": [str(path.resolve()) for path in loaded],
    }
    if given["task"]:
        tables["task"] = {"name": given["task"]}
    apply_settings(tables, given["settings"])
    return Scoring(
        SearchConfiguration.read(tables),
        given["sample"],
        given["fold"],
        Machine(given["device"] or "cpu", given["threads"] or 1),
        given["workers"] or 1,
        given["seconds"],
    )


def _print_pool(pool: Pool, path: Path, *, as_json: bool) -> None:
    from nas.pool_summary import summary
    from nas.terminal import number, print_table

    rows, asked = summary(pool), pool.description.get("asked", len(pool))
    if as_json:
        told = {"pool": str(path), "architectures": len(pool), "asked": asked, "metrics": rows}
        reasons = {pool.texts[row]: why for row, why in pool.reasons.items()}
        click.echo(json.dumps(told | {"reasons": reasons, "description": pool.description}, indent=2))
        return
    unit = pool.description.get("cost_unit", "")
    shown = [[_cell(value) for value in row.values()] for row in rows]
    of = f" of {asked:,}" if len(pool) < asked else ""
    print_table(f"{path}: {len(pool):,}{of} architectures", list(rows[0]), shown)
    seconds, cpu = number(pool.seconds.sum()), number(pool.cpu_seconds.sum())
    click.echo(f"It took {number(pool.costs.sum())} {unit}, {seconds} s of work and {cpu} s of CPU.")
    if pool.reasons:
        click.echo(f"{len(pool.reasons):,} lack something or all:")
    clauses = [clause for why in pool.reasons.values() for clause in why.split("; ")]
    for why, count in Counter(clauses).most_common(NUM_REASONS):
        click.echo(f"{count:>6,}  {why}")


def _cell(value: str | float | None) -> str:
    from nas.terminal import number

    return value if isinstance(value, str) else "–" if value is None else number(value)


@click.command(
    epilog="""\b
Examples:
  nas join quick.npz slow.npz -o pool.npz
"""
)
@click.argument("pools", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="POOL...")
@OUTPUT
@JSON
def join(*, pools: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Join pools of one space: all their architectures, and all their metrics.

    A value that several have must be the same; seconds and costs are added up.
    """
    from nas.pool import Pool
    from nas.pool_joining import join as joined

    pool = joined({path: Pool.read(path) for path in pools})
    pool.write(output)
    _print_pool(pool, output, as_json=as_json)


@click.command(
    epilog="""\b
Examples:
  nas correlate pool.npz --truth nasbench201:c10_test200
  nas correlate pool.npz --truth trained.npz:accuracy --metric params --plot pool.png
  nas correlate pool.npz --truth trained.npz:accuracy --metric synflow+naswot --metric meco
"""
)
@click.argument("pool", type=click.Path(path_type=Path), metavar="POOL")
@click.option(
    "--truth",
    required=True,
    metavar="FILE:COLUMN",
    help="A metric of another pool, or a column of a table (npz) that names architectures; DATA:COLUMN "
    "for a data set that `nas data` finds.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Repeated. Default: all. NAME+NAME is one metric: the ranks of several together, each in its "
    "direction or in that of NAME:DIRECTION.",
)
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help='Extra "plot".')
@JSON
@click.pass_obj
def correlate(
    locate: Locate,
    /,
    *,
    pool: Path,
    truth: str,
    metrics: tuple[str, ...],
    resamples: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Correlate a pool's metrics with a truth: Spearman, Kendall, and Spearman given parameters.

    Each with a 95% bootstrap interval, and always beside parameters and multiply-adds.
    """
    from nas import correlation_report as report
    from nas.pool import Pool
    from nas.terminal import print_table

    found = report.correlate(Pool.read(pool), truth, locate, metrics=metrics, resamples=resamples)
    if plot is not None:
        found.draw(plot)
        click.echo(f"Drawn into {plot}", err=True)
    if as_json:
        click.echo(json.dumps(found.tables(), indent=2))
        return
    print_table(f"{pool} against {truth}", report.COLUMNS, found.rows())
