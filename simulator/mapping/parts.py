"""Rules of placement joined with a machine: which memory a name means, and what copying a byte from it costs.

Also the machine at another operating point. Knows capacities and bandwidths, not which ops a rule is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from simulator.errors import ScenarioError, close_matches
from simulator.mapping.machine import Machine, Unit
from simulator.techniques.recipe import Operating, Rule


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the network whose weights or cache lie partly elsewhere."""

    rule: Rule
    memory: int
    """Index of the memory elsewhere."""
    seconds_per_byte: float
    """Of traffic, where it is copied; 0 where it is used in place."""
    joules_per_byte: float


def parts_of(machine: Machine, rules: Sequence[Rule]) -> tuple[Part, ...]:
    """The rules with their memories found. Raises ScenarioError naming the rule, and the memories that there are."""
    return tuple(_part(machine, rule) for rule in rules)


def memory_index(machine: Machine, name: str, role: str, origin: str) -> int:
    """The memory called `name`: its own name, that of the part that owns it, or host or disk.

    Raises ScenarioError if the machine has none, it may not hold `role`, or no unit reaches it.
    """
    found = [
        position
        for position, memory in enumerate(machine.memories)
        if name in (memory.name, memory.part, f"{memory.part}.{memory.name}", *_classes(machine, position))
        and memory.kind not in ("cache", "scratchpad")
    ]
    where = f"{origin}: " if origin else ""
    if not found:
        names = sorted({memory.name for memory in machine.memories if memory.kind not in ("cache", "scratchpad")})
        near = close_matches(name, names)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(names)}"
        raise ScenarioError(f"{where}{machine.name} has no memory '{name}'; {hint}")
    wanted = "kv" if role == "cache" else role
    holds = machine.memories[found[0]].holds
    able = [position for position in found if wanted in machine.memories[position].holds]
    if not able:
        listed = ", ".join(sorted(holds)) or "nothing"
        raise ScenarioError(f"{where}'{name}' of {machine.name} holds {listed}, not the {role}")
    if not any(unit.read_bytes_per_s[able[0]] > 0 for unit in machine.units):
        raise ScenarioError(f"{where}no unit of {machine.name} reaches '{name}'")
    return able[0]


def copy_rate(machine: Machine, memory: int) -> tuple[float, float]:
    """Bytes/s and joules per byte at which the main device's units take in what lies in a memory."""
    main = machine.units[0].part
    units = [unit for unit in machine.units if unit.part == main] or list(machine.units)
    best = max(units, key=lambda unit: unit.read_bytes_per_s[memory])
    return best.read_bytes_per_s[memory], best.read_joules_per_byte[memory]


def operating(machine: Machine, point: Operating) -> Machine:
    """The machine at another clock, where peaks go with it and the energy of an operation with its square, or with some of
    its cores only.

    A limit of the power is `simulator.scenario.capped`.
    """
    if point.units:
        machine = _pooled(machine, point)
    if point.clock == 1.0:
        return machine
    units = tuple(
        replace(
            unit,
            peak_flop_per_s={dtype: peak * point.clock for dtype, peak in unit.peak_flop_per_s.items()},
            joules_per_flop={dtype: joules * point.clock**2 for dtype, joules in unit.joules_per_flop.items()},
        )
        for unit in machine.units
    )
    return replace(machine, units=units)


def _pooled(machine: Machine, point: Operating) -> Machine:
    """The machine with one pool of threads on the chosen cores: their number times the slowest of them.

    Raises ScenarioError for names of no unit, and more cores than there are.
    """
    chosen = [unit for unit in machine.units if any(fnmatchcase(unit.name, pattern) for pattern in point.units)]
    if not chosen:
        known = ", ".join(unit.name for unit in machine.units)
        raise ScenarioError(f"no unit of {machine.name} is called {' or '.join(point.units)}; it has {known}")
    there = sum(unit.count for unit in chosen)
    wanted = there if point.cores is None else float(point.cores)
    if wanted > there:
        raise ScenarioError(
            f"{wanted:g} cores are more than the {there:g} of {machine.name} in {', '.join(point.units)}"
        )
    pool: list[Unit] = []
    for unit in chosen:
        if sum(member.count for member in pool) < wanted:
            pool.append(unit)
    formats = set.intersection(*(set(unit.peak_flop_per_s) for unit in pool))
    first = pool[0]
    drawn = wanted * point.core_bytes_per_s
    joined = replace(
        first,
        count=wanted,
        peak_flop_per_s={
            name: wanted * min(u.peak_flop_per_s[name] / u.count for u in pool) for name in sorted(formats)
        },
        joules_per_flop={
            name: first.joules_per_flop[name] for name in sorted(formats) if name in first.joules_per_flop
        },
        runs=frozenset.union(*(unit.runs for unit in pool)),
        read_bytes_per_s=tuple(min(drawn, rate) for rate in first.read_bytes_per_s),
        write_bytes_per_s=tuple(min(drawn, rate) for rate in first.write_bytes_per_s),
    )
    return replace(machine, units=(joined,))


def _part(machine: Machine, rule: Rule) -> Part:
    position = memory_index(machine, rule.memory, rule.role, rule.origin)
    if not rule.copied:
        return Part(rule, position, 0.0, 0.0)
    rate, joules = copy_rate(machine, position)
    if rate <= 0.0:
        raise ScenarioError(f"{rule.origin}: nothing can be copied from '{rule.memory}' of {machine.name}")
    seconds = 1.0 / rate
    if rule.chunk_bytes is not None:
        seconds += rule.latency_s / rule.chunk_bytes
    return Part(rule, position, seconds * rule.missed, joules * rule.missed)


def _classes(machine: Machine, position: int) -> list[str]:
    memory = machine.memories[position]
    if memory.kind == "storage":
        return ["disk"]
    return [] if memory.of_main or memory.kind != "main" else ["host"]
