"""Accuracy by group on the shipped measurements and claims: the numbers that may not get worse.

The comparisons are those of `ridgeline validate`. Of kernel tables only some shapes are predicted, always the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from validation import endtoend, kernels
from validation.papers import papers
from validation.rows import COLUMNS
from validation.score import score
from validation.shapes import family_of
from validation.tables import END_TO_END, KERNELS, read_table
from validation.torch_shapes import torch_family
from validation.verdicts import Row as Claim
from validation.verdicts import evaluate

STATISTICS = ("n", "median_ape", "mape", "bias", "coverage_90")
GATED = ("median_ape", "mape")
"""Statistics that fail the gate: the error of the usual row, and the mean, which a few bad rows move."""
FEW = 10
"""Groups of fewer rows are put together by their last key: one row in five would decide by itself."""
FEW_CLAIMS = 5
"""The same for the claims of a family of techniques."""
SHAPES = 40
"""Of each kernel table, at most so many shapes of each op and format, spread evenly over their sorted list; all rows of a
shape. Building a shape's ops takes most of the time, and rows of one shape are near duplicates."""
Groups = dict[str, dict[str, float | str]]
"""Group -> statistic -> value."""


def of_runs(rows: pd.DataFrame) -> Groups:
    """Whole runs, by hardware, engine, regime and metric."""
    regime = np.where(rows["steady"], "steady", "static")
    return _grouped(rows.assign(regime=regime), ("hardware", "framework", "regime", "metric"))


def of_kernels(rows: pd.DataFrame) -> Groups:
    """Kernels, by hardware, engine, format and op."""
    return _grouped(rows, ("hardware", "framework", "dtype", "op"))


def of_claims(rows: Sequence[Claim]) -> Groups:
    """Claims by family of technique, the prediction against the claimed value; and the share of checked claims missed."""
    family = {paper.id: paper.family for paper in papers()}
    checked = [row for row in rows if row.verdict in ("predicted", "bounded", "missed")]
    records = [
        {
            "family": family[row.paper],
            "predicted": row.predicted,
            "measured": row.claimed,
            "low": math.nan,
            "high": math.nan,
        }
        for row in checked
        if row.predicted is not None and row.claimed
    ]
    found = _grouped(pd.DataFrame(records), ("family",), FEW_CLAIMS) if records else {}
    missed = sum(row.verdict == "missed" for row in checked)
    if checked:
        found["missed, of all checked"] = {
            "n": len(checked),
            "median_ape": missed / len(checked),
            "mape": missed / len(checked),
        }
    return found


def run_rows(progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Every shipped run with what is predicted of it. Raises ImportFormatError without the table."""
    table = read_table(END_TO_END, COLUMNS)
    return endtoend.compare([(END_TO_END.name, table)], progress=progress).scored


def sample(rows: pd.DataFrame) -> dict[str, dict[str, float | str]]:
    """One measured run of each device and engine, the middle one of the table: name and metric -> measured, predicted."""
    table = read_table(END_TO_END, COLUMNS)
    middle = table.groupby(["hardware", "framework"], sort=True).apply(lambda part: part.index[len(part) // 2])
    found: dict[str, dict[str, float | str]] = {}
    for row in rows[rows["row"].isin(middle)].itertuples():
        lengths = "" if row.assumed_lengths else f" {row.input_len:g}+{row.output_len:g}"
        name = (
            f"{row.model} on {row.hardware} {row.framework} batch {row.batch:g}{lengths} (run {row.row}): {row.metric}"
        )
        found[name] = {"measured": float(row.measured), "predicted": float(row.predicted)}
    return found


def kernel_rows(progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """The chosen shapes of every shipped kernel table with their predictions."""
    paths = sorted(KERNELS.rglob("*.parquet"))
    tables = ((path.name, chosen(read_table(path))) for path in paths)
    return kernels.compare(tables, len(paths), progress).rows


def chosen(table: pd.DataFrame, shapes: int = SHAPES) -> pd.DataFrame:
    """The rows of at most `shapes` shapes per op and format, spread evenly over the sorted shapes; the order is kept."""
    parts = []
    for _, part in table.groupby("op_name", sort=True):
        family = family_of(part) or torch_family(part)
        columns = [name for name in family.shape if name in part.columns] if family is not None else []
        if not columns:
            parts.append(part)
            continue
        listed = part[columns].drop_duplicates().sort_values(columns, kind="stable")
        formats = [name for name in columns if name.endswith("dtype")]
        groups = listed.groupby(formats, sort=True, dropna=False) if formats else [((), listed)]
        kept = [own.iloc[evenly(len(own), shapes)] for _, own in groups]
        parts.append(part.reset_index().merge(pd.concat(kept), on=columns, how="inner").set_index("index"))
    return pd.concat(parts).sort_index()


def evenly(count: int, most: int) -> list[int]:
    """At most `most` positions of `count`, first and last among them.

    >>> evenly(9, 3), evenly(2, 3)
    ([0, 4, 8], [0, 1])
    """
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def claims() -> list[Claim]:
    """A row per claim of every paper."""
    return evaluate()


def missing() -> list[tuple[str, str]]:
    """The parts whose measurements are not part of this installation, each with words for them."""
    shipped = (("runs", END_TO_END, "measured runs"), ("kernels", KERNELS, "measured kernels"))
    return [(part, words) for part, path, words in shipped if not path.exists()]


def _grouped(rows: pd.DataFrame, keys: Sequence[str], few: int = FEW) -> Groups:
    """Statistics of each group; small groups together by their last key."""
    sizes = rows.groupby(list(keys), observed=True)["predicted"].transform("size")
    found: Groups = {}
    for names, part in _parts(rows[sizes >= few], list(keys)):
        found[" / ".join(names)] = _statistics(score(part))
    for names, part in _parts(rows[sizes < few], [keys[-1]] if len(keys) > 1 else []):
        found[" / ".join(("others", *names))] = _statistics(score(part))
    return found


def _parts(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    if not len(rows):
        return
    if not keys:
        yield (), rows
        return
    for names, part in rows.groupby(keys, sort=True, observed=True):
        yield tuple(map(str, names)), part


def _statistics(found: Mapping[str, Any]) -> dict[str, float | str]:
    return {name: float(found[name]) for name in STATISTICS if found[name] is not None}
