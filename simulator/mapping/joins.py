"""The memories of one rank's parts, and the links between them and to further ranks: rates per rank along the fewest links.

Knows the parts that a machine is put together from; nothing of units or models.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.spec.hardware import DeviceSpec, Geometry, Link, Role, Timing


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """A memory of one rank."""

    name: str
    part: str
    kind: str
    capacity_bytes: float
    bytes_per_s: float
    joules_per_byte: float | None
    holds: frozenset[str]
    technology: str
    of_main: bool
    geometry: Geometry | None = None
    """Of one device of the part; `parts` of them serve one rank."""
    timing: Timing | None = None
    parts: float = 1.0
    write_bytes_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Interconnect:
    """How ranks reach one another."""

    name: str
    bytes_per_s: float
    """Per direction and rank."""
    latency_s: float
    joules_per_byte: float
    topology: str
    max_devices: float
    half_bandwidth_bytes: float = 0.0
    reduces: bool = False
    """The switch adds what ranks send."""


@dataclass(frozen=True, slots=True)
class Join:
    """A link between two parts of one rank."""

    parts: tuple[str, str]
    bytes_per_s: float
    """Per rank, from the second part to the first."""
    back_bytes_per_s: float
    """From the first to the second."""

    def rate(self, source: str, target: str) -> float:
        """Bytes/s from one part to the other."""
        return self.bytes_per_s if (target, source) == self.parts else self.back_bytes_per_s


@dataclass(frozen=True, slots=True)
class Placed:
    """A device as part of a machine: `per_rank` of it for each main device."""

    name: str
    spec: DeviceSpec
    per_rank: float
    computes: bool
    holds: dict[str, list[Role]] = field(default_factory=dict)


def path(
    part: Placed, memory: MemoryLevel, parts: Sequence[Placed], links: Sequence[Link], devices: int, working: int
) -> tuple[float, float, float]:
    """Bandwidth per rank from a memory to a part and back, and link energy per byte, over the fewest links."""
    if memory.part == part.name:
        return memory.bytes_per_s, memory.write_bytes_per_s, 0.0
    if memory.kind in ("cache", "scratchpad"):
        return 0.0, 0.0, 0.0
    joins = joins_of(parts, links, devices, working)
    queue = deque([(part.name, float("inf"), float("inf"), 0.0)])
    visited = {part.name}
    while queue:
        here, bandwidth, back, energy = queue.popleft()
        if here == memory.part:
            return min(bandwidth, memory.bytes_per_s), min(back, memory.write_bytes_per_s), energy
        for join, link in joins:
            if here in join.parts:
                there = join.parts[0] if join.parts[1] == here else join.parts[1]
                if there not in visited:
                    visited.add(there)
                    spent = energy + (float(link.energy) if link.energy else 0.0)
                    queue.append(
                        (there, min(bandwidth, join.rate(there, here)), min(back, join.rate(here, there)), spent)
                    )
    return 0.0, 0.0, 0.0


def sharers(together: float, devices: int, working: int) -> int:
    """Of `devices`, `together` of which lie behind each link, the most at work behind one link: they are spread over all.

    >>> [sharers(2, 8, working) for working in (1, 4, 5, 8)]
    [1, 1, 2, 2]
    """
    return max(1, math.ceil(working / max(1.0, devices / together)))


def joins_of(parts: Sequence[Placed], links: Sequence[Link], devices: int, working: int) -> list[tuple[Join, Link]]:
    """The links between parts, per rank: those that do not end at a main device are shared by all of them."""
    found = []
    for link in links:
        if link.between:
            shared = link.topology == "bus" or parts[0].name not in link.between
            divided = devices if shared else sharers(link.shared_by.value if link.shared_by else 1.0, devices, working)
            width, back = link.bandwidth.value / divided, (link.bandwidth_back or link.bandwidth).value / divided
            found.append((Join((link.between[0], link.between[1]), width, back), link))
    return found


def interconnects(main: Sequence[Link], system: Sequence[Link], devices: int) -> tuple[Interconnect, ...]:
    """How ranks reach one another, fastest first: the system's links, or the main device's own."""
    own = [link for link in system if link.to in ("peer", "network")]
    ways = own or [link for link in main if link.to in ("peer", "network")]
    if not own:
        ways += [link for link in main if link.to == "host"]
    found = [
        Interconnect(
            link.name,
            link.bandwidth.value,
            float(link.latency) if link.latency else 5e-6,
            float(link.energy) if link.energy else 0.0,
            link.topology,
            float(link.max_devices) if link.max_devices else (8.0 if link.to != "network" else 65536.0),
            float(link.half_bandwidth) if link.half_bandwidth else 0.0,
            link.reduces,
        )
        for link in ways
    ]
    return tuple(sorted(found, key=lambda link: -link.bytes_per_s))
