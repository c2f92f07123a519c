"""Where weights, cache and activations lie: a share of each role in each memory, within capacity.

A role fills its preferred memory first and spills into the next that may hold it, where the engine spills at all.
Knows capacities and roles; which preference is fastest is decided by whoever times the placements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simulator.mapping.machine import Machine


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one rank that have to lie somewhere."""

    weight: float
    cache: float
    activation: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weight + self.cache + self.activation


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares of the weights, the cache and the activations in each memory; each row sums to 1."""

    shares: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    overflow_bytes: float
    """What found no room; counted as if it lay in the preferred memory."""
    capacity_bytes: float
    """Usable for these roles, together."""

    @property
    def fits(self) -> bool:
        """Everything found room."""
        return self.overflow_bytes <= 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What an engine lets the placement use."""

    memory_fraction: float
    """Of the memory that the activations lie in."""
    workspace_bytes: float
    spills: bool


def holders(machine: Machine, role: str, policy: Policy) -> list[int]:
    """Memories that may hold a role and that some unit can read, the main part's first; only the first without spilling."""
    reachable = [
        position
        for position, memory in enumerate(machine.memories)
        if role in memory.holds and any(unit.read_bytes_per_s[position] > 0 for unit in machine.units)
    ]
    ordered = sorted(reachable, key=lambda position: not machine.memories[position].of_main)
    return ordered if policy.spills else ordered[:1]


def preferences(machine: Machine, policy: Policy) -> Iterator[tuple[int, int]]:
    """Pairs of a preferred memory for the weights and one for the cache, the natural pair first."""
    for weight in holders(machine, "weight", policy) or [0]:
        for cache in holders(machine, "kv", policy) or [0]:
            yield weight, cache


def usable_bytes(machine: Machine, position: int, policy: Policy, home: int) -> float:
    """What tensors may take of one memory."""
    capacity = machine.memories[position].capacity_bytes
    if position == home:
        return max(0.0, capacity * policy.memory_fraction - policy.workspace_bytes)
    return capacity * max(policy.memory_fraction, 0.95)


def home_memory(machine: Machine, policy: Policy) -> int:
    """The memory that activations lie in: the first that may hold them."""
    found = holders(machine, "activation", policy)
    return found[0] if found else 0


def place(machine: Machine, need: Need, policy: Policy, preference: tuple[int, int]) -> Placement:
    """Fill memories in order of preference: activations first, then weights, then cache."""
    home = home_memory(machine, policy)
    free = [usable_bytes(machine, position, policy, home) for position in range(len(machine.memories))]
    capacity = sum(free[position] for position in _used(machine, policy, home))
    count = len(machine.memories)
    activation = tuple(1.0 if position == home else 0.0 for position in range(count))
    short = max(0.0, need.activation - free[home])
    free[home] = max(0.0, free[home] - need.activation)
    shares = []
    for role, size, first in (("weight", need.weight, preference[0]), ("kv", need.cache, preference[1])):
        order = [first, *(position for position in holders(machine, role, policy) if position != first)]
        row = [0.0] * count
        left = size
        for position in order:
            taken = min(left, free[position])
            free[position] -= taken
            row[position] += taken
            left -= taken
        row[first] += left
        short += left
        shares.append(
            tuple(part / size for part in row) if size > 0 else tuple(1.0 if p == first else 0.0 for p in range(count))
        )
    return Placement((shares[0], shares[1], activation), short, capacity)


def _used(machine: Machine, policy: Policy, home: int) -> set[int]:
    return {home, *holders(machine, "weight", policy), *holders(machine, "kv", policy)}
