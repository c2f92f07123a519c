"""The fit finds the parameters that made a table, holds out whole shapes, and repeats itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator.cost.efficiency import find_calibration
from simulator.mapping.machine import load_machine
from validation import fit
from validation.knobs import KNOBS, changed, fitted_knobs, general, starting_values
from validation.shapes import COLLECTIVE, DECODE, GEMM, Family

DEVICE = "a100-sxm4-80gb"
TRUE = {"gemm.bandwidth": 0.6, "launch": 5e-6, "reduction": 3e-6}


def made(rows: pd.DataFrame, family: Family, values: dict[str, float]) -> pd.DataFrame:
    """The rows with the latency that the model has for them, in milliseconds."""
    bench = fit.Bench.of(DEVICE, "vllm", rows, family)
    return bench.rows.assign(latency=bench.seconds(values) * 1e3)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tables that the model itself made."""
    folder = tmp_path_factory.mktemp("tables")
    sizes = [256, 1024, 2048, 4096, 8192]
    grid = [(m, n, k) for m in (1, 16, 64, 256, 2048) for n in sizes for k in sizes]
    rows = pd.DataFrame(grid, columns=["m", "n", "k"])
    rows = rows.assign(op_name="gemm", gemm_dtype="bfloat16", kernel_source="x", latency=1.0)
    gemms = made(rows, GEMM, TRUE)
    gemms.loc[0, "latency"] = 0.0
    gemms.to_parquet(folder / "gemm__vllm__1__gemm_perf.parquet")
    grid = [
        (b, c, h, g) for b in (1, 4, 16, 64) for c in (16, 512, 4096) for h, g in ((32, 8), (16, 0), (8, 1), (64, 1))
    ]
    heads = pd.DataFrame(grid, columns=["batch_size", "step", "num_heads", "num_key_value_heads"])
    heads = heads.assign(
        op_name="generation_attention", isl=1, head_dim=128, attn_dtype="bfloat16", kv_cache_dtype="bfloat16",
        kernel_source="x", latency=1.0,
    )  # fmt: skip
    made(heads, DECODE, {}).to_parquet(folder / "attention__vllm__1__generation_attention_perf.parquet")
    return folder


def run(tables: Path, kind: str, *more: str) -> Any:
    return fit.run(fit.parser().parse_args([kind, "--device", DEVICE, "--tables", str(tables), *more]))


def gemms(tables: Path) -> pd.DataFrame:
    return fit.read_rows(tables, "vllm", "gemm", "bfloat16", "")


def test_rows_that_measured_nothing_are_dropped_and_shapes_are_held_out_whole(tables: Path) -> None:
    rows = gemms(tables)
    assert len(rows) == 124
    assert (rows["latency"] > 0).all()
    assert (rows.groupby(["n", "k"])["held_out"].nunique() == 1).all()
    assert 0 < rows["held_out"].sum() < len(rows) / 2


def test_groups_that_no_kernel_serves_are_left_out_and_single_heads_are_apart(tables: Path) -> None:
    shared = fit.read_rows(tables, "vllm", "decode", "bfloat16", "bfloat16")
    assert set(shared["num_heads"]) == {8, 32}
    single = fit.read_rows(tables, "vllm", "single", "bfloat16", "bfloat16")
    assert set(single["num_heads"]) == {16}


def test_the_parameters_that_made_a_table_leave_no_error(tables: Path) -> None:
    bench = fit.Bench.of(DEVICE, "vllm", gemms(tables), GEMM)
    table = fit.errors(bench.seconds(TRUE), bench.rows)
    assert table.loc["all", "mape"] == pytest.approx(0.0, abs=1e-9)
    assert table["rows"].drop("all").sum() == table.loc["all", "rows"] == len(bench.rows)


def test_the_search_comes_near_them(tables: Path) -> None:
    bench = fit.Bench.of(DEVICE, "vllm", gemms(tables), GEMM)
    knobs = [knob for knob in KNOBS["gemm"] if knob.key in TRUE]
    start = starting_values(bench.calibration, knobs)
    measured_s = bench.rows["latency"].to_numpy() * 1e-3
    found = fit.minimise(bench.seconds, measured_s, knobs, start, 12, 0)
    assert found == fit.minimise(bench.seconds, measured_s, knobs, start, 12, 0)
    assert found["gemm.bandwidth"] == pytest.approx(0.6, rel=0.05)
    assert found["launch"] == pytest.approx(5e-6, rel=0.05)
    for knob in knobs:
        assert knob.low <= found[knob.key] <= knob.high


def test_scoring_changes_nothing_and_prints_a_fragment(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = run(tables, "decode", "--iterations", "0")
    bench = fit.Bench.of(DEVICE, "vllm", gemms(tables), GEMM)
    assert values == starting_values(bench.calibration, fitted_knobs(bench.calibration, KNOBS["decode"]))
    printed = capsys.readouterr().out
    assert "held out: decode" in printed
    assert f"decode: {{bandwidth: {values['attention.decode.bandwidth']:g}" in printed


def test_facts_about_a_kernel_are_not_fitted() -> None:
    calibration = find_calibration(load_machine("h100-sxm5-80gb"))

    def names(engine: str) -> set[str]:
        found = fitted_knobs(general(calibration, engine), KNOBS["decode"])
        return {knob.key.removeprefix("attention.decode.") for knob in found}

    assert "group_tile" in names("vllm")
    assert "group_tile" not in names("tensorrt-llm")
    assert "compute" in names("tensorrt-llm")
    assert "compute" not in names("vllm")
    assert "core_bandwidth" not in names("sglang")
    assert "core_read" in names("sglang")


def test_large_groups_belong_to_the_kernel_of_single_heads_where_there_are_two(tables: Path) -> None:
    rows = {apart: fit.read_rows(tables, "vllm", "single", "bfloat16", "bfloat16", apart) for apart in (False, True)}
    assert set(rows[False]["num_heads"]) == {16}
    assert set(rows[True]["num_heads"]) == {16, 64}


def test_two_devices_are_fitted_together(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["gemm", "--device", DEVICE, "h100-sxm5-80gb", "--tables", str(tables), str(tables), "--iterations", "0"]
    fit.run(fit.parser().parse_args(options))
    printed = capsys.readouterr().out
    assert all(f"{part}: gemm, {name}" in printed for part in ("fitted on", "held out") for name in options[2:4])
    with pytest.raises(SystemExit, match="as many --tables"):
        fit.run(fit.parser().parse_args(["gemm", "--device", DEVICE, DEVICE, "--tables", str(tables)]))


def test_collectives_grow_with_the_message() -> None:
    rows = pd.DataFrame({"num_gpus": 4, "message_size": 2 ** np.arange(8, 30)})
    rows = rows.assign(op_name="all_reduce", allreduce_dtype="bfloat16", latency=1.0)
    bench = fit.Bench.of(DEVICE, "vllm", rows, COLLECTIVE)
    times = bench.seconds({"all_reduce.latency": 4e-6, "all_reduce.rank": 1e-7, "all_reduce.bandwidth": 0.7})
    assert (np.diff(times) > 0).all()
    assert times[0] == pytest.approx(4.2e-6, rel=0.01)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no file matches"):
        run(tmp_path, "gemm")


@pytest.mark.parametrize("kind", sorted(KNOBS))
def test_every_knob_is_a_key_of_the_calibration(tables: Path, kind: str) -> None:
    calibration = general(fit.Bench.of(DEVICE, "vllm", gemms(tables), GEMM).calibration)
    knobs = [knob for knob in KNOBS[kind] if not knob.key.startswith("tabled.")]  # no such table on that device
    values = starting_values(calibration, knobs)
    halved = changed(calibration, {key: value * 0.5 for key, value in values.items()})
    for key, value in starting_values(halved, knobs).items():
        assert value == pytest.approx(0.5 * values[key])


def test_a_table_of_tiles_stands_in_for_the_share_of_narrow_products() -> None:
    calibration = find_calibration(load_machine("h100-sxm5-80gb"))
    of = {
        name: {knob.key for knob in fitted_knobs(general(calibration, name), KNOBS["narrow"])} for name in ("", "vllm")
    }
    assert "gemm.narrow_compute" in of[""]
    assert not any(key.startswith("tabled.") for key in of[""])
    assert "gemm.narrow_compute" not in of["vllm"]
    assert {"tabled.compute", "tabled.least_rows", "rounding.strip"} <= of["vllm"]
    made = changed(general(calibration, "vllm"), {"tabled.fill_row": 10.0})
    assert made.tabled is not None
    assert made.tabled.fill_row.value == 10.0
    assert [line.tile_rows.value for line in made.tabled.tiles] == [16, 16, 16, 64, 64, 128, 256, 128]
