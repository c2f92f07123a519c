"""What is left of the error of kernels, and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from validation import bands, kernels, remainder, residuals, standing
from validation.tables import KERNELS, read_table

HEADS = remainder.KINDS[3]


@pytest.fixture(scope="module")
def decode() -> pd.DataFrame:
    """Residuals of a sample of decode attention of two engines."""
    paths = [next(KERNELS.glob(f"h100_sxm/attention__{name}*generation*")) for name in ("vllm", "sglang")]
    tables = ((path.name, read_table(path)) for path in paths)
    return standing.kernel_residuals(kernels.compare(tables, baseline=True).rows)


def test_shapes_are_those_of_the_rows(decode: pd.DataFrame) -> None:
    rows = remainder.shaped(decode, HEADS)
    row = rows.iloc[17]
    measured = read_table(KERNELS / "h100_sxm" / str(row["table"])).iloc[int(row["row"])]
    assert row["num_heads"] == measured["num_heads"]
    assert row["context"] == measured["isl"] + measured["step"]
    assert row["measured"] == pytest.approx(measured["latency"] * 1e-3)
    assert 0.1 < rows["held_out"].mean() < 0.5


def test_knowing_more_leaves_less(decode: pd.DataFrame) -> None:
    rows = remainder.shaped(decode, HEADS)
    left = [np.abs(rows["residual"] - rows["residual"].median()).mean()]
    for _, keys in remainder.steps(HEADS):
        groups = rows["residual"].groupby([rows[name].astype(str) for name in keys])
        left.append((rows["residual"] - groups.transform("median")).abs().mean())
    assert left == sorted(left, reverse=True)


def test_what_is_smooth_along_a_size_is_no_scatter() -> None:
    size = np.arange(1.0, 41.0)
    rows = pd.DataFrame({"n": 1, "m": size, "residual": 0.3 + 0.01 * size})
    assert remainder.scatter(rows, ["n"], "m")[1] == pytest.approx(0.0, abs=1e-12)
    noise = np.random.default_rng(0).normal(0.0, 0.1, 4000)
    rows = pd.DataFrame({"n": 1, "m": np.arange(4000.0), "residual": noise})
    assert remainder.scatter(rows, ["n"], "m")[1] == pytest.approx(np.abs(noise).mean(), rel=0.05)


def test_repeats_of_one_size_are_one_neighbour() -> None:
    rows = pd.DataFrame({"n": 1, "m": [1, 1, 2, 2, 3, 3], "residual": [0.5, -0.5] * 3})
    assert remainder.scatter(rows, ["n"], "m") == (1, 0.0)


def test_the_picture_holds_the_rows(decode: pd.DataFrame, tmp_path: Path) -> None:
    runs = standing.measured_runs(standing.runs_of(residuals.stored()))
    parts = bands.panels(decode, runs)
    assert len(parts["bf16 attention, decode"]) == len(remainder.shaped(decode, HEADS))
    assert parts["time per output token"]["size"].max() == runs[runs["metric"] == "tpot_s"]["batch"].max()
    bands.write(decode, runs, tmp_path / "bands.json")
    text = (tmp_path / "bands.json").read_text(encoding="utf-8")
    assert "bf16 attention, decode" in text
    assert "bf16 GEMM" not in text


def test_how_full_the_last_tile_is_and_what_repeats_spread() -> None:
    sizes = pd.Series([1, 128, 129, 200, 256, 257])
    assert list(remainder.last_tile(sizes, 128)) == ["first", "first", "one", "part", "full", "one"]
    assert set(remainder.last_tile(sizes, 0)) == {""}
    rows = pd.DataFrame({"n": [1, 1, 1, 2, 2, 2], "measured": [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]})
    assert remainder.spread(rows, ["n"]) == 0.0


def test_products_are_told_apart_by_engine() -> None:
    path = next(KERNELS.glob("h100_sxm/gemm__vllm*"))
    table = read_table(path)
    table["latency"] = table["latency"].where(
        table["gemm_dtype"] == "fp8", 0.0
    )  # dropped, and the others keep their place
    found = kernels.compare([(path.name, table)], baseline=True).rows
    lines = {line[0]: line[2] for line in remainder.summary(standing.kernel_residuals(found))["fp8 GEMM"]}
    assert lines["bias by shape"] < lines["nothing"]
    assert lines["bias by how full the last tile of 128 is"] < lines["nothing"]
    assert {"scatter between neighbours along m, vllm", "spread of times of 2 to 16 m, one shape, vllm"} <= set(lines)
    assert lines["spread of times of 2 to 16 m, one shape, vllm"] < 0.05
