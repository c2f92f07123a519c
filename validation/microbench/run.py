"""The whole of a calibration: find the machine, measure, write its device file, fit, write its calibration, then predict a
layer and time it. Nothing of the layer is known when the files are written.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost.efficiency import find_calibration, load_engine
from simulator.errors import UnsupportedError
from simulator.mapping.machine import load_machine
from simulator.spec.calibration import Calibration
from simulator.spec.hardware import DeviceSpec
from validation.microbench import cases, copies, files, fitting, layer, measure
from validation.microbench.device import TorchDevice, load_torch
from validation.microbench.power import Meter, Power, at_rest, gpu_meter, mean_watts, processor_meter
from validation.microbench.processor import MeasurementError, Rate, processor_rates
from validation.microbench.sampling import NOISY, Effort, sample
from validation.microbench.system import Cpu, Gpu, busy_seconds, find_cpu, find_gpus
from validation.tables import write_table

GROUPS = ("processor", "gemm", "attention", "elementwise", "copy", "layer")
"""What can be measured by itself, with `--only`."""
FITTED = frozenset(("gemm", "attention", "elementwise"))
MOST_NOISY = 0.5
"""Share of noisy rows from which on nothing is written."""
BUSY = 0.15
"""Processors' worth of others' work, per core measured, from which on it is worth a warning."""
Progress = Callable[[str, float], object]
"""What is being done, and the share of all that is done."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    device: str = "cpu"
    threads: int | None = None
    out: Path | None = None
    name: str | None = None
    small: bool = False
    only: tuple[str, ...] = GROUPS
    keep_noisy: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The device that is measured and what is known of it before."""

    cpu: Cpu
    gpu: Gpu | None
    torch: Any
    threads: int
    name: str
    host: str
    folder: Path

    @property
    def group(self) -> str:
        """Folder of its device file."""
        return "gpu" if self.gpu else "cpu"

    @property
    def title(self) -> str:
        """For people."""
        return self.gpu.name if self.gpu else f"{self.cpu.model}, {self.threads} threads"


@dataclass(slots=True)
class Outcome:
    """What a calibration found and wrote."""

    target: Target
    rates: list[Rate] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    fit: fitting.Fit | None = None
    files: list[Path] = field(default_factory=list)
    changes: list[tuple[str, float | None, float]] = field(default_factory=list)
    """Number, before, after."""
    layer: list[dict[str, Any]] = field(default_factory=list)
    power: Power | None = None
    watts: dict[str, float | None] = field(default_factory=dict)
    """Drawn while a steady kernel runs."""
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def layer_error(self) -> float | None:
        """Median absolute error of the predicted layer."""
        return float(np.median([abs(row["error"]) for row in self.layer])) if self.layer else None


def find_target(options: Options) -> Target:
    """The device that the options name. Raises UnsupportedError for one that is not there."""
    torch = load_torch()
    cpu = find_cpu()
    kind, _, index = options.device.partition(":")
    gpu = None
    if kind == "cuda" and (index.isdigit() or options.device == "cuda"):
        gpus = find_gpus(torch)
        wanted = int(index or 0)
        if torch is None or wanted >= len(gpus):
            reason = "torch is not installed" if torch is None else f"torch sees {len(gpus)} GPUs"
            raise UnsupportedError(f"--device {options.device} ({reason})", ["cpu"])
        gpu = gpus[wanted]
    elif options.device != "cpu":
        raise UnsupportedError(f"--device {options.device}", ["cpu", "cuda", "cuda:1"])
    threads = options.threads or cpu.cores
    own = files.slug(gpu.name) + "-measured" if gpu else files.processor_name(cpu, threads)
    return Target(
        cpu=cpu,
        gpu=gpu,
        torch=torch,
        threads=threads,
        name=options.name or own,
        host=f"{platform.system()} {platform.release()}" + (f", torch {torch.__version__}" if torch else ""),
        folder=options.out or files.default_folder(),
    )


def calibrate(target: Target, options: Options, progress: Progress) -> Outcome:
    """Measure, fit, write and check. Raises MeasurementError where too much of it is noise."""
    outcome = Outcome(target)
    begin, work, own = time.monotonic(), busy_seconds(), time.process_time()
    device = _device(target)
    if target.gpu is None and "processor" in options.only:
        _processor(outcome, options, progress)
    kernels: list[dict[str, Any]] = []
    if device is None:
        outcome.left_out.append(
            "torch is not installed: products, attention, passes, copies, the fit and the layer are left out "
            "(pip install 'ridgeline[torch]')"
        )
    else:
        kernels = _kernels(outcome, device, options, progress)
        outcome.table = pd.DataFrame(kernels)
    _judge(outcome, options, work, own, time.monotonic() - begin)
    device_path, calibration_path, tables = files.paths(target.folder, target.name, target.group)
    before = files.previous(device_path, DeviceSpec) | files.previous(calibration_path, Calibration)
    meter = _meter(target)
    if meter is not None:
        outcome.power = at_rest(meter, 0.2 if options.small else 1.0)
        if device is not None:
            for name, run in copies.steady(device, main_format(device), options.small).items():
                outcome.watts[name] = mean_watts(meter, run, 0.1 if options.small else 1.5)
    record = _device_record(outcome, device)
    if record is not None:
        outcome.files.append(files.write(record, DeviceSpec, device_path))
    if len(outcome.table):
        for op, part in measure.split_by_op(outcome.table):
            tables.mkdir(parents=True, exist_ok=True)
            write_table(part, tables / f"{op}.parquet")
            outcome.files.append(tables / f"{op}.parquet")
    if record is None:
        outcome.left_out.append(
            "no device file: it needs processor (cpu) or gemm and copy (cuda) among what is measured"
        )
    elif device is not None and not FITTED.issubset(options.only):
        outcome.left_out.append("no calibration file: it needs gemm, attention and elementwise among what is measured")
    if record is not None and device is not None and FITTED.issubset(options.only):
        progress("fit", 0.85)
        _fit(outcome, device, calibration_path)
    after = files.previous(device_path, DeviceSpec) | files.previous(calibration_path, Calibration)
    if record is not None:
        outcome.changes = [(key, before.get(key), value) for key, value in after.items() if before.get(key) != value]
    if outcome.fit is not None and device is not None and "layer" in options.only:
        _layer(outcome, device, options, progress)
    outcome.seconds = time.monotonic() - begin
    progress("done", 1.0)
    return outcome


def main_format(device: TorchDevice) -> str:
    """The number format that models are run in here: bf16 where it is native, else fp16, else fp32."""
    return next(name for name in ("bf16", "fp16", "fp32") if name in device.formats)


def _device(target: Target) -> TorchDevice | None:
    if target.torch is None:
        return None
    if target.gpu is not None:
        return TorchDevice.on_gpu(target.torch, target.gpu)
    return TorchDevice.on_cpu(target.torch, target.cpu, target.threads)


def _processor(outcome: Outcome, options: Options, progress: Progress) -> None:
    target = outcome.target
    counts = sorted({1, target.threads})
    for step, (label, rates) in enumerate(processor_rates(target.cpu, counts, options.small)):
        progress(label, 0.02 + 0.18 * step / (3 * len(counts) + 1))
        outcome.rates += rates


def _kernels(outcome: Outcome, device: TorchDevice, options: Options, progress: Progress) -> list[dict[str, Any]]:
    sizes = cases.SMALL if options.small else cases.ACCELERATOR if device.is_gpu else cases.PROCESSOR
    effort = Effort(3, 0.005, 0.05, 1) if options.small else Effort(7, 0.04, 0.4, 2)
    only = frozenset(options.only)
    chosen = list(cases.cases(device, sizes, only, measure.gqa_works(device)))
    done = 0

    def report(label: str) -> None:
        nonlocal done
        done += not label.startswith("again")
        progress(label, 0.2 + 0.6 * done / max(1, len(chosen)))

    rates = (50e9 * device.threads, 20e9) if not device.is_gpu else (20e12, 1e12)
    found = measure.run_cases(chosen, device, outcome.target.name, rates, effort, 0.25, report)
    outcome.left_out += [f"torch refused {kind}: {reason}" for kind, reason in found.refused.items()]
    if found.too_large:
        outcome.left_out.append(
            f"did not fit into memory: {len(found.too_large)} cases, the first {found.too_large[0]}"
        )
    missing = [name for name in ("bf16", "fp16", "int8", "fp8") if name not in device.formats]
    if missing:
        outcome.left_out.append(f"not native here, and not measured: {', '.join(missing)}")
    rows = found.rows
    if "copy" in only:
        cache = outcome.target.gpu.cache_bytes if outcome.target.gpu else outcome.target.cpu.last_cache_bytes
        slow = Effort(3, 0.02, 0.1, 1) if options.small else Effort(7, 0.3, 1.0, 2)
        base = {
            "framework": measure.FRAMEWORK,
            "version": f"torch-{device.torch.__version__}",
            "device": outcome.target.name,
        }
        rows += [base | copy.row() for copy in copies.copies(device, cache, options.small, slow)]
    return rows


def _judge(outcome: Outcome, options: Options, work: float | None, own: float, seconds: float) -> None:
    """Warn of noise; refuse where most of the rows are noise."""
    total = busy_seconds()
    if work is not None and total is not None and outcome.target.gpu is None and seconds > 0.0:
        others = (total - work - (time.process_time() - own)) / seconds
        if others > BUSY * outcome.target.cpu.installed:
            outcome.warnings.append(
                f"Other programs kept {others:.1f} of {outcome.target.cpu.installed} processors busy during the measurement."
            )
    if not len(outcome.table):
        return
    noisy = outcome.table["dispersion"] > NOISY
    share = float(noisy.mean())
    if share > MOST_NOISY and not options.keep_noisy:
        median = outcome.table["dispersion"].median()
        raise MeasurementError(
            f"{share:.0%} of the measurements scatter by more than {NOISY:.0%} (median {median:.0%}): "
            "nothing was written; stop other programs and try again, use fewer --threads, or pass --keep-noisy"
        )
    if share > 0.1:
        outcome.warnings.append(
            f"{share:.0%} of the measurements scatter by more than {NOISY:.0%}; they are not fitted to."
        )


def _meter(target: Target) -> Meter | None:
    return gpu_meter(target.gpu) if target.gpu else processor_meter()


def peaks(table: pd.DataFrame) -> dict[str, float]:
    """FLOP/s of the fastest product of each number format."""
    names = {table_name: name for name, table_name in cases.TABLE_NAMES.items()}
    if "gemm_dtype" not in table:
        return {}
    products = table[table["op_name"] == "gemm"]
    rate = 2.0 * products["m"] * products["n"] * products["k"] / (products["latency"] * 1e-3)
    return {names[str(dtype)]: float(part.max()) for dtype, part in rate.groupby(products["gemm_dtype"])}


def _device_record(outcome: Outcome, device: TorchDevice | None) -> dict[str, Any] | None:
    """The device file, where what it needs was measured."""
    target, found = outcome.target, peaks(outcome.table)
    if target.gpu is None:
        if not outcome.rates:
            return None
        launch = 5e-6 if device is None else copies.launch_times(device, True)[0]
        return files.processor_file(
            target.cpu, target.name, target.threads, outcome.rates, found, launch, outcome.power, target.host,
            outcome.warnings,
        )  # fmt: skip
    if device is None or "fp32" not in found or "kernel_source" not in outcome.table:
        return None
    copied = outcome.table[outcome.table["op_name"] == "copy"]
    if not len(copied):
        return None
    moved = {"memory": 2.0, "cache": 40.0}
    rate = {
        str(row["kernel_source"]): moved.get(str(row["kernel_source"]), 1.0) * row["bytes"] / (row["latency"] * 1e-3)
        for row in copied.to_dict("records")
    }
    bandwidths = {"main": rate["memory"], "cache": rate.get("cache", 0.0)}
    if "to_device_pinned" in rate:
        bandwidths |= {"to_device": rate["to_device_pinned"], "to_host": rate["to_host_pinned"]}
    launch, host_launch = copies.launch_times(device, False)
    return files.accelerator_file(
        target.gpu, target.name, found, bandwidths, launch, host_launch, outcome.power, target.host, outcome.warnings
    )


def _fit(outcome: Outcome, device: TorchDevice, path: Path) -> None:
    target = outcome.target
    path.unlink(missing_ok=True)
    with files.catalog_folder(target.folder):
        machine = load_machine(target.name)
        engine = replace(load_engine(measure.FRAMEWORK), compute_factor=1.0, bandwidth_factor=1.0)
        main = cases.TABLE_NAMES[main_format(device)]
        modelled = outcome.table[outcome.table["op_name"] != "copy"]
        outcome.fit = fitting.fit(modelled, machine, engine, find_calibration(machine), main)
        record = files.calibration_file(
            outcome.fit, target.name, target.title, measure.FRAMEWORK, target.host, outcome.warnings
        )
        outcome.files.append(files.write(record, Calibration, path))


def _layer(outcome: Outcome, device: TorchDevice, options: Options, progress: Progress) -> None:
    dtype = main_format(device)
    layer.verify(device, dtype)
    shape = layer.TINY if options.small else layer.ACCELERATOR if device.is_gpu else layer.PROCESSOR
    steps: Sequence[layer.Step] = (
        layer.TINY_STEPS if options.small else layer.ACCELERATOR_STEPS if device.is_gpu else layer.PROCESSOR_STEPS
    )
    with files.catalog_folder(outcome.target.folder):
        predicted = layer.predictor(load_machine(outcome.target.name), measure.FRAMEWORK, shape, dtype)
        answers = [predicted(step) for step in steps]
    copies_of = [layer.weights(device, shape, dtype, copy) for copy in range(2)]
    effort = Effort(3, 0.01, 0.1, 1) if options.small else Effort(9, 0.5, 3.0, 2)
    meter = _meter(outcome.target)
    for position, (step, answer) in enumerate(zip(steps, answers, strict=True)):
        progress(f"layer: {step.label}", 0.9 + 0.1 * position / len(steps))
        made = layer.Layer(device, shape, step, dtype, copies_of)
        taken = sample(made.run, device.wall_clock(), effort)
        row = {
            "step": step.label, "dtype": dtype, "batch": step.batch, "tokens": step.tokens, "past": step.past,
            "predicted_s": answer["all"], "measured_s": taken.seconds, "error": answer["all"] / taken.seconds - 1.0,
            "dispersion": taken.dispersion, "disturbed": taken.disturbed,
            "ops_s": {name: value for name, value in answer.items() if name != "all"},
        }  # fmt: skip
        if meter is not None:
            row["power_w"] = mean_watts(meter, partial(_finished, made, device), 0.05 if options.small else 0.5)
        outcome.layer.append(row)


def _finished(made: layer.Layer, device: TorchDevice) -> None:
    made.run(0)
    device.synchronize()
