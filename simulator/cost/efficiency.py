"""Which share of the datasheet a machine reaches under an engine: the calibration files and how they apply.

The most specific calibration wins: the device's own, its architecture's, its class's. Holds no numbers of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from simulator import catalog
from simulator.cost.layout import Efficiency
from simulator.errors import Problem, SpecError, UnknownNameError
from simulator.mapping.machine import Machine
from simulator.spec.engine import Calibration, EngineSpec
from simulator.spec.loader import load


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's policies in SI units."""

    name: str
    title: str
    ideal: bool
    host_step_s: float
    host_prefill_s: float
    host_per_sequence_s: float
    kernel_host_factor: float
    kernel_gap_s: float
    graph_decode: bool
    graph_prefill: bool
    unfused: frozenset[str]
    norm_kernels: float
    compute_factor: float
    bandwidth_factor: float
    memory_fraction: float
    workspace_bytes: float
    max_batched_tokens: float
    spills: bool
    collective_wait_s: float
    one_shot: bool


def load_engine(name: str) -> Engine:
    """The engine of that name or alias; a version after the name (`vllm 0.12.0`) is ignored.

    >>> load_engine("vLLM 0.12.0").name
    'vllm'
    """
    words = name.split()
    for length in range(len(words), 0, -1):
        try:
            path = catalog.find("engine", " ".join(words[:length]))
        except UnknownNameError:
            continue
        return _load_engine(path, path.stat().st_mtime_ns)
    raise UnknownNameError("engine", name, set(catalog.index("engine")))


@lru_cache(maxsize=64)
def _load_engine(path: Path, stamp: int) -> Engine:
    spec = load(path, EngineSpec)
    return Engine(
        name=spec.name,
        title=spec.title,
        ideal=spec.ideal,
        host_step_s=spec.host_step.value,
        host_prefill_s=spec.host_prefill.value,
        host_per_sequence_s=spec.host_per_sequence.value,
        kernel_host_factor=spec.kernel_host_factor.value,
        kernel_gap_s=spec.kernel_gap.value,
        graph_decode=spec.graph_decode,
        graph_prefill=spec.graph_prefill,
        unfused=frozenset(spec.unfused),
        norm_kernels=spec.norm_kernels.value,
        compute_factor=spec.compute_factor.value,
        bandwidth_factor=spec.bandwidth_factor.value,
        memory_fraction=spec.memory_fraction.value,
        workspace_bytes=spec.workspace.value,
        max_batched_tokens=spec.max_batched_tokens.value,
        spills=spec.spills,
        collective_wait_s=spec.collective_wait.value,
        one_shot=spec.all_reduce == "one_shot",
    )


def find_calibration(machine: Machine) -> Calibration:
    """The most specific calibration for a machine's main device."""
    found = _calibrations(tuple((path, path.stat().st_mtime_ns) for path in catalog.files("calibration")))
    own = [c for c in found if machine.device in c.devices]
    kindred = [c for c in found if machine.architecture in c.architectures]
    general = [c for c in found if machine.device_class in c.classes]
    for calibration in (*own, *kindred, *general):
        return calibration
    raise UnknownNameError("calibration", machine.device_class, {c.name for c in found})


@lru_cache(maxsize=4)
def _calibrations(paths: tuple[tuple[Path, int], ...]) -> tuple[Calibration, ...]:
    loaded: list[Calibration] = []
    problems: list[Problem] = []
    for path, _ in paths:
        try:
            loaded.append(load(path, Calibration))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(problems)
    return tuple(loaded)


IDEAL = Efficiency(*([1.0] * len(Efficiency._fields)))._replace(
    fill_s=0,
    fill_bytes=0,
    core_bandwidth=1e9,
    reduction_s=0,
    attention_floor_s=0,
    attention_block_s=0,
    sharpness=100,
    prefill_sharpness=100,
    dequantize=0,
)
"""Datasheet rates and nothing else."""


def efficiency(machine: Machine, engine: Engine, calibration: Calibration) -> Efficiency:
    """The shares and times that a machine's kernels reach under an engine."""
    if engine.ideal:
        return IDEAL
    gemm, attention = calibration.gemm, calibration.attention
    compute, bandwidth = engine.compute_factor, engine.bandwidth_factor
    return Efficiency(
        gemm_compute=gemm.compute.value * compute,
        gemm_bandwidth=gemm.bandwidth.value * bandwidth,
        gemv_bandwidth=gemm.vector_bandwidth.value * bandwidth,
        gemv_rows=gemm.vector_rows.value,
        fill_s=gemm.fill.value,
        fill_bytes=gemm.fill_row.value,
        core_bandwidth=gemm.core_bandwidth.value,
        narrow_compute=gemm.narrow_compute.value,
        reduction_s=calibration.reduction.value,
        attention_compute=attention.compute.value * compute,
        attention_bandwidth=attention.bandwidth.value * bandwidth,
        attention_floor_s=attention.floor.value,
        query_tile=attention.query_tile.value,
        context_tile=attention.context_tile.value,
        split_tokens=attention.split_tokens.value,
        attention_share=attention.saturating_share.value,
        attention_block_s=attention.block.value,
        key_tile=attention.key_tile.value,
        prefill_bandwidth=attention.prefill_bandwidth.value * bandwidth,
        prefill_sharpness=attention.prefill_sharpness.value,
        elementwise_bandwidth=calibration.elementwise_bandwidth.value * bandwidth,
        scan_compute=calibration.scan_compute.value * compute,
        cache_bandwidth=calibration.cache_bandwidth.value,
        sharpness=calibration.sharpness.value,
        dequantize=calibration.dequantize.value,
        saturating_share=calibration.saturating_share.value,
        multicast=calibration.multicast.value,
        ideal=0.0,
    )


def unsplit(found: Efficiency) -> Efficiency:
    """The same kernels, but decode attention leaves each sequence and KV head to one core, however long its context."""
    return found._replace(split_tokens=1e12)
