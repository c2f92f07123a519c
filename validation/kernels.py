"""Predictions against measured kernels, table by table, in one compiled loop per device, framework and table.

The ops are those of `validation.shapes`, the table, the efficiencies and the arithmetic those of every prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost.compiled import compile_modules
from simulator.cost.efficiency import Engine, efficiency, find_calibration, load_engine
from simulator.cost.layout import NUM_STATIC, HostRow, Scratch, Tables
from simulator.cost.table import as_arrays, build_table
from simulator.errors import SimulatorError, SpecError, UnknownNameError
from simulator.graph.op import Graph, Op
from simulator.mapping.machine import Machine, load_machine
from simulator.mapping.place import Need, Placer, Policy
from validation.score import score, score_by
from validation.shapes import COLLECTIVE, Family, Numbers, family_of

KEYS = ("hardware", "framework", "op", "dtype")
CLASSES = (16.0, 128.0, 1024.0, 8192.0, 65536.0, 1048576.0)
"""Upper ends of the size classes."""
ROW = (
    "table", "row", "hardware", "framework", "op", "dtype", "size", "size_class", "measured", "predicted", "low", "high",
)  # fmt: skip
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

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        rows = self.rows
        return {
            "rows": self.total,
            "resolved": len(rows),
            "metrics": {str(op): score(group) for op, group in rows.groupby("op", observed=True)},
            "by": score_by(rows, KEYS),
            "by_size": score_by(rows, (*KEYS, "size_class")),
            "unresolved": [{"reason": reason, "rows": count} for reason, count in self.unresolved.most_common()],
        }


def compare(
    tables: Iterable[tuple[str, pd.DataFrame]], count: int = 0, progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """Predict every row of the (name, table) pairs; `progress` is called with the tables done and `count`."""
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
            family = family_of(part)
            if family is None:
                reason = "no latency" if "latency" not in part.columns else f"op '{op}'"
                unresolved[SKIPPED["wideep"] if str(op).startswith(("wideep_moe", "moe_")) else reason] += len(part)
                continue
            timed = part[part["latency"] > 0.0]
            if len(timed) < len(part):
                unresolved[SKIPPED["zero"]] += len(part) - len(timed)
            if len(timed):
                frame, lost = _predicted(timed, str(device), str(framework), family)
                unresolved.update(lost)
                found.append(frame.assign(table=name))
        if progress is not None:
            progress(done, count)
    rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(ROW))
    for column in ("table", *KEYS, "size_class"):
        rows[column] = rows[column].astype("category")
    return Comparison(rows[list(ROW)], total, unresolved)


def _predicted(table: pd.DataFrame, device: str, framework: str, family: Family) -> tuple[pd.DataFrame, Counter[str]]:
    """The rows of one device, framework and family with their predictions, and the reasons of those without."""
    lost: Counter[str] = Counter()
    try:
        machine, engine = load_machine(device), load_engine(framework)
    except UnknownNameError as error:
        lost[f"unknown {error.kind} '{error.name}'"] += len(table)
        return pd.DataFrame(columns=list(ROW)), lost
    if "nccl_dtype" in table.columns:
        engine = replace(engine, one_shot=False)
    columns = [name for name in family.shape if name in table.columns]
    shapes = table[columns].drop_duplicates()
    number = table[columns].merge(shapes.assign(shape=np.arange(len(shapes))), on=columns, how="left")["shape"]
    ops: list[Op] = []
    first, last = np.zeros(len(shapes), np.int64), np.zeros(len(shapes), np.int64)
    reasons: dict[int, str] = {}
    for position, shape in enumerate(shapes.to_dict("records")):
        first[position] = len(ops)
        try:
            made = family.ops({str(key): value for key, value in shape.items()})
            ops += [replace(op, name=f"{op.name}.{position}") for op in made]
        except SpecError:
            raise
        except (SimulatorError, ValueError) as error:
            reasons[position] = str(error).splitlines()[0]
        last[position] = len(ops)
    which = number.to_numpy(np.int64)
    bad = np.isin(which, list(reasons))
    for position, reason in reasons.items():
        lost[reason] += int((which == position).sum())
    table, which = table[~bad], which[~bad]
    if not len(table):
        return pd.DataFrame(columns=list(ROW)), lost
    seconds = _seconds(machine, engine, ops, first[which], last[which], np.column_stack(family.step(table)))
    calibration = find_calibration(machine)
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
        "low": seconds * calibration.interval_low.value,
        "high": seconds * calibration.interval_high.value,
    })  # fmt: skip
    failed = seconds < 0.0
    if failed.any():
        lost["no unit can run it"] += int(failed.sum())
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


def _seconds(machine: Machine, engine: Engine, ops: list[Op], first: Any, last: Any, steps: Numbers) -> Numbers:
    """Seconds of the ops `first` to `last` of every row; -1 where no unit can run them."""
    calibration = find_calibration(machine)
    rates = efficiency(machine, engine, calibration)
    table = build_table(Graph("kernels", tuple(ops)), machine, engine, rates, calibration)
    kept = np.zeros(len(ops) + 1, np.int64)
    names = {op.name for op in table.ops}
    kept[1:] = np.cumsum([op.name in names for op in ops])
    placer = Placer(machine, Policy(engine.memory_fraction, engine.workspace_bytes, engine.spills))
    shares = placer.place(Need(1.0, 1.0, 1.0), placer.preferences[0]).shares
    tables = Tables(
        **as_arrays(table),
        place=np.array([[share for row in shares for share in row]]),
        copies=np.zeros((1, 4)),
        efficiency=table.efficiency,
        power=table.power,
        host=HostRow(*[0.0] * len(HostRow._fields)),
    )
    columns, memories = table.columns, len(table.memory_names)
    scratch = Scratch(
        times=np.zeros(memories),
        trial=np.zeros(columns),
        best=np.zeros(columns),
        records=np.zeros((len(table.ops), columns)),
        totals=np.zeros(columns),
        dense=np.zeros(columns),
        prefill=np.zeros(columns),
        decode=np.zeros(columns),
        result=np.zeros(NUM_STATIC),
    )
    seconds = np.empty(len(first))
    _loop()(tables.all, kept[first], kept[last], np.ascontiguousarray(steps), tables, scratch, seconds)
    return seconds


@lru_cache(maxsize=1)
def _loop() -> Any:
    """`validation.loops.time_rows`, compiled with the arithmetic."""
    from simulator.cost import kernels, steps
    from validation import loops

    return compile_modules((kernels, steps, loops))[2].time_rows
