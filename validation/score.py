"""How far predictions are from measurements: the statistics of a group of rows.

An error is predicted / measured - 1. Knows nothing of where the rows come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def score(rows: pd.DataFrame) -> dict[str, Any]:
    """`n`, mean and median absolute error, median signed error, and the share of measurements inside the intervals.

    `rows` has the columns predicted, measured, low and high; without intervals, `coverage_90` is None.

    >>> frame = pd.DataFrame({"predicted": [1.1, 3.0], "measured": [1.0, 2.0], "low": [1.0, 2.5], "high": [1.2, 3.5]})
    >>> {key: round(value, 3) for key, value in score(frame).items()}
    {'n': 2, 'mape': 0.3, 'median_ape': 0.3, 'bias': 0.3, 'coverage_90': 0.5}
    """
    error = rows["predicted"].to_numpy(float) / rows["measured"].to_numpy(float) - 1.0
    if not len(error):
        return {"n": 0, "mape": None, "median_ape": None, "bias": None, "coverage_90": None}
    low, high, measured = (rows[name].to_numpy(float) for name in ("low", "high", "measured"))
    known = np.isfinite(low) & np.isfinite(high)
    inside = (low[known] <= measured[known]) & (measured[known] <= high[known])
    return {
        "n": len(error),
        "mape": float(np.mean(np.abs(error))),
        "median_ape": float(np.median(np.abs(error))),
        "bias": float(np.median(error)),
        "coverage_90": float(np.mean(inside)) if len(inside) else None,
    }


def score_by(rows: pd.DataFrame, keys: Sequence[str], extra: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A record per group: its keys and its statistics, and the number of rows for which each column of `extra` is true.

    Worst median error first.
    """
    found = []
    if len(rows):
        for names, group in rows.groupby(list(keys), sort=True, dropna=False):
            counts = {name: int(group[name].sum()) for name in extra}
            found.append(dict(zip(keys, names, strict=True)) | score(group) | counts)
    return sorted(found, key=lambda record: -record["median_ape"])
