"""One rank of a machine: the units that compute, the memories they read, the links between ranks.

Flattens a device or a system of devices into plain arrays for the cost model. A part that several main devices share
(the host of a server) is divided among them. Knows nothing of models or efficiencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from simulator import catalog
from simulator.errors import Problem, SpecError, shorten
from simulator.mapping.joins import Interconnect, Join, MemoryLevel, Placed, interconnects, joins_of, path
from simulator.spec.hardware import ComputeUnit, DeviceSpec, Link, Memory, Role, Sourced, SystemSpec
from simulator.spec.loader import Spec, load, read_mapping

__all__ = ["Interconnect", "Join", "Machine", "MemoryLevel", "Unit", "load_machine"]

_RUNS: dict[str, tuple[str, ...]] = {
    "matrix": ("gemm", "gemv", "attention"),
    "vector": ("gemm", "gemv", "attention", "scan", "elementwise", "gather"),
    "scalar": ("gemm", "gemv", "attention", "scan", "elementwise", "gather"),
}
CLOCK_FLOOR = 0.5
"""Share of the full clock below which the voltage falls no further, where no file says."""
_MAIN_HOLDS: tuple[Role, ...] = ("weight", "kv", "state", "activation", "index", "gradient", "optimizer")


@dataclass(frozen=True, slots=True)
class Unit:
    """A compute unit of one rank."""

    name: str
    part: str
    kind: str
    peak_flop_per_s: dict[str, float]
    count: float
    """Independent cores."""
    tile: tuple[int, int]
    runs: frozenset[str]
    near: int | None
    """Index of the memory it sits next to."""
    near_inside: bool
    """Sits inside that memory: reads it at an internal bandwidth of its own."""
    read_bytes_per_s: tuple[float, ...]
    """Bandwidth from each memory of the machine; 0 where there is no path."""
    read_joules_per_byte: tuple[float, ...]
    """Energy of a byte from each memory, with the links on the way."""
    reuse_rows: float
    """Activation rows served by one fetch of a weight."""
    joules_per_flop: dict[str, float]
    launch_s: float
    host_launch_s: float
    multicast: float = 1.0
    clock_hz: float = 0.0
    """0 where no file says."""
    write_bytes_per_s: tuple[float, ...] = ()
    """Bandwidth to each memory of the machine, where links are not as fast in both directions; empty: as read."""
    device: str = ""
    """Of the part that it belongs to: name, architecture and class, which its calibration goes by."""
    architecture: str = ""
    device_class: str = ""

    def writes(self, memory: int) -> float:
        """Bytes/s to a memory."""
        return (self.write_bytes_per_s or self.read_bytes_per_s)[memory]


@dataclass(frozen=True, slots=True)
class Machine:
    """One rank, and what joins ranks."""

    name: str
    title: str
    device_class: str
    """Class of the main device."""
    architecture: str
    device: str
    """Name of the main device's file: what calibrations go by."""
    units: tuple[Unit, ...]
    memories: tuple[MemoryLevel, ...]
    links: tuple[Interconnect, ...]
    """To its like, fastest first; the last may be a network without a limit on devices."""
    devices: int
    """Main devices of the system; 1 for a single device, of which any number may be joined."""
    is_system: bool
    tdp_w: float
    idle_w: float
    static_w: float
    waiting_w: float
    """Clocks up, no kernel running."""
    clock_floor: float
    """Share of the full clock below which the voltage falls no further."""
    purchase_usd: float | None
    hourly_usd: float | None
    """Per rank, where the file states it."""
    engine: str | None = None
    """Engine that the system file asks for."""
    assumed: tuple[str, ...] = field(default=())
    """Places of numbers whose source is `assumed`."""
    joins: tuple[Join, ...] = ()
    """Between the parts of a system."""
    shares_links: bool = False
    """Some of those serve several main devices: with fewer at work each has more (`load_machine`)."""

    def interconnect(self, ranks: int) -> Interconnect | None:
        """The fastest link that joins so many ranks; None if there is none."""
        for link in self.links:
            if ranks <= link.max_devices:
                return link
        return self.links[-1] if self.links else None


def load_machine(name: str, working: int | None = None) -> Machine:
    """The machine that a name, an alias or the path of a file stands for, with so many main devices at work (None: all).

    >>> load_machine("A100").memories[-1].name
    'hbm'
    """
    file = catalog.find("hardware", name)
    return _load(file, file.stat().st_mtime_ns if file.exists() else 0, working)


@lru_cache(maxsize=256)
def _load(path: Path, stamp: int, working: int | None) -> Machine:
    if read_mapping(path).get("class") != "system":
        spec = load(path, DeviceSpec)
        return _assemble(spec, [Placed("", spec, 1.0, True)], spec.links, [], 1, 1, is_system=False)
    system = load(path, SystemSpec)
    placed = []
    main_count = next(part.count.value for part in system.parts if part.name == system.main)
    for position, part in enumerate(system.parts):
        try:
            device_path = catalog.find("hardware", part.device)
        except Exception as error:
            raise SpecError([Problem(shorten(path), 0, 0, f"parts.{position}.device", str(error))]) from None
        placed.append(
            Placed(part.name, load(device_path, DeviceSpec), part.count.value / main_count, part.computes, part.holds)
        )
    placed.sort(key=lambda part: part.name != system.main)
    devices = int(main_count)
    return _assemble(
        system, placed, placed[0].spec.links, system.links, devices, min(devices, working or devices), is_system=True
    )


def _assemble(
    spec: DeviceSpec | SystemSpec,
    parts: Sequence[Placed],
    main_links: Sequence[Link],
    system_links: Sequence[Link],
    devices: int,
    working: int,
    *,
    is_system: bool,
) -> Machine:
    memories: list[MemoryLevel] = []
    for position, part in enumerate(parts):
        memories += [_memory(memory, part, position == 0) for memory in part.spec.memory]
    names = [(memory.part, memory.name) for memory in memories]
    units: list[Unit] = []
    for part in parts:
        if part.computes:
            paths = [path(part, memory, parts, system_links, devices, working) for memory in memories]
            units += [_unit(unit, part, memories, names, paths) for unit in part.spec.compute]
    main = parts[0].spec
    power = spec.power if spec.power and spec.power.tdp else None
    share = 1.0 / devices
    tdp = float(power.tdp) * share if power and power.tdp else _summed(parts, "tdp")
    idle = float(power.idle) * share if power and power.idle else _summed(parts, "idle")
    static = float(power.static) * share if power and power.static else _summed(parts, "static")
    if tdp and is_system:
        tdp = min(tdp, static + _switching(parts))
    static = min(static, 0.9 * tdp) if tdp else static
    waited = _summed(parts, "static") - _summed(parts, "waiting")
    waiting = float(power.waiting) * share if power and power.waiting else static - waited
    floor = next((owner.power.clock_floor for owner in (spec, main) if owner.power and owner.power.clock_floor), None)
    price = spec.price
    return Machine(
        name=spec.name,
        title=spec.title,
        device_class=main.class_,
        architecture=main.architecture or "",
        device=main.name,
        units=tuple(units),
        memories=tuple(memories),
        links=interconnects(main_links, system_links, devices),
        devices=devices,
        is_system=is_system,
        tdp_w=tdp,
        idle_w=min(idle, tdp) if tdp else idle,
        static_w=static,
        waiting_w=min(waiting, static),
        clock_floor=float(floor) if floor else CLOCK_FLOOR,
        purchase_usd=float(price.purchase) * share if price and price.purchase else _purchase(parts),
        hourly_usd=float(price.hourly) * share if price and price.hourly else None,
        engine=spec.engine if isinstance(spec, SystemSpec) else None,
        assumed=_assumed(spec, parts),
        joins=tuple(join for join, _ in joins_of(parts, system_links, devices, working)),
        shares_links=any(link.shared_by for link in system_links),
    )


def _memory(memory: Memory, part: Placed, of_main: bool) -> MemoryLevel:
    stated = part.holds.get(memory.name, memory.holds)
    usual = _MAIN_HOLDS if memory.kind == "main" else ()
    return MemoryLevel(
        name=memory.name,
        part=part.name,
        kind=memory.kind,
        capacity_bytes=memory.capacity.value * part.per_rank,
        bytes_per_s=memory.bandwidth.value * part.per_rank,
        joules_per_byte=memory.energy.value if memory.energy else None,
        holds=frozenset(usual if stated is None else stated),
        technology=memory.technology or memory.kind,
        of_main=of_main,
        geometry=memory.geometry,
        timing=memory.timing,
        parts=part.per_rank,
        write_bytes_per_s=(memory.write_bandwidth or memory.bandwidth).value * part.per_rank,
    )


def _unit(
    unit: ComputeUnit,
    part: Placed,
    memories: Sequence[MemoryLevel],
    names: Sequence[tuple[str, str]],
    paths: Sequence[tuple[float, float, float]],
) -> Unit:
    near = unit.near or next((memory.name for memory in part.spec.memory if memory.kind == "main"), None)
    bandwidths, back, energies = [], [], []
    for memory, (bandwidth, written, energy) in zip(memories, paths, strict=True):
        if memory.part == part.name and memory.name == unit.near and unit.near_bandwidth is not None:
            bandwidth = written = unit.near_bandwidth.value * part.per_rank
        stored = memory.joules_per_byte or 0.0
        if memory.part == part.name and memory.name == unit.near and unit.near_energy is not None:
            stored = unit.near_energy.value
        bandwidths.append(bandwidth)
        back.append(min(written, memory.write_bytes_per_s) if memory.part != part.name else written)
        energies.append(energy + stored)
    overhead = part.spec.overhead
    launch = float(unit.launch or (overhead.launch if overhead else None) or 0.0)
    tile = unit.tile or ([128, 128])
    return Unit(
        name=f"{part.name}.{unit.name}" if part.name else unit.name,
        part=part.name,
        kind=unit.kind,
        peak_flop_per_s={dtype: peak.value * part.per_rank for dtype, peak in unit.peak.items()},
        count=max(1.0, (unit.count.value if unit.count else 1.0) * part.per_rank),
        tile=(tile[0], tile[1]),
        runs=frozenset(unit.runs or _RUNS[unit.kind]),
        near=names.index((part.name, near)) if near is not None else None,
        near_inside=unit.near_bandwidth is not None,
        read_bytes_per_s=tuple(bandwidths),
        read_joules_per_byte=tuple(energies),
        reuse_rows=unit.reuse.value if unit.reuse else 0.0,
        joules_per_flop={dtype: energy.value for dtype, energy in unit.energy.items()},
        launch_s=launch,
        host_launch_s=float(overhead.host_launch) if overhead and overhead.host_launch else launch,
        multicast=unit.multicast.value if unit.multicast else 1.0,
        clock_hz=unit.clock.value if unit.clock else 0.0,
        write_bytes_per_s=tuple(back),
        device=part.spec.name,
        architecture=part.spec.architecture or "",
        device_class=part.spec.class_,
    )


def _summed(parts: Sequence[Placed], field_name: str) -> float:
    total = 0.0
    for part in parts:
        power = part.spec.power
        value = getattr(power, field_name) if power else None
        if value is None and power is not None and field_name == "waiting":
            value = power.static
        if value is None and power is not None and field_name in ("static", "waiting"):
            value = power.idle
        if value is None:
            continue
        drawn = float(value)
        if not part.computes and field_name == "tdp" and power and power.idle:
            drawn = float(power.idle)
        total += drawn * part.per_rank
    return total


def _switching(parts: Sequence[Placed]) -> float:
    """What computing parts may draw above their static power; without limit if any of them states none."""
    room = 0.0
    for part in parts:
        power = part.spec.power
        if part.computes and part.spec.compute:
            if power is None or power.tdp is None:
                return float("inf")
            room += (float(power.tdp) - float(power.static or power.idle or 0.0)) * part.per_rank
    return room


def _purchase(parts: Sequence[Placed]) -> float | None:
    prices = [
        (part.spec.price.purchase, part.per_rank) for part in parts if part.spec.price and part.spec.price.purchase
    ]
    return sum(float(price) * count for price, count in prices) if prices else None


def _assumed(spec: DeviceSpec | SystemSpec, parts: Sequence[Placed]) -> tuple[str, ...]:
    found: list[str] = []
    for owner in {id(spec): spec, **{id(part.spec): part.spec for part in parts}}.values():
        keys = {key for key, source in owner.sources.items() if source.kind == "assumed"}
        for field_name in type(owner).model_fields:
            _collect(getattr(owner, field_name), f"{owner.name}: {field_name}", keys, found)
    return tuple(found)


def _collect(value: object, place: str, keys: set[str], found: list[str]) -> None:
    if isinstance(value, Sourced):
        if value.source in keys:
            found.append(place)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _collect(inner, f"{place}.{key}", keys, found)
    elif isinstance(value, list):
        for inner in value:
            label = getattr(inner, "name", None)
            _collect(inner, f"{place}.{label}" if label else place, keys, found)
    elif isinstance(value, Spec):
        for key in type(value).model_fields:
            if key not in ("name", "sources"):
                _collect(getattr(value, key), f"{place}.{key}", keys, found)
