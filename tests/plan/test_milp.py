"""The program of a fleet: against brute force, its relaxation, each type alone, and what it may never do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from simulator.plan.fleet import best_fleet
from simulator.plan.milp import DECODE, PREFILL, WHOLE, Limit, Program, Settings, merged, rounded, solve
from tests.plan.programs import drawn, program

EXACT = Settings(gap=0.0)


def feasible(one: Program, instances: tuple[int, ...]) -> bool:
    """Whether so many instances carry the load, by a linear program of another library."""
    count, buckets = one.need.shape
    finite = np.isfinite(one.need)
    upper = np.zeros((count, count * buckets))
    for o in range(count):
        upper[o, o * buckets : (o + 1) * buckets] = np.where(finite[o], one.need[o], 0.0)
    room = np.array(instances) * one.available - one.spare * (np.array(instances) > 0)
    equal = np.tile(np.eye(buckets), count)
    bounds = [(0.0, 1.0 if finite[o, b] else 0.0) for o in range(count) for b in range(buckets)]
    found = linprog(np.zeros(count * buckets), upper, room, equal, np.ones(buckets), bounds)
    return bool(found.status == 0)


def brute_force(one: Program, most: int) -> float:
    """The least cost over all fleets of at most so many instances of each option."""
    best = np.inf
    for instances in itertools.product(range(most + 1), repeat=len(one.cost)):
        cost = float(one.cost @ np.array(instances))
        if cost < best and all(n == 0 or n >= r for n, r in zip(instances, one.replicas, strict=True)):
            within = all(float(limit.per_instance @ np.array(instances)) <= limit.bound for limit in one.limits)
            if within and (np.array(instances) <= one.at_most).all() and feasible(one, instances):
                best = cost
    return best


@st.composite
def small(draw: st.DrawFn) -> Program:
    options, buckets = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    number = st.floats(0.5, 8.0).map(lambda value: round(value, 2))
    price = draw(st.lists(number, min_size=options, max_size=options))
    rates = draw(st.lists(number, min_size=buckets, max_size=buckets))
    row = st.lists(st.one_of(st.just(0.0), st.floats(2.0, 20.0)), min_size=buckets, max_size=buckets)
    rows = draw(st.lists(row, min_size=options, max_size=options))
    rows[0] = [max(value, 3.0) for value in rows[0]]
    spare = draw(st.sampled_from([0.0, 0.0, 1.0]))
    replicas = draw(st.sampled_from([0.0, 2.0]))
    return program(price, rates, rows, spare=np.full(options, spare), replicas=np.full(options, replicas))


@settings(max_examples=25, deadline=None)
@given(small())
def test_equals_brute_force(one: Program) -> None:
    best = brute_force(one, 12 if len(one.cost) == 1 else 7)
    found = solve(one, EXACT)
    assert found.status == "optimal"
    if found.instances.max() <= (12 if len(one.cost) == 1 else 7):
        assert found.objective == pytest.approx(best, rel=1e-6)
    else:
        assert found.objective <= best + 1e-6
    assert feasible(one, tuple(int(n) for n in found.instances))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 8.0, 64.0]))
def test_relaxation_and_each_type_alone_enclose_the_mix(seed: int, rate: float) -> None:
    one = drawn(seed, 4, 12, rate)
    mix = solve(one, EXACT)
    relaxed = solve(one, EXACT, relaxed=True)
    assert relaxed.objective <= mix.objective * (1 + 1e-6)
    assert mix.bound <= mix.objective * (1 + 1e-9)
    for o in range(4):
        alone = solve(one.only(np.arange(4) == o), EXACT)
        assert mix.objective <= alone.objective * (1 + 1e-6)
        assert alone.instances[o] == pytest.approx(np.ceil(one.need[o].sum() - 1e-6))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(1, 4))
def test_more_stock_and_less_load_never_cost_more(seed: int, option: int, stock: int) -> None:
    one = drawn(seed, 4, 8, 20.0)
    mask = (np.arange(4) == option).astype(float)
    costs = []
    for devices in (stock, stock + 3, 1000):
        found = solve(replace(one, limits=(Limit("stock", float(devices), mask),)), EXACT)
        assert mask @ found.instances <= devices
        costs.append(found.objective)
    assert costs[0] >= costs[1] * (1 - 1e-6)
    assert costs[1] >= costs[2] * (1 - 1e-6)
    doubled = solve(replace(one, need=2.0 * one.need), EXACT)
    assert doubled.objective >= costs[2] * (1 - 1e-6)
    assert doubled.objective <= 2.0 * costs[2] * (1 + 1e-6)


def test_buckets_that_load_alike_are_joined_exactly() -> None:
    one = drawn(3, 3, 10, 30.0)
    tripled = replace(one, need=np.tile(one.need, 3) / 3.0, usage=np.tile(one.usage, 3))
    small_one, group = merged(tripled)
    assert small_one.need.shape == (3, 10)
    assert np.allclose(np.sort(small_one.need.sum(axis=1)), np.sort(one.need.sum(axis=1)))
    assert len(set(group.tolist())) == 10
    found, plain = solve(tripled, EXACT), solve(one, EXACT)
    assert found.objective == pytest.approx(plain.objective)
    assert found.share.sum(axis=0) == pytest.approx(np.ones(30))


@pytest.mark.parametrize("name", ["highs", "cbc"])
def test_both_solvers_agree_and_prove_it(name: str) -> None:
    one = drawn(5, 5, 30, 40.0)
    found = solve(one, Settings(gap=0.005, solver=name))
    assert found.status == "optimal"
    assert found.gap <= 0.005 + 1e-9
    assert found.objective == pytest.approx(solve(one, EXACT).objective, rel=0.0051)
    assert (one.need * found.share).sum(axis=1) == pytest.approx(
        np.minimum((one.need * found.share).sum(axis=1), found.instances), abs=1e-6
    )


@pytest.mark.parametrize("name", ["highs", "cbc"])
def test_time_out_is_never_called_optimal(name: str) -> None:
    one = drawn(3, 8, 100, 128.0)
    hurried = Settings(gap=0.0, time_limit_s=1e-4, solver=name)
    assert solve(one, hurried).status in ("feasible", "unsolved")
    found = best_fleet(one, hurried)
    assert found.status == "feasible"
    assert 0.0 < found.gap < 0.2
    assert found.bound < found.objective
    assert ((one.need * found.share).sum(axis=1) <= found.instances + 1e-6).all()


def test_without_highs_the_other_solver_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.plan.milp.find_spec", lambda name: None)
    assert solve(drawn(1, 2, 4, 5.0), EXACT).solver == "CBC"


def test_infeasible_is_told_from_time_out_and_its_slack_is_the_least() -> None:
    one = drawn(1, 3, 6, 50.0)
    few = replace(one, limits=(Limit("stock", 2.0, np.ones(3)),))
    assert solve(few, EXACT).status == "infeasible"
    elastic = solve(few, EXACT, elastic=True)
    fewest = min(np.ceil(solve(replace(one, cost=np.ones(3)), EXACT).objective), 1e9)
    assert elastic.slack == {"stock": pytest.approx(fewest - 2.0)}


def test_pools_serve_as_much_as_is_handed_over() -> None:
    one = program([2.0, 1.0, 1.5], [10.0, 4.0], [[3.0, 3.0], [8.0, 8.0], [5.0, 5.0]])
    pools = replace(one, role=np.array([WHOLE, PREFILL, DECODE]))
    found = solve(pools, EXACT)
    assert found.share[0] + found.share[1] == pytest.approx(np.ones(2))
    assert found.share[1] == pytest.approx(found.share[2])
    alone = solve(pools.only(np.array([True, False, False])), EXACT)
    assert found.objective < alone.objective
    assert solve(pools.only(np.array([False, True, False])), EXACT).status == "infeasible"


def test_switching_keeps_todays_fleet_until_it_pays() -> None:
    one = program([1.0, 0.9], [10.0], [[2.0], [2.0]], current=np.array([5.0, 0.0]))
    assert solve(one, EXACT).instances.tolist() == [0.0, 5.0]
    sticky = replace(one, start=0.3, stop=0.3)
    found = solve(sticky, EXACT)
    assert found.instances.tolist() == [5.0, 0.0]
    assert found.objective == pytest.approx(5.0)
    cheap = replace(one, start=0.03, stop=0.03)
    assert solve(cheap, EXACT).instances.tolist() == [0.0, 5.0]


def test_spare_instances_and_availability() -> None:
    one = program([1.0], [10.0], [[2.0]])
    assert solve(one, EXACT).instances[0] == 5
    assert solve(replace(one, spare=np.ones(1)), EXACT).instances[0] == 6
    assert solve(replace(one, available=np.full(1, 0.9)), EXACT).instances[0] == 6
    assert solve(replace(one, at_least=np.full(1, 8.0)), EXACT).instances[0] == 8
    assert rounded(one, np.ones((1, 1))).tolist() == [5.0]  # type: ignore[union-attr]
    assert rounded(replace(one, at_most=np.full(1, 4.0)), np.ones((1, 1))) is None
