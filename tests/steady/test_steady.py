"""Steady serving: Little's law, its limits, the static batch as one of them, and the grid against the single point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.errors import ScenarioError
from simulator.predict import Predictor, predictor
from simulator.scenario import Scenario, resolve
from simulator.steady import COLUMNS, max_concurrency, predict_steady, steady, steady_at_rate, steady_grid

CASES = [
    Scenario("llama-3.1-8b", "H100", engine="vllm"),
    Scenario("llama-3.1-8b", "H100", engine="sglang"),
    Scenario("llama-3.1-70b", "H100", engine="tensorrt-llm", tp=4),
    Scenario("mixtral-8x7b", "H100", engine="vllm", tp=2, ep=2),
    Scenario("llama-3.1-8b", "A100", engine="vllm", dp=2),
    Scenario("llama-3.1-70b", "A100", engine="vllm", pp=4),
    Scenario("llama-3.1-8b", "rtx-4090", engine="llama.cpp", weight_dtype="int4"),
    Scenario("llama-3.1-8b", "H100", engine="vllm", techniques=("sarathi",)),
]


@pytest.fixture(
    params=CASES, ids=lambda case: f"{case.model} {case.hardware} {case.engine} {case.tp}.{case.pp}.{case.dp}"
)
def deployment(request: pytest.FixtureRequest) -> Predictor:
    return predictor(request.param)


@pytest.mark.parametrize("concurrency", [1, 3, 32, 300, 5000])
@pytest.mark.parametrize("lengths", [(1, 64), (200, 1), (1000, 300), (9000, 40)])
def test_littles_law(deployment: Predictor, concurrency: int, lengths: tuple[int, int]) -> None:
    state = steady(deployment, concurrency=concurrency, input_tokens=lengths[0], output_tokens=lengths[1])
    assert state.requests_per_s * state.e2el_s == pytest.approx(concurrency, rel=1e-9)
    assert state.ttft_s + state.tpot_s * (lengths[1] - 1) == pytest.approx(state.e2el_s, rel=1e-9)
    assert state.output_tokens_per_s == pytest.approx(state.requests_per_s * lengths[1])
    assert state.power_w == pytest.approx(state.energy_j_per_output_token * state.output_tokens_per_s)
    assert 0.0 <= state.prefill_share <= 1.0
    assert min(state.ttft_s, state.step_s) > 0.0


def test_one_request_is_a_static_batch_of_one(deployment: Predictor) -> None:
    if deployment.schedule.chunk_tokens or deployment.resolved.parallelism.dp > 1:
        pytest.skip("the static batch is divided in another way")
    resolved = deployment.resolved
    if resolved.engine.host_request_s:
        deployment = Predictor(replace(resolved, engine=replace(resolved.engine, host_request_s=0.0)))
    state = steady(deployment, concurrency=1, input_tokens=700, output_tokens=120)
    alone = deployment.predict(1, 700, 120)
    for name in ("ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "power_w", "energy_j_per_output_token"):
        assert getattr(state, name) == pytest.approx(getattr(alone, name), rel=1e-9), name


def test_without_prompts_it_is_the_decode_step() -> None:
    found = predictor(CASES[0])
    state = steady(found, concurrency=16, input_tokens=1, output_tokens=4000)
    assert state.tpot_s == pytest.approx(found.predict(16, 1, 4000).tpot_s, rel=0.01)
    assert state.prefill_share < 0.01


def test_rates_rise_and_answers_slow_with_concurrency(deployment: Predictor) -> None:
    most = max_concurrency(deployment, 800, 200)
    states = [
        steady(deployment, concurrency=c, input_tokens=800, output_tokens=200)
        for c in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        if c <= most
    ]
    rates = [state.requests_per_s for state in states]
    assert rates == sorted(rates)
    assert [state.e2el_s for state in states] == sorted(state.e2el_s for state in states)


def test_longer_prompts_never_speed_up(deployment: Predictor) -> None:
    rates = [
        steady(deployment, concurrency=24, input_tokens=tokens, output_tokens=100).requests_per_s
        for tokens in (10, 100, 1000, 4000, 8000, 16000)
    ]
    assert rates == sorted(rates, reverse=True)


def test_saturated_by_prompts() -> None:
    """Every step is full of prompt tokens: completions are those that the steps' tokens allow."""
    found = predictor(CASES[0])
    few = steady(found, concurrency=150, input_tokens=16000, output_tokens=20)
    more = steady(found, concurrency=299, input_tokens=16000, output_tokens=20)
    assert few.requests_per_s == pytest.approx(more.requests_per_s, rel=1e-9)
    budget = found.resolved.engine.max_batched_tokens
    assert few.requests_per_s * (16000 + 19) == pytest.approx(budget / few.prompt_step_s, rel=1e-9)


def test_mixing_spreads_the_wait() -> None:
    """With the same kernels and host, decodes that wait for whole prompts get their first token sooner and others later."""
    found = resolve(CASES[0].with_(batch=1, input_tokens=1, output_tokens=1))
    apart = Predictor(replace(found, engine=replace(found.engine, mixes_prefill=False)))
    beside = Predictor(found)
    asked = {"concurrency": 32, "input_tokens": 1024, "output_tokens": 256}
    assert steady(apart, **asked).ttft_s < steady(beside, **asked).ttft_s
    assert steady(beside, **asked).requests_per_s > steady(apart, **asked).requests_per_s


def test_room_for_so_many_and_no_more(deployment: Predictor) -> None:
    most = max_concurrency(deployment, 3000, 1000)
    assert most > 1
    assert steady(deployment, concurrency=most, input_tokens=3000, output_tokens=1000).fits
    beyond = steady(deployment, concurrency=most + 50, input_tokens=3000, output_tokens=1000)
    at_most = steady(deployment, concurrency=most, input_tokens=3000, output_tokens=1000)
    assert not beyond.fits
    assert beyond.requests_per_s == pytest.approx(at_most.requests_per_s)
    assert beyond.ttft_s - at_most.ttft_s == pytest.approx(50 / beyond.requests_per_s)


def test_grid_agrees_with_points(deployment: Predictor) -> None:
    flights, prompts, outputs = (values.ravel() for values in np.meshgrid([1, 7, 64, 900], [1, 500, 12000], [1, 150]))
    columns = steady_grid(deployment, concurrency=flights, input_tokens=prompts, output_tokens=outputs)
    assert set(columns) == set(COLUMNS)
    for place, (c, i, o) in enumerate(zip(flights, prompts, outputs, strict=True)):
        state = steady(deployment, concurrency=int(c), input_tokens=int(i), output_tokens=int(o))
        for name in COLUMNS:
            assert columns[name][place] == pytest.approx(getattr(state, name), rel=1e-9, abs=1e-15), (name, c, i, o)


def test_rate_and_concurrency_are_two_views(deployment: Predictor) -> None:
    closed = steady(deployment, concurrency=20, input_tokens=600, output_tokens=200)
    opened = steady_at_rate(deployment, requests_per_s=closed.requests_per_s, input_tokens=600, output_tokens=200)
    assert opened is not None
    assert opened.running == pytest.approx(20, rel=1e-6)
    assert opened.requests_per_s * opened.e2el_s == pytest.approx(opened.concurrency)
    assert opened.ttft_s > closed.ttft_s
    assert opened.power_w == pytest.approx(closed.power_w, rel=1e-6)


def test_rates_beyond_what_can_be_served() -> None:
    found = predictor(CASES[0])
    assert steady_at_rate(found, requests_per_s=1e4, input_tokens=600, output_tokens=200) is None
    idle = steady_at_rate(found, requests_per_s=1e-3, input_tokens=600, output_tokens=200)
    assert idle is not None
    alone = found.predict(1, 600, 200)
    assert idle.e2el_s == pytest.approx(alone.e2el_s, rel=0.01)
    assert idle.power_w < 0.5 * alone.power_w


@pytest.mark.parametrize(
    "asked",
    [
        {"concurrency": 0, "input_tokens": 10, "output_tokens": 10},
        {"concurrency": 4, "input_tokens": 0, "output_tokens": 10},
        {"concurrency": 4, "input_tokens": 10**7, "output_tokens": 10},
    ],
)
def test_bad_points_are_refused(asked: dict[str, int]) -> None:
    with pytest.raises(ScenarioError):
        steady(predictor(CASES[0]), **asked)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_rates_are_refused(rate: float) -> None:
    with pytest.raises(ScenarioError, match="requests_per_s"):
        steady_at_rate(predictor(CASES[0]), requests_per_s=rate, input_tokens=10, output_tokens=10)


def test_bad_grids_are_refused() -> None:
    with pytest.raises(ScenarioError, match="at least 1"):
        steady_grid(
            predictor(CASES[0]), concurrency=np.array([0]), input_tokens=np.array(10), output_tokens=np.array(10)
        )


def test_benchmarks_begin_at_once() -> None:
    """The same requests per second; the first tokens wait for one another, and answers that wait less are shorter."""
    for scenario in CASES[:2]:
        found = predictor(scenario)
        asked = {"concurrency": 64, "input_tokens": 1024, "output_tokens": 256}
        spread = steady(found, **asked)
        ten, many = steady(found, **asked, waves=10), steady(found, **asked, waves=10**6)
        assert ten.requests_per_s == pytest.approx(spread.requests_per_s, rel=0.1)
        assert ten.ttft_s > 2.0 * spread.ttft_s
        assert ten.ttft_s >= many.ttft_s
        assert ten.tpot_s < spread.tpot_s
        assert ten.ttft_s + 255 * ten.tpot_s == pytest.approx(ten.e2el_s)


def test_prompts_that_are_waited_for_stay_together() -> None:
    """Without mixing, a wave is a static batch: half its prefill is the mean wait."""
    found = predictor(CASES[1])
    wave = steady(found, concurrency=64, input_tokens=1024, output_tokens=256, waves=10)
    batch = found.predict(64, 1024, 256)
    assert wave.e2el_s == pytest.approx(batch.e2el_s, rel=1e-9)
    assert wave.ttft_s == pytest.approx(batch.ttft_s * (1 + 8 / 64) / 2, rel=1e-9)


@pytest.mark.parametrize("case", CASES[:2], ids=["mixing", "waiting"])
def test_waves_of_random_lengths_part(case: Scenario) -> None:
    """TTFT falls from that of prompts that stay together towards that of evenly spread ones, and is Little's with TPOT."""
    found = predictor(case)
    asked = {"concurrency": 64, "input_tokens": 1024, "output_tokens": 512}
    even, alike = steady(found, **asked), steady(found, **asked, waves=10)
    little, some, much = (steady(found, **asked, waves=10, spread=spread) for spread in (0.001, 0.2, 1.0))
    assert even.ttft_s < much.ttft_s <= some.ttft_s <= little.ttft_s
    assert some.ttft_s < alike.ttft_s
    assert steady(found, **asked, waves=10**6, spread=1.0).ttft_s < much.ttft_s
    assert some.ttft_s + 511 * some.tpot_s == pytest.approx(some.e2el_s)


def test_a_server_hands_its_inputs_to_each_device_of_every_stage_in_turn() -> None:
    asked = {"concurrency": 64, "input_tokens": 100, "output_tokens": 400}

    def later(**degrees: int) -> float:
        found = resolve(CASES[2].with_(batch=1, input_tokens=1, output_tokens=1, **degrees))
        slow = Predictor(replace(found, engine=replace(found.engine, stream_step_s=1e-3)))
        return steady(slow, **asked).decode_step_s - steady(Predictor(found), **asked).decode_step_s

    assert later(tp=4) == pytest.approx(4e-3)
    assert later(tp=4, pp=2) == pytest.approx(8e-3)


def test_streaming_to_clients_takes_host_time() -> None:
    found = resolve(CASES[0].with_(batch=1, input_tokens=1, output_tokens=1))
    streams = Predictor(replace(found, engine=replace(found.engine, stream_per_sequence_s=1e-4)))
    asked = {"concurrency": 50, "input_tokens": 100, "output_tokens": 400}
    before, after = steady(Predictor(found), **asked), steady(streams, **asked)
    assert after.decode_step_s - before.decode_step_s == pytest.approx(50 * 1e-4)
    assert streams.predict(50, 100, 400).tpot_s == Predictor(found).predict(50, 100, 400).tpot_s


def test_under_the_keys_of_a_prediction() -> None:
    found = predictor(CASES[0])
    asked = {"concurrency": 32, "input_tokens": 900, "output_tokens": 200}
    state, prediction = steady(found, **asked), predict_steady(found, **asked)
    for name in ("ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "power_w", "energy_j_per_output_token", "fits"):
        assert getattr(prediction, name) == getattr(state, name)
    assert set(prediction.to_dict()) == set(found.predict(32, 900, 200).to_dict())
    assert prediction.kv_bytes < found.predict(32, 900, 200).kv_bytes
    assert sum(prediction.energy_by_component_j.values()) == pytest.approx(prediction.energy_j, rel=0.02)
    low, high = prediction.interval["tpot_s"]
    assert low < prediction.tpot_s * 1.5
    assert high > prediction.tpot_s


def test_images_are_seen_by_their_tower_alone() -> None:
    """A tower's attention is over the patches of an image: a vision-language prompt takes tenths of a second, not hours."""
    asked = Scenario("llava-hf/llava-1.5-7b-hf", "A100", input_tokens=100, output_tokens=10, images=1)
    real = predictor(asked.with_(engine="vllm")).predict(1, 100, 10)
    ideal = predictor(asked.with_(engine="ideal")).predict(1, 100, 10)
    assert ideal.ttft_s < real.ttft_s < 5.0 * ideal.ttft_s
