"""Waits against queueing theory."""

from __future__ import annotations

import math

import pytest

from simulator.plan.queueing import deviations, wait_at, waits


def erlang_c(servers: int, load: float) -> float:
    """Chance to wait in M/M/c."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("cv2", [0.0, 1.0, 4.0])
def test_one_server_is_pollaczek_and_khinchine(rho: float, cv2: float) -> None:
    _, wait = waits(1.0, rho, 0.5 * (1.0 + cv2))
    assert float(wait) == pytest.approx(rho / (1.0 - rho) * (1.0 + cv2) / 2.0)


@pytest.mark.parametrize("servers", [2, 8, 32])
@pytest.mark.parametrize("rho", [0.8, 0.9, 0.98])
def test_many_servers_are_near_erlang(servers: int, rho: float) -> None:
    _, wait = waits(float(servers), rho, 1.0)
    exact = erlang_c(servers, rho * servers) / (servers * (1.0 - rho))
    assert float(wait) == pytest.approx(exact, rel=0.15, abs=0.01)


@pytest.mark.parametrize("percentile", [90.0, 99.0])
def test_percentile_of_one_server(percentile: float) -> None:
    rho = 0.7
    exact = math.log(rho / (1.0 - percentile / 100.0)) / (1.0 - rho)
    assert float(wait_at(1.0, rho, 1.0, percentile)) == pytest.approx(exact)


def test_waits_rise_with_use_and_fall_with_servers() -> None:
    assert float(wait_at(8.0, 0.5, 1.0, 99.0)) <= float(wait_at(8.0, 0.9, 1.0, 99.0))
    assert float(wait_at(64.0, 0.9, 1.0, None)) < float(wait_at(8.0, 0.9, 1.0, None))
    assert float(wait_at(8.0, 0.0, 1.0, 99.0)) == 0.0
    assert deviations(50.0) == pytest.approx(0.0)
