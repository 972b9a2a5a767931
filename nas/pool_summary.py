"""What the columns of a pool hold, in a few numbers each."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas.pool import Pool


def summary(pool: Pool) -> list[dict[str, Any]]:  # Any: JSON values
    """For each metric its unit and direction, how many values are missing, and how the others lie:
    None where there are none."""
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
        for name_of, lie in (("min", np.min), ("median", np.median), ("max", np.max)):
            row[name_of] = float(lie(values)) if len(values) else None
        rows.append(row)
    return rows
