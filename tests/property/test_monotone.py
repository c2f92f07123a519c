"""More hardware never slows a run; more work never speeds it up."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from simulator.cost.efficiency import Engine, find_calibration, load_engine
from simulator.cost.layout import R_TIME
from simulator.errors import SimulatorError
from simulator.graph.architecture import Architecture, Attention, Block, FeedForward
from simulator.graph.build import Model, model_from_architecture
from simulator.mapping.machine import Machine, load_machine
from simulator.predict import predict
from simulator.result import Prediction
from simulator.scenario import Scenario
from simulator.spec.calibration import Calibration
from simulator.techniques.parallel import Parallelism, check

from .machines import Knobs, calibrations, engines, faster, in_main_memory, larger, machines, make_predictor, timed_step
from .networks import SMALL, models

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

SLACK = 1 + 1e-9
FACTORS = st.sampled_from([1.01, 1.3, 2.0, 10.0])
BATCHES = st.sampled_from([1, 2, 3, 8, 17, 64, 200])
PROMPTS = st.sampled_from([2, 16, 100, 257, 1000, 5000])
OUTPUTS = st.sampled_from([1, 2, 32, 300])
DEVICES = ["a100-sxm4-80gb", "dgx-h100", "rtx-4090", "mi300x", "raspberry-pi-5", "apple-m2-max", "attacc", "tpu-v5e",
           "xeon-8480", "sn40l", "groq-lpu", "gpu-csd", "upmem-server", "flexgen-t4"]  # fmt: skip
ENGINES = st.sampled_from(["ideal", "vllm", "llama.cpp", "native", "hf"])


def run(model: Model, machine: Machine, engine: Engine, calibration: Knobs | Calibration, shape: tuple[int, int, int],
        division: Parallelism | None = None) -> Prediction:  # fmt: skip
    return make_predictor(model, machine, engine, calibration, division).predict(*shape)


SHAPES = st.tuples(BATCHES, PROMPTS, OUTPUTS)


def one_placement(machine: Machine) -> bool:
    """With several memories the placement is that of the whole run that ends first, so only its end has to be monotone."""
    return "far" not in {memory.name for memory in machine.memories}


@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, FACTORS)
def test_bandwidth_never_slows(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], factor: float
) -> None:
    before = run(model, machine, engine, calibration, shape)
    after = run(model, faster(machine, bandwidth=factor), engine, calibration, shape)
    assert after.e2el_s <= before.e2el_s * SLACK


@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, FACTORS)
def test_compute_never_slows(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], factor: float
) -> None:
    before = run(model, machine, engine, calibration, shape)
    after = run(model, faster(machine, compute=factor), engine, calibration, shape)
    assert after.e2el_s <= before.e2el_s * SLACK


@settings(max_examples=200)
@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, FACTORS)
def test_cache_never_slows(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], factor: float
) -> None:
    assume(any(memory.kind == "cache" for memory in machine.memories))
    before = run(model, machine, engine, calibration, shape)
    after = run(model, larger(machine, factor, kinds=frozenset({"cache"})), engine, calibration, shape)
    assert after.e2el_s <= before.e2el_s * SLACK


@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, FACTORS, st.sampled_from([2, 4, 8]))
def test_links_never_slow(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int],
    factor: float, tp: int,
) -> None:  # fmt: skip
    division = Parallelism(tp=tp)
    try:
        check(model, division)
    except SimulatorError:
        assume(False)
    before = run(model, machine, engine, calibration, shape, division)
    after = run(model, faster(machine, links=factor), engine, calibration, shape, division)
    assert after.e2el_s <= before.e2el_s * SLACK


@settings(max_examples=100)
@given(models(), machines(), engines(), calibrations(), SHAPES, FACTORS, st.sampled_from(["main", "far"]))
def test_capacity_never_unfits_nor_slows_what_fits(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int],
    factor: float, name: str,
) -> None:  # fmt: skip
    before = run(model, machine, engine, calibration, shape)
    grown = larger(machine, factor, kinds=frozenset({"main"}), names=frozenset({name}))
    after = run(model, grown, engine, calibration, shape)
    # What does not fit is timed as if it did, so only a run that fits can be compared.
    if before.fits:
        assert after.fits
        assert after.e2el_s <= before.e2el_s * SLACK


@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, st.integers(1, 70))
def test_a_larger_batch_is_never_faster(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], more: int
) -> None:
    batch, prompt, output = shape
    predictor = make_predictor(model, machine, engine, calibration)
    before, after = predictor.predict(batch, prompt, output), predictor.predict(batch + more, prompt, output)
    assert after.e2el_s * SLACK >= before.e2el_s
    if one_placement(machine):
        assert after.ttft_s * SLACK >= before.ttft_s
        assert after.tpot_s * SLACK >= before.tpot_s


@given(models(), machines(), engines(), calibrations(), SHAPES, st.integers(1, 70))
def test_a_larger_batch_never_needs_less_memory_nor_time(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], more: int
) -> None:
    batch, prompt, output = shape
    predictor = make_predictor(model, machine, engine, calibration)
    before, after = predictor.predict(batch, prompt, output), predictor.predict(batch + more, prompt, output)
    assert after.memory_bytes * SLACK >= before.memory_bytes
    assert after.kv_bytes * SLACK >= before.kv_bytes
    assert after.activation_bytes * SLACK >= before.activation_bytes
    assert before.fits or not after.fits
    makespan = [part.scenario.batch * output / part.output_tokens_per_s for part in (before, after)]
    if before.fits == after.fits:
        assert makespan[1] * SLACK >= makespan[0]
        assert after.e2el_s * SLACK >= before.e2el_s


@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, st.integers(1, 700))
def test_a_longer_prompt_is_never_faster(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], more: int
) -> None:
    batch, prompt, output = shape
    predictor = make_predictor(model, machine, engine, calibration)
    before, after = predictor.predict(batch, prompt, output), predictor.predict(batch, prompt + more, output)
    assert after.e2el_s * SLACK >= before.e2el_s
    if one_placement(machine):
        assert after.ttft_s * SLACK >= before.ttft_s
        assert after.tpot_s * SLACK >= before.tpot_s
    assert after.memory_bytes * SLACK >= before.memory_bytes


@given(models(), machines(roomy=True), engines(), calibrations(), SHAPES, st.integers(1, 700))
def test_a_longer_answer_is_never_faster(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, shape: tuple[int, int, int], more: int
) -> None:
    batch, prompt, output = shape
    predictor = make_predictor(model, machine, engine, calibration)
    before, after = predictor.predict(batch, prompt, output), predictor.predict(batch, prompt, output + more)
    assert after.e2el_s * SLACK >= before.e2el_s
    if one_placement(machine):
        assert output == 1 or after.tpot_s * SLACK >= before.tpot_s
        assert after.ttft_s == pytest.approx(before.ttft_s)


STEP_SHAPES = st.tuples(st.integers(1, 300), st.sampled_from([1, 1, 2, 5, 64, 130, 700]), st.integers(0, 9000))


@settings(max_examples=150)
@given(models(), machines(roomy=True), engines(), calibrations(), STEP_SHAPES, st.integers(1, 400),
       st.sampled_from(["sequences", "query", "past"]))  # fmt: skip
def test_no_op_of_a_larger_step_is_faster(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, part: tuple[int, int, int], more: int,
    grows: str,
) -> None:  # fmt: skip
    sequences, query, past = part
    # One new token and several take different kernels (and, with latent attention, different ops).
    assume(query > 1 or grows != "query")
    longer = {
        "sequences": (sequences + more, query, past),
        "query": (sequences, query + more, past),
        "past": (sequences, query, past + more),
    }[grows]
    predictor = make_predictor(model, machine, engine, calibration)
    shares = in_main_memory(machine)
    before, _ = timed_step(predictor, [(*part, 0.0, 1.0)], shares)
    after, _ = timed_step(predictor, [(*longer, 0.0, 1.0)], shares)
    for op, less, greater in zip(predictor.runner.table.ops, before, after, strict=True):
        assert greater[R_TIME] * SLACK >= less[R_TIME], op.name


DEEP = model_from_architecture(
    Architecture("deep", "drawn", 1000, 256, (Block(Attention(4, 4, 64), FeedForward(512), 24),), None)
)


@example(machine=None, batch=4, more=1, pp=4)
@given(machines(roomy=True), st.integers(1, 20), st.integers(1, 20), st.sampled_from([2, 3, 4, 8]))
def test_a_larger_batch_never_speeds_a_pipeline(machine: Machine | None, batch: int, more: int, pp: int) -> None:
    chosen = machine or load_machine("a100-sxm4-80gb")
    predictor = make_predictor(
        DEEP, chosen, load_engine("native"), find_calibration(load_machine("a100-sxm4-80gb")), Parallelism(pp=pp)
    )
    before, after = predictor.predict(batch, 100, 20), predictor.predict(batch + more, 100, 20)
    assert after.tpot_s * SLACK >= before.tpot_s
    assert after.ttft_s * SLACK >= before.ttft_s
    assert after.e2el_s * SLACK >= before.e2el_s


def shipped(hardware: str, engine: str, shape: tuple[int, int, int], model: str) -> Prediction:
    batch, prompt, output = shape
    try:
        return predict(
            Scenario(model, hardware, batch=batch, input_tokens=prompt, output_tokens=output, engine=engine, tp=1)
        )
    except SimulatorError:
        assume(False)
        raise


@settings(max_examples=60)
@given(st.sampled_from(DEVICES), ENGINES, SHAPES, st.sampled_from(["qwen2-0.5b", "mixtral-8x7b", "deepseek-v2-lite"]),
       st.integers(1, 100), st.booleans())  # fmt: skip
def test_shipped_devices_are_not_faster_with_more(
    hardware: str, engine: str, shape: tuple[int, int, int], model: str, more: int, longer: bool
) -> None:
    batch, prompt, output = shape
    before = shipped(hardware, engine, shape, model)
    after = shipped(
        hardware, engine, (batch, prompt + more, output) if longer else (batch + more, prompt, output), model
    )
    assert after.memory_bytes * SLACK >= before.memory_bytes
    assert before.fits or not after.fits
    if before.fits == after.fits:
        assert after.e2el_s * SLACK >= before.e2el_s


def test_the_small_network_runs_anywhere() -> None:
    machine = load_machine("a100-sxm4-80gb")
    answer = run(SMALL, machine, load_engine("ideal"), find_calibration(machine), (1, 8, 2))
    assert answer.fits
    assert answer.e2el_s > 0


@pytest.mark.parametrize("batch", [1, 20, 54, 55, 56, 109, 110, 111])
def test_a_batch_that_takes_turns_is_not_faster(batch: int) -> None:
    """One sequence more than the cache holds does not shorten the mean wait of the others."""
    scenario = Scenario("llama-3.1-8b", "a100-sxm4-80gb", batch, 8000, 20, engine="vllm")
    before, after = predict(scenario), predict(scenario.with_(batch=batch + 1))
    assert after.e2el_s * SLACK >= before.e2el_s
    assert (batch + 1) / after.output_tokens_per_s * SLACK >= batch / before.output_tokens_per_s
