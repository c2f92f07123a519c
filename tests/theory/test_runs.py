"""Whole runs against closed forms: the memory-bound step, the pipeline's fill, the mean over a growing context."""

from __future__ import annotations

import pytest

from simulator.cost.efficiency import find_calibration, load_engine
from simulator.graph.architecture import Architecture, Attention, Block, FeedForward
from simulator.graph.build import Model, model_from_architecture
from simulator.graph.step import Slice, Step
from simulator.mapping.machine import Interconnect, Machine, MemoryLevel, Unit, load_machine
from simulator.predict import Predictor
from simulator.scenario import Resolved, Scenario
from simulator.techniques.parallel import Parallelism

EVERY = frozenset({"gemm", "gemv", "attention", "scan", "elementwise", "gather"})
ROLES = frozenset({"weight", "kv", "state", "activation", "index"})
BANDWIDTH = 1e12
PEAK = 1e15


def machine() -> Machine:
    """One unit and one memory, nothing else."""
    unit = Unit(
        name="unit", part="", kind="vector", peak_flop_per_s={"bf16": PEAK, "fp32": PEAK}, count=1.0, tile=(128, 128),
        runs=EVERY, near=0, near_inside=False, read_bytes_per_s=(BANDWIDTH,), read_joules_per_byte=(0.0,), reuse_rows=0.0,
        joules_per_flop={"bf16": 0.0}, launch_s=0.0, host_launch_s=0.0,
    )  # fmt: skip
    memory = MemoryLevel("main", "", "main", 1e13, BANDWIDTH, 0.0, ROLES, "DRAM", True)
    link = Interconnect("link", 1e12, 0.0, 0.0, "switch", 65536.0)
    return Machine(
        name="bare", title="Bare", device_class="gpu", architecture="", device="bare", units=(unit,),
        memories=(memory,), links=(link,), devices=1, is_system=False, tdp_w=0.0, idle_w=0.0, static_w=0.0,
        waiting_w=0.0, clock_floor=0.5,
        purchase_usd=None, hourly_usd=None,
    )  # fmt: skip


def predictor(model: Model, engine: str = "ideal", pp: int = 1, on: Machine | None = None) -> Predictor:
    reference = load_machine("a100-sxm4-80gb")
    scenario = Scenario("llama-3.1-8b", "a100-sxm4-80gb", tp=1, pp=pp)
    chosen = on or machine()
    return Predictor(
        Resolved(scenario, model, chosen, load_engine(engine), find_calibration(reference), Parallelism(pp=pp))
    )


def network(window: int | None = None, layers: int = 8) -> Model:
    block = Block(Attention(8, 4, 64, window=window), FeedForward(2048), layers)
    return model_from_architecture(Architecture("shape", "shape", 1000, 512, (block,), None))


def test_an_ideal_decode_step_reads_weights_cache_and_activations_once() -> None:
    """Every op of a batch of one is bound by memory; the mean context of the steps is prompt + output / 2."""
    model, prompt, output = network(), 1000, 101
    built = predictor(model)
    step = ((1.0, 1.0, prompt + (output - 2) / 2, 0.0, 1.0),)
    moved = sum(op.bytes_at(slices(step)) for op in built.runner.table.ops)
    answer = built.predict(1, prompt, output)
    assert answer.tpot_s == pytest.approx(moved / BANDWIDTH, rel=1e-9)


def test_an_ideal_decode_step_of_a_large_network_is_weights_and_cache_over_bandwidth() -> None:
    block = Block(Attention(64, 8, 128), FeedForward(28672), 80)
    model = model_from_architecture(Architecture("shape", "shape", 128256, 8192, (block,), None))
    answer = predictor(model).predict(1, 4096, 2)
    embedding = 128256 * 8192 * 2
    cache = 2 * 80 * 8 * 128 * 2 * 4097
    assert answer.tpot_s == pytest.approx((answer.weight_bytes - embedding + cache) / BANDWIDTH, rel=1e-3)


def test_an_ideal_prefill_of_many_tokens_is_flops_over_peak() -> None:
    block = Block(Attention(64, 8, 128), FeedForward(28672), 4)
    model = model_from_architecture(Architecture("shape", "shape", 1000, 8192, (block,), None))
    built = predictor(model)
    step = ((1.0, 8192.0, 0.0, 0.0, 1.0),)
    products = sum(op.flops_at(slices(step)) for op in built.runner.table.ops if op.kind in ("gemm", "attention"))
    assert built.predict(1, 8192, 1).ttft_s == pytest.approx(products / PEAK, rel=0.15)
    assert built.predict(1, 8192, 1).ttft_s >= products / PEAK


def slices(step: tuple[tuple[float, ...], ...]) -> Step:
    return tuple(Slice(*part) for part in step)


@pytest.mark.parametrize("engine", ["ideal", "vllm", "native"])
@pytest.mark.parametrize(("prompt", "output", "batch"), [(1, 50, 1), (100, 200, 8), (3000, 500, 4), (10, 2, 1)])
def test_the_mean_step_equals_the_mean_over_all_steps(engine: str, prompt: int, output: int, batch: int) -> None:
    """Three nodes integrate a smooth step exactly; kernels that read the cache in whole tiles make it a staircase of
    steps as high as a tile, of which they see three."""
    built = predictor(network(), engine, on=load_machine("a100-sxm4-80gb"))
    answer = built.predict(batch, prompt, output)
    single = [built.predict(batch, prompt + position, 2).tpot_s for position in range(output - 1)]
    assert answer.tpot_s == pytest.approx(sum(single) / len(single), rel=1e-3 if engine == "ideal" else 3e-3)


@pytest.mark.parametrize("prompt", [100, 400, 900])
def test_the_mean_step_holds_across_the_edge_of_a_window(prompt: int) -> None:
    built = predictor(network(window=512))
    answer = built.predict(64, prompt, 400)
    single = [built.predict(64, prompt + position, 2).tpot_s for position in range(399)]
    assert answer.tpot_s == pytest.approx(sum(single) / len(single), rel=2e-2)


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
@pytest.mark.parametrize("batch", [8, 16, 64])
def test_a_pipeline_of_equal_steps_fills_once(stages: int, batch: int) -> None:
    """n equal steps through p stages take (n + p - 1) / p of one rank's step: n steps and p - 1 to fill; the best n."""
    model = network()
    whole, piped = predictor(model), predictor(model, pp=stages)
    taken = []
    size = 1
    while size <= batch:
        sends = size * 64 * 512 * 2 * (stages - 1) / 1e12
        step = whole.predict(size, 64, 1).ttft_s + sends
        taken.append(step * (batch / size + stages - 1) / stages)
        size *= 2
    assert piped.predict(batch, 64, 1).ttft_s == pytest.approx(min(taken), rel=1e-9)


def test_a_pipeline_decodes_no_faster_than_one_device_reads() -> None:
    model = network()
    alone = predictor(model).predict(1, 64, 10).tpot_s
    piped = predictor(model, pp=4).predict(1, 64, 10).tpot_s
    assert piped >= alone
    assert piped == pytest.approx(alone, rel=1e-2)
