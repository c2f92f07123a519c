"""Random machines, engines and calibrations, built without any file, and predictors of hand-made parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from simulator import catalog
from simulator.cost.efficiency import Engine, load_engine
from simulator.graph.build import Model
from simulator.mapping.machine import Interconnect, Machine, MemoryLevel, Unit
from simulator.predict import Predictor
from simulator.scenario import Resolved, Scenario
from simulator.spec.calibration import Calibration
from simulator.spec.loader import read_mapping
from simulator.techniques.parallel import Parallelism

ALL_ROLES = frozenset({"weight", "kv", "state", "activation", "index", "gradient", "optimizer"})
EVERY_WORK = frozenset({"gemm", "gemv", "attention", "scan", "elementwise", "gather"})
MATRIX_WORK = frozenset({"gemm", "gemv", "attention"})
BANK_WORK = frozenset({"gemv", "gemm", "attention", "elementwise"})


def between(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers whose logarithm is spread evenly enough: a power of two of an evenly drawn exponent."""
    return st.floats(0.0, 1.0, allow_nan=False).map(lambda share: float(low * (high / low) ** share))


@st.composite
def machines(draw: st.DrawFn, *, roomy: bool = False, single_memory: bool = False) -> Machine:
    """A main device with a cache or none; perhaps a PIM unit in its memory, perhaps a further memory behind a link.

    `roomy`: the first memory holds every drawn network. Caches are at least as fast as the memory behind them.
    """
    main_bandwidth = draw(between(1e10, 4e12))
    capacity = draw(between(4e11, 1e13)) if roomy else draw(between(2e7, 1e10))
    with_cache = draw(st.booleans())
    with_link = not single_memory and draw(st.booleans())
    with_bank_unit = draw(st.booleans())
    matrix_peak = draw(between(1e12, 2e15))
    vector_peak = draw(between(1e11, 1e14))
    cores = float(draw(st.integers(1, 160)))
    tile = draw(st.sampled_from([(16, 16), (64, 64), (128, 128), (256, 128)]))
    launch_s = draw(st.sampled_from([0.0, 1e-6, 5e-6]))
    memories: list[MemoryLevel] = []
    bandwidths: list[float] = []
    joules: list[float] = []
    if with_cache:
        speed = main_bandwidth * draw(st.floats(1.0, 20.0))
        memories.append(
            MemoryLevel("cache", "", "cache", draw(between(1e5, 2e8)), speed, 1e-12, frozenset(), "SRAM", True)
        )
        bandwidths.append(speed)
        joules.append(1e-12)
    memories.append(MemoryLevel("main", "", "main", capacity, main_bandwidth, 3e-11, ALL_ROLES, "DRAM", True))
    bandwidths.append(main_bandwidth)
    joules.append(3e-11)
    near = len(memories) - 1
    if with_link:
        share = draw(st.floats(0.01, 1.0))
        far = MemoryLevel("far", "host", "main", draw(between(1e9, 1e12)), main_bandwidth * share, 5e-11,
                          frozenset({"weight", "kv", "state"}), "DDR", False)  # fmt: skip
        memories.append(far)
        bandwidths.append(far.bytes_per_s)
        joules.append(9e-11)

    def unit(name: str, kind: str, peak: float, runs: frozenset[str], **changes: Any) -> Unit:
        made = Unit(
            name=name, part="", kind=kind, peak_flop_per_s={"bf16": peak, "fp16": peak, "fp32": peak / 2}, count=cores,
            tile=tile, runs=runs, near=near, near_inside=False, read_bytes_per_s=tuple(bandwidths),
            read_joules_per_byte=tuple(joules),
            reuse_rows=0.0, joules_per_flop={"bf16": 0.6e-12, "fp32": 2e-12}, launch_s=launch_s, host_launch_s=2e-6,
        )  # fmt: skip
        return replace(made, **changes)

    units = [
        unit("matrix", "matrix", matrix_peak, MATRIX_WORK),
        unit("vector", "vector", vector_peak, EVERY_WORK, tile=(16, 16)),
    ]
    if with_bank_unit:
        inside = tuple(4.0 * speed if position == near else 0.0 for position, speed in enumerate(bandwidths))
        units.append(
            unit("bank", "vector", 2.0 * 4.0 * main_bandwidth, BANK_WORK, count=512.0, tile=(16, 16), reuse_rows=1.0,
                 near_inside=True, read_bytes_per_s=inside, read_joules_per_byte=tuple(0.2 * part for part in joules))
        )  # fmt: skip
    static_w = draw(st.floats(1.0, 200.0))
    topology = draw(st.sampled_from(["switch", "ring", "mesh"]))
    link = Interconnect("link", draw(between(1e9, 1e12)), draw(st.sampled_from([0.0, 2e-6, 1e-5])), 3e-11, topology,
                        65536.0, draw(st.sampled_from([0.0, 1e6])))  # fmt: skip
    return Machine(
        name="drawn", title="Drawn", device_class="gpu", architecture="", device="drawn", units=tuple(units),
        memories=tuple(memories), links=(link,), devices=1, is_system=False,
        tdp_w=static_w * draw(st.floats(1.3, 20.0)), idle_w=0.5 * static_w, static_w=static_w,
        waiting_w=static_w * draw(st.floats(0.5, 1.0)), clock_floor=draw(st.floats(0.2, 1.0)),
        purchase_usd=1e4, hourly_usd=None,
    )  # fmt: skip


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    """An engine of drawn policies."""
    return replace(
        load_engine("vllm"), name="drawn", title="Drawn", ideal=False, host_step_s=draw(st.sampled_from([0.0, 1e-3])),
        host_prefill_s=draw(st.sampled_from([0.0, 3e-3])), host_per_sequence_s=draw(st.sampled_from([0.0, 1e-5])),
        kernel_host_factor=draw(st.sampled_from([0.0, 1.0, 3.0])),
        kernel_gap_s=draw(st.sampled_from([0.0, 5e-6])), collective_wait_s=draw(st.sampled_from([0.0, 2e-5])),
        graph_decode=draw(st.booleans()),
        graph_prefill=draw(st.booleans()), unfused=draw(st.sampled_from([frozenset(), frozenset({"all"})])),
        norm_kernels=float(draw(st.integers(1, 3))), compute_factor=1.0, bandwidth_factor=1.0,
        memory_fraction=draw(st.sampled_from([0.8, 0.95, 1.0])), workspace_bytes=0.0,
        max_batched_tokens=float(draw(st.sampled_from([256, 2048, 8192]))), spills=draw(st.booleans()),
        mixes_prefill=draw(st.booleans()), one_shot=draw(st.booleans()), rounds_inputs=draw(st.booleans()),
    )  # fmt: skip


def share() -> st.SearchStrategy[float]:
    """An efficiency."""
    return st.floats(0.2, 1.0)


Knobs = dict[str, Any]
"""What a calibration is drawn to say; `calibration_of` fills in the rest from a shipped file."""


@st.composite
def tables(draw: Any) -> Knobs:
    """Products by a table of tiles, whose lines need not be wise."""
    lines = []
    for rows in (*sorted(draw(st.sets(st.sampled_from([1, 16, 40.5, 64, 300]), max_size=3))), None):
        line = {
            "tile_rows": draw(st.sampled_from([16, 64, 256])), "tile_columns": draw(st.sampled_from([64, 128])),
            "cluster": draw(st.sampled_from([1, 2, 4])),
        }  # fmt: skip
        if rows is not None:
            narrow = {"rows": rows, "columns": 256} if draw(st.booleans()) else {"rows": rows, "depth": 100}
            lines += [{**line, **narrow}, {**line, "rows": rows, "tile_rows": draw(st.sampled_from([16, 64]))}]
        else:
            lines.append(line)
    return {
        "compute": draw(share()), "bandwidth": draw(share()), "cache_bandwidth": draw(share()), "fill_row": "100 B",
        "sharpness": draw(st.sampled_from([1, 2.5, 8])), "least_rows": draw(st.sampled_from([16, 70])), "tiles": lines,
    }  # fmt: skip


@st.composite
def calibrations(draw: st.DrawFn) -> Knobs:
    """Efficiencies, all physical."""
    gemm = {
        "compute": draw(share()), "bandwidth": draw(share()), "vector_bandwidth": draw(share()),
        "vector_rows": draw(st.sampled_from([1, 2, 4, 8])), "fill": draw(st.sampled_from(["0 us", "1 us", "4 us"])),
    }  # fmt: skip
    floors = st.sampled_from(["0 us", "3 us"])
    prefill = {
        "compute": draw(share()), "softmax": draw(st.sampled_from([0, 5, 30])), "tail": draw(st.floats(0.0, 1.5)),
        "query_tile": draw(st.sampled_from([16, 64, 99.9])), "key_tile": draw(st.sampled_from([1, 18, 256])),
        "block": draw(floors), "bandwidth": draw(share()), "sharpness": draw(st.sampled_from([1, 1.2, 4])),
        "floor": draw(floors),
    }  # fmt: skip
    decode = {
        "bandwidth": draw(share()), "core_bandwidth": draw(st.floats(1.0, 8.0)), "block": draw(floors),
        "key_tile": draw(st.sampled_from([1, 31, 128])), "least_tiles": draw(st.floats(1.0, 12.0)),
        "most_splits": draw(st.sampled_from([1, 30.5, 1000])), "reduction": draw(floors), "floor": draw(floors),
        "group_tile": draw(st.sampled_from([1, 8.5, 64])), "group_limit": draw(st.sampled_from([2, 32, 1000])),
        "softmax": draw(st.sampled_from([0, 20])), "sharpness": draw(st.sampled_from([1, 1.2, 8])),
    }  # fmt: skip
    return {
        "gemm": gemm,
        "attention": {"prefill": prefill, "decode": decode, "single": None if draw(st.booleans()) else decode},
        "rounding": {
            "floor": draw(floors),
            "row": draw(st.sampled_from(["0 ns", "500 ns"])),
            "bandwidth": draw(share()),
        },
        "experts": {
            "floor": draw(floors),
            "compute": draw(share()),
            "bandwidth": draw(share()),
            "least_rows": draw(st.sampled_from([1, 64, 128])),
            "passes": draw(st.sampled_from([0.01, 1.5])),
            "sort": draw(st.sampled_from(["0 ns", "800 ns"])),
            "expert": draw(st.sampled_from(["0 ns", "200 ns"])),
            "unsorted": draw(st.booleans()),
        },
        "engines": {
            "drawn": {
                "narrow_tuned": draw(st.booleans()),
                "narrow_compute": draw(share()),
                "tabled": draw(st.none() | tables()),
            }
        },
        "elementwise_bandwidth": draw(share()),
        "scan_compute": draw(share()),
        "cache_bandwidth": draw(share()),
        "sharpness": draw(st.sampled_from([1, 2, 4, 8])),
        "dequantize": draw(st.sampled_from([1, 3])),
        "link_bandwidth": draw(share()),
        "saturating_share": draw(st.floats(0.1, 1.0)),
    }


def calibration_of(knobs: Knobs) -> Calibration:
    """The calibration that the knobs describe, on top of the one for GPUs in general."""
    base: dict[str, Any] = read_mapping(catalog.find("calibration", "gpu"))
    values = {**base, **knobs}
    values["gemm"] = {**base["gemm"], **knobs.get("gemm", {})}
    context = {"sources": values["sources"], "default_source": values.get("default_source")}
    return Calibration.model_validate(values, context=context)


def make_predictor(
    model: Model,
    machine: Machine,
    engine: Engine,
    calibration: Knobs | Calibration,
    parallelism: Parallelism | None = None,
) -> Predictor:
    """A predictor of parts that no file describes; the names of its scenario stand for nothing."""
    division = parallelism or Parallelism()
    scenario = Scenario(
        "llama-3.1-8b", "a100-sxm4-80gb", tp=division.tp, pp=division.pp, ep=division.ep, dp=division.dp
    )
    made = calibration_of(calibration) if isinstance(calibration, dict) else calibration
    return Predictor(Resolved(scenario, model, machine, engine, made, division))


def faster(machine: Machine, *, bandwidth: float = 1.0, compute: float = 1.0, links: float = 1.0) -> Machine:
    """`machine` with every bandwidth, peak or interconnect multiplied."""
    units = tuple(
        replace(
            unit,
            peak_flop_per_s={dtype: peak * compute for dtype, peak in unit.peak_flop_per_s.items()},
            read_bytes_per_s=tuple(speed * bandwidth for speed in unit.read_bytes_per_s),
        )
        for unit in machine.units
    )
    memories = tuple(replace(memory, bytes_per_s=memory.bytes_per_s * bandwidth) for memory in machine.memories)
    joined = tuple(replace(link, bytes_per_s=link.bytes_per_s * links) for link in machine.links)
    return replace(machine, units=units, memories=memories, links=joined)


def larger(machine: Machine, factor: float, *, kinds: frozenset[str], names: frozenset[str] | None = None) -> Machine:
    """`machine` with more capacity in the memories of those kinds (and names)."""
    memories = tuple(
        replace(memory, capacity_bytes=memory.capacity_bytes * factor)
        if memory.kind in kinds and (names is None or memory.name in names)
        else memory
        for memory in machine.memories
    )
    return replace(machine, memories=memories)


def in_main_memory(machine: Machine) -> tuple[tuple[float, ...], ...]:
    """A placement of weights, cache and activations in a drawn machine's main memory."""
    row = tuple(1.0 if memory.name == "main" else 0.0 for memory in machine.memories)
    return (row, row, row)


def timed_step(
    predictor: Predictor, parts: Sequence[Sequence[float]], shares: tuple[tuple[float, ...], ...]
) -> tuple[list[list[float]], list[float]]:
    """The record of every op of one step, and their totals."""
    failed = predictor.runner.step(tuple(tuple(part) for part in parts), shares)
    assert failed == -1
    scratch = predictor.runner.scratch
    return [list(map(float, record)) for record in scratch.records], list(map(float, scratch.totals))
