"""How far predictions are from the shipped measurements, by group, as a small file that ships: `baselines/summary.json`.

`python -m validation.accuracy --write` writes it beside the page, from the same rows. Whoever has no measured tables, as in
an installed package, reads accuracy from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simulator.errors import ScenarioError
from simulator.views.document import Table

STORED = Path(__file__).parent / "baselines" / "summary.json"
DIGITS = 4


def stored() -> dict[str, list[dict[str, Any]]]:
    """`goals`, `runs` and `kernels`, each a list of records. Raises ScenarioError where the file is missing."""
    if not STORED.exists():
        raise ScenarioError(f"accuracy by group is not known: {STORED.name} is missing; `make accuracy` writes it")
    found: dict[str, list[dict[str, Any]]] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def interval_records() -> list[dict[str, Any]]:
    """Measured over predicted: the ends of the 90% intervals, a record per metric, tag, engine and regime."""
    from simulator.cost.interval import interval_table

    names = ("metric", "tag", "engine", "regime", "low", "high")
    return [dict(zip(names, (*key, *ends), strict=True)) for key, ends in interval_table().ratios.items()]


def summary_tables(found: dict[str, list[dict[str, Any]]]) -> list[Table]:
    """The content as tables of text."""
    goals = tuple(tuple(str(value) for value in row.values()) for row in found["goals"])
    columns = tuple(found["goals"][0]) if found["goals"] else ()
    tables = [Table(columns, goals, frozenset({"goal", "met"}))]
    return tables + [group_table(found[name], name.capitalize()) for name in ("runs", "kernels") if found[name]]


def group_table(records: list[dict[str, Any]], title: str = "") -> Table:
    """Records of groups as a table of text."""
    from validation.groups import pct

    kernels = any(row.get("dtype") for row in records)
    words = ("hardware", "engine", "what", "dtype" if kernels else "regime")
    rows = tuple(
        (
            *(str(row.get(name) or "") for name in words),
            f"{row['n']:,}", pct(row["median"]), pct(row["mape"]), pct(row["bias"], signed=True),
            pct(row["coverage_90"]), pct(row["roofline_median"]),
        )
        for row in records
    )  # fmt: skip
    columns = (*words, "values", "median", "MAPE", "bias", "in 90%", "roofline median")
    return Table(columns, rows, frozenset(words), title)


def summary(rows: Any, kernels: Any, held: Any) -> dict[str, list[dict[str, Any]]]:
    """The content, from `residuals.runs()`, `residuals.kernel_rows()` and `folds.runs()`. Groups of fewer than eight values
    are left out."""
    import numpy as np

    from validation import standing

    runs = standing.runs_of(rows)
    own = standing.kernel_residuals(kernels.shipped)
    other = standing.kernel_residuals(kernels.heldout.assign(ideal=np.nan))
    goals = [dict(zip(standing.GOALS, row, strict=True)) for row in standing.goals(runs, own, other, held)]
    found = []
    for regime, part in (("static", runs.static), ("steady", runs.steady)):
        found += grouped(part, ("device", "framework", "metric"), ("hardware", "engine", "what"), {"regime": regime})
    products = grouped(
        own, ("hardware", "framework", "op", "dtype"), ("hardware", "engine", "what", "dtype"), {"regime": "kernel"}
    )
    return {"goals": goals, "runs": found, "kernels": products}


def grouped(rows: Any, keys: tuple[str, ...], names: tuple[str, ...], first: dict[str, str]) -> list[dict[str, Any]]:
    """A record per group: errors of predictions and of the roofline, and the share inside 90% intervals."""
    from validation.groups import FEW, errors

    found = []
    for values, part in rows.groupby(list(keys), sort=True, observed=True):
        if len(part) < FEW:
            continue
        own, roof = errors(part["residual"]), errors(part["ideal_residual"].dropna())
        record: dict[str, Any] = {**first, **dict(zip(names, values, strict=True)), **own}
        record["coverage_90"] = float(part["inside"].mean()) if "inside" in part else None
        record |= {"roofline_mape": roof["mape"], "roofline_median": roof["median"], "roofline_bias": roof["bias"]}
        found.append({key: _rounded(value) for key, value in record.items()})
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else float(f"{value:.{DIGITS}g}")
    return value


def write(rows: Any, kernels: Any, held: Any) -> None:
    """Compute and write the file."""
    store(summary(rows, kernels, held))


def store(found: dict[str, list[dict[str, Any]]]) -> None:
    """Write the file, a record a line."""
    parts = []
    for name, records in found.items():
        lines = ",\n".join("  " + json.dumps(record, ensure_ascii=False) for record in records)
        parts.append(f' "{name}": [\n{lines}\n ]')
    STORED.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
