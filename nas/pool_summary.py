"""What the columns of a pool hold, in a few numbers each."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas.pool import Pool


def summary(pool: Pool) -> list[dict[str, Any]]:  # Any: JSON values
    """For each metric its unit and direction, how many values are missing, and how the others lie."""
    rows = []
    for name, metric in pool.metrics.items():
        column = pool.columns[name]
        values = column[np.isfinite(column)]
        row = {
            "metric": name,
            "unit": metric.unit,
            "direction": metric.direction,
            "missing": len(column) - len(values),
            "values": len(np.unique(values)),
        }
        lie = (np.min, np.median, np.max) if len(values) else ()
        row |= dict(zip(("min", "median", "max"), (float(f(values)) for f in lie), strict=False))
        rows.append(row)
    return rows
