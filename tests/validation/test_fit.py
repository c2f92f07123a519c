"""The fit finds the parameters that made a table, holds out whole shapes, and repeats itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from validation import fit

DEVICE = "a100-sxm4-80gb"
TRUE = {"gemm.bandwidth": 0.6, "launch": 5e-6, "reduction": 3e-6}


def made(bench: fit.Bench, rows: pd.DataFrame, values: fit.Values) -> pd.DataFrame:
    """The rows with the latency that the model has for them, in milliseconds."""
    return rows.assign(latency=fit.KernelTimer(bench, rows, "bfloat16").seconds(values) * 1e3)


@pytest.fixture(scope="module")
def bench() -> fit.Bench:
    return fit.Bench.of(DEVICE)


@pytest.fixture(scope="module")
def tables(bench: fit.Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tables that the model itself made."""
    folder = tmp_path_factory.mktemp("tables")
    sizes = [256, 1024, 2048, 4096, 8192]
    grid = [(m, n, k) for m in (1, 16, 64, 256, 2048) for n in sizes for k in sizes]
    gemms = made(bench, pd.DataFrame(grid, columns=["m", "n", "k"]), TRUE).assign(gemm_dtype="bfloat16")
    gemms.loc[0, "latency"] = 0.0
    gemms.to_parquet(folder / "gemm__made__1__gemm_perf.parquet")
    grid = [
        (b, c, h, g) for b in (1, 4, 16, 64) for c in (16, 512, 4096) for h, g in ((32, 8), (16, 16), (8, 1), (64, 1))
    ]
    heads = pd.DataFrame(grid, columns=["batch", "context", "heads", "kv_heads"]).assign(query=1, head_dim=128)
    heads = made(bench, heads, {"attention.bandwidth": 0.6})
    heads = heads.rename(columns={"batch": "batch_size", "context": "isl", "heads": "num_heads"}).assign(
        num_key_value_heads=heads["kv_heads"].where(heads["kv_heads"] < heads["heads"], 0),
        attn_dtype="bfloat16", kv_cache_dtype="bfloat16", step=0,
    )  # fmt: skip
    heads.to_parquet(folder / "attention__made__1__generation_attention_perf.parquet")
    return folder


def run(tables: Path, kind: str, *more: str) -> Any:
    arguments = [kind, "--device", DEVICE, "--tables", str(tables), "--framework", "made", *more]
    return fit.run(fit.parser().parse_args(arguments))


def test_rows_that_measured_nothing_are_dropped_and_shapes_are_held_out_whole(tables: Path) -> None:
    rows = fit.gemm_rows(tables, "made", "bfloat16")
    assert len(rows) == 124
    assert (rows["latency"] > 0).all()
    assert (rows.groupby(["n", "k"])["held_out"].nunique() == 1).all()
    assert 0 < rows["held_out"].sum() < len(rows) / 2


def test_groups_that_no_kernel_serves_are_left_out(tables: Path) -> None:
    rows = fit.attention_rows(tables, "made", "bfloat16", "decode", 40e6)
    assert (rows["heads"] / rows["kv_heads"]).max() <= fit.LARGEST_GROUP
    assert set(rows.loc[rows["heads"] == 16, "kv_heads"]) == {16}


def test_the_parameters_that_made_a_table_leave_no_error(bench: fit.Bench, tables: Path) -> None:
    rows = fit.gemm_rows(tables, "made", "bfloat16")
    table = fit.errors(fit.KernelTimer(bench, rows, "bfloat16").seconds(TRUE), rows)
    assert table.loc["all", "mape"] == pytest.approx(0.0, abs=1e-9)
    assert table["rows"].drop("all").sum() == table.loc["all", "rows"] == len(rows)


def test_the_search_comes_near_them(bench: fit.Bench, tables: Path) -> None:
    rows = fit.gemm_rows(tables, "made", "bfloat16")
    knobs = [knob for knob in fit.KNOBS["gemm"] if knob.key in TRUE]
    start = fit.starting_values(bench.calibration, knobs)
    timer = fit.KernelTimer(bench, rows, "bfloat16").seconds
    measured_s = rows["latency"].to_numpy() * 1e-3
    found = fit.minimise(timer, measured_s, knobs, start, 12, 0)
    assert found == fit.minimise(timer, measured_s, knobs, start, 12, 0)
    assert found["gemm.bandwidth"] == pytest.approx(0.6, rel=0.05)
    assert found["launch"] == pytest.approx(5e-6, rel=0.05)
    for knob in knobs:
        assert knob.low <= found[knob.key] <= knob.high


def test_scoring_changes_nothing_and_prints_a_fragment(
    bench: fit.Bench, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = run(tables, "decode", "--iterations", "0")
    assert values == fit.starting_values(bench.calibration, fit.KNOBS["decode"])
    printed = capsys.readouterr().out
    assert "held out: decode" in printed
    assert f"attention: {{bandwidth: {values['attention.bandwidth']:g}" in printed


def test_a_narrow_table_times_the_rounding_of_its_input(bench: fit.Bench) -> None:
    rows = pd.DataFrame({"m": [4096], "n": [4096], "k": [4096]})
    timer = fit.KernelTimer(bench, rows, "sq")
    more = timer.seconds({"measurement.pass": 4e-6, "measurement.pass_bytes": 3.0}) - timer.seconds({})
    assert more == pytest.approx(4e-6 + 3.0 * 4096 * 4096 / timer.main_bytes_per_s)


def test_collectives_grow_with_the_message(bench: fit.Bench) -> None:
    rows = pd.DataFrame({"ranks": 4.0, "message": 2.0 ** np.arange(8, 30)})
    times = fit.allreduce_timer(bench, rows)({"link_latency": 4e-6, "link_bandwidth": 0.7})
    assert (np.diff(times) > 0).all()
    assert times[0] == pytest.approx(4e-6, rel=0.01)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no file matches"):
        run(tmp_path, "gemm")


@pytest.mark.parametrize("kind", sorted(fit.KNOBS))
def test_every_knob_is_a_key_of_the_calibration(bench: fit.Bench, kind: str) -> None:
    values = fit.starting_values(bench.calibration, fit.KNOBS[kind])
    changed = fit.changed(bench.calibration, {key: value * 0.5 for key, value in values.items()})
    for key, value in fit.starting_values(changed, fit.KNOBS[kind]).items():
        assert value == pytest.approx(0.5 * values[key])
