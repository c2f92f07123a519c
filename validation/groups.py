"""Errors of groups of rows as cells of Markdown tables, beside the same rows at the speed of light.

A residual is ln(measured / predicted). Knows nothing of where rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

FEW = 8
"""Groups of fewer values are taken together."""
BAD = 0.30
"""A median error beyond this is named at the top of the page."""
SMALL = 20


def errors(residual: pd.Series) -> dict[str, float]:
    """n, MAPE, median absolute error and bias of predictions whose ln(measured / predicted) this is.

    >>> {name: round(value, 3) for name, value in errors(pd.Series([0.0, np.log(2.0)])).items()}
    {'n': 2, 'mape': 0.25, 'median': 0.25, 'bias': -0.25}
    """
    error = np.expm1(-residual.to_numpy(float))
    if not len(error):
        return {"n": 0, "mape": np.nan, "median": np.nan, "bias": np.nan}
    return {
        "n": len(error),
        "mape": float(np.mean(np.abs(error))),
        "median": float(np.median(np.abs(error))),
        "bias": float(np.median(error)),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns of numbers to the right."""
    body = [[str(cell) for cell in row] for row in rows]
    if not body:
        return "None.\n"
    numeric = [all(row[i][:1] in "+-.0123456789 " for row in body) for i in range(len(head))]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---:" if right else "---" for right in numeric) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


def pct(value: float, signed: bool = False) -> str:
    """A fraction as percent."""
    if value is None or value != value:
        return ""
    digits = 1 if abs(value) < 0.1 else 0
    return f"{value * 100:+.{digits}f}%" if signed else f"{value * 100:.{digits}f}%"


def cells_of(residual: pd.Series, ideal: pd.Series | None = None, inside: pd.Series | None = None) -> list[str]:
    own = errors(residual)
    cells = [f"{own['n']:,}", pct(own["mape"]), pct(own["median"]), pct(own["bias"], signed=True)]
    if inside is not None:
        cells.append(pct(float(inside.mean())))
    if ideal is not None:
        roof = errors(ideal)
        cells += [pct(roof["mape"]), pct(roof["median"]), pct(roof["bias"], signed=True)]
    return cells


NUMBERS = ("n", "MAPE", "median", "bias")
ROOF = ("roofline MAPE", "median", "bias")


def by_group(rows: pd.DataFrame, keys: Sequence[str], inside: bool = True) -> list[list[str]]:
    """A row per group, with the same rows at the speed of light; groups of fewer than `FEW` values together, by last key."""
    sizes = rows.groupby(list(keys))["residual"].transform("size")
    found = []
    for names, part in rows[sizes >= FEW].groupby(list(keys), sort=True):
        found.append([*names, *cells_of(part["residual"], part["ideal_residual"], part["inside"] if inside else None)])
    for name, part in rows[sizes < FEW].groupby(keys[-1], sort=True):
        label = [f"{part[keys[0]].nunique()} others", *["" for _ in keys[1:-1]], name]
        found.append([*label, *cells_of(part["residual"], part["ideal_residual"], part["inside"] if inside else None)])
    return found


def worst(rows: pd.DataFrame, keys: Sequence[str]) -> list[list[str]]:
    """Groups of at least `SMALL` values with a median error beyond `BAD`, the worst first."""
    found = []
    for names, part in rows.groupby(list(keys), sort=True):
        statistics = errors(part["residual"])
        if statistics["n"] >= SMALL and statistics["median"] > BAD:
            found.append((statistics["median"], [*names, *cells_of(part["residual"], part["ideal_residual"])]))
    return [cells for _, cells in sorted(found, key=lambda pair: (-pair[0], pair[1]))]
