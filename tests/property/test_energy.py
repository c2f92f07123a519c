"""Energy is power times time, is the sum of its parts, and stays below what the devices may draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import catalog
from simulator.cost.efficiency import Engine, load_engine
from simulator.cost.layout import PowerRow
from simulator.cost.steps import sustained
from simulator.errors import ScenarioError, UnsupportedError
from simulator.graph.build import Model
from simulator.mapping.machine import Machine, load_machine
from simulator.predict import predict
from simulator.result import Prediction
from simulator.scenario import Scenario, load_model
from simulator.techniques.parallel import Parallelism, check

from .machines import Knobs, calibration_of, calibrations, engines, machines, make_predictor
from .networks import models

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

HARDWARE = [name for name in catalog.names("hardware") if load_machine(name).units]
SHAPES = st.tuples(st.sampled_from([1, 3, 64]), st.sampled_from([2, 300, 3000]), st.sampled_from([1, 2, 200]))
DIVISIONS = st.builds(
    Parallelism, tp=st.sampled_from([1, 2, 4]), pp=st.sampled_from([1, 2]), dp=st.sampled_from([1, 2])
)


def balances(answer: Prediction) -> None:
    """Energy = power x time, and its parts sum to it."""
    tokens = answer.output_tokens_per_s
    assert answer.energy_j_per_output_token * tokens == pytest.approx(answer.power_w, rel=1e-9)
    generated = answer.scenario.batch * answer.scenario.output_tokens
    total = answer.energy_j_per_output_token * generated
    assert sum(answer.energy_by_component_j.values()) == pytest.approx(total, rel=1e-9)
    assert all(part >= 0 for part in answer.energy_by_component_j.values())
    assert 0 <= answer.prefill_energy_j <= total * (1 + 1e-9)
    assert sum(answer.memory_by_role_bytes.values()) == pytest.approx(answer.memory_bytes)
    if answer.turns == 1:
        assert answer.power_w * answer.e2el_s == pytest.approx(total, rel=1e-9)
        decoding = answer.tpot_s * (answer.scenario.output_tokens - 1)
        assert answer.e2el_s == pytest.approx(answer.ttft_s + decoding, rel=1e-9)


@settings(max_examples=100)
@given(models(wide=True), machines(), engines(), calibrations(), SHAPES, DIVISIONS)
def test_drawn_machines_stay_within_their_limits(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int],
    division: Parallelism,
) -> None:  # fmt: skip
    try:
        check(model, division)
    except ScenarioError:
        return
    answer = make_predictor(model, machine, engine, calibration, division).predict(*shape)
    balances(answer)
    assert answer.power_w <= machine.tdp_w * answer.devices * (1 + 1e-9)
    assert answer.power_w >= machine.idle_w * answer.devices * (1 - 1e-9)


@pytest.mark.parametrize("hardware", HARDWARE)
def test_shipped_devices_stay_within_their_limits(hardware: str) -> None:
    machine = load_machine(hardware)
    for engine in ("ideal", "vllm", "native"):
        for batch, prompt, output in ((1, 64, 32), (32, 1024, 8)):
            scenario = Scenario("qwen2-0.5b", hardware, batch, prompt, output, engine=engine, tp=1)
            try:
                answer = predict(scenario)
            except UnsupportedError:
                continue
            balances(answer)
            if machine.tdp_w and engine != "ideal":
                assert answer.power_w <= machine.tdp_w * (1 + 1e-9), engine


@given(st.sampled_from(["t5-small", "whisper-base", "qwen2-vl-2b", "bert-base"]), st.sampled_from([1, 8]),
       st.sampled_from(["vllm", "ideal"]), st.sampled_from([1, 40]))  # fmt: skip
def test_encoders_and_towers_balance_too(model: str, batch: int, engine: str, output: int) -> None:
    scenario = Scenario(model, "a100-sxm4-80gb", batch, 100, output, engine=engine)
    answer = predict(scenario.with_(images=1) if "vl" in model else scenario)
    if model == "bert-base":
        assert answer.energy_j_per_output_token * answer.output_tokens_per_s == pytest.approx(answer.power_w)
    else:
        balances(answer)


LIMITS = st.builds(
    PowerRow, static_w=st.floats(50.0, 150.0), tdp_w=st.floats(151.0, 2000.0), idle_w=st.floats(1.0, 50.0),
    waiting_w=st.just(50.0), clock_floor=st.floats(0.2, 1.0), compute_clock=st.just(1.0),
)  # fmt: skip
JOULES = st.floats(0.0, 5000.0)


def drawn_w(core_j: float, memory_j: float, power: PowerRow, run: tuple[float, float, float]) -> float:
    """Power of an op as `sustained` chose to run it."""
    time, clock, squared = run
    static_w = power.idle_w + (power.static_w - power.idle_w) * clock * squared
    return (core_j * squared + memory_j) / time + static_w


@given(st.floats(0.01, 10.0), st.floats(0.0, 1.0), JOULES, JOULES, LIMITS, st.floats(0.0, 1.0))
def test_the_limit_is_kept_at_the_least_loss_and_a_lower_one_is_never_faster(
    time: float, share: float, core_j: float, memory_j: float, power: PowerRow, lower: float
) -> None:
    run = sustained(time, share * time, core_j, memory_j, power)
    seconds, clock, squared = run
    assert seconds >= time
    assert 0.0 < clock <= 1.0
    assert squared == max(clock, power.clock_floor) or clock == squared == 1.0
    watts = drawn_w(core_j, memory_j, power, run)
    assert watts <= power.tdp_w * (1 + 1e-9)
    if clock < 1.0:
        assert watts == pytest.approx(power.tdp_w, rel=1e-9)
    less = power._replace(tdp_w=power.static_w + lower * (power.tdp_w - power.static_w) + 1e-3)
    slower = sustained(time, share * time, core_j, memory_j, less)
    if less.tdp_w <= power.tdp_w:
        assert slower[0] >= seconds * (1 - 1e-9)
    near = sustained(time, share * time, core_j, memory_j, power._replace(tdp_w=power.tdp_w * (1 + 1e-9)))
    assert near[0] == pytest.approx(seconds, rel=1e-6)


@pytest.mark.parametrize("hardware", ["h200-sxm-141gb", "a100-sxm4-80gb", "dgx-h100", "l4"])
def test_power_caps_are_kept_and_slow_compute_not_memory(hardware: str) -> None:
    machine = load_machine(hardware)
    device_w = load_machine(machine.device).tdp_w
    scenario = Scenario("llama-3.1-8b", hardware, 1, 2000, 100, engine="vllm", tp=1)
    free = predict(scenario)
    before = free
    for share in (1.5, 1.0, 0.8, 0.6, 0.5):
        capped = predict(scenario.with_(power_cap_w=share * device_w))
        balances(capped)
        assert capped.power_w <= (machine.tdp_w - max(0.0, 1.0 - share) * device_w) * (1 + 1e-9)
        assert capped.ttft_s >= before.ttft_s * (1 - 1e-9)
        assert capped.tpot_s >= before.tpot_s * (1 - 1e-9)
        if share >= 1.0:
            assert (capped.e2el_s, capped.energy_j) == (free.e2el_s, free.energy_j)
        if share == 0.8:
            assert capped.prefill_energy_j < free.prefill_energy_j
        before = capped
    lost_in_prefill, lost_in_decode = capped.ttft_s / free.ttft_s, capped.tpot_s / free.tpot_s
    assert lost_in_prefill > 1.05
    assert lost_in_decode < lost_in_prefill


def test_caps_below_what_a_device_draws_while_it_waits_are_refused() -> None:
    scenario = Scenario("qwen2-0.5b", "h200-sxm-141gb", power_cap_w=100.0)
    with pytest.raises(ScenarioError, match="149 W that h200-sxm-141gb draws"):
        predict(scenario)
    with pytest.raises(ScenarioError):
        predict(scenario.with_(power_cap_w=float("nan")))


def test_time_that_the_host_takes_costs_waiting_power() -> None:
    """A host ten times slower adds exactly the waiting power over the time that it adds."""
    machine, engine = load_machine("a100-sxm4-80gb"), load_engine("vllm")
    model, knobs = load_model("qwen2-0.5b"), {"gemm": {}}
    answers = [
        make_predictor(model, machine, replace(engine, host_step_s=seconds), calibration_of(knobs)).predict(1, 64, 50)
        for seconds in (0.001, 0.010)
    ]
    added_s = answers[1].e2el_s - answers[0].e2el_s
    assert added_s == pytest.approx(49 * 0.009, rel=1e-6)
    assert answers[1].energy_j - answers[0].energy_j == pytest.approx(machine.waiting_w * added_s, rel=1e-6)
