"""Placement puts every byte somewhere, never more than fits, and only where a role may lie."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.mapping.machine import Machine
from simulator.mapping.place import Need, Policy, holders, place, preferences

from .machines import between, larger, machines

NEEDS = st.builds(
    Need,
    st.one_of(st.just(0.0), between(1e6, 1e12)),
    st.one_of(st.just(0.0), between(1e6, 1e12)),
    st.one_of(st.just(0.0), between(1e3, 1e9)),
)
POLICIES = st.builds(Policy, st.sampled_from([0.5, 0.9, 1.0]), st.sampled_from([0.0, 1e6, 2e9]), spills=st.booleans())


@settings(max_examples=200)
@given(machines(), NEEDS, POLICIES)
def test_bytes_are_conserved_and_capacities_kept(machine: Machine, need: Need, policy: Policy) -> None:
    for preference in preferences(machine, policy):
        placed = place(machine, need, policy, preference)
        assert placed.fits == (placed.overflow_bytes <= 0)
        for row in placed.shares:
            assert sum(row) == pytest.approx(1.0)
            assert all(0 <= part <= 1 + 1e-12 for part in row)
        held = [0.0] * len(machine.memories)
        for row, role, size in zip(
            placed.shares, ("weight", "kv", "activation"), (need.weight, need.cache, need.activation), strict=True
        ):
            for position, part in enumerate(row):
                held[position] += part * size
                assert part == 0 or role in machine.memories[position].holds
                assert part == 0 or position in holders(machine, role, policy)
        assert sum(held) == pytest.approx(need.total)
        for taken, memory in zip(held, machine.memories, strict=True):
            room = memory.capacity_bytes * (1.0 if policy.memory_fraction == 1.0 else max(policy.memory_fraction, 0.95))
            assert taken <= room * (1 + 1e-9) + placed.overflow_bytes
        if placed.fits:
            assert need.total <= placed.capacity_bytes * (1 + 1e-9)


@settings(max_examples=200)
@given(machines(), NEEDS, POLICIES, st.floats(1, 100), st.sampled_from(["main", "far"]))
def test_capacity_never_unfits(machine: Machine, need: Need, policy: Policy, factor: float, name: str) -> None:
    grown = larger(machine, factor, kinds=frozenset({"main"}), names=frozenset({name}))
    for preference in preferences(machine, policy):
        before, after = place(machine, need, policy, preference), place(grown, need, policy, preference)
        assert after.overflow_bytes <= before.overflow_bytes + 1.0
        assert after.fits or not before.fits
        assert after.capacity_bytes >= before.capacity_bytes


@given(machines(), NEEDS, st.floats(0, 1))
def test_what_does_not_spill_lies_in_one_memory(machine: Machine, need: Need, fraction: float) -> None:
    policy = Policy(fraction, 0.0, spills=False)
    for preference in preferences(machine, policy):
        for row in place(machine, need, policy, preference).shares:
            assert sorted(row)[-1] == pytest.approx(1.0, rel=1e-12)
