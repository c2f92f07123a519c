"""The device file and the calibration file of a measured machine: made, checked against their schemas, written, compared.

Every number gets a source that says that it was measured, when, where and with what. Knows nothing of how it was measured.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from simulator import catalog
from simulator.errors import SpecError
from simulator.spec.loader import Spec, check, load
from simulator.spec.quantity import Sourced
from simulator.units import in_engineering
from validation.microbench.fitting import Fit
from validation.microbench.parameters import SOURCE
from validation.microbench.power import Power
from validation.microbench.processor import Rate, at_level
from validation.microbench.system import Cpu, Gpu


def slug(text: str) -> str:
    """A file name made of a product's name.

    >>> slug("Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz")
    'intel-xeon-platinum-8480-2.00ghz'
    """
    plain = re.sub(r"\((r|tm)\)|\b(cpu|processor)\b", " ", text.lower())
    return re.sub(r"-+", "-", re.sub(r"[^a-z0-9.]+", "-", plain)).strip("-.")


def processor_name(cpu: Cpu, threads: int) -> str:
    """Name of the device file of a processor with so many threads."""
    return f"{slug(cpu.model) or 'cpu'}-{threads}-core"


def today() -> str:
    """The date, for sources."""
    return datetime.date.today().isoformat()


def default_folder() -> Path:
    """Where files go if no folder is named: the first folder of the user's own catalog."""
    return catalog.own_roots()[0]


def processor_file(
    cpu: Cpu,
    name: str,
    threads: int,
    rates: Sequence[Rate],
    peaks: Mapping[str, float],
    launch_s: float,
    power: Power | None,
    host: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    """The device file of a processor. `peaks` are FLOP/s of formats found with torch's products, largest sizes."""
    best = {rate.name: rate for rate in rates if rate.threads == threads}
    flop_rates = {"fp64": best["fma_fp64"].value, "fp32": best["fma_fp32"].value}
    sources = {
        "fma": _measured(f"chains of multiply-adds in the first cache, Numba, {threads} threads, on {host}"),
        "stream": _measured(
            f"best of STREAM copy, scale, add, triad and reads beyond the last cache, {threads} threads, on {host}"
        ),
        "read": _measured(f"reads of a working set of half the capacity, {threads} threads, on {host}"),
        "chase": _measured(f"pointer chase, lines in random order, one thread, on {host}"),
        "sys": _measured(f"as the operating system of {host} reports it to this process"),
    }
    peak = {dtype: f"{in_engineering(rate, 'FLOP/s', 4)} @fma" for dtype, rate in flop_rates.items()}
    if peaks:
        sources["gemm"] = _measured(f"fastest of torch's matrix products in that format, {threads} threads, on {host}")
    for dtype, rate in peaks.items():
        if rate > flop_rates.get(dtype, 0.0):
            unit = "OP/s" if dtype.startswith("int") else "FLOP/s"
            peak[dtype] = f"{in_engineering(rate, unit, 4)} @gemm"
    unit_record: dict[str, Any] = {
        "name": "cores", "kind": "vector", "count": f"{threads} @sys", "tile": [4, 64], "peak": peak,
    }  # fmt: skip
    if cpu.max_hz:
        unit_record["clock"] = f"{in_engineering(cpu.max_hz, 'Hz', 4)} @sys"
    memory = []
    for cache in cpu.caches:
        found = at_level(rates, "read", threads, cache.bytes * cache.instances)
        slow = at_level(rates, "latency", 1, cache.bytes)
        if cache.level > 1 and found is not None and slow is not None:
            memory.append({
                "name": f"l{cache.level}", "kind": "cache", "technology": "SRAM",
                "capacity": f"{cache.bytes * cache.instances / 1024:g} KiB @sys",
                "bandwidth": f"{in_engineering(found.value, 'B/s', 4)} @read",
                "latency": f"{in_engineering(slow.value, 's', 3)} @chase",
            })  # fmt: skip
    far = max((rate for rate in rates if rate.name == "latency"), key=lambda rate: rate.working_set_bytes)
    memory.append({
        "name": "dram", "kind": "main", "capacity": f"{cpu.memory_bytes / 1024**2:.0f} MiB @sys",
        "bandwidth": f"{in_engineering(main_bandwidth(rates, threads), 'B/s', 4)} @stream",
        "latency": f"{in_engineering(far.value, 's', 3)} @chase",
    })  # fmt: skip
    sources["call"] = _measured(f"torch's smallest elementwise kernel called from Python, on {host}") if peaks else {
        "kind": "assumed", "ref": "fork and join of threads and a call; not measured, as torch is not installed",
    }  # fmt: skip
    record = {
        "name": name,
        "title": f"{cpu.model}, {threads} of {cpu.installed} processors, measured",
        "class": "cpu",
        "aliases": [],
        "notes": " ".join(["Written by ridgeline calibrate.", *notes]),
        "sources": sources,
        "compute": [unit_record],
        "memory": memory,
        "overhead": {"launch": f"{launch_s * 1e6:.3g} us @call", "host_launch": f"{launch_s * 1e6:.3g} us @call"},
    }
    return record | _power(record, power, host)


def accelerator_file(
    gpu: Gpu,
    name: str,
    peaks: Mapping[str, float],
    bandwidths: Mapping[str, float],
    launch_s: float,
    host_launch_s: float,
    power: Power | None,
    host: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    """The device file of a GPU. `peaks`: FLOP/s of each format's fastest product; `bandwidths`: bytes/s of main memory,
    of its cache, and of host copies where measured (`main`, `cache`, `to_device`, `to_host`)."""
    sources = {
        "gemm": _measured(f"fastest of torch's matrix products in that format, on {host}"),
        "copy": _measured(f"torch's copies of a block larger than the cache and of one within it, on {host}"),
        "sys": _measured(f"as the driver of {host} reports it"),
        "call": _measured(
            f"a chain of torch's smallest kernels until all are done, and issuing it from Python, on {host}"
        ),
    }
    matrix = {
        dtype: f"{in_engineering(rate, 'OP/s' if dtype.startswith('int') else 'FLOP/s', 4)} @gemm"
        for dtype, rate in peaks.items()
        if dtype != "fp32"
    }
    shared: dict[str, Any] = {"count": f"{gpu.cores} @sys"}
    if gpu.clock_hz:
        shared["clock"] = f"{in_engineering(gpu.clock_hz, 'Hz', 4)} @sys"
    vector = {"fp32": f"{in_engineering(peaks['fp32'], 'FLOP/s', 4)} @gemm"}
    units = [{"name": "vector", "kind": "vector", **shared, "peak": vector}]
    if matrix:
        units.insert(0, {"name": "matrix", "kind": "matrix", **shared, "tile": [256, 128, 64], "peak": matrix})
    memory = [{
        "name": "dram", "kind": "main", "capacity": f"{gpu.memory_bytes / 1024**2:.0f} MiB @sys",
        "bandwidth": f"{in_engineering(bandwidths['main'], 'B/s', 4)} @copy",
    }]  # fmt: skip
    if gpu.cache_bytes and bandwidths.get("cache"):
        memory.insert(0, {
            "name": "l2", "kind": "cache", "technology": "SRAM", "capacity": f"{gpu.cache_bytes / 1024:g} KiB @sys",
            "bandwidth": f"{in_engineering(bandwidths['cache'], 'B/s', 4)} @copy",
        })  # fmt: skip
    record: dict[str, Any] = {
        "name": name,
        "title": f"{gpu.name}, measured",
        "class": "gpu",
        "notes": " ".join(["Written by ridgeline calibrate.", *notes]),
        "sources": sources,
        "compute": units,
        "memory": memory,
        "overhead": {"launch": f"{launch_s * 1e6:.3g} us @call", "host_launch": f"{host_launch_s * 1e6:.3g} us @call"},
    }
    if bandwidths.get("to_device"):
        sources["host"] = _measured(f"copies from pinned host memory, the slower direction, on {host}")
        slower = min(bandwidths["to_device"], bandwidths.get("to_host", bandwidths["to_device"]))
        record["links"] = [{"name": "host", "to": "host", "bandwidth": f"{in_engineering(slower, 'B/s', 4)} @host"}]
    return record | _power(record, power, host)


def main_bandwidth(rates: Sequence[Rate], threads: int) -> float:
    """The most that main memory gave: STREAM's loops and reads beyond the last cache."""
    mine = [rate for rate in rates if rate.threads == threads]
    largest = max(rate.working_set_bytes for rate in mine if rate.name == "read")
    return max(
        rate.value
        for rate in mine
        if rate.name.startswith("stream") or (rate.name == "read" and rate.working_set_bytes == largest)
    )


def calibration_file(fit: Fit, device: str, title: str, engine: str, host: str, notes: Sequence[str]) -> dict[str, Any]:
    """The calibration file of one device: fitted numbers with this run as source, others with the class file's own."""
    held = "; ".join(
        f"{residual.op} {residual.dtype} {residual.median_ape:.0%} median, {residual.mape:.0%} mean ({residual.rows} rows)"
        for residual in fit.residuals
        if residual.held_out
    )
    spans = "; ".join(f"{op}: {span}" for op, span in fit.ranges.items() if span)
    note = f" {' '.join(notes)}" if notes else ""
    record = written(
        fit.calibration.model_copy(
            update={
                "name": device,
                "title": f"{title}, fitted",
                "devices": [device],
                "architectures": [],
                "classes": [],
                "tag": "in-grid",
                "default_engine": engine,
                "interval_low": Sourced(
                    round(min(fit.interval[0], 1.0), 3), SOURCE, f"{min(fit.interval[0], 1.0):.3g}"
                ),
                "interval_high": Sourced(
                    round(max(fit.interval[1], 1.0), 3), SOURCE, f"{max(fit.interval[1], 1.0):.3g}"
                ),
            }
        )
    )
    record["sources"][SOURCE] = _measured(
        f"fitted by ridgeline calibrate to torch's kernels on {host}; mean absolute log error minimised on the shapes that "
        f"are not held out. Held out: {held or 'nothing'}. Range: {spans or 'none'}. {fit.left_out} rows too noisy. "
        f"Interval: quantiles of the held-out rows.{note}"
    )
    used = set(re.findall(r"@([\w.-]+)", yaml.safe_dump(record))) | {record.get("default_source")}
    record["sources"] = {key: source for key, source in record["sources"].items() if key in used}
    if record.get("default_source") not in record["sources"]:
        record.pop("default_source", None)
    return record


def written(spec: Spec) -> dict[str, Any]:
    """A checked file as it is written: every number as text with its source, without what was left out."""
    return spec.model_dump(mode="json", exclude_none=True, by_alias=True)


def write(record: Mapping[str, Any], kind: type[Spec], path: Path) -> Path:
    """Check a record against its schema, then write it. Raises SpecError where the record is not valid."""
    check(dict(record), kind, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(record), sort_keys=False, width=120, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return path


def paths(folder: Path, name: str, group: str) -> tuple[Path, Path, Path]:
    """The device file, the calibration file and the folder of tables of a device below a catalog folder."""
    return (
        folder / "hardware" / group / f"{name}.yaml",
        folder / "hardware" / "calibration" / f"{name}.yaml",
        folder / "measured" / name,
    )


@contextmanager
def catalog_folder(folder: Path) -> Iterator[None]:
    """With `folder` searched before all others, as if it were the first of RIDGELINE_PATH."""
    before = os.environ.get("RIDGELINE_PATH")
    os.environ["RIDGELINE_PATH"] = os.pathsep.join([str(folder), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["RIDGELINE_PATH"]
        else:
            os.environ["RIDGELINE_PATH"] = before


def previous(path: Path, kind: type[Spec]) -> dict[str, float]:
    """The numbers of an earlier file by their dotted path; empty where there is none, or it can no longer be read."""
    if not path.is_file():
        return {}
    try:
        return numbers(load(path, kind))
    except SpecError:
        return {}


def numbers(owner: Any, prefix: str = "") -> dict[str, float]:
    """Every quantity below a spec by its dotted path, in SI units."""
    found: dict[str, float] = {}
    if isinstance(owner, Sourced):
        return {prefix: owner.value}
    if isinstance(owner, Spec):
        items = [(name, getattr(owner, name)) for name in type(owner).model_fields]
    elif isinstance(owner, dict):
        items = list(owner.items())
    elif isinstance(owner, list):
        items = [(getattr(value, "name", str(position)), value) for position, value in enumerate(owner)]
    else:
        return {}
    for name, value in items:
        found |= numbers(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _power(record: Mapping[str, Any], power: Power | None, host: str) -> dict[str, Any]:
    if power is None:
        return {}
    record["sources"]["power"] = _measured(f"{power.meter} on {host}: drawn at rest, and the limit that it reports")
    watts = {"tdp": power.limit_w, "idle": power.idle_w}
    return {"power": {name: f"{value:.4g} W @power" for name, value in watts.items() if value}}


def _measured(ref: str) -> dict[str, str]:
    return {"kind": "measured", "ref": ref, "date": today()}
