"""Writes the interval file: ratios of runs and kernels, and the ranges that were measured.

How the ratios are found is `validation.conformal`'s. Writes nothing new where no number has changed.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from simulator.spec.interval import TAGS
from validation import conformal, residuals

FILE = Path(__file__).resolve().parents[1] / "hardware" / "interval" / "shipped.yaml"


def kernel_quantiles(kernels: residuals.Kernels) -> dict[tuple[str, str], conformal.Quantiles]:
    """(op, tag) -> quantiles: shipped parameters on the devices they were fitted on, others' parameters on each device."""
    own, other = kernels.shipped, kernels.heldout
    fitted = own[own["tag"] == "in-grid"]
    strange = pd.concat([other, own[own["tag"] != "in-grid"]])
    found: dict[tuple[str, str], conformal.Quantiles] = {}
    for op in sorted(set(own["op"].astype(str))):
        before: conformal.Quantiles | None = None
        for tag, rows in (("in-grid", fitted), ("transferred", strange)):
            part = rows[rows["op"] == op]
            if len(part):
                residual = np.log(part["measured"].to_numpy(float) / part["predicted"].to_numpy(float))
                cells_of = part.groupby(["hardware", "framework", "dtype", "size_class"], observed=True).ngroup()
                low, high, cells = conformal.shortest(residual, cells_of.to_numpy())
                before = conformal.Quantiles(
                    min(1.0, float(np.exp(low)), before.low if before else 1.0),
                    max(1.0, float(np.exp(high)), before.high if before else 1.0),
                    cells,
                    len(part),
                )
            if before is not None:
                found[op, tag] = before
        if before is not None:
            found[op, "datasheet"] = conformal.Quantiles(before.low, before.high, 0, 0, "as the next better founded")
    return found


def file_text(rows: pd.DataFrame, kernels: residuals.Kernels, date: datetime.date) -> str:
    """The interval file."""
    groups = conformal.grouped(rows)
    ratios = [
        _record(metric, tag, engine, regime, found)
        for (metric, tag, engine, regime), found in sorted(conformal.quantiles(groups).items(), key=_order)
    ]
    ratios += [
        _record(f"kernel {op}", tag, "measured", "static", found)
        for (op, tag), found in kernel_quantiles(kernels).items()
    ]
    head = {
        "name": "shipped",
        "title": "How far measurements were from predictions",
        "method": (
            "split conformal on ln(measured / predicted), by tag, engine and metric; each cell of related rows weighs the "
            "same; the shortest interval with 0.9 (K+1) + 0.5 of K cells; at least as wide as every better founded group"
        ),
        "date": date,
        "sources": {
            "residuals": {
                "kind": "measured",
                "ref": "runs and kernels in validation/measured; `python -m validation.accuracy --write`",
                "date": date.isoformat(),
            }
        },
        "default_source": "residuals",
        "engines": conformal.measured_engines(),
    }
    lines = ["# Written by `python -m validation.accuracy --write` (`make accuracy`)."]
    lines.append(yaml.safe_dump(head, sort_keys=False, width=120, allow_unicode=True).rstrip())
    for title, records in (("measured", ranges(rows)), ("ratios", ratios)):
        lines.append(f"{title}:")
        lines += [f"  - {_flow(record)}" for record in records]
    return "\n".join(lines) + "\n"


def _order(item: tuple[conformal.Key, conformal.Quantiles]) -> tuple[int, int, int, int]:
    metric, tag, engine, regime = item[0]
    places = (conformal.REGIMES, conformal.METRICS, conformal.ENGINES, [str(name) for name in TAGS])
    return tuple(p.index(key) for p, key in zip(places, (regime, metric, engine, tag), strict=True))  # type: ignore


def _record(metric: str, tag: str, engine: str, regime: str, found: conformal.Quantiles) -> dict[str, Any]:
    record: dict[str, Any] = {"metric": metric, "tag": tag, "engine": engine, "regime": regime}
    record |= {"low": float(f"{found.low:.4g}"), "high": float(f"{found.high:.4g}")}
    record |= {"cells": found.cells, "values": found.values}
    return record | ({"pooled": found.pooled} if found.pooled else {})


def _flow(record: dict[str, Any]) -> str:
    text = yaml.safe_dump(record, default_flow_style=True, sort_keys=False, width=1_000_000)
    return str(text).strip()


def write(rows: pd.DataFrame, kernels: residuals.Kernels) -> None:
    """Write the interval file and the residuals; the date moves only when a number does."""
    residuals.STORED.parent.mkdir(exist_ok=True)
    rows.to_parquet(residuals.STORED, index=False, compression="zstd")
    FILE.parent.mkdir(exist_ok=True)
    text = file_text(rows, kernels, datetime.date.today())
    if FILE.exists():
        held = FILE.read_text(encoding="utf-8")
        dated = file_text(rows, kernels, yaml.safe_load(held)["date"])
        text = held if dated == held else text
    FILE.write_text(text, encoding="utf-8")


def ranges(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What each measured device was measured at with each engine, devices of one chip together."""
    shipped = residuals.as_times(rows[rows["parameters"] == residuals.SHIPPED])
    devices = sorted(conformal.measured_devices(shipped))
    own = shipped[shipped["device"].isin(devices)].assign(chip=lambda frame: frame["device"].map(conformal.chip))
    found = []
    for device in devices:
        for engine, part in own[own["chip"] == conformal.chip(device)].groupby("framework", sort=True):
            stated = part[~part["assumed_lengths"]]
            context = stated["input_len"].astype(float) + stated["output_len"].astype(float)
            count = part["tp"] * part["pp"] * part["dp"]
            found.append({
                "hardware": device,
                "engine": str(engine),
                "batch": _span(part["batch"].astype(float).clip(lower=1.0).round()),
                "context": _span(context) if len(context) else [1.0, 1.0],
                "weight_bytes": _span(part["weight_bytes"].round(-6)),
                "devices": [int(count.min()), int(count.max())],
                "formats": _parts(part["formats"]),
                "kinds": _parts(part["kinds"]),
            })  # fmt: skip
    return found


def _span(values: pd.Series) -> list[float]:
    return [float(values.min()), float(values.max())]


def _parts(values: pd.Series) -> list[str]:
    return sorted({part for value in values.unique() for part in str(value).split(";")})
