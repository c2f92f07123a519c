"""What single mechanisms do to time and bytes: caches that grow or spread, kernels of narrow weights, gates, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simulator as sim
from simulator.errors import SimulatorError
from simulator.graph.op import Graph
from simulator.graph.step import Slice
from simulator.scenario import load_model
from simulator.techniques.attention import columns
from simulator.techniques.kv_cache import budget, grown, spread
from simulator.techniques.placement import cache, experts
from simulator.techniques.recipe import Recipe
from simulator.techniques.sparsity import activations, predictor, structured, weights
from simulator.techniques.sparsity import attention as sparse_attention


def timed(folder: Path, text: str, model: str = "llama-2-7b", **scenario: Any) -> sim.Prediction:
    file = folder / "mine.yaml"
    file.write_text(f"name: mine\napply:\n  - {text}\n")
    asked = {"hardware": "A100", "batch": 2, "input_tokens": 1024, "output_tokens": 32, **scenario}
    return sim.predict(model=model, techniques=(str(file),), **asked)


def cache_and_copies(graph: Graph) -> tuple[float, float]:
    step = (Slice.decode(1, 4095),)
    joined = [op for op in graph.ops if op.name.endswith((".join", ".expand"))]
    return graph.bytes_at(step, "kv"), sum(op.bytes_at(step) for op in joined)


def test_a_grown_cache_is_copied_as_it_is_kept() -> None:
    whole = load_model("llama-2-7b").graph
    cache, copied = cache_and_copies(grown(whole))
    assert copied == pytest.approx(2.0 * cache, rel=1e-3)
    kept, fewer = cache_and_copies(grown(budget(whole, share=0.25)))
    assert kept == pytest.approx(cache / 4, rel=2e-3)
    assert fewer == pytest.approx(copied / 4, rel=2e-3)
    assert cache_and_copies(grown(whole, copies=2))[1] == pytest.approx(2.0 * copied)


def test_grouped_heads_are_expanded() -> None:
    grouped = load_model("llama-3.1-8b").graph
    cache, copied = cache_and_copies(grown(grouped))
    assert copied == pytest.approx((2.0 + 2.0 * 4.0) * cache, rel=1e-3)  # 32 query heads over 8
    assert cache_and_copies(grown(grouped, expanded=False))[1] == pytest.approx(2.0 * cache, rel=1e-3)


def test_a_spread_cache_leaves_each_instance_its_part() -> None:
    whole = load_model("llama-2-7b").graph
    parted = spread(whole, instances=8)
    assert parted.resident_bytes(1, 65536)["kv"] * 8 == pytest.approx(whole.resident_bytes(1, 65536)["kv"])
    assert parted.resident_bytes(1, 1)["weight"] == whole.resident_bytes(1, 1)["weight"]


def test_scalar_kernels_are_slower_than_tuned_ones_and_those_than_tables(tmp_path: Path) -> None:
    times = [
        timed(tmp_path, f"quantization.weights: {{dtype: int4, group: 128, kernel: {kernel}}}").tpot_s
        for kernel in ("lookup", "dequantize", "scalar")
    ]
    assert times == sorted(times)
    assert times[2] > 1.2 * times[1]


def test_zeros_that_are_skipped_shorten_large_products(tmp_path: Path) -> None:
    def prefill(compute: str) -> float:
        text = f"sparsity.weights: {{sparsity: 0.5, format: nm, compute: {compute}}}"
        return timed(tmp_path, text, batch=8, input_tokens=2048).ttft_s

    assert prefill("sparse") < 0.75 * prefill("dense")
    layer = next(op for op in weights(load_model("llama-2-7b").graph, sparsity=0.75, compute="sparse").ops if op.k)
    assert layer.k == 1024


def test_a_gate_that_decides_is_computed_whole() -> None:
    step = (Slice.decode(1, 128),)
    dense = load_model("llama-2-7b").graph

    def read(graph: Graph) -> float:
        return sum(op.bytes_at(step, "weight") for op in graph.ops if op.block == "ffn")

    # Gate, up and down: the gate whole, a quarter of the others.
    assert read(activations(dense, active=0.25, deciding=0.5)) / read(dense) == pytest.approx((1 + 0.5) / 3, rel=0.01)


def test_neurons_inside_experts() -> None:
    step = (Slice.decode(1, 128),)
    mixture = load_model("mixtral-8x7b").graph
    sparse = activations(predictor(mixture, rank=64), active=0.25)
    chosen = [
        sum(op.flops_at(step) for op in graph.ops if op.name.endswith("experts_down")) for graph in (mixture, sparse)
    ]
    assert chosen[1] == pytest.approx(0.25 * chosen[0])
    predicted = sum(op.flops_at(step) for op in sparse.ops if op.block == "predictor")
    assert 0 < predicted < 0.1 * sum(op.flops_at(step) for op in mixture.ops)


@pytest.mark.parametrize("model", ["dit-xl-2", "vit-base-patch16-224", "sdxl-unet"])
def test_attention_of_a_sample_does_not_follow_the_tokens_asked_for(model: str) -> None:
    short, long = (
        sim.predict(model=model, hardware="A100", batch=2, input_tokens=tokens, output_tokens=1) for tokens in (1, 300)
    )
    assert short.ttft_s == pytest.approx(long.ttft_s)
    attention = sum(op.time_s for op in short.ops() if op.kind == "attention")
    assert attention < 0.8 * short.ttft_s


def test_one_limit_of_the_power(tmp_path: Path) -> None:
    asked = timed(tmp_path, "power.cap: {watts: 250}")
    plain = sim.predict(
        model="llama-2-7b", hardware="A100", batch=2, input_tokens=1024, output_tokens=32, power_cap_w=250.0
    )
    both = timed(tmp_path, "power.cap: {watts: 300}", power_cap_w=250.0)
    assert asked.e2el_s == pytest.approx(plain.e2el_s)
    assert both.e2el_s == pytest.approx(plain.e2el_s)
    assert asked.power_w == pytest.approx(plain.power_w)


def test_first_fused_kernels_move_more_the_smaller_their_blocks() -> None:
    whole, step = load_model("llama-2-7b").graph, (Slice.prefill(1, 8192),)
    extra = [columns(whole, keys=keys).bytes_at(step) - whole.bytes_at(step) for keys in (128, 256)]
    assert extra[0] == pytest.approx(2.0 * extra[1])
    assert columns(whole, keys=128).bytes_at((Slice.decode(1, 8192),)) == whole.bytes_at((Slice.decode(1, 8192),))


def test_bit_planes_cost_their_product_and_need_binary_units(tmp_path: Path) -> None:
    times = [
        timed(tmp_path, f"quantization.planes: {{weight_bits: {bits}, activation_bits: 8}}", output_tokens=1).ttft_s
        for bits in (1, 2, 4)
    ]
    assert times == sorted(times)
    assert timed(tmp_path, "quantization.native: {dtype: int1}").ttft_s > 0.0
    with pytest.raises(SimulatorError, match="int1"):
        timed(tmp_path, "quantization.native: {dtype: int1}", hardware="H100")


def test_experts_and_caches_in_two_places_are_used_in_both(tmp_path: Path) -> None:
    def routed(resident: float) -> float:
        text = f"placement.experts: {{memory: host, resident: {resident}, copied: false}}"
        asked = {"hardware": "pc-rtx-4090", "batch": 1, "input_tokens": 128}
        return timed(tmp_path, text, "deepseek-v2-lite", **asked).tpot_s

    def cached(resident: float) -> float:
        text = f"placement.cache: {{memory: host, resident: {resident}, copied: false}}"
        return timed(tmp_path, text, hardware="server-a100", batch=16, input_tokens=2048).tpot_s

    for place in (routed, cached):
        times = [place(resident) for resident in (0.0, 0.25, 0.5)]
        assert times == sorted(times, reverse=True)
        assert times[2] < 0.8 * times[0]


def test_divided_experts_and_caches_are_stored_once() -> None:
    routed = load_model("deepseek-v2-lite")
    halves = experts(Recipe(routed), memory="host", resident=0.5, copied=False).model.graph
    assert halves.resident_bytes(1, 1024) == pytest.approx(routed.graph.resident_bytes(1, 1024))
    dense = load_model("llama-2-7b")
    parts = cache(Recipe(dense), memory="host", resident=0.25, copied=False).model.graph
    assert parts.resident_bytes(1, 1024) == pytest.approx(dense.graph.resident_bytes(1, 1024))


def test_shares_reach_networks_without_a_cache() -> None:
    step = (Slice.prefill(1, 1),)
    for name in ("vit-base-patch16-224", "flux.1-dev"):
        graph = load_model(name).graph
        assert sparse_attention(graph, density=0.1).flops_at(step) < graph.flops_at(step)
    for name in ("flux.1-dev", "sdxl-unet"):
        graph = load_model(name).graph
        narrow = structured(graph, heads=0.8, ffn=0.8)
        assert narrow.parameters() < 0.9 * graph.parameters()
        assert narrow.flops_at(step) < 0.9 * graph.flops_at(step)


def test_outliers_in_a_matrix_of_their_own_cost_a_kernel_and_no_more_bytes(tmp_path: Path) -> None:
    """The same bytes as outliers beside the others, read by a second kernel; more of them never take less time."""
    narrow = "quantization.weights: {dtype: int4, group: 128}"
    beside = timed(tmp_path, narrow + "\n  - quantization.sparse_path: {share: 0.01}")
    within = timed(tmp_path, "quantization.weights: {dtype: int4, group: 128, outliers: 0.01}")
    assert beside.weight_bytes == pytest.approx(within.weight_bytes, rel=0.01)
    assert beside.tpot_s > within.tpot_s
    more = timed(tmp_path, narrow + "\n  - quantization.sparse_path: {share: 0.05}")
    assert more.tpot_s >= beside.tpot_s
    assert more.ttft_s >= beside.ttft_s


@pytest.mark.parametrize(("model", "tp"), [("llama-2-7b", 1), ("llama-2-7b", 4), ("llama-3-8b", 1), ("llama-3-8b", 8)])
@pytest.mark.parametrize("tokens", [256, 4096, 65536])
def test_cores_that_share_a_context_evenly_are_never_slower(model: str, tp: int, tokens: int) -> None:
    """Than the engine's kernels; on long contexts not than that of prompts either, which has a shorter prologue."""
    asked = {"engine": "native", "devices": tp, "tp": tp, "batch": 1, "input_tokens": tokens, "max_context": 10**6}
    ways = ((), ("lean-attention",), ("unsplit-attention",))
    usual, even, whole = (
        sim.predict(model=model, hardware="a100-sxm4-80gb", output_tokens=2, techniques=way, **asked).tpot_s
        for way in ways
    )
    assert even <= usual * (1 + 1e-9)
    assert even <= whole * (1 + 1e-9) or tokens < 4096


def test_few_heads_leave_cores_idle() -> None:
    """At 512K of context a rank's 32, 16 and 8 heads are so many blocks: the fewer, the more cores stand idle."""
    gains = []
    for tp in (1, 2, 4):
        asked = {"engine": "native", "devices": tp, "tp": tp, "input_tokens": 2**19, "max_context": 10**7}
        whole, even = (
            sim.predict(
                model="llama-2-7b", hardware="a100-sxm4-80gb", output_tokens=2, techniques=(way,), **asked
            ).tpot_s
            for way in ("unsplit-attention", "lean-attention")
        )
        gains.append(whole / even)
    assert 1.5 < gains[0] < gains[1] < gains[2] < 108 / 8
