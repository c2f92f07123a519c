"""Number formats change the bytes of their own role and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.build import Model
from simulator.graph.op import BITS, Graph, Role
from simulator.graph.step import Slice, Step
from simulator.scenario import load_model
from simulator.techniques import quantization

from .networks import models

NARROW = st.sampled_from(["fp8", "int8", "int4", "int3", "int2", "fp4"])
GROUPS = st.sampled_from([None, 32, 128])
STEPS: st.SearchStrategy[Step] = st.lists(
    st.builds(Slice, st.integers(1, 64), st.sampled_from([1, 300]), st.integers(0, 5000), st.just(9.0), st.just(1.0)),
    min_size=1,
    max_size=3,
).map(tuple)
OTHERS: tuple[Role, ...] = ("weight", "kv", "state", "activation", "index")
SHIPPED = ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v2-lite", "whisper-base", "jamba-v0.1", "qwen2-0.5b"]


def only_changes(before: Graph, after: Graph, role: Role, step: Step) -> None:
    assert after.flops_at(step) == before.flops_at(step)
    assert [op.flops for op in after.ops] == [op.flops for op in before.ops]
    assert after.parameters() == before.parameters()
    held, holds = before.resident_bytes(4, 500, 10), after.resident_bytes(4, 500, 10)
    for other in OTHERS:
        if other == role:
            assert after.bytes_at(step, other) <= before.bytes_at(step, other)
            assert holds.get(other, 0.0) <= held.get(other, 0.0)
        else:
            assert after.bytes_at(step, other) == before.bytes_at(step, other), other
            assert holds.get(other, 0.0) == held.get(other, 0.0), other


@given(models(), NARROW, GROUPS, STEPS)
def test_narrow_weights_touch_only_weights(model: Model, dtype: str, group: int | None, step: Step) -> None:
    changed = quantization.weights(model.graph, dtype=dtype, group=group)
    only_changes(model.graph, changed, "weight", step)
    assert changed.bytes_at(step, "weight") < model.graph.bytes_at(step, "weight")


@given(models(), NARROW, GROUPS, STEPS)
def test_narrow_cache_touches_only_the_cache(model: Model, dtype: str, group: int | None, step: Step) -> None:
    only_changes(model.graph, quantization.cache(model.graph, dtype=dtype, group=group), "kv", step)


@given(models(), st.sampled_from(["fp8", "int8", "int4"]), STEPS)
def test_narrow_arithmetic_touches_only_what_is_read(model: Model, dtype: str, step: Step) -> None:
    changed = quantization.arithmetic(model.graph, dtype=dtype)
    only_changes(model.graph, changed, "activation", step)


@settings(max_examples=24)
@given(st.sampled_from(SHIPPED), NARROW, GROUPS, STEPS)
def test_shipped_models_keep_their_flops(name: str, dtype: str, group: int | None, step: Step) -> None:
    graph = load_model(name).graph
    only_changes(graph, quantization.weights(graph, dtype=dtype, group=group), "weight", step)
    only_changes(graph, quantization.cache(graph, dtype=dtype, group=group), "kv", step)


@given(models(), NARROW, NARROW, STEPS)
def test_formats_of_different_roles_commute(model: Model, weight: str, cache: str, step: Step) -> None:
    one = quantization.cache(quantization.weights(model.graph, dtype=weight), dtype=cache)
    other = quantization.weights(quantization.cache(model.graph, dtype=cache), dtype=weight)
    assert one == other


@given(models(), NARROW, st.sampled_from([32, 64, 128]))
def test_scales_take_the_bits_they_are_given(model: Model, dtype: str, group: int) -> None:
    plain = quantization.weights(model.graph, dtype=dtype)
    scaled = quantization.weights(model.graph, dtype=dtype, group=group, scale_bits=16, zero_bits=4)
    narrow = sum(
        op.repeat * tensor.resident.const
        for op in plain.ops
        for tensor in op.tensors
        if tensor.role == "weight" and tensor.dtype == dtype
    )
    more = scaled.resident_bytes(1, 1)["weight"] - plain.resident_bytes(1, 1)["weight"]
    assert more == pytest.approx(narrow * 20 / group / 8)
    bits = {tensor.dtype: BITS[tensor.dtype] for op in plain.ops for tensor in op.tensors}
    assert bits[dtype] < 16
