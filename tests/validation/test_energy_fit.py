"""The fit of energies to power finds the energies that made synthetic readings, and what ships is near its tables."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest

from simulator.cost.efficiency import find_calibration
from simulator.mapping.machine import load_machine
from validation.energy import (
    BOUNDS,
    Energies,
    Kernels,
    at_limit,
    attention_kernels,
    compare,
    fit,
    fit_attended,
    gemm_kernels,
    held_out,
    predicted_gemm,
    readings,
    readings_among,
    summary,
    watts,
)  # fmt: skip
from validation.ship import thinned_power
from validation.tables import power_folders

TRUE = Energies(130.0, 0.8e-12, 0.5e-12, 50e-12, 40e-12, 80.0, 0.02, 0.02)
LIMIT_W = 690.0
CACHE_BYTES = 50e6


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Two thousand GEMMs at plausible times, in the order of the loops of a collector, with noise of 2%."""
    random = np.random.default_rng(3)
    shapes = [(m, n, k) for m in (4096, 2048, 300, 64, 8) for n in 2 ** np.arange(7, 16) for k in 2 ** np.arange(7, 16)]
    rows = [(*shape, dtype) for shape in shapes for dtype in ("bfloat16", "fp8_block")]
    table = pd.DataFrame(rows, columns=["m", "n", "k", "gemm_dtype"])
    size = np.where(table["gemm_dtype"] == "bfloat16", 2.0, 1.0)
    flops, weights = 2.0 * table["m"] * table["n"] * table["k"], table["n"] * table["k"] * size
    seconds = (flops / (1.2e15 / size) + weights / 3.5e12 + 5e-6) * random.uniform(1.0, 1.5, len(table))
    table = table.assign(latency=1e3 * seconds, power=1.0)
    quiet = gemm_kernels(table, CACHE_BYTES)
    noise = np.exp(random.normal(0.0, 0.02, len(table)))
    return replace(quiet, reading_w=predicted_gemm(quiet, TRUE, LIMIT_W) * noise)


def test_the_fit_finds_the_energies(kernels: Kernels) -> None:
    found, steady = fit(kernels, LIMIT_W)
    assert steady.mean() > 0.95
    for name in ("static_w", "wide_j", "narrow_j", "memory_j", "chip_j"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.1), name
    for value, (low, _, high) in ((getattr(found, name), ends) for name, ends in BOUNDS.items()):
        assert low <= value <= high


def test_held_out_shapes_are_not_learned_from(kernels: Kernels) -> None:
    out = held_out(kernels)
    assert 0.1 < out.mean() < 0.3
    changed = np.where(out, 1.5 * kernels.reading_w, kernels.reading_w)
    one, other = (fit(kernel, LIMIT_W, rounds=1)[0] for kernel in (kernels, replace(kernels, reading_w=changed)))
    assert astuple(one) == astuple(other)


def test_readings_of_one_power_are_that_power_and_lie_between_the_extremes() -> None:
    random = np.random.default_rng(5)
    run_s = random.uniform(0.01, 2.0, 300)
    assert readings(np.full(300, 400.0), run_s, 0.05, 400.0) == pytest.approx(400.0)
    mixed = readings(random.uniform(150.0, 650.0, 300), run_s, 0.05, 100.0)
    assert (mixed > 100.0).all()
    assert (mixed < 650.0).all()


def test_at_the_limit_the_clock_balances_the_power(kernels: Kernels) -> None:
    limit_w, idle_w = 400.0, 60.0
    capped = replace(kernels, reading_w=np.minimum(limit_w, watts(kernels, TRUE, 1e9)))
    found = at_limit(capped, TRUE, idle_w, limit_w)
    assert 0.3 < found.clock < 1.0
    assert 0.0 < found.narrow_clock < 1.0
    assert found.narrow_j > 0.0


def test_the_shipped_device_is_near_its_measured_kernels() -> None:
    machine = load_machine("h200-sxm-141gb")
    (folder,) = power_folders(())
    rows = compare(folder, machine, find_calibration(machine).transport.value, find_calibration(machine).attended.value)
    assert set(rows["op"]) == {"gemm", "context_attention", "generation_attention", "moe"}
    answer = summary(rows)
    assert answer["rows"] == answer["resolved"] + answer["left_out"][0]["values"]
    by_op = rows[rows["steady"]].groupby("op")["error"].agg(lambda error: error.abs().median())
    assert by_op["gemm"] < 0.04
    assert by_op.max() < 0.20


def test_decode_attention_finds_the_joules_of_its_bytes() -> None:
    random = np.random.default_rng(3)
    heads = random.integers(1, 9, 400)
    table = pd.DataFrame({
        "op_name": "generation_attention", "kv_cache_dtype": "bfloat16", "batch_size": random.integers(16, 256, 400),
        "isl": 1, "num_heads": 4 * heads, "num_key_value_heads": heads, "head_dim": 128, "window_size": 0,
        "step": random.integers(1000, 9000, 400), "latency": random.uniform(0.3, 3.0, 400), "power": 1.0, "before_w": 300.0,
    })  # fmt: skip
    kernels = attention_kernels(table, 5e7)
    truth = replace(TRUE, attended_j=9e-11)
    read = readings_among(watts(kernels, truth, 1e9), kernels.run_s, np.full(400, 300.0))
    assert fit_attended(replace(kernels, reading_w=read), TRUE, 1e9) == pytest.approx(9e-11, rel=1e-3)


def test_thinned_tables_keep_gemms_whole_and_say_what_came_before() -> None:
    run = {"framework": "f", "version": "1", "kernel_source": "s", "device": "d", "power_limit": 700.0}
    gemm = pd.DataFrame({**run, "op_name": "gemm", "m": range(9), "n": 64, "k": 64, "latency": 0.01, "power": 300.0})
    assert len(thinned_power(gemm)) == 9
    power = np.arange(100.0, 400.0)
    other = pd.DataFrame({**run, "op_name": "context_attention", "isl": range(300), "latency": 1.0, "power": power})
    thin = thinned_power(other)
    assert 0 < len(thin) < 300
    assert thin.loc[200:, "before_w"].to_numpy() == pytest.approx(thin.loc[200:, "power"].to_numpy() - 8.5)
