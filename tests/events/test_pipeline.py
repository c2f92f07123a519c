"""Inference pipelines, streams of requests, swaps of activations and attention cascades against their closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.events.cascade import ARRAY_OPS, LANE_OPS, cascade_net, simulate_cascade
from simulator.events.engine import simulate
from simulator.events.pipeline import Passage, bubble_share, decode_period, prefill_schedule
from simulator.events.policy import ANALYTIC
from simulator.events.rings import Ring, ring_net, simulate_ring
from simulator.events.simulation import simulate_scenario
from simulator.events.streams import stream
from simulator.events.swaps import Layer, simulate_swaps, swap_net
from simulator.mapping.machine import load_machine
from simulator.predict import predictor
from simulator.scenario import Scenario, load_model
from simulator.trainer import TrainingScenario


@given(stages=st.integers(1, 6), steps=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_prompts_fill_and_drain(stages: int, steps: int) -> None:
    """(m + p - 1) t, with a bubble of (p - 1) / (m + p - 1) over the whole, none between a stage's first and last."""
    schedule = prefill_schedule([Passage((1e-3,) * stages)] * steps)
    assert schedule.seconds == pytest.approx((steps + stages - 1) * 1e-3)
    assert bubble_share(schedule, stages) == pytest.approx(0.0, abs=1e-12)


@given(stages=st.integers(1, 5), together=st.integers(1, 8), host=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_tokens_come_back(stages: int, together: int, host: int) -> None:
    """A token of a micro-batch takes max(p t + h, m t, m h): its own way, or its turn on the slowest resource."""
    seconds, _ = decode_period(Passage((1e-3,) * stages, 0.0, host * 1e-3), together, turns=24)
    expected = max(stages + host, together, together * host) * 1e-3
    assert seconds == pytest.approx(expected, rel=1e-6)


def test_uneven_stages_wait_for_the_slowest() -> None:
    assert decode_period(Passage((1.0, 3.0, 1.0)), 3)[0] == pytest.approx(9.0)
    assert decode_period(Passage((1.0, 1.0), send_s=0.5), 1)[0] == pytest.approx(2.5)


@pytest.mark.parametrize(("tp", "pp", "batch"), [(2, 4, 8), (4, 2, 3), (1, 8, 16)])
def test_pipelines_of_a_run(tp: int, pp: int, batch: int) -> None:
    """Decode is the closed form's where stages are even; no prompt is faster than its layers, nor slower than one stage."""
    found = simulate_scenario(Scenario("llama-2-7b", "dgx-a100", tp=tp, pp=pp, batch=batch), ANALYTIC, explain=False)
    closed = found.prediction
    assert found.tpot_s == pytest.approx(closed.tpot_s, rel=0.12)
    assert found.tpot_s >= closed.tpot_s * 0.999
    assert found.ttft_s == pytest.approx(closed.ttft_s, rel=0.15)
    assert found.energy_j == pytest.approx(closed.energy_j, rel=0.12)
    assert found.further[0].label == "decode pipeline"


def test_chunks_shrink_bubbles() -> None:
    """Whole prompts between decode steps leave stages idle; pieces of equal size do not (SARATHI)."""
    scenario = Scenario("gpt3-175b", "a100-sxm4-80gb", devices=32, tp=8, pp=4, engine="native", max_context=8192)
    built = predictor(scenario)
    shares = built.predict(64, 1000, 100).run.turns[0].placement.shares  # type: ignore[attr-defined]
    whole = stream(built, shares, 16, 1000, 100, turns=120)
    pieces = stream(built, shares, 16, 1000, 100, chunk=256, turns=120)
    assert pieces.bubble_s_per_token < 0.25 * whole.bubble_s_per_token
    assert pieces.tokens_per_s > whole.tokens_per_s
    again = stream(built, shares, 16, 1000, 100, turns=120)
    assert (again.seconds, again.tokens) == (whole.seconds, whole.tokens)


def test_swaps_hide_behind_long_passes() -> None:
    """Links faster than passes: n (f + b), and the last layer's way out and back; slower ones bind."""
    layer = Layer(2.0, 4.0, 1.0, 1.0, 1.0)
    fast = simulate(swap_net(8, layer, 10.0, 10.0, 1.0)).seconds
    assert fast == pytest.approx(8 * 6.0 + 2 * 0.2)
    slow = simulate(swap_net(8, layer, 0.1, 0.1, 1.0)).seconds
    assert slow > 2 * 8 * 2.0 / 0.1 * 0.9
    again = simulate(swap_net(8, layer, 10.0, 10.0, 0.0)).seconds
    assert again == pytest.approx(8 * 7.0 + 2 * 0.1)


def test_long_training_needs_room_in_the_host() -> None:
    asked = TrainingScenario("llama-3.2-1b", "A100", sequence_tokens=65536)
    found = simulate_swaps(asked, 1e12, 25e9)
    wide = simulate_swaps(asked, 1e12, 1e12)
    tight = simulate_swaps(asked, 10e9, 1e12)
    assert wide.swapped == 1.0
    assert 0.2 < wide.mfu < 0.8
    assert tight.swapped < wide.swapped
    assert found.swapped < wide.swapped, "a slow link is given no more than hides"
    assert wide.seconds < found.seconds <= tight.seconds * 1.1
    with pytest.raises(ScenarioError, match=r"inputs of 16 layers take .* GB, and the host has room for 1\.0 GB"):
        simulate_swaps(asked, 1e9, 25e9)
    with pytest.raises(ScenarioError, match="leave recompute at none"):
        simulate_swaps(TrainingScenario("llama-3.2-1b", "A100", recompute="full"), 1e12, 25e9)


def test_attention_cascades() -> None:
    """Three passes: bound by the lanes' operations per score. One: by the array's."""
    machine = load_machine("spatial-array-cloud")
    op = next(op for op in load_model("bert-base").graph.ops if op.kind == "attention")
    tokens = 8192
    three, one = (simulate_cascade(machine, op, tokens, passes) for passes in ("three", "one"))  # type: ignore[arg-type]
    scores = op.heads * tokens * tokens
    lane = max(next(u for u in machine.units if u.kind == "vector").peak_flop_per_s.values())
    macs = max(next(u for u in machine.units if u.kind == "matrix").peak_flop_per_s.values()) / 2.0
    assert three.seconds == pytest.approx(scores * LANE_OPS / lane, rel=0.03)
    assert one.seconds == pytest.approx(scores * (2 * op.head_dim + ARRAY_OPS) / macs, rel=0.03)
    assert one.array_share > 0.97 > three.array_share
    bare = replace(machine, units=tuple(unit for unit in machine.units if unit.kind == "matrix"))
    with pytest.raises(ScenarioError, match="no vector unit"):
        cascade_net(bare, 64, 64, 64, 64, "one")
    with pytest.raises(ScenarioError, match="takes three or one passes"):
        cascade_net(machine, 64, 64, 64, 64, "two")  # type: ignore[arg-type]


@given(ranks=st.integers(2, 9), layers=st.integers(1, 6), hop=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_states_in_a_ring(ranks: int, layers: int, hop: int) -> None:
    """A ring delays the last rank of each pass by p - 1 hops at most, once; a gather by what the piece does not hide."""
    ring = Ring(10e-3, 20e-3, 0.2, 0.15, hop * 1e-3, 2e-3)
    gathered = simulate(ring_net(layers, ranks, ring, "gather")).seconds
    assert gathered == pytest.approx(layers * (10e-3 + 20e-3) + layers * (2e-3 - 1.5e-3)), "the backward pass hides it"
    passed = simulate(ring_net(layers, ranks, ring, "ring")).seconds
    work = layers * (10e-3 + 20e-3)
    assert passed >= work - 1e-12
    if hop * 1e-3 <= 10e-3:
        assert passed <= work + 2 * (ranks - 1) * hop * 1e-3 + 1e-9


def test_rings_need_states() -> None:
    with pytest.raises(ScenarioError, match="no linear attention"):
        simulate_ring(TrainingScenario("llama-3.2-1b", "A100"), 4, "ring", 25e9, 2e-5)
    with pytest.raises(ScenarioError, match="ring or gather, not 'star'"):
        ring_net(1, 2, Ring(1.0, 1.0, 0.2, 0.2, 0.1, 0.1), "star")  # type: ignore[arg-type]
