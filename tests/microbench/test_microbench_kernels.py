"""Kernels and the layer on the processor: their results against NumPy, at small sizes. Nothing here looks at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from validation.microbench import cases, copies, layer, measure
from validation.microbench.cases import PASSES, SMALL, Case, reference_attention
from validation.microbench.device import TorchDevice, to_numpy
from validation.microbench.processor import MeasurementError
from validation.microbench.sampling import Effort
from validation.microbench.system import find_cpu

torch = pytest.importorskip("torch")
QUICK = Effort(1, 0.0, 0.0, 1)
ALL = frozenset(("gemm", "attention", "elementwise"))


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return TorchDevice.on_cpu(torch, find_cpu(), 1)


def all_cases(device: TorchDevice) -> list[Case]:
    return list(cases.cases(device, SMALL, ALL, True))


def test_every_small_kernel_gives_what_numpy_gives(device: TorchDevice) -> None:
    found = all_cases(device)
    assert {case.row["op_name"] for case in found} == {
        "gemm", "context_attention", "generation_attention", "elementwise",
    }  # fmt: skip
    for case in found:
        _, verify = case.make(device)
        verify()


def test_a_wrong_product_is_noticed(device: TorchDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "_product", lambda device, dtype: lambda x, w: 1.05 * (x @ w.t()))
    _, verify = cases.gemm(4, 8, 16, "fp32").make(device)
    with pytest.raises(MeasurementError, match="fp32 product 4 x 8 x 16"):
        verify()


def test_weights_rotate_through_memory_larger_than_the_cache(device: TorchDevice) -> None:
    n, k = 512, 512
    count = device.copies(n * k, "fp32")
    assert count * n * k * 4 >= min(device.cold_bytes, 1024 * n * k * 4)
    first, second = device.random((n, k), "fp32", 0), device.random((n, k), "fp32", 1)
    assert first.data_ptr() != second.data_ptr()
    assert not np.array_equal(to_numpy(first), to_numpy(second))
    assert device.random((4, 4), "bf16").dtype == torch.bfloat16


def test_grouped_attention_reads_the_right_heads() -> None:
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(1, 8)), rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    found = reference_attention(q, k, v)
    scores = np.exp(q @ k.T / np.sqrt(8.0))
    np.testing.assert_allclose(found, scores / scores.sum() @ v)
    both = reference_attention(rng.normal(size=(5, 8)), k, v)
    np.testing.assert_allclose(both[0], v[0])


def test_counts_of_cases_are_those_of_the_arithmetic() -> None:
    product = cases.gemm(3, 5, 7, "bf16")
    assert product.flops == 2 * 3 * 5 * 7
    assert product.bytes == 2 * (5 * 7 + 3 * 7 + 3 * 5)
    decode = cases.attention(2, 1, 9, 4, 2, 16, "fp32")
    assert decode.flops == 4.0 * 2 * 10 * 4 * 16
    one = cases.one_pass("add", 3, 8, "fp32")
    assert one.bytes == 4 * 3 * 8 * 3


def test_rows_of_the_table_have_the_columns_of_the_kernel_tables(device: TorchDevice) -> None:
    found = measure.run_cases(all_cases(device), device, "here", (1e9, 1e9), QUICK, 10.0, lambda _: None)
    assert not found.refused
    table = found.table()
    assert (table["latency"] > 0.0).all()
    parts = dict(measure.split_by_op(table))
    assert {"m", "n", "k", "gemm_dtype", "held_out"} <= set(parts["gemm"])
    assert {"batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim"} <= set(
        parts["context_attention"]
    )
    assert "k" not in parts["elementwise"]
    assert set(parts["gemm"]["framework"]) == {measure.FRAMEWORK}


def test_what_torch_refuses_is_named_once(device: TorchDevice) -> None:
    def refuse(device: TorchDevice) -> Any:
        raise RuntimeError("no such kernel\nsecond line")

    case = Case({"op_name": "gemm", "gemm_dtype": "fp8", "m": 1, "n": 1, "k": 1}, 1.0, 1.0, refuse)
    found = measure.run_cases([case, case], device, "here", (1e9, 1e9), QUICK, 10.0, lambda _: None)
    assert found.refused == {"gemm fp8, few rows": "gemm fp8 1 1 1: no such kernel"}
    assert found.rows == []


def test_what_would_take_too_long_is_not_run(device: TorchDevice) -> None:
    found = measure.run_cases(all_cases(device), device, "here", (1e-3, 1e-3), QUICK, 1.0, lambda _: None)
    assert [row["op_name"] for row in found.rows if row["op_name"] == "gemm"] == []


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_layer_is_what_its_reference_is(device: TorchDevice, dtype: str) -> None:
    layer.verify(device, dtype)


@pytest.mark.parametrize("part", ["_rotate", "_norm"])
def test_a_wrong_layer_is_noticed(device: TorchDevice, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer.Layer, part, lambda self, x, *rest: x)
    with pytest.raises(MeasurementError, match="layer"):
        layer.verify(device, "fp32")


def test_the_layer_has_the_shapes_of_its_graph(device: TorchDevice) -> None:
    made = layer.weights(device, layer.TINY, "fp32", 0)
    query, keys = layer.TINY.widths
    assert made.qkv.shape == (query + 2 * keys, layer.TINY.hidden)
    assert made.gate_up.shape == (2 * layer.TINY.intermediate, layer.TINY.hidden)
    step = layer.Step(2, 1, 8)
    assert layer.Layer(device, layer.TINY, step, "fp32", [made]).run(0).shape == (2, 1, layer.TINY.hidden)


def test_passes_are_their_references() -> None:
    x, y = torch.linspace(-2, 2, 12).view(3, 4), torch.linspace(1, 2, 12).view(3, 4)
    for name, what in PASSES.items():
        found = what.run(torch, x, y)
        np.testing.assert_allclose(to_numpy(found), what.reference(to_numpy(x), to_numpy(y)), rtol=1e-5, err_msg=name)


def test_copies_and_launches_are_positive(device: TorchDevice) -> None:
    found = copies.copies(device, 1e6, True, QUICK)
    assert [copy.name for copy in found] == ["memory", "host"]
    assert all(copy.bytes_per_s > 0.0 for copy in found)
    done, issued = copies.launch_times(device, True)
    assert done >= issued > 0.0
    for run in copies.steady(device, "fp32", True).values():
        run()
