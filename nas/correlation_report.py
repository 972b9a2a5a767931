"""What `nas correlate` says: a pool's metrics against a truth, parameters and multiply-adds beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.complexity import UNITS
from nas.correlation import RESAMPLES, Correlation, Values, correlations
from nas.errors import ConfigurationError
from nas.pool import Pool
from nas.pool_source import directed
from nas.ranking import log_rank_sum
from nas.statistics import Estimate
from nas.truth import Locate, column, space_of

BESIDE = ("params", "macs")  # what a proxy has to beat
TOGETHER = "+"  # between the names of metrics whose ranks are taken together
PANELS_A_ROW = 4
NUM_TICKS = 5  # at most: whole numbers of parameters are long
COLUMNS = ("metric", "direction", "n", "missing", "Spearman", "Kendall", "given params")


@dataclass(frozen=True, eq=False)
class Report:
    """The correlations of a pool's metrics with a truth, and the columns (rows,) they are of."""

    pool: Pool
    truth_name: str
    truth: Values
    columns: Mapping[str, Values]
    found: Sequence[Correlation]

    def rows(self) -> list[list[str]]:
        """A row for each metric, the most correlated first, as `COLUMNS` names them."""
        ordered = sorted(self.found, key=lambda c: -np.nan_to_num(abs(c.spearman.value)))
        return [
            [
                c.metric,
                self._direction(c.metric),
                str(c.n),
                str(c.missing),
                *(_said(e) for e in (c.spearman, c.kendall, c.partial)),
            ]
            for c in ordered
        ]

    def _direction(self, name: str) -> str:
        if TOGETHER in name:
            return "maximize"
        return self.pool.metrics[name].direction if name in self.pool.metrics else ""

    def tables(self) -> dict[str, Any]:  # Any: JSON values
        """For scripts; what is not defined is null."""
        return {
            "truth": self.truth_name,
            "architectures": int(np.isfinite(self.truth).sum()),
            "metrics": [_json(asdict(c)) for c in self.found],
        }

    def draw(self, path: Path) -> None:
        """A panel of points for each metric, into a picture; ConfigurationError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ConfigurationError(
                'a picture needs matplotlib; install it by pip install "nasgram[plot]".'
            ) from error
        across = min(PANELS_A_ROW, len(self.found))
        down = -(-len(self.found) // across)
        figure = Figure(figsize=(3.2 * across, 2.8 * down), layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False, sharey=True).flat)
        for panel, correlation in zip(panels, self.found, strict=False):
            x = self.columns[correlation.metric]
            panel.scatter(x, self.truth, s=4, alpha=0.3, linewidths=0, rasterized=True)
            panel.set_title(
                f"{correlation.metric}: Spearman {correlation.spearman.value:.3f}", fontsize=9
            )
            scale = _scale(x[np.isfinite(x)])
            panel.set_xscale(scale)
            if scale == "linear":
                panel.locator_params(axis="x", nbins=NUM_TICKS)
        for panel in panels[len(self.found) :]:
            panel.set_visible(False)
        figure.supylabel(self.truth_name)
        figure.savefig(path, dpi=120)


def correlate(
    pool: Pool,
    truth: str,
    locate: Locate,
    *,
    metrics: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Report:
    """The metrics of a pool (none named: all) against FILE:COLUMN, parameters and MACs beside.

    Several names joined by +, as METRIC or METRIC:DIRECTION, are one metric: their ranks together
    (`nas.ranking.log_rank_sum`), as `ranking` goes by them.
    """
    values = column(pool, truth, locate)
    columns = {name: _column(pool, name) for name in metrics or pool.columns}
    costs = _costs(pool)
    columns |= {name: costs[name] for name in BESIDE if name not in columns}
    found = correlations(columns, values, costs["params"], resamples=resamples)
    return Report(pool, truth, values, columns, found)


def _column(pool: Pool, name: str) -> Values:
    """A metric of the pool, or the ranks of several together; NaN where all are missing."""
    if TOGETHER not in name:
        return pool.column(name)
    names, signs = zip(*(directed(pool, part) for part in name.split(TOGETHER)), strict=True)
    columns = pool.matrix(names) * np.array(signs)
    known = np.isfinite(columns).any(axis=1)
    found = np.full(len(columns), np.nan)
    found[known] = log_rank_sum(columns[known])
    return found


def _costs(pool: Pool) -> dict[str, Values]:
    """Parameters and multiply-adds: the pool's, or counted now."""
    if all(name in pool.columns for name in BESIDE):
        return {name: pool.columns[name] for name in BESIDE}
    space = space_of(pool)
    rows = [space.complexity(space.parse(text)).metrics() for text in pool.texts]
    assert set(BESIDE) <= set(UNITS)
    return {name: np.array([row[name] for row in rows], float) for name in BESIDE}


def _scale(x: Values) -> str:
    """Logarithmic where values span more than two orders of magnitude."""
    return "log" if len(x) and x.min() > 0 and x.max() > 100 * x.min() else "linear"


def _said(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _json(value: Any) -> Any:  # Any: JSON values, NaN among them
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
