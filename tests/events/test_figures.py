"""Published figures that need a timeline, within 20%: none of the constants behind the predictions was fitted to them."""

from __future__ import annotations

import pytest

from simulator.events.growth import growth
from simulator.events.memory import dram
from simulator.events.policy import ANALYTIC, Policy
from simulator.events.simulation import Simulation, simulate_scenario
from simulator.mapping.machine import load_machine
from simulator.scenario import Scenario


def flexgen(engine: str, policy: Policy, **changes: object) -> Simulation:
    """OPT-6.7B on the FlexGen machine, 512 tokens in, 32 out (FlexLLMGen README)."""
    scenario = Scenario("opt-6.7b", "flexgen-t4", engine=engine, input_tokens=512, output_tokens=32)
    return simulate_scenario(scenario.with_(**changes), policy)


def test_flexgen_all_on_the_gpu() -> None:
    found = flexgen("FlexLLMGen", Policy(stream=True), batch=2)
    assert found.output_tokens_per_s == pytest.approx(25.26, rel=0.2)


def test_flexgen_with_compression() -> None:
    dtypes = {"weight_dtype": "int4", "kv_dtype": "int4"}
    found = flexgen("FlexLLMGen with Compression", Policy(stream=True), batch=72, **dtypes)
    assert found.output_tokens_per_s == pytest.approx(29.12, rel=0.2)


def test_zero_inference_fetches_on_demand() -> None:
    """Weights in host memory: 9.28 tokens/s measured; fetching ahead would hide the arithmetic of prefill."""
    place = (("weight", "ddr4"),)
    demand = flexgen("DeepSpeed ZeRO-Inference", Policy(stream=True, prefetch_layers=0.0), batch=16, place=place)
    ahead = flexgen("DeepSpeed ZeRO-Inference", Policy(stream=True), batch=16, place=place)
    assert demand.output_tokens_per_s == pytest.approx(9.28, rel=0.2)
    assert ahead.output_tokens_per_s > 1.2 * demand.output_tokens_per_s


CARD = "A100 80GB PCIe"
"""The card of CENT's baseline (ASPLOS 2025, vLLM): its files name none, but prompts and decode draw 292 and 293 W on one
card, which is the limit of the PCIe card. NVLink bridges pairs of it, so that four sum over PCIe."""


@pytest.mark.parametrize(
    ("model", "devices", "watts", "tokens_per_j"), [("llama-2-7b", 1, 293, 3.3), ("llama-2-13b", 2, 577, 1.7)]
)
def test_power_of_a100_decode(model: str, devices: int, watts: float, tokens_per_j: float) -> None:
    """GPU baseline of CENT: 512 tokens in and 3584 out, as many sequences as fit at once."""
    scenario = Scenario(
        model, CARD, engine="vllm 2024", devices=devices, batch=28, input_tokens=512, output_tokens=3584
    )
    found = simulate_scenario(scenario, explain=False)
    assert found.power_w == pytest.approx(watts, rel=0.2)
    decode_j = found.energy_j - found.prediction.prefill_energy_j
    assert 28 * 3583 / decode_j == pytest.approx(tokens_per_j, rel=0.2)


SHORT = {1: 127.06, 2: 131.17, 4: 136.01, 8: 149.71, 16: 191.09, 32: 228.14, 64: 310.72, 128: 511.30}
LONG = {1: 129.87, 2: 137.41, 4: 150.40, 8: 180.32, 16: 250.93, 32: 353.07, 64: 651.53, 128: 1282.65}
"""Seconds by batch of the same baseline, Llama-2-70B on four cards, to 4096 and to 8192 tokens. That both answer with 3584
is read from the times: one sequence takes 2% more for the longer context."""


@pytest.mark.parametrize(
    ("prompt", "batch", "seconds"),
    [(prompt, *run) for prompt, runs in ((512, SHORT), (4608, LONG)) for run in runs.items()],
)
def test_llama_2_70b_with_the_attention_of_its_time(prompt: int, batch: int, seconds: float) -> None:
    """The same baseline: vLLM of its time gave each query head a block, which reads the keys of its group for itself."""
    scenario = Scenario(
        "llama-2-70b", CARD, engine="vllm 2024", devices=4, batch=batch, input_tokens=prompt, output_tokens=3584,
        max_context=8192, techniques=("paged-attention-v1",),
    )  # fmt: skip
    found = simulate_scenario(scenario, explain=False)
    assert batch * 3584 / found.output_tokens_per_s == pytest.approx(seconds, rel=0.12)
    if (prompt, batch) == (512, 128):
        assert found.power_w == pytest.approx(1107, rel=0.2)
        assert batch * 3584 / found.energy_j == pytest.approx(897 / 1107, rel=0.2)


@pytest.mark.parametrize(("model", "devices", "seconds"), [("llama-2-7b", 1, 42.969), ("llama-2-13b", 2, 51.468)])
def test_one_sequence_on_one_card_and_on_a_bridged_pair(model: str, devices: int, seconds: float) -> None:
    """The same baseline; 11 and 12% too slow, as decode of this release is on the A100 in other measurements, too."""
    scenario = Scenario(model, CARD, engine="vllm 2024", devices=devices, input_tokens=512, output_tokens=3584)
    assert simulate_scenario(scenario, explain=False).e2el_s == pytest.approx(seconds, rel=0.15)


def test_prompts_wait_for_sums_over_pcie() -> None:
    """The same baseline: 3110 prompt tokens/s on four cards; NVLink between all four would promise far more."""
    scenario = Scenario(
        "llama-2-70b", CARD, engine="vllm 2024", devices=4, batch=128, input_tokens=512, output_tokens=1
    )
    found = simulate_scenario(scenario, explain=False)
    assert 128 * 512 / found.e2el_s == pytest.approx(3110, rel=0.12)
    joined = simulate_scenario(scenario.with_(hardware="A100"), explain=False)
    assert 128 * 512 / joined.e2el_s > 1.6 * 3110


def test_caches_that_outgrow_the_memory_preempt_the_last() -> None:
    """119 of 128 sequences have room to the end: the other nine stop shortly before theirs, and do not start again."""
    scenario = Scenario(
        "llama-2-70b", "A100", engine="vllm 2024", devices=4, batch=128, input_tokens=512, output_tokens=3584
    )
    found, turns = (simulate_scenario(scenario, policy, explain=False) for policy in (Policy(), ANALYTIC))
    assert turns.prediction.turns == 2
    assert turns.e2el_s == pytest.approx(turns.prediction.e2el_s, rel=0.01)
    spans = [128 * 3584 / one.output_tokens_per_s for one in (found, turns)]
    assert 0.65 * spans[1] < spans[0] < 0.97 * spans[1]
    fits = simulate_scenario(scenario.with_(batch=119), explain=False)
    assert spans[0] > 119 * 3584 / fits.output_tokens_per_s
    assert found.ttft_s < turns.ttft_s


@pytest.mark.parametrize(("batch", "fit"), [(128, 119), (20, 10), (11, 10)])
def test_every_token_is_made_once(batch: int, fit: int) -> None:
    found = growth(batch, fit, 512, 512)
    assert found is not None
    assert found.running * 512 + found.resumed * found.steps == pytest.approx(batch * 512)
    assert fit < found.running <= batch
    assert 0.0 < found.resumed <= found.waited == batch - fit
    assert growth(fit, fit, 512, 512) is None
    assert growth(2 * fit + 1, fit, 512, 512) is None


def test_accelerate_on_the_gpu() -> None:
    """Hugging Face Accelerate on the FlexGen machine: 25.12 tokens/s."""
    assert flexgen("Hugging Face Accelerate", Policy(stream=True), batch=2).output_tokens_per_s == pytest.approx(
        25.12, rel=0.2
    )


CYCLES = (
    (256, 2983, 95007), (512, 512, 33157), (768, 512, 49463), (1024, 512, 65705), (1280, 351, 56540), (1536, 351, 67834),
    (1792, 351, 79148), (2048, 351, 90426), (2304, 188, 54870), (2560, 188, 61748), (2816, 188, 67957), (3072, 188, 74238),
    (3328, 188, 80436), (3584, 188, 86958), (3840, 188, 93398), (4096, 188, 99626),
)  # fmt: skip
"""(length, heads, cycles) with the most heads of each length, head size 128, fp16, all banks, power limited: AttAcc's
`ramulator.out` (MIT, SCAL, SNU)."""


@pytest.mark.parametrize(("length", "heads", "cycles"), CYCLES)
def test_all_bank_attention_against_a_cycle_simulation(length: int, heads: int, cycles: int) -> None:
    """AttAcc's Ramulator 2 at 0.769 ns: keys and values of all heads read once by all banks. Refresh costs it nothing."""
    machine = load_machine("hbm3-pim-attacc")
    position = next(i for i, memory in enumerate(machine.memories) if dram(memory))
    unit = next(unit for unit in machine.units if unit.near_inside)
    found = dram(machine.memories[position])
    assert found is not None
    size = heads * 2 * length * 128 * 2.0
    seconds = size / found.all_bank_bytes_per_s(unit.read_bytes_per_s[position])
    assert seconds * found.awake == pytest.approx(cycles * 0.769e-9, rel=0.08)
    assert seconds == pytest.approx(cycles * 0.769e-9, rel=0.25)
