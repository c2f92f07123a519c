"""Throughput within an SLO: against a simulated queue, against the steady state, and what may never happen."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest

from simulator.plan.capacity import Curves, modelled, within_slo
from simulator.plan.load import Load
from simulator.plan.option import Option
from simulator.plan.queueing import Slo
from simulator.predict import predictor
from simulator.scenario import Scenario
from simulator.steady import max_concurrency, steady

MODEL, DEVICE = "llama-3.1-8b", "h100-sxm5-80gb"


def line(fixed_s: float, each_s: float, most: int, tokens: int = 100) -> Curves:
    """A machine on which C requests at a time take `fixed + each C` seconds: throughput saturates at 1 / each."""
    flight = np.unique(np.round(np.geomspace(1, most, 30)))
    e2el = fixed_s + each_s * flight
    nothing = np.zeros(len(flight))
    return Curves(flight, e2el, nothing, e2el / (tokens - 1), nothing, 100.0 + nothing, "KV capacity")


def simulated(fixed_s: float, each_s: float, cap: int, rate: float, seed: int, requests: int) -> Any:
    """(R,) times in system of Poisson arrivals at a machine that is shared by those present, at most `cap`."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1.0 / rate, requests))
    now = done = 0.0
    running: list[tuple[float, int]] = []  # finish in progress made, and who
    waiting: list[int] = []
    finished = np.zeros(requests)
    following = 0
    while following < requests or running:
        speed = 1.0 / (fixed_s + each_s * len(running)) if running else 0.0
        end = now + (running[0][0] - done) / speed if running else np.inf
        if following < requests and arrivals[following] <= end:
            done += (arrivals[following] - now) * speed
            now = arrivals[following]
            waiting.append(following)
            following += 1
        else:
            done, now = running[0][0], end
            finished[heapq.heappop(running)[1]] = now
        while waiting and len(running) < cap:
            heapq.heappush(running, (done + 1.0, waiting.pop(0)))
    return finished - arrivals


@pytest.mark.parametrize("percentile", [None, 90.0, 99.0])
@pytest.mark.parametrize("slo_s", [2.0, 4.0])
def test_a_simulated_queue_meets_the_slo_at_the_rate(percentile: float | None, slo_s: float) -> None:
    curves = line(1.0, 0.02, 200)
    found = within_slo(
        curves, Slo(e2el_s=slo_s, percentile=percentile), service_cv2=0.0, arrival_cv=1.0, max_utilization=0.95
    )
    times = simulated(1.0, 0.02, round(found.concurrency), found.requests_per_s, 1, 40_000)[2000:]
    reached = float(times.mean() if percentile is None else np.percentile(times, percentile))
    assert reached <= slo_s * 1.02
    # and the margin is not a waste: half as much again breaks it
    times = simulated(1.0, 0.02, round(found.concurrency), 1.5 * found.requests_per_s, 1, 40_000)[2000:]
    reached = float(times.mean() if percentile is None else np.percentile(times, percentile))
    assert reached > slo_s * 0.9


def test_looser_slos_and_lower_percentiles_never_serve_less() -> None:
    curves = line(1.0, 0.02, 300)
    named = {"service_cv2": 1.0, "arrival_cv": 1.0, "max_utilization": 0.95}
    rates = [within_slo(curves, Slo(e2el_s=s, percentile=95.0), **named).requests_per_s for s in (1.2, 1.5, 2.0, 5.0)]
    assert rates == sorted(rates)
    rates = [
        within_slo(curves, Slo(e2el_s=2.0, percentile=p), **named).requests_per_s for p in (99.9, 99.0, 90.0, 60.0)
    ]
    assert rates == sorted(rates)
    burst = [
        within_slo(curves, Slo(e2el_s=2.0, percentile=95.0), **{**named, "arrival_cv": cv}).requests_per_s
        for cv in (4.0, 1.0, 0.0)
    ]
    assert burst == sorted(burst)


def test_what_limits_is_named() -> None:
    named = {"service_cv2": 0.0, "arrival_cv": 1.0, "max_utilization": 0.95}
    assert within_slo(line(1.0, 0.02, 300), Slo(tpot_s=0.03), **named).limit == "TPOT"
    assert within_slo(line(1.0, 0.02, 300), Slo(e2el_s=1.5), **named).limit == "E2EL"
    assert within_slo(line(1.0, 0.02, 20), Slo(tpot_s=1.0), **named).limit == "KV capacity"
    none = within_slo(line(1.0, 0.02, 300), Slo(tpot_s=0.005), **named)
    assert none.requests_per_s == 0.0
    assert none.limit.startswith("TPOT (at best 10.3 ms, 5 ms asked")


def load(**changes: Any) -> Load:
    parts: dict[str, Any] = {
        "name": "load",
        "input_tokens": np.array([200.0, 2000.0]),
        "output_tokens": np.array([200.0, 300.0]),
        "rate_per_s": np.array([3.0, 1.0]),
        "model": MODEL,
        "slo": Slo(ttft_s=1.0, tpot_s=0.03),
    }
    return Load(**parts | changes)


def option(**changes: Any) -> Option:
    parts: dict[str, Any] = {"name": "o", "load": "load", "hardware": DEVICE, "usd_per_hour": 2.0, "engine": "vllm"}
    return Option(**parts | changes)


def test_rate_and_power_are_those_of_the_steady_state() -> None:
    found = modelled([option()], [load(slo=Slo(tpot_s=0.02))], max_utilization=0.95)
    own = predictor(Scenario(MODEL, DEVICE, engine="vllm", tp=1))
    for b, (prompt, output) in enumerate(((200, 200), (2000, 300))):
        rate = float(found.requests_per_s[0, b])
        most = max_concurrency(own, prompt, output)
        states = [steady(own, concurrency=c, input_tokens=prompt, output_tokens=output) for c in range(1, most + 1)]
        fine = [state for state in states if state.tpot_s <= 0.02]
        assert rate <= fine[-1].requests_per_s * 1.02
        assert rate >= 0.85 * fine[-1].requests_per_s
        assert found.idle_w[0] < found.power_w[0, b] <= max(state.power_w for state in states) * 1.01


def test_prompts_of_others_cost_throughput() -> None:
    """Twice as long a prompt lowers the rate, and a TTFT bound lowers it further."""
    short, long = (
        modelled([option()], [load(input_tokens=np.array([n, n]))], max_utilization=0.95).requests_per_s[0, 0]
        for n in (1000.0, 4000.0)
    )
    assert long < short
    strict = modelled([option()], [load(slo=Slo(ttft_s=0.15, tpot_s=0.03, percentile=99.0))], max_utilization=0.95)
    assert (strict.requests_per_s <= modelled([option()], [load()], max_utilization=0.95).requests_per_s).all()


def test_pools_divide_the_work_and_pay_for_the_way() -> None:
    options = [option(role=role, name=role) for role in ("whole", "prefill", "decode")]
    loads = [load(slo=Slo(ttft_s=0.5, tpot_s=0.02))]
    fast = modelled(options, loads, max_utilization=0.95, link=(50e9, 1e-5))
    slow = modelled(options, loads, max_utilization=0.95, link=(0.2e9, 1e-5))
    whole, prefill, decode = fast.requests_per_s
    assert (prefill > whole).all()
    assert (decode > whole * 0.95).all()
    assert (slow.requests_per_s[1] < prefill).all()
    assert slow.requests_per_s[2] == pytest.approx(decode)


def test_exempt_requests_are_the_longest_and_are_served() -> None:
    tail = load(
        input_tokens=np.array([200.0, 60_000.0]), rate_per_s=np.array([99.0, 1.0]), slo=Slo(ttft_s=0.2, tpot_s=0.03)
    )
    assert tail.longest(0.01).tolist() == [False, True]
    assert tail.longest(0.0).tolist() == [False, False]
    strict = modelled([option()], [tail], max_utilization=0.95)
    assert strict.requests_per_s[0, 1] == 0.0
    assert "TTFT" in strict.limit[0, 1]
    eased = load(
        input_tokens=tail.input_tokens, rate_per_s=tail.rate_per_s, slo=Slo(ttft_s=0.2, tpot_s=0.03, exempt=0.01)
    )
    assert modelled([option()], [eased], max_utilization=0.95).requests_per_s[0, 1] > 0.0


def test_a_context_beyond_the_model_and_a_model_beyond_the_device_are_named() -> None:
    huge = modelled([option()], [load(input_tokens=np.array([200.0, 200_000.0]))], max_utilization=0.95)
    assert "context beyond" in huge.limit[0, 1]
    big = modelled([option(hardware="l4")], [load(model="llama-3.1-70b")], max_utilization=0.95)
    assert (big.requests_per_s == 0.0).all()
    assert "KV capacity" in big.limit[0, 0]
