"""Energy of single kernels: what a power table measured, the fit of a device's energies to it, and their error.

A reading is no kernel's own power: it is the mean of samples taken every 0.1 s of the board's power over the last second,
so that it holds the kernels and pauses before it. Times are the measured ones; nothing here depends on predicted times.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from validation.score import score, score_by
from validation.tables import POWER, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.mapping.machine import Machine

    Array = NDArray[np.float64]

KEYS = ("hardware", "op", "dtype", "size")
SAMPLE_S = 0.102
"""Between two samples of a run: the collector waits 0.1 s and then asks."""
WINDOW_S = 1.03
"""Span that one sample is the mean of, as fitted; the driver states one second."""
RUNS = {"bfloat16 gemm": 18000}
"""Executions of a kernel in one run, at most; 3000 of any other."""
RUN_S = 1.0
"""A run is ended after this time."""
COLD_COPIES = 6
"""Sets of operands that a run of GEMMs goes through in turn: so many times the cache they have to exceed to be cold."""
HELD_OUT = 5
"""One shape (n, k) in so many is held out: that whose CRC-32 is a multiple of it."""
PAUSED = 0.1
"""Median error, as a logarithm, of the kernels of one m and n from which on the run is taken to hold long pauses: kernels
being compiled for shapes not seen before, of which the table says nothing."""
BOUNDS: dict[str, tuple[float, float, float]] = {
    "static_w": (60.0, 150.0, 300.0),
    "wide_j": (0.1e-12, 1.0e-12, 4e-12),
    "narrow_j": (0.05e-12, 1.0e-12, 4e-12),
    "memory_j": (20e-12, 45e-12, 80e-12),
    "chip_j": (10e-12, 60e-12, 200e-12),
    "pause_w": (75.0, 110.0, 160.0),
    "wide_pause_s": (0.002, 0.03, 0.5),
    "narrow_pause_s": (0.002, 0.03, 0.5),
}
"""Lowest physical, first and highest physical value of each fitted parameter, in SI units."""


@dataclass(frozen=True, slots=True)
class Energies:
    """What is fitted: joules per FLOP of 16-bit and 8-bit matrix work, per byte of memory and on the chip; watts; pauses."""

    static_w: float
    wide_j: float
    narrow_j: float
    memory_j: float
    chip_j: float
    pause_w: float
    wide_pause_s: float
    narrow_pause_s: float
    attended_j: float = 0.0
    """Per byte of the cache that decode attention reads, on top of those; fitted apart (`fit_attended`)."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Measured kernels in the order in which they ran, a row each."""

    table: pd.DataFrame
    latency_s: Array
    reading_w: Array
    narrow: NDArray[np.bool_]
    """8-bit operands."""
    flops: Array
    moved_bytes: Array
    """Every operand once, through the chip."""
    memory_bytes: Array
    """Those that come from memory, not from the cache."""
    run_s: Array
    attended_bytes: Any = 0.0
    """Of the cache, read by decode attention."""


def gemm_kernels(table: pd.DataFrame, cache_bytes: float) -> Kernels:
    """GEMMs. Block-scaled 8-bit ones first read 16-bit activations and write them rounded."""
    narrow = (table["gemm_dtype"] != "bfloat16").to_numpy()
    m, n, k = (table[name].to_numpy(float) for name in ("m", "n", "k"))
    size = np.where(narrow, 1.0, 2.0)
    moved = (m * k + n * k) * size + 2.0 * m * n + np.where(narrow, 3.0 * m * k, 0.0)
    runs = np.where(narrow, 3000, RUNS["bfloat16 gemm"])
    return _kernels(table, narrow, 2.0 * m * n * k, moved, COLD_COPIES, cache_bytes, runs)


def attention_kernels(table: pd.DataFrame, cache_bytes: float) -> Kernels:
    """Prefill (`isl` new tokens) or decode (one, over `step` + 1) attention, causal, perhaps within a window."""
    narrow = (table["kv_cache_dtype"] == "fp8").to_numpy()
    batch, heads, kv_heads, width, window = (
        table[name].to_numpy(float)
        for name in ("batch_size", "num_heads", "num_key_value_heads", "head_dim", "window_size")
    )
    prefill = (table["op_name"] == "context_attention").to_numpy()
    new = np.where(prefill, table["isl"].to_numpy(float), 1.0)
    longest = np.where(prefill, new, table["step"].to_numpy(float) + 1.0)
    seen = np.where(window > 0, np.minimum(window, longest), longest)
    pairs = np.where(prefill, seen * (seen + 1.0) / 2.0 + (new - seen) * seen, seen)
    cached = np.where(prefill, new, seen) * 2.0 * kv_heads * np.where(narrow, 1.0, 2.0)
    fresh = new * (4.0 * heads + np.where(prefill, 4.0 * kv_heads, 0.0))
    moved = batch * width * (cached + fresh)
    # Scores and values are multiplied in 16 bits whatever the cache holds.
    flops = 4.0 * batch * heads * width * pairs
    found = _kernels(table, np.zeros(len(table), bool), flops, moved, 1, cache_bytes, 3000)
    return replace(found, attended_bytes=np.where(prefill, 0.0, batch * width * cached))


def moe_kernels(table: pd.DataFrame, cache_bytes: float) -> Kernels:
    """Experts of a balanced layer: three products per expert, the weights of those that any token chose."""
    narrow = table["moe_dtype"].str.startswith("fp8").to_numpy()
    tokens, hidden, inner, chosen, experts, tp, ep = (
        table[name].to_numpy(float)
        for name in ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    )
    active = np.minimum(experts, tokens * chosen) / ep
    weights = 3.0 * active * hidden * inner / tp
    moved = weights * np.where(narrow, 1.0, 2.0) + tokens * chosen / ep * (2.0 * hidden + 3.0 * inner / tp) * 2.0
    flops = 6.0 * tokens * chosen * hidden * inner / (tp * ep)
    return _kernels(table, narrow, flops, moved, 1, cache_bytes, 3000)


def _kernels(
    table: pd.DataFrame, narrow: Any, flops: Array, moved: Array, copies: int, cache_bytes: float, runs: Any
) -> Kernels:
    latency = table["latency"].to_numpy(float) * 1e-3
    cold = np.clip(2.0 * copies * moved / cache_bytes - 1.0, 0.0, 1.0)
    run = np.minimum(runs * latency, np.maximum(RUN_S, 6.0 * latency))
    return Kernels(table, latency, table["power"].to_numpy(float), narrow, flops, moved, moved * cold, run)


def watts(kernels: Kernels, found: Energies, limit_w: float) -> Array:
    """Power of each kernel: static, and its joules over its measured time; at most the board's limit."""
    joules = kernels.flops * np.where(kernels.narrow, found.narrow_j, found.wide_j)
    joules += found.memory_j * kernels.memory_bytes + found.chip_j * kernels.moved_bytes
    joules += found.attended_j * kernels.attended_bytes
    return np.asarray(np.minimum(limit_w, found.static_w + joules / kernels.latency_s))


def readings(power_w: Array, run_s: Array, pause_s: Any, pause_w: float) -> Array:
    """What the collector reads of runs one after the other, each after a pause: see the module.

    >>> long = np.array([100.0, 500.0]), np.array([10.0, 10.0])
    >>> [round(value) for value in readings(*long, 0.0, 100.0)]  # the second's first samples still see the first
    [100, 478]
    """
    pauses = np.broadcast_to(np.asarray(pause_s, float), power_w.shape)
    ends = np.cumsum(run_s + pauses)
    knots = np.zeros(2 * len(power_w) + 1)
    energy = np.zeros_like(knots)
    knots[1::2], knots[2::2] = ends - run_s, ends
    energy[1::2], energy[2::2] = pause_w * pauses, power_w * run_s
    energy = np.cumsum(energy)
    samples = np.maximum(1, np.ceil(run_s / SAMPLE_S)).astype(int)
    total = np.zeros(len(power_w))
    for sample in range(int(samples.max())):
        chosen = samples > sample
        at = (ends - run_s)[chosen] + sample * SAMPLE_S
        since = np.maximum(0.0, at - WINDOW_S)
        seen = np.interp(at, knots, energy) - np.interp(since, knots, energy)
        total[chosen] += np.where(at > since, seen / np.maximum(at - since, 1e-9), power_w[chosen])
    return np.asarray(total / samples)


def readings_among(power_w: Array, run_s: Array, before_w: Array) -> Array:
    """The same where only the mean of the readings before is known: several boards measured in turns."""
    samples = np.maximum(1, np.ceil(run_s / SAMPLE_S))
    own = np.minimum(1.0, 0.5 * SAMPLE_S * (samples - 1.0) / WINDOW_S)
    own = np.where(samples * SAMPLE_S > 2.0 * WINDOW_S, 1.0 - 0.5 * WINDOW_S / (samples * SAMPLE_S), own)
    return np.asarray(own * power_w + (1.0 - own) * before_w)


def held_out(kernels: Kernels) -> NDArray[np.bool_]:
    """Whether the shape of each kernel is held out of the fit: (n, k) of a GEMM, (heads, KV heads, width) of attention."""
    names = ("n", "k") if "k" in kernels.table else ("num_heads", "num_key_value_heads", "head_dim")
    shapes = ["x".join(str(value) for value in shape) for shape in zip(*(kernels.table[n] for n in names), strict=True)]
    return np.array([zlib.crc32(shape.encode()) % HELD_OUT == 0 for shape in shapes])


def fit(kernels: Kernels, limit_w: float, rounds: int = 3) -> tuple[Energies, NDArray[np.bool_]]:
    """Energies within `BOUNDS` by robust least squares of log readings, and which rows ran without long pauses.

    Pauses are found on the rows that are not held out, and are taken to hold for their whole run of one m and n.
    """
    from scipy.optimize import least_squares

    learned = ~held_out(kernels)
    low, value, high = (np.array(column) for column in zip(*BOUNDS.values(), strict=True))
    group = kernels.table.groupby(["m", "n"], sort=False).ngroup().to_numpy()
    steady = np.ones(len(group), bool)

    def errors(scaled: Array) -> Array:
        return np.log(predicted_gemm(kernels, Energies(*(scaled * first)), limit_w) / kernels.reading_w)

    first = value.copy()
    scaled = np.ones(len(value))
    for _ in range(rounds):
        found = np.abs(errors(scaled))
        medians = pd.Series(found[learned]).groupby(group[learned]).median()
        steady = pd.Series(group).map(medians).fillna(0.0).to_numpy() < PAUSED
        chosen = learned & steady
        scaled = least_squares(
            lambda point, chosen=chosen: errors(point)[chosen],
            scaled,
            bounds=(low / first, high / first),
            loss="soft_l1",
            f_scale=0.03,
            diff_step=1e-3,
            max_nfev=30,
        ).x
    return Energies(*(scaled * first)), steady


def predicted_gemm(kernels: Kernels, found: Energies, limit_w: float) -> Array:
    """Readings of GEMMs, which one board measured one after the other."""
    pause = np.where(kernels.narrow, found.narrow_pause_s, found.wide_pause_s)
    return readings(watts(kernels, found, limit_w), kernels.run_s, pause, found.pause_w)


def fit_attended(kernels: Kernels, found: Energies, limit_w: float) -> float:
    """J per byte of the cache that decode attention draws beyond `found`, by robust least squares of log readings.

    Static power and the energies of products are kept, so that what is left is laid on the bytes: energy of work, which a
    slower kernel spends more slowly.
    """
    from scipy.optimize import least_squares

    learned = ~held_out(kernels)
    before = kernels.table["before_w"].to_numpy(float)

    def errors(scaled: Array) -> Array:
        power = watts(kernels, replace(found, attended_j=1e-10 * float(scaled[0])), limit_w)
        return np.log(readings_among(power, kernels.run_s, before) / kernels.reading_w)[learned]

    return 1e-10 * float(least_squares(errors, [1.0], bounds=(0.0, 10.0), loss="soft_l1", f_scale=0.03).x[0])


@dataclass(frozen=True, slots=True)
class AtLimit:
    """What large GEMMs at the power limit say."""

    clock: float
    """Share of the full clock at which 16-bit ones meet the limit."""
    narrow_j: float
    """J/FLOP of 8-bit ones at full clock, if they keep the cores as busy as 16-bit ones."""
    narrow_clock: float
    """The clock of these, by their rate."""


def at_limit(kernels: Kernels, found: Energies, idle_w: float, limit_w: float) -> AtLimit:
    """The clock x from the joules of 16-bit GEMMs, whose core part falls with x; then the joules of 8-bit ones.

    idle + (static - idle) x^2 + x core + memory = limit, with watts at the measured time.
    """
    large = (kernels.table[["m", "n", "k"]].min(axis=1) >= 4096).to_numpy() & (kernels.reading_w > 0.97 * limit_w)
    rate = kernels.flops / kernels.latency_s
    chip_w = found.chip_j * kernels.moved_bytes / kernels.latency_s
    spare_w = limit_w - idle_w - found.memory_j * kernels.memory_bytes / kernels.latency_s
    tree_w = found.static_w - idle_w
    core_w = found.wide_j * rate + chip_w
    clock = 2.0 * spare_w / (core_w + np.sqrt(core_w**2 + 4.0 * tree_w * spare_w))
    wide, narrow = large & ~kernels.narrow, large & kernels.narrow
    share = float(np.median(clock[wide]))
    busy = float(np.median(rate[wide])) / share
    slower = rate[narrow] / (2.0 * busy)
    spent = (spare_w[narrow] - tree_w * slower**2) / slower - chip_w[narrow]
    return AtLimit(share, float(np.median(spent / rate[narrow])), float(np.median(slower)))


def energies_of(machine: Machine, transport_j: float, pauses: Sequence[float], attended_j: float = 0.0) -> Energies:
    """What a device's file and calibration say, with the pauses of the measurement."""
    unit = next(unit for unit in machine.units if unit.kind == "matrix")
    memory = next(memory for memory in machine.memories if memory.kind == "main")
    joules = unit.joules_per_flop
    wide, narrow = joules["bf16"], joules.get("fp8", joules["bf16"])
    return Energies(machine.static_w, wide, narrow, memory.joules_per_byte or 0.0, transport_j, *pauses, attended_j)


def compare(folder: Path, machine: Machine, transport_j: float, attended_j: float = 0.0) -> pd.DataFrame:
    """A row per measured kernel of a folder of power tables: `measured` and `predicted` readings in W, and the error.

    `steady` is False for GEMMs among long pauses.
    """
    cache = max((memory.capacity_bytes for memory in machine.memories if memory.kind == "cache"), default=1.0)
    frames = []
    for path in sorted(folder.glob("*.parquet")):
        table = read_table(path)
        table = table[table["latency"] > 0].reset_index(drop=True)
        op = str(table["op_name"].iloc[0])
        limit = LIMIT_SHARE * float(table["power_limit"].iloc[0])
        found = energies_of(machine, transport_j, PAUSES, attended_j)
        if op == "gemm":
            kernels = gemm_kernels(table, cache)
            value = predicted_gemm(kernels, found, limit)
            errors = pd.Series(np.abs(np.log(value / kernels.reading_w)))
            steady = errors.groupby([table["m"], table["n"]]).transform("median").to_numpy() < PAUSED
            dtype, by = table["gemm_dtype"], table["m"]
        else:
            kernels = (moe_kernels if op == "moe" else attention_kernels)(table, cache)
            value = readings_among(watts(kernels, found, limit), kernels.run_s, table["before_w"].to_numpy(float))
            steady = np.ones(len(table), bool)
            dtype = table["moe_dtype" if op == "moe" else "kv_cache_dtype"]
            by = table["num_tokens"] if op == "moe" else table["batch_size"]
        frames.append(
            pd.DataFrame({
                "hardware": machine.name, "op": op, "dtype": dtype, "size": _sizes(by), "steady": steady,
                "measured": kernels.reading_w, "predicted": value, "error": value / kernels.reading_w - 1.0,
            })
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """The JSON form of a comparison."""
    kept = rows[rows["steady"]].assign(low=np.nan, high=np.nan)
    return {
        "rows": len(rows),
        "resolved": len(kept),
        "metrics": {"power_w": score(kept)},
        "by": score_by(kept, KEYS, ()),
        "left_out": [
            {"reason": "GEMMs of an m and n among long pauses (error above 10%)", "values": len(rows) - len(kept)}
        ],
        "with_pauses": score(rows.assign(low=np.nan, high=np.nan)),
    }


def _sizes(values: Iterable[float]) -> list[str]:
    return ["1-15" if v < 16 else "16-255" if v < 256 else "256 and more" for v in values]


LIMIT_SHARE = 0.989
"""Of the power limit that a board at its limit is read to draw."""
PAUSES = (75.0, 0.0155, 0.0155)
"""Watts and seconds between two runs of GEMMs, 16-bit and 8-bit, as fitted."""


def main() -> None:
    """Fit to the GEMMs of a folder of power tables and print parameters, held-out errors and a YAML fragment."""
    from simulator.mapping.machine import load_machine

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tables", type=Path, default=POWER / "h200_sxm")
    parser.add_argument("--hardware", default="h200-sxm-141gb")
    asked = parser.parse_args()
    machine = load_machine(asked.hardware)
    cache = max(memory.capacity_bytes for memory in machine.memories if memory.kind == "cache")
    table = read_table(next(asked.tables.glob("gemm*.parquet")))
    kernels = gemm_kernels(table[table["latency"] > 0].reset_index(drop=True), cache)
    limit = LIMIT_SHARE * float(table["power_limit"].iloc[0])
    found, steady = fit(kernels, limit)
    errors = np.abs(predicted_gemm(kernels, found, limit) / kernels.reading_w - 1.0)
    out = held_out(kernels)
    for name in BOUNDS:
        print(f"{name:16} {getattr(found, name):.4g}")
    print(f"{steady.mean():.0%} of {len(errors)} GEMMs ran without long pauses; error of readings, median and mean:")
    for label, narrow in (("16-bit", False), ("8-bit", True)):
        for size in ("1-15", "16-255", "256 and more"):
            of = (kernels.narrow == narrow) & (np.array(_sizes(kernels.table["m"])) == size)
            for kind, chosen in (("fitted", ~out & steady), ("held out", out & steady), ("with pauses", ~steady)):
                some = errors[of & chosen]
                print(f"  {label} m {size:13} {kind:12} n {len(some):6} {np.median(some):7.1%} {some.mean():7.1%}")
    limited = at_limit(kernels, found, machine.idle_w, limit)
    table = read_table(next(asked.tables.glob("generation*.parquet")))
    attention = attention_kernels(table[table["latency"] > 0].reset_index(drop=True), cache)
    attended = fit_attended(attention, found, limit)
    out = held_out(attention)
    for label, joules in (("without", 0.0), ("with", attended)):
        power = watts(attention, replace(found, attended_j=joules), limit)
        before = attention.table["before_w"].to_numpy(float)
        errors = np.abs(readings_among(power, attention.run_s, before) / attention.reading_w - 1.0)
        print(f"decode attention {label} bytes of its own: fitted {np.median(errors[~out]):.1%}, held out "
              f"{np.median(errors[out]):.1%} of {out.sum()}")  # fmt: skip
    print("\n# hardware file")
    print(f"energy: {{bf16: {found.wide_j * 1e12:.3g} pJ/FLOP, fp8: {limited.narrow_j * 1e12:.3g} pJ/FLOP}}")
    print(f"memory energy: {found.memory_j * 1e12 / 8:.3g} pJ/bit")
    print(f"power: {{static: {found.static_w:.0f} W, waiting: {kernels.reading_w.min():.0f} W}}")
    print(f"# calibration\ntransport: {found.chip_j * 1e12:.3g} pJ/B\nattended: {attended * 1e12:.3g} pJ/B")
    print(f"# clock at the limit: {limited.clock:.2f}, 8-bit {limited.narrow_clock:.2f}; compute_clock, that of the")
    print("# calibrated times, is this times the measured over the calibrated time of the same GEMMs")


if __name__ == "__main__":
    main()
