"""Steady serving on drawn machines: Little's law, the batch of one, and what may never slow it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost.efficiency import Engine
from simulator.graph.build import Model
from simulator.mapping.machine import Machine
from simulator.steady import SteadyState, steady

from .machines import Knobs, calibrations, engines, faster, machines, make_predictor
from .networks import models

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

SLACK = 1 + 1e-9
FLIGHTS = st.sampled_from([1, 2, 7, 32, 150, 1000])
PROMPTS = st.sampled_from([1, 2, 100, 257, 1000, 5000])
OUTPUTS = st.sampled_from([1, 2, 32, 300])
POINTS = st.tuples(FLIGHTS, PROMPTS, OUTPUTS)


def served(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, point: tuple[int, int, int]
) -> SteadyState:
    found = make_predictor(model, machine, engine, calibration)
    return steady(found, concurrency=point[0], input_tokens=point[1], output_tokens=point[2])


@given(models(), machines(roomy=True), engines(), calibrations(), POINTS)
def test_little(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, point: tuple[int, int, int]
) -> None:
    state = served(model, machine, engine, calibration, point)
    assert state.requests_per_s * state.e2el_s == pytest.approx(point[0], rel=1e-9)
    assert 0.0 <= state.prefill_share <= 1.0


@given(models(), machines(roomy=True), engines(), calibrations(), PROMPTS, OUTPUTS)
def test_one_in_flight_is_a_batch_of_one(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, prompt: int, output: int
) -> None:
    direct = replace(engine, host_request_s=0.0)
    state = served(model, machine, direct, calibration, (1, prompt, output))
    alone = make_predictor(model, machine, direct, calibration).predict(1, prompt, output)
    for name in ("ttft_s", "tpot_s", "e2el_s", "power_w", "energy_j_per_output_token"):
        assert getattr(state, name) == pytest.approx(getattr(alone, name), rel=1e-9), name
    served_too = served(model, machine, engine, calibration, (1, prompt, output))
    for name, waits in (("ttft_s", engine.host_request_s), ("tpot_s", 0.0), ("e2el_s", engine.host_request_s)):
        assert getattr(served_too, name) == pytest.approx(getattr(alone, name) + waits, rel=1e-9), name


@given(models(), machines(roomy=True), engines(), calibrations(), POINTS, st.sampled_from([1.01, 1.5, 10.0]))
def test_bandwidth_and_compute_never_slow(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, point: tuple[int, int, int], factor: float
) -> None:
    before = served(model, machine, engine, calibration, point)
    for better in (faster(machine, bandwidth=factor), faster(machine, compute=factor)):
        after = served(model, better, engine, calibration, point)
        assert after.requests_per_s * SLACK >= before.requests_per_s
        assert after.e2el_s <= before.e2el_s * SLACK


@given(models(), machines(roomy=True), engines(), calibrations(), POINTS)
def test_an_answer_takes_no_less_than_alone(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, point: tuple[int, int, int]
) -> None:
    alone = served(model, machine, engine, calibration, (1, point[1], point[2]))
    assert served(model, machine, engine, calibration, point).e2el_s * SLACK >= alone.e2el_s
