"""What a residual is made of: how far repeated measurements differ, and which property of a row explains how much.

Works on the measured tables and on residuals; fits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from simulator.spec.calibration import Calibration
from simulator.spec.engine import EngineSpec
from validation.tables import kernel_files, read_table

SAME_RUN = (
    "model", "hardware", "n_devices", "framework", "weight_dtype", "kv_dtype", "tp", "pp", "batch", "input_len",
    "output_len",
)  # fmt: skip
"""Columns that make two rows of a run the same measurement, repeated."""
STEPS = (
    ("device", ("device",)),
    ("engine on it", ("device", "framework")),
    ("number of devices", ("device", "framework", "count")),
    ("model", ("device", "framework", "count", "model")),
    ("batch", ("device", "framework", "count", "model", "batch")),
    ("input and output length", ("device", "framework", "count", "model", "batch", "input_len", "output_len")),
)


def spread(values: pd.Series, keys: Sequence[Any]) -> tuple[int, int, float, float]:
    """Groups with repeats, values in them, and the median and the 90% quantile of |value / the group's median - 1|.

    >>> groups, count, median, _ = spread(pd.Series([1.0, 1.1, 0.9, 5.0]), [pd.Series(["a", "a", "a", "b"])])
    >>> groups, count, round(median, 3)
    (1, 3, 0.1)
    """
    grouped = values.groupby(list(keys), dropna=False, observed=True)
    count, middle = grouped.transform("size"), grouped.transform("median")
    repeated = (count > 1) & (middle > 0)
    off = (values[repeated] / middle[repeated] - 1.0).abs()
    if not len(off):
        return 0, 0, float("nan"), float("nan")
    groups = int((1.0 / count[repeated]).sum().round())
    return groups, len(off), float(off.median()), float(off.quantile(0.9))


def repeated_runs(table: pd.DataFrame) -> pd.DataFrame:
    """By source and framework: how far rows of the same run differ in latency, or in throughput where none is stated."""
    records = []
    value = table["latency_s"].fillna(1.0 / table["throughput_tokens_per_s"])
    sources = table["source"].str.split("[/:]", regex=True).str[0]
    for (source, framework), rows in table.assign(value=value)[value > 0].groupby([sources, "framework"]):
        groups, count, median, most = spread(rows["value"], [rows[name].astype(str) for name in SAME_RUN])
        if groups:
            records.append((source, framework, groups, count, median, most))
    return pd.DataFrame(records, columns=["source", "framework", "groups", "n", "median", "q90"])


def repeated_products() -> pd.DataFrame:
    """By device: how far the same bf16 product differs inside one table, and between the tables of several frameworks, which
    all call the vendor's library."""
    found = []
    for path in kernel_files([]):
        if path.name.startswith("gemm__"):
            rows = read_table(path)
            rows = rows[(rows["gemm_dtype"] == "bfloat16") & (rows["latency"] > 0)]
            found.append(rows[["m", "n", "k", "latency"]].assign(device=path.parent.name, table=path.name))
    rows = pd.concat(found, ignore_index=True)
    records = []
    for device, part in rows.groupby("device"):
        own = spread(part["latency"], [part[name] for name in ("table", "m", "n", "k")])
        each = part.groupby(["table", "m", "n", "k"])["latency"].median().reset_index()
        between = spread(each["latency"], [each[name] for name in ("m", "n", "k")])
        records += [(device, "one table", *own), (device, "between frameworks", *between)]
    return pd.DataFrame(records, columns=["device", "where", "groups", "n", "median", "q90"])


def explained(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the variance of the residual that the mean of each group takes away, property after property; what is left
    differs between rows that agree in all of them."""
    count = rows["tp"] * rows["pp"] * rows["dp"]
    rows = rows.assign(count=count)
    residual = rows["residual"]
    # Groups of one row would explain everything: only those with others beside them in the finest division are kept.
    finest = residual.groupby([rows[name].astype(str) for name in STEPS[-2][1]]).transform("size")
    rows, residual = rows[finest > 1], residual[finest > 1]
    total = float(((residual - residual.mean()) ** 2).sum())
    records, before = [], total
    for label, keys in STEPS:
        middle = residual.groupby([rows[name].astype(str) for name in keys]).transform("mean")
        left = float(((residual - middle) ** 2).sum())
        records.append((label, (before - left) / total, left / total, float(np.sqrt(left / len(rows)))))
        before = left
    return pd.DataFrame(records, columns=["property", "explains", "left", "rms_left"])


def fitted_fields(spec: Calibration | EngineSpec) -> Mapping[str, tuple[list[str], str]]:
    """Key of a measured source -> the fields that rest on it, and what the source says."""
    found: dict[str, tuple[list[str], str]] = {}

    def walk(owner: Any, prefix: str) -> None:
        for name in type(owner).model_fields:
            held = getattr(owner, name)
            if hasattr(held, "source") and hasattr(held, "value"):
                if spec.sources[held.source].kind == "measured":
                    found.setdefault(held.source, ([], str(spec.sources[held.source].ref)))[0].append(prefix + name)
            elif hasattr(type(held), "model_fields"):
                walk(held, f"{prefix}{name}.")

    walk(spec, "")
    return found
