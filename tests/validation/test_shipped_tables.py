"""The measured tables of the repository: they load, say where they are from, and are predicted sensibly."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from validation.endtoend import compare
from validation.rows import COLUMNS
from validation.ship import MODULUS, WITHHELD, kept
from validation.tables import END_TO_END, KERNELS, SHIPPED, kernel_files, read_table

PROVENANCE = (SHIPPED / "PROVENANCE.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return read_table(END_TO_END, COLUMNS)


def test_every_source_has_provenance_and_a_licence(runs: pd.DataFrame) -> None:
    for source in set(runs["source"].str.split("/|:", regex=True).str[0]):
        lines = [line for line in PROVENANCE.splitlines() if line.startswith(f"| `{source}`")]
        assert lines, source
        assert all(re.search(r"MIT|BSD|Apache", line) for line in lines), source
    assert not runs["source"].str.startswith(WITHHELD).any()
    for folder in KERNELS.iterdir():
        assert f"`{folder.name}`" in PROVENANCE


def test_the_tables_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 15e6


def test_kernel_tables_load_and_are_thinned_by_the_stated_rule() -> None:
    files = kernel_files([])
    assert {"gemm", "attention", "moe", "mla", "comm", "ops"} == {path.name.split("__")[0] for path in files}
    sample = read_table(next(path for path in files if path.name.startswith("gemm__vllm")))
    assert len(kept(sample, MODULUS)) == len(sample)
    assert {"device", "framework", "op_name", "latency"} <= set(sample.columns)


def test_the_provenance_counts_the_rows(runs: pd.DataFrame) -> None:
    assert f"| {len(runs):,} |" in PROVENANCE
    assert f"| {sum(len(read_table(path)) for path in kernel_files([])):,} |" in PROVENANCE


def test_dense_models_on_well_known_engines(runs: pd.DataFrame) -> None:
    dense = runs[
        runs["source"].str.startswith("argonne")
        & runs["hardware"].isin(["A100-SXM4-40GB", "H100-SXM5-80GB"])
        & runs["framework"].isin(["TensorRT-LLM", "vLLM"])
        & ~runs["model"].str.contains("Mixtral")
    ]
    sample = dense.groupby(["hardware", "framework"]).sample(60, random_state=0)
    found = compare([("shipped", sample)])
    assert found.resolved == len(sample)
    assert all(math.isfinite(group["mape"]) for group in found.to_dict()["by"])
    rows = found.scored[found.scored["hardware"].eq("a100-sxm4-40gb") & found.scored["framework"].eq("tensorrt-llm")]
    assert len(rows) >= 60
    assert rows["error"].abs().median() < 0.25
