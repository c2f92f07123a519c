"""Fits and files: what a fit finds in a table that the model itself made, what it must not look at, and round trips."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator.cost.chains import as_chain
from simulator.cost.efficiency import Engine, find_calibration, load_engine
from simulator.errors import SpecError
from simulator.graph.counts import norm
from simulator.mapping.machine import Machine, load_machine
from simulator.spec.calibration import Calibration
from simulator.spec.hardware import DeviceSpec
from simulator.spec.loader import load
from validation.microbench import fitting, layer
from validation.microbench.files import (
    accelerator_file,
    calibration_file,
    catalog_folder,
    default_folder,
    numbers,
    paths,
    previous,
    processor_file,
    processor_name,
    slug,
    write,
)  # fmt: skip
from validation.microbench.parameters import parameters, replaced, value_of, with_optional
from validation.microbench.power import Power
from validation.microbench.processor import Rate
from validation.microbench.rows import Rows
from validation.microbench.sampling import Sample
from validation.microbench.system import Cache, Cpu, Gpu

CPU = Cpu(
    "Test(R) CPU 9000 @ 2.00GHz", "v", 4, 8, 1, frozenset(["avx2"]), (Cache(1, 32768, 4), Cache(3, 32e6, 1)), 16e9
)
GPU = Gpu(0, "Test GPU", 100, 80e9, 40e6, (9, 0), 1.8e9)
CALM = Sample(1.0, 0.01, 7, 0, 1.0)


def rates() -> list[Rate]:
    found = [Rate(f"fma_{dtype}", 4, value, "FLOP/s", 4096, CALM) for dtype, value in (("fp32", 4e11), ("fp64", 2e11))]
    for threads in (1, 4):
        found.append(Rate("stream_triad", threads, 20e9 * threads, "B/s", 2e8, CALM))
        found += [
            Rate("read", threads, 1e11 * threads / (1 + size / 1e6), "B/s", size, CALM) for size in (16e3, 16e6, 2e8)
        ]
    return found + [Rate("latency", 1, size * 1e-15 + 1e-9, "s", size, CALM) for size in (16e3, 16e6, 2e8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A catalog with one measured processor."""
    name = processor_name(CPU, 4)
    record = processor_file(CPU, name, 4, rates(), {"fp32": 4e11, "bf16": 8e11}, 2e-6, None, "here", ["Noisy."])
    write(record, DeviceSpec, paths(tmp_path, name, "cpu")[0])
    return tmp_path


@pytest.fixture
def machine(folder: Path) -> Machine:
    with catalog_folder(folder):
        return load_machine(processor_name(CPU, 4))


@pytest.fixture
def engine() -> Engine:
    return load_engine("torch-eager")


def table() -> pd.DataFrame:
    """Shapes without times."""
    base = {"framework": "torch-eager", "dispersion": 0.01}
    products = [
        {"op_name": "gemm", "gemm_dtype": dtype, "m": m, "n": n, "k": k, "held_out": n == 640}
        for (n, k), m, dtype in itertools.product(
            ((1024, 2048), (4096, 1024), (640, 1280)), (1, 2, 8, 32, 128, 512), ("bfloat16", "float32")
        )
    ]
    attention = [
        {
            "op_name": op, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "batch_size": batch, "isl": query,
            "step": past, "num_heads": heads, "num_key_value_heads": 4, "head_dim": 64, "window_size": 0,
            "held_out": heads == 8,
        }
        for heads, (op, batch, query, past) in itertools.product(
            (4, 16, 8),
            (
                ("context_attention", 1, 64, 0), ("context_attention", 2, 256, 0), ("context_attention", 1, 1024, 0),
                ("generation_attention", 1, 1, 255), ("generation_attention", 8, 1, 1023),
            ),
        )
    ]  # fmt: skip
    one = {
        "op_name": "elementwise",
        "dtype": "bfloat16",
        "n": 2048,
        "reads": 2,
        "writes": 1,
        "flops": 1,
        "held_out": False,
    }
    passes = [one | {"m": m} for m in (1, 16, 256, 4096)]
    return pd.DataFrame([base | row for row in (*products, *attention, *passes)])


def timed(frame: pd.DataFrame, machine: Machine, engine: Engine, calibration: Calibration) -> pd.DataFrame:
    """The table with the times that the model has under a calibration."""
    found = frame.assign(latency=1.0)
    for op in frame["op_name"].unique():
        part = found[found["op_name"] == op].dropna(axis="columns", how="all")
        seconds = Rows(part.reset_index(drop=True), machine, engine).seconds(calibration)
        found.loc[part.index, "latency"] = seconds * 1e3
    return found


def truth(start: Calibration, machine: Machine) -> Calibration:
    found = with_optional(start, machine)
    changes = {
        "gemm.vector_bandwidth": 0.2, "gemm.bandwidth": 0.3, "gemm.wide_bandwidth": 0.5, "gemm.floor": 20e-6, "launch": 4e-6,
    }  # fmt: skip
    known = {parameter.key: parameter for parameter in parameters(found)}
    for key, value in changes.items():
        found = replaced(found, known[key], value)
    return found


def fitted(frame: pd.DataFrame, machine: Machine, engine: Engine) -> fitting.Fit:
    return fitting.fit(frame, machine, engine, find_calibration(machine), "bfloat16")


def test_a_fit_finds_what_made_the_table(machine: Machine, engine: Engine) -> None:
    start = find_calibration(machine)
    rows = timed(table(), machine, engine, truth(start, machine))
    before, _ = fitting.score(rows, machine, engine, with_optional(start, machine), "bfloat16")
    found = fitted(rows, machine, engine)
    after = {(r.op, r.dtype, r.held_out): r.mape for r in found.residuals}
    assert max(r.mape for r in before if r.op == "gemm") > 0.3
    assert all(error < 0.08 for error in after.values()), after
    assert 0.8 < found.interval[0] <= found.interval[1] < 1.25


def test_the_same_table_gives_the_same_fit_whatever_is_held_out(machine: Machine, engine: Engine) -> None:
    rows = timed(table(), machine, engine, truth(find_calibration(machine), machine))
    first = fitted(rows, machine, engine)
    other = rows.assign(latency=np.where(rows["held_out"], 3.0 * rows["latency"], rows["latency"]))
    noisy = other.assign(dispersion=np.where(other["m"] == 8, 0.9, other["dispersion"]))
    assert numbers(fitted(rows, machine, engine).calibration) == numbers(first.calibration)
    assert numbers(fitted(other, machine, engine).calibration) == numbers(first.calibration)
    third = fitted(noisy.assign(latency=np.where(noisy["m"] == 8, 100.0, noisy["latency"])), machine, engine)
    assert third.left_out == int((rows["m"] == 8).sum())
    assert all(r.mape < 0.1 for r in third.residuals if r.op == "gemm" and not r.held_out), third.residuals


def test_fitted_numbers_stay_within_physical_bounds(machine: Machine, engine: Engine) -> None:
    rows = table().assign(latency=1e-6)
    found = fitted(rows, machine, engine)
    for parameter in found.parameters:
        assert parameter.low <= value_of(found.calibration, parameter.key) <= parameter.high * 1.0001, parameter
    shares = [
        p for p in parameters(found.calibration) if p.key.endswith(("compute", "bandwidth")) and "core" not in p.key
    ]
    assert shares
    assert all(p.high <= 1.0 for p in shares)


def test_every_number_of_a_calibration_can_be_replaced_and_written(machine: Machine) -> None:
    calibration = with_optional(find_calibration(machine), machine)
    for parameter in parameters(calibration):
        value = max(parameter.least, min(parameter.high, 1.7 * parameter.least))
        found = replaced(calibration, parameter, value)
        assert value_of(found, parameter.key) == pytest.approx(value, rel=0.01), parameter
        assert numbers(found).keys() == numbers(calibration).keys()


def test_files_round_trip(folder: Path, machine: Machine, engine: Engine) -> None:
    name = processor_name(CPU, 4)
    device_path, calibration_path, _ = paths(folder, name, "cpu")
    spec = load(device_path, DeviceSpec)
    assert {source.kind for source in spec.sources.values()} == {"measured"}
    assert "Noisy." in str(spec.notes)
    assert machine.units[0].peak_flop_per_s == pytest.approx({"fp64": 2e11, "fp32": 4e11, "bf16": 8e11})
    assert machine.memories[-1].bytes_per_s == pytest.approx(80e9)
    assert not machine.assumed
    found = fitted(timed(table(), machine, engine, truth(find_calibration(machine), machine)), machine, engine)
    record = calibration_file(found, name, "Test", "torch-eager", "here", [])
    write(record, Calibration, calibration_path)
    with catalog_folder(folder):
        own = find_calibration(load_machine(name))
    assert own.devices == [name]
    assert own.tag == "in-grid"
    assert "Held out: gemm bfloat16" in own.sources["here"].ref
    written = numbers(own)
    for parameter in found.parameters:
        assert written[parameter.key] == pytest.approx(value_of(found.calibration, parameter.key), rel=1e-6)
    assert previous(calibration_path, Calibration) == written
    assert previous(folder / "none.yaml", Calibration) == {}


def test_a_record_that_breaks_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="memory"):
        write({"name": "x", "title": "x", "class": "cpu"}, DeviceSpec, tmp_path / "x.yaml")
    assert not (tmp_path / "x.yaml").exists()


def test_a_gpu_gets_a_file_and_a_fit_by_the_same_way(tmp_path: Path, engine: Engine) -> None:
    peaks = {"fp32": 5e13, "bf16": 8e14, "fp8": 1.6e15, "int8": 1.6e15}
    bandwidths = {"main": 4e12, "cache": 8e12, "to_device": 5e10, "to_host": 4e10}
    record = accelerator_file(GPU, "test-gpu", peaks, bandwidths, 2e-6, 4e-6, Power("NVML", 70.0, 700.0), "here", [])
    write(record, DeviceSpec, paths(tmp_path, "test-gpu", "gpu")[0])
    with catalog_folder(tmp_path):
        gpu = load_machine("test-gpu")
        assert {unit.kind for unit in gpu.units} == {"matrix", "vector"}
        assert (gpu.tdp_w, gpu.idle_w) == (700.0, 70.0)
        assert gpu.links[0].bytes_per_s == 4e10
        start = find_calibration(gpu)
        made = replaced(start, next(p for p in parameters(start) if p.key == "gemm.bandwidth"), 0.5)
        found = fitted(timed(table(), gpu, engine, made), gpu, engine)
        assert all(r.mape < 0.1 for r in found.residuals), found.residuals
        predicted = layer.predictor(gpu, "torch-eager", layer.ACCELERATOR, "bf16")
        answer = predicted(layer.Step(1, 1, 128))
        assert answer["all"] >= 40 * 4e-6  # the host issues some forty kernels


def test_a_layer_is_predicted_op_by_op(machine: Machine, folder: Path) -> None:
    with catalog_folder(folder):
        predicted = layer.predictor(machine, "torch-eager", layer.PROCESSOR, "bf16")
    small, large = predicted(layer.Step(1, 1, 128)), predicted(layer.Step(1, 512, 0))
    assert {"qkv_proj", "rope", "attention", "o_proj", "gate_up_proj", "activation", "down_proj"} <= set(small)
    assert large["all"] > small["all"]
    assert small["all"] >= 0.99 * sum(value for name, value in small.items() if name != "all")


def test_chains_move_more_bytes_in_more_kernels() -> None:
    chained = replace(load_engine("torch-eager"), chains={"norm": (8.0, 4.0)})
    op = norm("norm.0", 1024, dtype="bf16", weights=1024)
    one = as_chain(op, chained)
    assert one.repeat == 8.0
    total = [one.repeat * tensor.read.tokens for tensor in one.tensors]
    assert total == pytest.approx([4.0 * tensor.read.tokens for tensor in op.tensors])
    assert one.repeat * one.flops.tokens == pytest.approx(op.flops.tokens)
    assert as_chain(op, load_engine("vllm")) is op


def test_floors_and_wide_operands_cost_time(machine: Machine, engine: Engine) -> None:
    start = with_optional(find_calibration(machine), machine)
    known = {parameter.key: parameter for parameter in parameters(start)}
    shape = {"op_name": "gemm", "m": 16, "n": 4096, "k": 4096, "latency": 1.0}
    rows = {
        dtype: Rows(pd.DataFrame([shape | {"gemm_dtype": dtype}]), machine, engine) for dtype in ("float32", "bfloat16")
    }
    slow = replaced(start, known["gemm.floor"], 1e-4)
    narrow = replaced(start, known["gemm.wide_bandwidth"], 0.05)
    for dtype, timer in rows.items():
        plain = timer.seconds(start)[0]
        assert timer.seconds(slow)[0] - plain == pytest.approx(1e-4)
        assert (timer.seconds(narrow)[0] > 1.2 * plain) == (dtype == "float32")


def test_names_are_files() -> None:
    assert processor_name(CPU, 4) == "test-9000-2.00ghz-4-core"
    assert slug("NVIDIA H200") == "nvidia-h200"


def test_files_go_where_the_catalog_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulator import catalog

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RIDGELINE_PATH", raising=False)
    assert default_folder() == tmp_path / "ridgeline"
    assert tmp_path / "ridgeline" not in catalog.roots()
    (tmp_path / "ridgeline").mkdir()
    assert catalog.roots()[0] == tmp_path / "ridgeline"
    monkeypatch.setenv("RIDGELINE_PATH", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
