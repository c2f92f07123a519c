"""Energy is power times time, is the sum of its parts, and stays below what the devices may draw."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import catalog
from simulator.cost.efficiency import Engine
from simulator.errors import ScenarioError, UnsupportedError
from simulator.graph.build import Model
from simulator.mapping.machine import Machine, load_machine
from simulator.predict import predict
from simulator.result import Prediction
from simulator.scenario import Scenario
from simulator.techniques.parallel import Parallelism, check

from .machines import Knobs, calibrations, engines, machines, make_predictor
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
