"""`ridgeline validate kernels`: rows of operator tables as ops, their times, and the form of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from simulator.cost.efficiency import efficiency, find_calibration, load_engine
from simulator.cost.layout import HostRow
from simulator.cost.runner import Runner
from simulator.cost.table import build_table
from simulator.graph.op import Graph
from simulator.mapping.machine import load_machine
from simulator.mapping.place import Need, Placer, Policy
from validation.kernels import compare
from validation.shapes import DECODE, EXPERTS, GEMM, PREFILL

RUN = {"framework": "VLLM", "version": "1", "device": "NVIDIA H100 80GB HBM3", "kernel_source": "x", "latency": 0.05}
ATTENTION = {"num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "attn_dtype": "bfloat16"}
EXPERT = {
    "op_name": "moe", "hidden_size": 4096, "inter_size": 14336, "topk": 2, "num_experts": 8, "moe_tp_size": 1,
    "moe_ep_size": 1, "distribution": "balanced",
}  # fmt: skip


def gemm(m: int, dtype: str = "bfloat16", **changes: Any) -> dict[str, Any]:
    return RUN | {"op_name": "gemm", "gemm_dtype": dtype, "m": m, "n": 4096, "k": 4096} | changes


def attention(op: str, cache: str = "bfloat16", **changes: Any) -> dict[str, Any]:
    return RUN | ATTENTION | {"op_name": f"{op}_attention", "kv_cache_dtype": cache, "window_size": 0} | changes


def all_reduce(size: int, ranks: int, **changes: Any) -> dict[str, Any]:
    row = {"op_name": "all_reduce", "allreduce_dtype": "bfloat16", "num_gpus": ranks, "message_size": size}
    return RUN | row | changes


def times(*rows: dict[str, Any]) -> list[float]:
    found = compare([("t", pd.DataFrame(list(rows)))])
    assert not found.unresolved
    return [float(value) for value in found.rows.sort_values("row")["predicted"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pd.DataFrame([gemm(1), gemm(4096), gemm(64, "fp8"), gemm(8, latency=0.0)]).to_parquet(tmp_path / "gemm.parquet")
    rows = [
        attention("context", batch_size=1, isl=1024, step=0),
        attention("context", "fp8", batch_size=1, isl=64, step=0),
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "context.parquet")
    pd.DataFrame([attention("generation", batch_size=8, isl=1, step=2047)]).to_parquet(tmp_path / "generation.parquet")
    pd.DataFrame([all_reduce(1 << 20, 4), all_reduce(1 << 20, 4, device="Abacus")]).to_parquet(
        tmp_path / "comm.parquet"
    )
    pd.DataFrame([gemm(1) | {"op_name": "dream"}]).to_parquet(tmp_path / "other.parquet")
    return tmp_path


def test_json_has_the_keys_of_the_contract(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    result = CliRunner().invoke(main, ["validate", "kernels", *files, "--json", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {"rows", "resolved", "metrics", "by", "by_size"} <= set(found)
    assert (found["rows"], found["resolved"]) == (10, 7)
    assert set(found["metrics"]) == {"gemm", "attention_prefill", "attention_decode", "all_reduce"}
    assert all(
        {"hardware", "framework", "op", "dtype", "n", "mape", "median_ape", "bias"} <= set(group)
        for group in found["by"]
    )
    assert {entry["reason"]: entry["rows"] for entry in found["unresolved"]} == {
        "latency is 0": 1,
        "unknown hardware 'Abacus'": 1,
        "op 'dream'": 1,
    }
    assert len(pd.read_parquet(out)) == 7
    assert {group["dtype"] for group in found["by"]} == {"bfloat16", "fp8", "bfloat16 kv fp8"}


def test_text(folder: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "kernels", str(folder)])
    assert result.exit_code == 0, result.output
    assert "7 of 10 rows resolved" in result.stdout
    assert "latency is 0" in result.stdout


def test_a_kernel_takes_what_the_same_op_takes_in_a_prediction() -> None:
    machine, engine = load_machine("H100"), load_engine("vllm")
    calibration = find_calibration(machine)
    row = {"n": 4096, "k": 14336, "gemm_dtype": "int4_wo"}
    table = build_table(
        Graph("one", tuple(GEMM.ops(row))), machine, engine, efficiency(machine, engine, calibration), calibration
    )
    placer = Placer(machine, Policy(engine.memory_fraction, engine.workspace_bytes, engine.spills))
    shares = placer.place(Need(1.0, 1.0, 1.0), placer.preferences[0]).shares
    runner = Runner(table, HostRow(*[0.0] * len(HostRow._fields)))
    assert runner.step(((1.0, 48.0, 0.0, 0.0, 1.0),), shares) == -1
    assert times(gemm(48, "int4_wo", k=14336)) == pytest.approx([runner.scratch.totals[0]], rel=1e-9)


def test_more_work_takes_longer() -> None:
    assert times(gemm(1), gemm(512), gemm(8192)) == sorted(times(gemm(1), gemm(512), gemm(8192)))

    def decode(step: int = 16383, cache: str = "bfloat16", window: int = 0) -> dict[str, Any]:
        sizes = {"batch_size": 64, "isl": 1, "step": step, "window_size": window, "latency": 50.0}
        return attention("generation", cache, **sizes)

    short, long, narrow, window = times(decode(63), decode(), decode(cache="fp8"), decode(window=128))
    assert short < long
    assert window < long / 4
    assert narrow < 0.7 * long


def test_a_cache_read_faster_than_the_memory_is_no_measurement() -> None:
    found = compare([("t", pd.DataFrame([attention("generation", batch_size=64, isl=1, step=16383)]))])
    assert list(found.unresolved) == ["faster than the memory: a cache of repeated pages was read"]


def test_experts_are_divided() -> None:
    rows = [RUN | EXPERT | {"moe_dtype": "bfloat16", "num_tokens": 4096, "moe_tp_size": tp} for tp in (1, 2, 8)]
    whole, half, eighth = times(*rows)
    assert eighth < half < whole
    assert whole / half == pytest.approx(2.0, rel=0.25)
    graph = EXPERTS.ops(RUN | EXPERT | {"moe_dtype": "fp8", "moe_ep_size": 4})
    assert {op.name for op in graph} == {"permute", "experts_gate_up", "experts_activation", "experts_down", "combine"}
    assert next(op for op in graph if op.name == "experts_down").groups == 2


def test_latent_attention_and_collectives() -> None:
    row = {"op_name": "generation_mla", "mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "tp_size": 1}
    few, many = times(
        *(RUN | row | {"num_heads": 16, "batch_size": 64, "isl": 1, "step": step} for step in (127, 16383))
    )
    assert few < many
    assert times(all_reduce(1 << 26, 8)) > times(all_reduce(1 << 12, 8))
    nccl = RUN | {"op_name": "all_gather", "nccl_dtype": "half", "num_gpus": 8, "message_size": 1 << 26}
    assert times(nccl)[0] > 0.0


def test_eager_collectives_have_a_name_of_their_own() -> None:
    rows = [all_reduce(1024, 2, backend="vllm_graph"), all_reduce(1024, 2, backend="vllm_eager")]
    assert set(compare([("t", pd.DataFrame(rows))]).rows["op"]) == {"all_reduce", "all_reduce_eager"}


def test_counts_of_the_shapes() -> None:
    (op,) = PREFILL.ops(ATTENTION | {"kv_cache_dtype": "fp8", "window_size": 128})
    assert op.span.window == 128
    assert {tensor.dtype for tensor in op.tensors if tensor.role == "kv"} == {"fp8"}
    (op,) = DECODE.ops(ATTENTION | {"kv_cache_dtype": "bfloat16", "num_key_value_heads": 0})
    assert op.kv_heads == 32
    frame = pd.DataFrame([{"batch_size": 2, "isl": 1, "step": 31}])
    assert [float(column[0]) for column in DECODE.step(frame)] == [2.0, 1.0, 31.0]


def test_tables_without_the_columns_are_said_to_be() -> None:
    found = compare([("t", pd.DataFrame({"a": [1, 2]}))])
    assert dict(found.unresolved) == {"no columns device, framework and op_name": 2}
    assert found.to_dict()["resolved"] == 0


def test_without_the_shipped_tables_it_asks_for_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("validation.tables.KERNELS", tmp_path)
    result = CliRunner().invoke(main, ["validate", "kernels"])
    assert result.exit_code == 2
    assert "pass a file" in result.stderr
