"""What the host adds to the wait for a first token."""

from dataclasses import replace

import pytest

from simulator.predict import Predictor, predictor
from simulator.scenario import Scenario, resolve
from simulator.steady import steady

ASKED = {"input_tokens": 1024, "output_tokens": 512}


def with_host(scenario: Scenario, **fields: float) -> Predictor:
    found = resolve(scenario)
    return Predictor(replace(found, engine=replace(found.engine, **fields)))


def test_a_request_waits_for_the_front_end_and_then_takes_as_long() -> None:
    case = Scenario("llama-3.1-8b", "H100", engine="vllm", input_tokens=1, output_tokens=1)
    near, far = (with_host(case, host_request_s=seconds) for seconds in (0.0, 0.02))
    before, after = (steady(found, concurrency=8, **ASKED) for found in (near, far))
    assert after.ttft_s - before.ttft_s == pytest.approx(0.02, rel=1e-9)
    assert after.e2el_s - before.e2el_s == pytest.approx(0.02, rel=1e-9)
    assert after.tpot_s == pytest.approx(before.tpot_s, rel=1e-9)


def test_a_step_formed_ahead_is_waited_for_unless_nothing_runs() -> None:
    case = Scenario("llama-3.1-8b", "H100", engine="vllm", input_tokens=1, output_tokens=1)
    late, early = (with_host(case, host_request_s=0.0, forms_ahead=ahead) for ahead in (True, False))
    assert steady(late, concurrency=1, **ASKED) == steady(early, concurrency=1, **ASKED)
    waits, starts = (steady(found, concurrency=16, **ASKED) for found in (late, early))
    assert waits.ttft_s - starts.ttft_s == pytest.approx(starts.step_s, rel=1e-9)


def test_requests_that_queue_for_full_steps_do_not_wait_for_the_front_end_too() -> None:
    case = Scenario("llama-3.1-8b", "H100", engine="vllm", input_tokens=1, output_tokens=1)
    near, far = (with_host(case, host_request_s=seconds) for seconds in (0.0, 0.02))
    full = {"concurrency": 200, "input_tokens": 16000, "output_tokens": 20}
    assert steady(far, **full).requests_per_s == pytest.approx(steady(near, **full).requests_per_s, rel=1e-9)


def test_routed_experts_are_issued_layer_by_layer_where_no_graph_is_replayed() -> None:
    case = Scenario("qwen3-235b-a22b", "H100", engine="tensorrt-llm", tp=8, input_tokens=1, output_tokens=1)
    layers = predictor(case).resolved.model.graph.layers
    slow, quick = (with_host(case, host_routed_s=seconds) for seconds in (3e-3, 0.0))
    alone, sooner = (found.predict(1, 64, 32) for found in (slow, quick))
    assert alone.ttft_s >= layers * 3e-3 > sooner.ttft_s
    assert alone.tpot_s == sooner.tpot_s
    many, same = (found.predict(64, 4096, 32) for found in (slow, quick))  # the device takes longer than the host
    assert many.ttft_s == pytest.approx(same.ttft_s, rel=1e-9)
