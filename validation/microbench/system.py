"""What this machine is: processor, caches, memory, limits of the container, GPUs.

Reads /proc, /sys and cgroups below a root that tests replace. What a system does not tell is None, never a guess.
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Cache:
    """One level of data cache, as far as the usable cores reach it."""

    level: int
    bytes: float
    """Of one instance."""
    instances: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor that this process may use."""

    model: str
    vendor: str
    cores: int
    """Physical cores that this process may keep busy: by affinity and by the container's quota."""
    installed: int
    """Logical processors of the machine."""
    sockets: int
    flags: frozenset[str]
    caches: tuple[Cache, ...]
    memory_bytes: float
    """Usable by this process."""
    max_hz: float | None = None

    def cache(self, level: int) -> Cache | None:
        """The cache of that level."""
        return next((cache for cache in self.caches if cache.level == level), None)

    @property
    def last_cache_bytes(self) -> float:
        """All instances of the last level; 32 MiB where the system does not tell."""
        last = max(self.caches, key=lambda cache: cache.level, default=None)
        return last.bytes * last.instances if last else 32.0 * 1024 * 1024

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self) | {"flags": sorted(self.flags)}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver describes it."""

    index: int
    name: str
    cores: int
    """Streaming multiprocessors or compute units."""
    memory_bytes: float
    cache_bytes: float
    capability: tuple[int, int]
    clock_hz: float | None = None
    memory_clock_hz: float | None = None
    power_limit_w: float | None = None
    driver: str = ""
    uuid: str = ""
    """`GPU-...`, as the driver writes it: its tools number GPUs otherwise than torch where not all are visible."""

    @property
    def driver_id(self) -> str:
        """What nvidia-smi knows this GPU by."""
        return self.uuid or str(self.index)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def find_cpu(root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Cpu:
    """The processor under `root`, restricted to `affinity` (default: this process's own) and the cgroup's quota."""
    allowed = sorted(affinity if affinity is not None else _affinity())
    text = _read(root / "proc/cpuinfo")
    blocks = [_block(part) for part in text.split("\n\n") if part.strip()]
    processors = [block for block in blocks if "processor" in block]
    first = processors[0] if processors else {}
    mine = [block for block in processors if int(block["processor"]) in allowed]
    physical = {
        (block.get("physical id", "0"), block.get("core id", block["processor"])) for block in mine
    }  # fmt: skip
    cores = len(physical) or len(allowed) or 1
    quota = cpu_quota(root)
    if quota is not None:
        cores = max(1, min(cores, math.floor(quota + 1e-6)))
    flags = first.get("flags") or first.get("Features") or ""
    return Cpu(
        model=first.get("model name") or platform.processor() or platform.machine() or "unknown processor",
        vendor=first.get("vendor_id") or first.get("CPU implementer") or "unknown",
        cores=cores,
        installed=len(processors) or os.cpu_count() or 1,
        sockets=len({block.get("physical id", "0") for block in processors}) or 1,
        flags=frozenset(flags.split()),
        caches=_caches(root, allowed),
        memory_bytes=_memory(root),
        max_hz=_clock(root),
    )


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the cgroups above this process grant (the least of them); None without a limit."""
    found = []
    for folder in _groups(root, ""):
        parts = _read(folder / "cpu.max").split()
        if len(parts) == 2 and parts[0] != "max":
            found.append(float(parts[0]) / float(parts[1]))
    for folder in _groups(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if quota and period and float(quota) > 0:
            found.append(float(quota) / float(period))
    return min(found, default=None)


def find_gpus(torch: Any) -> tuple[Gpu, ...]:
    """The GPUs that torch can use; clocks and power limits from nvidia-smi where it is there."""
    if torch is None or not torch.cuda.is_available():
        return ()
    described = _smi()
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        uuid = f"GPU-{properties.uuid}" if getattr(properties, "uuid", None) else ""
        row = described.get(uuid or str(index), {})
        found.append(
            Gpu(
                index=index,
                name=properties.name,
                cores=int(properties.multi_processor_count),
                memory_bytes=float(properties.total_memory),
                cache_bytes=float(getattr(properties, "L2_cache_size", 0) or 0),
                capability=(int(properties.major), int(properties.minor)),
                clock_hz=_scaled(row.get("clocks.max.sm"), 1e6),
                memory_clock_hz=_scaled(row.get("clocks.max.memory"), 1e6),
                power_limit_w=_scaled(row.get("power.limit"), 1.0),
                driver=row.get("driver_version", ""),
                uuid=uuid,
            )
        )
    return tuple(found)


def busy_seconds(root: Path = Path("/")) -> float | None:
    """Processor time spent by everyone on this machine since it started; None where the system does not tell.

    What others used between two calls is the difference less this process's own.
    """
    line = _read(root / "proc/stat").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    user, nice, system, _, _, irq, soft, steal = (float(value) for value in line[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


_SMI_FIELDS = ("index", "uuid", "clocks.max.sm", "clocks.max.memory", "power.limit", "driver_version")


def _smi() -> dict[str, dict[str, str]]:
    """What nvidia-smi says of each GPU, under its number and under its UUID."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [
        dict(zip(_SMI_FIELDS, (part.strip() for part in line.split(",")), strict=False)) for line in text.split("\n")
    ]
    known = [row for row in rows if len(row) == len(_SMI_FIELDS)]
    return {row["index"]: row for row in known} | {row["uuid"]: row for row in known}


def _scaled(text: str | None, factor: float) -> float | None:
    try:
        return float(text) * factor if text else None
    except ValueError:
        return None


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _block(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _groups(root: Path, controller: str) -> list[Path]:
    """The cgroup of this process and all above it, for the unified hierarchy ("") or an old controller."""
    path = ""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, where = line.split(":", 2)
        if (names == "" and controller == "") or (controller and controller in names.split(",")):
            path = where.strip("/")
    base = root / "sys/fs/cgroup" / controller
    parts = Path(path).parts
    return [base.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _memory(root: Path) -> float:
    total = re.search(r"MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"))
    if total:
        installed = float(total[1]) * 1024
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        installed = float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    else:
        installed = 8.0 * 1024**3
    limits = [_read(folder / "memory.max").strip() for folder in _groups(root, "")]
    limits += [_read(folder / "memory.limit_in_bytes").strip() for folder in _groups(root, "memory")]
    return min([installed, *(float(limit) for limit in limits if limit.isdigit() and float(limit) > 0)])


def _caches(root: Path, allowed: list[int]) -> tuple[Cache, ...]:
    found: dict[int, dict[str, float]] = {}
    for processor in allowed:
        for index in sorted((root / f"sys/devices/system/cpu/cpu{processor}/cache").glob("index*")):
            kind, level, size = (_read(index / name).strip() for name in ("type", "level", "size"))
            if kind in ("Data", "Unified") and level.isdigit() and size:
                shared = _read(index / "shared_cpu_list").strip() or str(processor)
                found.setdefault(int(level), {})[shared] = _size(size)
    return tuple(
        Cache(level, max(instances.values()), len(instances)) for level, instances in sorted(found.items()) if instances
    )


def _size(text: str) -> float:
    scale = {"K": 1024.0, "M": 1024.0**2, "G": 1024.0**3}.get(text[-1:].upper())
    return float(text[:-1]) * scale if scale else float(text)


def _clock(root: Path) -> float | None:
    text = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").strip()
    return float(text) * 1e3 if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
