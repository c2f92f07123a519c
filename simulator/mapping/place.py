"""Where weights, cache and activations lie: a share of each role in each memory, within capacity.

A role fills its preferred memory first and spills into the next that may hold it, where the engine spills at all.
Knows capacities and roles; which preference is fastest is decided by whoever times the placements.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.errors import UnsupportedError
from simulator.mapping.machine import Machine
from simulator.mapping.parts import Part


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one rank that have to lie somewhere."""

    weight: float
    cache: float
    activation: float
    parts: tuple[tuple[float, float], ...] = ()
    """Of the weights and of the cache, what belongs to parts that rules place."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.weight + self.cache + self.activation


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares of the weights, the cache and the activations in each memory; each row sums to 1.

    For every part of the network that a rule places, four rows more: what its ops read where, and what copying costs
    them (seconds per byte of weights and of cache, joules per byte of both).
    """

    shares: tuple[tuple[float, ...], ...]
    overflow_bytes: float
    """What found no room; counted as if it lay in the preferred memory."""
    capacity_bytes: float
    """Usable for these roles, together."""
    elsewhere_bytes: float = 0.0
    """What rules moved out of the memory of the activations."""

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


MOST_WORKSPACE = 0.1
"""Of a small memory: an engine's workspace is sized for a large one."""


class Placer:
    """Places tensors on one machine under one policy; what depends on neither batch nor length is worked out once."""

    __slots__ = (
        "_activation", "_cache_order", "_free", "_weight_order", "capacity_bytes", "home", "parts", "preferences",
    )  # fmt: skip

    def __init__(self, machine: Machine, policy: Policy, parts: tuple[Part, ...] = ()) -> None:
        self.parts = parts
        self._weight_order = holders(machine, "weight", policy)
        self._cache_order = holders(machine, "kv", policy)
        activation = holders(machine, "activation", policy)
        for role, found in (
            ("weights", self._weight_order),
            ("a cache", self._cache_order),
            ("activations", activation),
        ):
            if not found:
                raise UnsupportedError(
                    f"{machine.name}, which has no memory that may hold {role}, by itself",
                    ["a system that has this device as a part (`ridgeline list hardware`)"],
                )
        self.home = activation[0]
        self._free = [_usable_bytes(machine, position, policy, self.home) for position in range(len(machine.memories))]
        used = {self.home, *self._weight_order, *self._cache_order, *(part.memory for part in parts)}
        self.capacity_bytes = sum(self._free[position] for position in used)
        self._activation = _all_in(self.home, len(self._free))
        self.preferences = [(weight, cache) for weight in self._weight_order for cache in self._cache_order]
        """Pairs of a preferred memory for the weights and one for the cache, the natural pair first."""

    def room(self, position: int) -> float:
        """Bytes that tensors may take of one memory."""
        return self._free[position]

    def all_at_home(self) -> Placement:
        """Everything in the memory that activations lie in."""
        return Placement((self._activation, self._activation, self._activation), 0.0, self.capacity_bytes)

    def place(self, need: Need, preference: tuple[int, int]) -> Placement:
        """Fill memories in order of preference: activations first, then weights, then cache."""
        weight, cache = preference
        home = self.home
        room = self._free[home]
        if self.parts:
            return self._place_parts(need, preference)
        if weight == cache == home and need.weight + need.cache + need.activation <= room:
            return self.all_at_home()
        free = list(self._free)
        short = max(0.0, need.activation - room)
        free[home] = max(0.0, room - need.activation)
        weights, short_weight = _fill(need.weight, weight, self._weight_order, free)
        caches, short_cache = _fill(need.cache, cache, self._cache_order, free)
        return Placement((weights, caches, self._activation), short + short_weight + short_cache, self.capacity_bytes)

    def _place_parts(self, need: Need, preference: tuple[int, int]) -> Placement:
        """The shares that rules ask for first, then the rest as always."""
        free = list(self._free)
        short = max(0.0, need.activation - free[self.home])
        free[self.home] = max(0.0, free[self.home] - need.activation)
        own = [need.weight, need.cache]
        elsewhere = 0.0
        rows: list[tuple[float, ...]] = []
        for part, held in zip(self.parts, need.parts, strict=True):
            size = sum(held)
            away = size * (1.0 - part.rule.resident)
            for position, wanted in ((part.memory, away), (self.home, size - away)):
                taken = min(wanted, free[position])
                free[position] -= taken
                short += wanted - taken
            elsewhere += away
            own = [own[0] - held[0], own[1] - held[1]]
            rows += self._rows_of(part)
        weights, short_weight = _fill(max(0.0, own[0]), preference[0], self._weight_order, free)
        caches, short_cache = _fill(max(0.0, own[1]), preference[1], self._cache_order, free)
        shares = (weights, caches, self._activation, *rows)
        return Placement(shares, short + short_weight + short_cache, self.capacity_bytes, elsewhere)

    def _rows_of(self, part: Part) -> list[tuple[float, ...]]:
        """Where the ops of a part read, and what copying costs them."""
        if part.rule.copied:
            second, joule = part.seconds_per_byte, part.joules_per_byte
            of_weight = part.rule.role == "weight"
            cost = (second, 0.0, joule, 0.0) if of_weight else (0.0, second, 0.0, joule)
            return [self._activation, self._activation, self._activation, cost]
        away = tuple(
            part.rule.missed if position == part.memory else 1.0 - part.rule.missed if position == self.home else 0.0
            for position in range(len(self._free))
        )
        return [away, away, self._activation, (0.0, 0.0, 0.0, 0.0)]


def holders(machine: Machine, role: str, policy: Policy) -> list[int]:
    """Memories that may hold a role and that some unit can read, the main part's first; only the first without spilling."""
    reachable = [
        position
        for position, memory in enumerate(machine.memories)
        if role in memory.holds and any(unit.read_bytes_per_s[position] > 0 for unit in machine.units)
    ]
    ordered = sorted(reachable, key=lambda position: not machine.memories[position].of_main)
    return ordered if policy.spills else ordered[:1]


def place(machine: Machine, need: Need, policy: Policy, preference: tuple[int, int]) -> Placement:
    """One placement; use a `Placer` for many."""
    return Placer(machine, policy).place(need, preference)


def preferences(machine: Machine, policy: Policy) -> list[tuple[int, int]]:
    """The pairs of preferred memories that a machine offers; see `Placer.preferences`."""
    return Placer(machine, policy).preferences


def _usable_bytes(machine: Machine, position: int, policy: Policy, home: int) -> float:
    """What tensors may take of one memory."""
    capacity = machine.memories[position].capacity_bytes
    if position == home:
        return capacity * policy.memory_fraction - min(policy.workspace_bytes, MOST_WORKSPACE * capacity)
    return capacity * max(policy.memory_fraction, 0.95)


def _fill(size: float, first: int, order: list[int], free: list[float]) -> tuple[tuple[float, ...], float]:
    """Shares of `size` bytes over the memories, and the bytes that found no room; takes from `free`."""
    if size <= 0.0:
        return _all_in(first, len(free)), 0.0
    row = [0.0] * len(free)
    left = size
    for position in [first, *(other for other in order if other != first)]:
        taken = min(left, free[position])
        free[position] -= taken
        row[position] += taken
        left -= taken
    row[first] += left
    if sum(part > 0.0 for part in row) == 1:
        return _all_in(
            first if row[first] > 0.0 else next(p for p, part in enumerate(row) if part > 0.0), len(free)
        ), left
    return tuple(part / size for part in row), left


def _all_in(position: int, count: int) -> tuple[float, ...]:
    return tuple(1.0 if other == position else 0.0 for other in range(count))
