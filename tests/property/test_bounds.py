"""No prediction is faster than light: datasheet rates, unique bytes, no software."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import catalog
from simulator.cost.efficiency import Engine, load_engine
from simulator.cost.layout import R_TIME
from simulator.errors import SimulatorError, UnsupportedError
from simulator.graph.build import Model
from simulator.graph.step import Slice
from simulator.mapping.machine import Machine, load_machine
from simulator.predict import predict
from simulator.result import Prediction
from simulator.scenario import Scenario

from .machines import Knobs, calibrations, engines, in_main_memory, machines, make_predictor, timed_step
from .networks import models

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

SLACK = 1 + 1e-9
HARDWARE = [name for name in catalog.names("hardware") if load_machine(name).units]
SHAPES = ((1, 128, 16), (16, 512, 64))
TIMES = ("ttft_s", "tpot_s", "e2el_s")


@lru_cache(maxsize=4096)
def answer(hardware: str, engine: str, model: str, shape: tuple[int, int, int]) -> Prediction | None:
    """None where no unit of the device can run the network."""
    batch, prompt, output = shape
    scenario = Scenario(model, hardware, batch=batch, input_tokens=prompt, output_tokens=output, engine=engine, tp=1)
    try:
        return predict(scenario)
    except UnsupportedError:
        return None


def holders(hardware: str) -> int:
    """Memories that may hold weights or cache."""
    return sum(bool(memory.holds & {"weight", "kv"}) for memory in load_machine(hardware).memories)


@pytest.mark.parametrize("hardware", HARDWARE)
def test_no_engine_beats_the_speed_of_light(hardware: str) -> None:
    """Every engine on every device; times of runs that fit, since what does not fit is timed as if it did."""
    small = max(memory.capacity_bytes for memory in load_machine(hardware).memories) < 4e9
    model = "qwen2-0.5b" if small else "llama-3.1-8b"
    for engine in catalog.names("engine"):
        for shape in SHAPES:
            found, bound = answer(hardware, engine, model, shape), answer(hardware, "ideal", model, shape)
            # Where several memories hold a network, a run of one token has a placement of its own.
            first = answer(hardware, "ideal", model, (*shape[:2], 1))
            if found is None or bound is None or first is None or not found.fits:
                continue
            assert bound.fits, (engine, shape)
            assert found.ttft_s * SLACK >= first.ttft_s, (engine, shape)
            assert found.e2el_s * SLACK >= bound.e2el_s, (engine, shape)
            assert found.output_tokens_per_s <= bound.output_tokens_per_s * SLACK, (engine, shape)
            if holders(hardware) == 1:
                assert found.tpot_s * SLACK >= bound.tpot_s, (engine, shape)


@settings(max_examples=80)
@given(models(), machines(roomy=True), engines(), calibrations(), st.sampled_from([1, 3, 40]),
       st.sampled_from([2, 77, 3000]), st.sampled_from([1, 20]))  # fmt: skip
def test_no_drawn_engine_beats_the_speed_of_light(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, batch: int, prompt: int, output: int
) -> None:
    found = make_predictor(model, machine, engine, calibration).predict(batch, prompt, output)
    bound = make_predictor(model, machine, load_engine("ideal"), calibration).predict(batch, prompt, output)
    assert found.fits
    assert found.e2el_s * SLACK >= bound.e2el_s
    if "far" not in {memory.name for memory in machine.memories}:
        for key in TIMES:
            assert getattr(found, key) * SLACK >= getattr(bound, key), key


@given(models(), machines(roomy=True, single_memory=True), calibrations(), st.sampled_from([1, 5, 40]),
       st.sampled_from([2, 77, 3000]))  # fmt: skip
def test_the_speed_of_light_is_within_the_roofline(
    model: Model, machine: Machine, calibration: Knobs, batch: int, context: int
) -> None:
    """A decode step is no faster than all its FLOPs at the peak, or its weights and cache at the bandwidth."""
    predictor = make_predictor(model, machine, load_engine("ideal"), calibration)
    step = (Slice.decode(batch, context),)
    seconds = timed_step(predictor, step, in_main_memory(machine))[1][R_TIME]
    ops = predictor.runner.table.ops
    peak = max(max(unit.peak_flop_per_s.values()) for unit in machine.units)
    main = [position for position, memory in enumerate(machine.memories) if memory.kind == "main"]
    widest = max(unit.read_bytes_per_s[position] for unit in machine.units for position in main)
    assert seconds * SLACK >= sum(op.flops_at(step) for op in ops) / peak
    moved = sum(op.bytes_at(step, role) for op in ops for role in ("weight", "kv", "state"))
    assert seconds * SLACK >= moved / widest


@settings(max_examples=40)
@given(st.sampled_from(["mixtral-8x7b", "deepseek-v2-lite", "jamba-v0.1", "gemma-2-9b", "whisper-base", "mamba2-1.3b"]),
       st.sampled_from(["h100-sxm5-80gb", "dgx-h100", "attacc", "raspberry-pi-5", "tpu-v5p", "sn40l-8", "gpu-aim"]),
       st.sampled_from(catalog.names("engine")), st.sampled_from([1, 8, 64]), st.sampled_from([2, 100, 1000]),
       st.sampled_from([1, 2, 4, 8]))  # fmt: skip
def test_no_engine_beats_light_on_other_networks(
    model: str, hardware: str, engine: str, batch: int, prompt: int, tp: int
) -> None:
    scenario = Scenario(
        model, hardware, batch=batch, input_tokens=prompt, output_tokens=20, engine=engine, tp=tp, devices=tp
    )
    try:
        found, bound = predict(scenario), predict(scenario.with_(engine="ideal"))
    except SimulatorError:
        return
    if found.fits:
        assert found.e2el_s * SLACK >= bound.e2el_s
        for key in TIMES if holders(hardware) == 1 else ():
            assert getattr(found, key) * SLACK >= getattr(bound, key), key
