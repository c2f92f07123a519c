"""Fits a calibration to tables of measured kernels: `python -m validation.fit gemm --device a100-sxm4-80gb --tables DIR`.

Reads Parquet folders given by path, holds out whole weight shapes (n, k), head counts and batches, or message sizes, and
minimises the mean absolute log error with the model's own arithmetic. Prints the fitted values with errors by size, and
a YAML fragment. Knows no measured value; the same seed gives the same fit. With `--iterations 0` it only scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost import kernels
from simulator.cost.compiled import compile_modules
from simulator.cost.efficiency import efficiency, find_calibration, load_engine
from simulator.cost.layout import ALL_REDUCE, ATTENTION, GEMM, R_MEMORY, Efficiency, LinkRow, OpRow, UnitRow
from simulator.cost.table import _unit_row, usable_dtype
from simulator.mapping.machine import Machine, Unit, load_machine
from simulator.spec.engine import Calibration

DTYPES = {"bfloat16": ("bf16", 2.0), "float16": ("fp16", 2.0), "fp8": ("fp8", 1.0), "sq": ("int8", 1.0)}
"""Names of the tables: the format of the arithmetic and the bytes of an operand."""
CLASSES = (0, 4, 16, 64, 256, 1024, 4096, 16384, np.inf)
"""Bounds of the size classes of the report: rows of a GEMM, cached or query positions, KiB of a message."""
LARGEST_GROUP = 32.0
"""Query heads per KV head that one kernel serves; beyond, libraries fall back to another that reads the cache again."""

Rows = pd.DataFrame
Values = dict[str, float]
Timer = Callable[[Values], np.ndarray]


@dataclass(frozen=True, slots=True)
class Knob:
    """One fitted parameter: where it lies in a calibration file, its bounds, and how it is written."""

    key: str
    low: float
    high: float
    unit: str = ""

    def text(self, value: float) -> str:
        """The value as the file holds it."""
        scale = {"us": 1e6}.get(self.unit, 1.0)
        return f"{float(f'{value * scale:.3g}'):g}{' ' + self.unit if self.unit else ''}"


KNOBS: dict[str, tuple[Knob, ...]] = {
    "gemm": (
        Knob("gemm.compute", 0.5, 1.0), Knob("gemm.bandwidth", 0.5, 1.0), Knob("gemm.vector_bandwidth", 0.2, 1.0),
        Knob("gemm.fill_row", 0.0, 2000.0, "B"), Knob("gemm.core_bandwidth", 1.0, 10.0),
        Knob("cache_bandwidth", 0.3, 1.0), Knob("sharpness", 1.5, 10.0), Knob("reduction", 0.0, 6e-6, "us"),
        Knob("launch", 1e-6, 6e-6, "us"),
    ),
    "decode": (
        Knob("attention.bandwidth", 0.4, 1.0), Knob("attention.context_tile", 16.0, 256.0),
        Knob("attention.split_tokens", 32.0, 4096.0),
        Knob("attention.saturating_share", 0.05, 1.0), Knob("attention.block", 0.0, 8e-6, "us"),
    ),
    "prefill": (
        Knob("attention.compute", 0.3, 1.0), Knob("attention.query_tile", 64.0, 256.0),
        Knob("attention.key_tile", 1.0, 256.0), Knob("attention.prefill_bandwidth", 0.15, 1.0),
        Knob("attention.prefill_sharpness", 1.0, 6.0),
    ),
    "allreduce": (Knob("link_latency", 1e-6, 2e-5, "us"), Knob("link_bandwidth", 0.2, 1.0)),
}  # fmt: skip
FLOOR = Knob("attention.floor", 0.0, 16e-6, "us")
"""Set, not searched, as prefill and decode share it: the median of one sequence with a short cache, less its launch."""
NARROW = Knob("gemm.narrow_compute", 0.3, 1.0)
PASS = (Knob("measurement.pass", 0.0, 6e-6, "us"), Knob("measurement.pass_bytes", 0.0, 12.0, "B"))
"""What tables of 8-bit products time besides the product: the kernel that rounds the input, and its traffic per element.
A property of the measurement: not part of any calibration."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A device whose kernels are timed under one calibration, at full engine factors."""

    machine: Machine
    unit: Unit
    calibration: Calibration

    @classmethod
    def of(cls, device: str) -> Bench:
        """The matrix unit of a device, with the calibration that predictions would use."""
        machine = load_machine(device)
        unit = max(machine.units, key=lambda candidate: max(candidate.peak_flop_per_s.values()))
        return cls(machine, unit, find_calibration(machine))

    def efficiency(self, values: Values) -> Efficiency:
        """The efficiencies with some parameters replaced."""
        engine = replace(load_engine(self.calibration.default_engine), compute_factor=1.0, bandwidth_factor=1.0)
        return efficiency(self.machine, engine, changed(self.calibration, values))

    def unit_row(self, launch_s: float) -> np.ndarray:
        """The unit as the arithmetic reads it."""
        return records([_unit_row(self.unit, self.machine, launch_s)], UnitRow)

    def launch_s(self, values: Values) -> float:
        """Seconds from kernel to kernel."""
        own = self.calibration.launch.value if self.calibration.launch else self.unit.launch_s
        return values.get("launch", own)


def changed(calibration: Calibration, values: Values) -> Calibration:
    """The calibration with the values at their dotted keys, others as they were."""
    updates: dict[str, Any] = {}
    for key, value in values.items():
        parent, _, name = key.rpartition(".")
        owner: Any = getattr(calibration, parent) if parent else calibration
        old = getattr(owner, name)
        new = replace(old, value=value) if old is not None else replace(calibration.sharpness, value=value)
        if parent:
            updates[parent] = updates.get(parent, owner).model_copy(update={name: new})
        else:
            updates[name] = new
    return calibration.model_copy(update=updates)


def starting_values(calibration: Calibration, knobs: Iterable[Knob]) -> Values:
    """What a calibration file holds for each knob; the middle of its bounds where it holds nothing."""
    found: Values = {}
    for knob in knobs:
        held: Any = calibration
        for name in knob.key.split("."):
            held = getattr(held, name, None)
        found[knob.key] = held.value if held is not None else 0.5 * (knob.low + knob.high)
    return found


def records(rows: Sequence[tuple[float, ...]], kind: Any) -> np.ndarray:
    """Named tuples as the structured array that the compiled arithmetic reads."""
    return np.array([tuple(row) for row in rows], dtype=np.dtype([(field, "f8") for field in kind._fields]))


def op_row(**fields: float) -> OpRow:
    """An op of which only some fields matter."""
    return OpRow(*[0.0] * len(OpRow._fields))._replace(repeat=1.0, kernels=1.0, groups=1.0, **fields)


@lru_cache(maxsize=1)
def _loop() -> Any:
    """The compiled loop over rows (op fields, then amounts) that calls the model's `op_on_unit`."""
    import numba

    (compiled,) = compile_modules((kernels,))
    op_on_unit = compiled.op_on_unit

    @numba.njit
    def loop(ops, amounts, unit, rate, bandwidth, place, eff, found):  # type: ignore[no-untyped-def]
        times = np.zeros(len(bandwidth))
        record = np.zeros(R_MEMORY + 2 * len(bandwidth))
        for i in range(len(found)):
            a = amounts[i]
            found[i] = unit.launch_s + op_on_unit(
                ops[i], a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], unit, rate, bandwidth, 0, place, eff, times, record
            )  # fmt: skip

    return loop


class KernelTimer:
    """Times the rows of a table with the model; the arrays are built once, the parameters change."""

    def __init__(self, bench: Bench, rows: Rows, dtype: str) -> None:
        name, self.element_bytes = DTYPES[dtype]
        self.bench = bench
        self.rows = rows
        self.rate = bench.unit.peak_flop_per_s[usable_dtype(name, bench.unit) or name]
        self.bandwidth = np.array(bench.unit.read_bytes_per_s, dtype=float)
        home = next(i for i, memory in enumerate(bench.machine.memories) if memory.kind == "main")
        place = np.zeros((3, len(bench.machine.memories)))
        place[:, home] = 1.0
        self.place = place.ravel()
        self.main_bytes_per_s = self.bandwidth[home]
        ops, amounts = (_gemms if "n" in rows else _attentions)(rows, self.element_bytes)
        self.ops = records(ops, OpRow)
        self.amounts = np.ascontiguousarray(amounts)

    def seconds(self, values: Values) -> np.ndarray:
        """Predicted seconds of every row."""
        own = {key: value for key, value in values.items() if not key.startswith("measurement.")}
        eff = Efficiency(*(float(value) for value in self.bench.efficiency(own)))
        found = np.zeros(len(self.rows))
        unit = self.bench.unit_row(self.bench.launch_s(values))
        _loop()(self.ops, self.amounts, unit[0], self.rate, self.bandwidth, self.place, eff, found)
        if "n" in self.rows:
            traffic = values.get("measurement.pass_bytes", 0.0) * (self.rows.m * self.rows.k).to_numpy(float)
            found += values.get("measurement.pass", 0.0) + traffic / self.main_bytes_per_s
        return found


def _gemms(rows: Rows, width: float) -> tuple[list[OpRow], np.ndarray]:
    m, n, k = (rows[name].to_numpy(float) for name in ("m", "n", "k"))
    ops = [
        op_row(kind=float(GEMM), n=a, k=b, element_bytes=width, weight_bytes=width) for a, b in zip(n, k, strict=True)
    ]
    one = np.ones(len(m))
    return ops, np.stack([m, 2 * m * n * k, n * k * width, 0 * m, m * k * width + m * n * 2, one, one, one], axis=1)


def _attentions(rows: Rows, width: float) -> tuple[list[OpRow], np.ndarray]:
    batch, query, context, heads, kv_heads, dim = (
        rows[name].to_numpy(float) for name in ("batch", "query", "context", "heads", "kv_heads", "head_dim")
    )
    ops = [
        op_row(kind=float(ATTENTION), heads=h, kv_heads=g, element_bytes=width, weight_bytes=width, causal=1.0)
        for h, g in zip(heads, kv_heads, strict=True)
    ]
    pairs = batch * query * (context - 0.5 * (query - 1.0))
    cache = batch * (context + query) * kv_heads * 2 * dim * width
    activation = batch * query * heads * 2 * dim * 2.0
    amounts = [
        batch * query,
        pairs * heads * (4 * dim + 5),
        0 * batch,
        cache,
        activation,
        batch,
        query,
        batch * context,
    ]
    return ops, np.stack(amounts, axis=1)


def read_tables(tables: Path, pattern: str) -> Rows:
    """All Parquet files of a folder whose name matches, without rows that measured nothing."""
    files = sorted(tables.glob(pattern))
    if not files:
        raise SystemExit(f"no file matches {tables / pattern}")
    found = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
    return found[found["latency"] > 0]


def gemm_rows(tables: Path, framework: str, dtype: str) -> Rows:
    """Products of a framework: the median over repeated rows; `held_out` by weight shape."""
    found = read_tables(tables, f"gemm__{framework}__*")
    found = found[found["gemm_dtype"] == dtype].groupby(["m", "n", "k"])["latency"].median().reset_index()
    found["held_out"] = (found["n"] * 7919 + found["k"] * 104729) % 5 == 0
    return found.assign(size=found["m"])


def attention_rows(tables: Path, framework: str, dtype: str, phase: str, cache_bytes: float) -> Rows:
    """Attention of heads of 128: `held_out` by (heads, KV heads, batch); `warm` where a repeated cache may stay in cache."""
    found = read_tables(tables, f"attention__{framework}__*{'context' if phase == 'prefill' else 'generation'}*")
    found = found[(found["attn_dtype"] == dtype) & (found["kv_cache_dtype"] == dtype) & (found["head_dim"] == 128)]
    if "window_size" in found:
        found = found[found["window_size"].fillna(0) == 0]
    kv_heads = found["num_key_value_heads"].where(found["num_key_value_heads"] > 0, found["num_heads"])
    prefill = phase == "prefill"
    found = found.rename(columns={"batch_size": "batch", "num_heads": "heads"}).assign(
        query=found["isl"] if prefill else 1,
        context=found["isl"] + (0 if prefill else found["step"]),
        kv_heads=kv_heads,
    )[["batch", "query", "context", "heads", "kv_heads", "head_dim", "latency"]]
    found = found[(found["query"] > 1) == prefill]
    found = found[found["heads"] / found["kv_heads"] <= LARGEST_GROUP]
    found = found.groupby([c for c in found if c != "latency"])["latency"].median().reset_index()
    read = found["batch"] * found["context"] * found["kv_heads"] * 2 * found["head_dim"] * DTYPES[dtype][1]
    found["warm"] = (read > 0.1 * cache_bytes) & (read < 1.5 * cache_bytes) & (not prefill)
    key = found["heads"] * 2654435761 + found["kv_heads"] * 40503 + found["batch"] * 69069
    found["held_out"] = key // 7919 % 4 == 0
    return found.assign(size=found["context"])


def allreduce_rows(tables: Path, framework: str) -> Rows:
    """All-reduces inside one node, replayed from a graph where the table tells; every third message size held out."""
    found = read_tables(tables, f"comm__{framework}__*custom_allreduce*")
    if "backend" in found:
        found = found[found["backend"].str.contains("graph")]
    found = found.assign(ranks=found["num_gpus"].astype(float), message=found["message_size"] * 2.0)
    found["held_out"] = np.log2(found["message_size"]).round().astype(int) % 3 == 0
    return found.assign(size=found["message"] / 1024)


def allreduce_timer(bench: Bench, rows: Rows) -> Timer:
    """Seconds of collectives as `collective_time` has them."""

    def seconds(values: Values) -> np.ndarray:
        times = []
        for ranks, message in zip(rows["ranks"], rows["message"], strict=True):
            wire = bench.machine.interconnect(int(ranks))
            if wire is None:
                raise SystemExit(f"{bench.machine.name} has no link for {ranks:g} ranks")
            link = LinkRow(wire.bytes_per_s * values["link_bandwidth"], values["link_latency"], 0.0, 0.0, 1.0, 0.0)
            op = op_row(collective=float(ALL_REDUCE))._replace(groups=ranks)
            times.append(kernels.collective_time(op, link, message, 0.0))
        return np.array(times)

    return seconds


def minimise(
    seconds: Timer, measured_s: np.ndarray, knobs: Sequence[Knob], start: Values, rounds: int, seed: int
) -> Values:  # fmt: skip
    """The values with the least mean absolute log error within the bounds: differential evolution, then a simplex."""
    from scipy.optimize import differential_evolution, minimize  # type: ignore[import-untyped]

    low, high = np.array([k.low for k in knobs]), np.array([k.high for k in knobs])

    def values_of(point: np.ndarray) -> Values:
        inside = low + np.clip(point, 0.0, 1.0) * (high - low)
        return {**start, **{knob.key: float(value) for knob, value in zip(knobs, inside, strict=True)}}

    def loss(point: np.ndarray) -> float:
        outside = float(np.sum(np.maximum(0.0, -point) + np.maximum(0.0, point - 1.0)))
        return float(np.mean(np.abs(np.log(seconds(values_of(point)) / measured_s)))) + outside

    first = np.clip((np.array([start[k.key] for k in knobs]) - low) / (high - low), 0.0, 1.0)
    search: dict[str, Any] = {"maxiter": rounds, "popsize": 6, "polish": False, "init": "sobol", "x0": first}
    found = differential_evolution(loss, [(0.0, 1.0)] * len(knobs), rng=seed, tol=1e-6, **search)
    return values_of(minimize(loss, found.x, method="Nelder-Mead", options={"maxiter": 40 * rounds, "fatol": 1e-6}).x)


def errors(predicted_s: np.ndarray, rows: Rows) -> pd.DataFrame:
    """Mean absolute and mean signed relative error and the number of rows, by size class and in all."""
    error = pd.Series(predicted_s / (rows["latency"].to_numpy() * 1e-3) - 1.0, index=rows.index)
    classes = pd.cut(rows["size"], CLASSES).astype(str).where(rows["size"] > 0, "other")
    order = [str(c) for c in pd.cut(pd.Series(CLASSES[1:]), CLASSES)]
    parts = error.groupby(classes)
    table = pd.DataFrame({"mape": error.abs().groupby(classes).mean(), "bias": parts.mean(), "rows": parts.count()})
    table = table.reindex([name for name in order if name in table.index])
    table.loc["all"] = [error.abs().mean(), error.mean(), len(error)]
    return table


def fragment(values: Values, knobs: Iterable[Knob]) -> str:
    """The values as they stand in a calibration file."""
    lines: dict[str, list[str]] = {}
    for knob in knobs:
        parent, _, name = knob.key.rpartition(".")
        lines.setdefault(parent, []).append(f"{name}: {knob.text(values[knob.key])}")
    nested = [f"{parent}: {{{', '.join(items)}}}" for parent, items in lines.items() if parent]
    return "\n".join(nested + lines.get("", []))


def run(options: argparse.Namespace) -> Values:
    """Fits and reports one kind of kernel of one device; returns the values."""
    bench = Bench.of(options.device)
    knobs = list(KNOBS[options.kind])
    if options.kind == "gemm":
        rows = pd.concat([gemm_rows(options.tables, f, options.dtype) for f in options.framework])
        if DTYPES[options.dtype][1] <= 1.0:
            knobs = [NARROW, *PASS]
    elif options.kind == "allreduce":
        rows = pd.concat([allreduce_rows(options.tables, f) for f in options.framework])
    else:
        last = max(m.capacity_bytes for m in bench.machine.memories if m.kind in ("cache", "scratchpad"))
        rows = pd.concat(
            attention_rows(options.tables, f, options.dtype, options.kind, last) for f in options.framework
        )
    rows = rows.reset_index(drop=True)
    train, test = rows[~rows["held_out"]], rows[rows["held_out"]]
    if "warm" in rows:
        train = train[~train["warm"]]
    train = train.sample(min(options.rows, len(train)), random_state=options.seed)

    def timer(part: Rows) -> Timer:
        if options.kind == "allreduce":
            return allreduce_timer(bench, part)
        return KernelTimer(bench, part, options.dtype).seconds

    values = {**starting_values(bench.calibration, knobs), **{knob.key: 0.0 for knob in PASS if knob in knobs}}
    if options.kind == "decode" and options.iterations > 0:
        single = train[(train["batch"] == 1) & (train["context"] <= 64)]
        values[FLOOR.key] = max(0.0, float(single["latency"].median()) * 1e-3 - bench.launch_s({}))
    if options.iterations > 0:
        measured_s = train["latency"].to_numpy() * 1e-3
        values = minimise(timer(train), measured_s, knobs, values, options.iterations, options.seed)
    for name, part in (("fitted on", train), ("held out", test)):
        print(f"\n{name}: {options.kind}, {options.device}, {', '.join(options.framework)}, {options.dtype}")
        print(errors(timer(part)(values), part).round(3).to_string())
    print("\n" + fragment(values, [knob for knob in (*knobs, FLOOR) if knob.key in values]))
    return values


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m validation.fit", description=__doc__)
    command.add_argument("kind", choices=sorted(KNOBS))
    command.add_argument("--device", required=True, help="a hardware file")
    command.add_argument("--tables", required=True, type=Path, help="folder of Parquet tables of that device's kernels")
    command.add_argument("--framework", nargs="+", default=["vllm"])
    command.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    command.add_argument("--rows", type=int, default=1500, help="rows to fit, drawn from those not held out")
    command.add_argument("--iterations", type=int, default=25, help="generations of the search; 0 scores what is there")
    command.add_argument("--seed", type=int, default=0)
    return command


if __name__ == "__main__":
    run(parser().parse_args())
