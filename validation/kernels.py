"""Predictions against measured kernels, table by table, in one compiled loop per device, framework and table.

The ops are those of `validation.shapes`, the table, the efficiencies and the arithmetic those of every prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost.efficiency import find_calibration, load_engine
from simulator.cost.interval import Founding, interval_table
from simulator.errors import UnknownNameError
from simulator.mapping.machine import Machine, load_machine
from simulator.spec.calibration import Calibration
from simulator.spec.interval import Tag
from validation.devicenames import find_device
from validation.score import score, score_by
from validation.shapes import COLLECTIVE, DECODE, Family, Numbers, family_of
from validation.timing import beats_light, prepare, speed_of_light, untuned
from validation.torch_shapes import torch_family

KEYS = ("hardware", "framework", "op", "dtype")
CLASSES = (16.0, 128.0, 1024.0, 8192.0, 65536.0, 1048576.0)
"""Upper ends of the size classes."""
ROW = (
    "table", "row", "hardware", "framework", "op", "dtype", "size", "size_class", "measured", "predicted", "low", "high",
    "ideal", "tag",
)  # fmt: skip
Calibrate = Callable[[Machine], Calibration]
SKIPPED = {
    "zero": "latency is 0",
    "wideep": "experts spread over nodes: tokens per rank are not stated",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows of some kernel tables that have a prediction, in the columns `ROW`."""

    rows: pd.DataFrame
    total: int
    unresolved: Counter[str] = field(default_factory=Counter)

    def baseline(self) -> pd.DataFrame:
        """The same rows with the speed of light in place of the prediction."""
        return self.rows.assign(predicted=self.rows["ideal"], low=float("nan"), high=float("nan"))

    def to_dict(self, baseline: bool = False) -> dict[str, Any]:
        """The JSON form."""
        found = _summary(self.rows)
        if baseline:
            found["baseline"] = {"engine": "ideal"} | _summary(self.baseline())
        return {
            "rows": self.total,
            "resolved": len(self.rows),
            **found,
            "unresolved": [{"reason": reason, "rows": count} for reason, count in self.unresolved.most_common()],
        }


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "metrics": {str(op): score(group) for op, group in rows.groupby("op", observed=True)},
        "by": score_by(rows, KEYS),
        "by_size": score_by(rows, (*KEYS, "size_class")),
    }


def compare(
    tables: Iterable[tuple[str, pd.DataFrame]],
    count: int = 0,
    progress: Callable[[int, int], None] | None = None,
    calibrate: Calibrate = find_calibration,
    baseline: bool = False,
) -> Comparison:
    """Predict every row of the (name, table) pairs; `progress` is called with the tables done and `count`.

    `calibrate` finds the calibration of a machine; with `baseline`, the column `ideal` is filled.
    """
    found: list[pd.DataFrame] = []
    unresolved: Counter[str] = Counter()
    total = 0
    for done, (name, table) in enumerate(tables, 1):
        total += len(table)
        numbered = table.assign(row=np.arange(len(table)))
        keys = [key for key in ("device", "framework", "op_name") if key in table.columns]
        if len(keys) < 3:
            unresolved["no columns device, framework and op_name"] += len(table)
            continue
        for (device, framework, op), part in numbered.groupby(keys, sort=False):
            family = family_of(part) or torch_family(part)
            if family is None:
                reason = "no latency" if "latency" not in part.columns else f"op '{op}'"
                unresolved[SKIPPED["wideep"] if str(op).startswith(("wideep_moe", "moe_")) else reason] += len(part)
                continue
            timed = part[part["latency"] > 0.0]
            if len(timed) < len(part):
                unresolved[SKIPPED["zero"]] += len(part) - len(timed)
            alone = untuned(timed)
            for piece in (timed[~alone], timed[alone]):
                if len(piece):
                    frame, lost = _predicted(piece, str(device), str(framework), family, calibrate, baseline)
                    unresolved.update(lost)
                    if len(frame):
                        found.append(frame.assign(table=name))
        if progress is not None:
            progress(done, count)
    rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(ROW))
    for column in ("table", *KEYS, "size_class"):
        rows[column] = rows[column].astype("category")
    return Comparison(rows[list(ROW)], total, unresolved)


def _predicted(
    table: pd.DataFrame, device: str, framework: str, family: Family, calibrate: Calibrate, baseline: bool
) -> tuple[pd.DataFrame, Counter[str]]:
    """The rows of one device, framework and family with their predictions, and the reasons of those without."""
    lost: Counter[str] = Counter()
    try:
        machine, engine = load_machine(find_device(device)), load_engine(framework)
    except UnknownNameError as error:
        lost[f"unknown {error.kind} '{error.name}'"] += len(table)
        return pd.DataFrame(columns=list(ROW)), lost
    whole = table
    table, kernels, lost = prepare(whole, machine, engine, family)
    if kernels is None:
        return pd.DataFrame(columns=list(ROW)), lost
    calibration = calibrate(machine)
    seconds = kernels.seconds(calibration)
    ideal = np.full(len(table), np.nan)
    if baseline or family is DECODE:
        ideal = speed_of_light(whole, machine, engine, family, calibration)
    impossible = beats_light(ideal, table, machine, family)
    tag: Tag = "in-grid" if machine.device in calibration.devices else "transferred"
    founding = Founding(tag if calibration.tag == "in-grid" else calibration.tag, "measured")
    size = family.size(table)
    frame = pd.DataFrame({
        "row": table["row"].to_numpy(),
        "hardware": machine.name,
        "framework": engine.name,
        "op": _labels(table, family),
        "dtype": _dtypes(table, family),
        "size": size,
        "size_class": _classes(size, family.size_unit),
        "measured": table["latency"].to_numpy(np.float64) * 1e-3,
        "predicted": seconds,
        "ideal": ideal if baseline else np.nan,
        "tag": founding.tag,
    })  # fmt: skip
    ratios = interval_table()
    between = {op: ratios.ratio(f"kernel {op}", founding) or (np.nan, np.nan) for op in frame["op"].unique()}
    for name, end in (("low", 0), ("high", 1)):
        frame[name] = frame["predicted"] * frame["op"].map({op: pair[end] for op, pair in between.items()})
    failed = (seconds <= 0.0) | impossible
    for reason, which in (
        ("no unit can run it", seconds < 0.0),
        ("faster than the memory: a cache of repeated pages was read", impossible),
        ("the op does not run in such a step", seconds == 0.0),
    ):
        if which.any():
            lost[reason] += int(which.sum())
    return frame[~failed], lost


def _labels(table: pd.DataFrame, family: Family) -> Any:
    """The op; collectives by their own names, apart by library, and those launched without a graph apart."""
    if family is not COLLECTIVE:
        return family.op
    prefix = "nccl_" if "nccl_dtype" in table.columns else ""
    names = prefix + table["op_name"].astype(str)
    if "backend" in table.columns:
        names += np.where(table["backend"].astype(str).str.endswith("eager"), "_eager", "")
    return names.to_numpy()


def _dtypes(table: pd.DataFrame, family: Family) -> Any:
    """The number format; attention with a narrower cache says so."""
    column = family.dtype
    if family is COLLECTIVE:
        column = "nccl_dtype" if "nccl_dtype" in table.columns else "allreduce_dtype"
    names = table[column].astype(str)
    if "kv_cache_dtype" in table.columns:
        kept = table["kv_cache_dtype"].astype(str)
        names = names + np.where(kept == names, "", " kv " + kept)
    return names.to_numpy()


def _classes(size: Numbers, unit: str) -> Any:
    names = [f"<= {int(end)} {unit}" for end in CLASSES] + [f"> {int(CLASSES[-1])} {unit}"]
    return np.array(names, dtype=object)[np.searchsorted(CLASSES, size, side="left")]
