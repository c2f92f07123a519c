"""The compiled arithmetic and the interpreted one are one source and give one result."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.efficiency import Engine, load_engine
from simulator.graph.build import Model
from simulator.mapping.machine import Machine
from simulator.predict import Predictor
from simulator.techniques.parallel import Parallelism

from .machines import Knobs, calibrations, engines, in_main_memory, machines, make_predictor, timed_step
from .networks import models

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

CLOSE = {"rel": 1e-12, "abs": 0.0}
PARTS = st.tuples(st.integers(1, 64).map(float), st.sampled_from([1.0, 2.0, 100.0, 1000.0]),
                  st.integers(0, 9000).map(float), st.just(0.0), st.just(1.0))  # fmt: skip


def both(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs, division: Parallelism
) -> tuple[Predictor, Predictor]:
    slow = make_predictor(model, machine, engine, calibration, division)
    fast = make_predictor(model, machine, engine, calibration, division)
    fast.runner.compile()
    return slow, fast


@settings(max_examples=40)
@given(models(chunked=True, wide=True), machines(roomy=True), engines(), calibrations(),
       st.lists(PARTS, min_size=1, max_size=3), st.booleans(), st.sampled_from([1, 2, 8]))  # fmt: skip
def test_steps_agree(
    model: Model, machine: Machine, engine: Engine, calibration: Knobs,
    step: list[tuple[float, float, float, float, float]], ideal: bool, tp: int,
) -> None:  # fmt: skip
    chosen = load_engine("ideal") if ideal else engine
    slow, fast = both(model, machine, chosen, calibration, Parallelism(tp=tp))
    shares = in_main_memory(machine)
    (ones, total), (others, sums) = timed_step(slow, step, shares), timed_step(fast, step, shares)
    for op, one, other in zip(slow.runner.table.ops, ones, others, strict=True):
        assert one == pytest.approx(other, **CLOSE), op.name
    assert total == pytest.approx(sums, **CLOSE)


@settings(max_examples=40)
@given(models(wide=True), machines(), engines(), calibrations(), st.sampled_from([1, 7, 100]),
       st.sampled_from([1, 90, 5000]), st.sampled_from([1, 2, 400]), st.sampled_from([1, 2]))  # fmt: skip
def test_static_batches_agree(
    model: Model,
    machine: Machine,
    engine: Engine,
    calibration: Knobs,
    batch: int,
    prompt: int,
    output: int,
    pp: int,
) -> None:
    slow, fast = both(model, machine, engine, calibration, Parallelism(pp=pp))
    one, other = slow.predict(batch, prompt, output), fast.predict(batch, prompt, output)
    assert (one.fits, one.turns, one.bound) == (other.fits, other.turns, other.bound)
    for key in ("ttft_s", "tpot_s", "e2el_s", "power_w", "prefill_energy_j", "energy_j_per_output_token"):
        assert getattr(one, key) == pytest.approx(getattr(other, key), **CLOSE), key
