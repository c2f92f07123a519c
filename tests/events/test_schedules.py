"""Pipeline schedules against their closed forms, and training steps against `predict_training`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.events.engine import simulate
from simulator.events.schedules import StageTimes, order, pipeline_net, simulate_training
from simulator.train import predict_training
from simulator.trainer import TrainingScenario


def seconds(schedule: str, stages: int, micro: int, forward: float, backward: float, chunks: int = 1) -> float:
    net = pipeline_net(schedule, [StageTimes(forward, backward)] * stages, micro, chunks)  # type: ignore[arg-type]
    return simulate(net).seconds


@given(stages=st.integers(1, 6), micro=st.integers(1, 12), forward=st.integers(1, 9), backward=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_gpipe_and_1f1b(stages: int, micro: int, forward: int, backward: int) -> None:
    """(m + p - 1) (f + b): both schedules have the same bubble."""
    expected = (micro + stages - 1) * (forward + backward) * 1e-3
    assert seconds("gpipe", stages, micro, forward * 1e-3, backward * 1e-3) == pytest.approx(expected, rel=1e-9)
    assert seconds("1f1b", stages, micro, forward * 1e-3, backward * 1e-3) == pytest.approx(expected, rel=1e-9)


@given(stages=st.integers(2, 5), rounds=st.integers(1, 4), chunks=st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_interleaved(stages: int, rounds: int, chunks: int) -> None:
    """m (f + b) + (p - 1) (f + b) / v (arXiv 2104.04473, 2.2.2)."""
    micro, forward, backward = rounds * stages, 12e-3, 24e-3
    expected = (micro + (stages - 1) / chunks) * (forward + backward)
    assert seconds("interleaved", stages, micro, forward, backward, chunks) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved"])
def test_every_pass_once(schedule: str) -> None:
    for stage in range(4):
        found = order(schedule, stage, 4, 8, 2)  # type: ignore[arg-type]
        assert len(found) == len(set(found)) == 2 * 8 * (2 if schedule == "interleaved" else 1)


def test_memory_of_the_schedules() -> None:
    """GPipe keeps all micro-batches, 1F1B at most p - s."""
    scenario = TrainingScenario("llama-2-7b", "dgx-a100", pp=4, tp=2, gradient_accumulation=8, recompute="full")
    assert simulate_training(scenario, "gpipe").in_flight == (8, 8, 8, 8)
    assert simulate_training(scenario, "1f1b").in_flight == (4, 3, 2, 1)


def test_agrees_with_the_prediction() -> None:
    """Without sends, a uniform pipeline takes what the closed form says of its slowest stage."""
    scenario = TrainingScenario("llama-2-7b", "dgx-a100", pp=4, tp=2, gradient_accumulation=16, recompute="full")
    closed = predict_training(scenario)
    found = simulate_training(scenario, "1f1b", sends=False)
    assert found.seconds == pytest.approx(closed.step_s, rel=0.06)
    assert found.bubble_share >= closed.bubble_share - 0.02
    single = TrainingScenario("llama-3.2-1b", "dgx-a100", gradient_accumulation=4)
    assert simulate_training(single, "1f1b").seconds == pytest.approx(predict_training(single).step_s, rel=0.06)


def test_interleaving_shortens_the_bubble_and_sends_lengthen_the_step() -> None:
    scenario = TrainingScenario("llama-2-7b", "dgx-a100", pp=8, gradient_accumulation=16, recompute="full")
    plain, interleaved = simulate_training(scenario, "1f1b"), simulate_training(scenario, "interleaved", 2)
    assert interleaved.bubble_share < plain.bubble_share
    assert interleaved.seconds < plain.seconds
    assert simulate_training(scenario, "1f1b", sends=False).seconds <= plain.seconds


def test_exchanges_run_beside_passes() -> None:
    """Gradients flow beside the last backward pass; only what is longer shows."""
    hidden = simulate(pipeline_net("1f1b", [StageTimes(1e-3, 2e-3, reduce_s=1.5e-3)], 4)).seconds
    shown = simulate(pipeline_net("1f1b", [StageTimes(1e-3, 2e-3, reduce_s=5e-3)], 4)).seconds
    assert hidden == pytest.approx(12e-3)
    assert shown == pytest.approx(15e-3)


def test_impossible_schedules() -> None:
    with pytest.raises(ScenarioError, match="no schedule 'zigzag'"):
        order("zigzag", 0, 2, 2)  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match="multiples of the 4 stages, not 6"):
        order("interleaved", 0, 4, 6, 2)
    with pytest.raises(ScenarioError, match="at least 2 chunks"):
        order("interleaved", 0, 4, 8, 1)
    with pytest.raises(ScenarioError, match="several stages"):
        simulate_training(TrainingScenario("llama-3.2-1b", "A100"), "interleaved", 2)
