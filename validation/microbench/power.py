"""What the device draws while it works: NVML, nvidia-smi or RAPL, whichever can be read; nothing where none can.

A meter reads watts or joules; a steady kernel is run in a loop while it is read. Knows nothing of what the kernel does.
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from validation.microbench.system import Gpu

RAPL = Path("/sys/class/powercap")


class Meter(Protocol):
    """Something that tells what a device draws."""

    name: str

    def joules(self) -> float | None:
        """Energy since some moment, where it counts energy."""

    def watts(self) -> float | None:
        """Power now, where it tells power."""

    def limit_w(self) -> float | None:
        """The limit that the device keeps to."""


@dataclass(frozen=True, slots=True)
class Power:
    """What was read."""

    meter: str
    idle_w: float | None
    limit_w: float | None


class Nvml:
    """One GPU through pynvml."""

    name = "NVML"

    def __init__(self, nvml: Any, gpu: Gpu) -> None:
        self.nvml = nvml
        nvml.nvmlInit()
        by_uuid, by_index = nvml.nvmlDeviceGetHandleByUUID, nvml.nvmlDeviceGetHandleByIndex
        self.handle = by_uuid(gpu.uuid) if gpu.uuid else by_index(gpu.index)

    def joules(self) -> float | None:
        """Energy since the driver was loaded, where the GPU counts it."""
        try:
            return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * 1e-3
        except self.nvml.NVMLError:
            return None

    def watts(self) -> float | None:
        """Board power."""
        try:
            return float(self.nvml.nvmlDeviceGetPowerUsage(self.handle)) * 1e-3
        except self.nvml.NVMLError:
            return None

    def limit_w(self) -> float | None:
        """Enforced power limit."""
        try:
            return float(self.nvml.nvmlDeviceGetEnforcedPowerLimit(self.handle)) * 1e-3
        except self.nvml.NVMLError:
            return None


class Smi:
    """One GPU through nvidia-smi: slower, and averaged by the driver."""

    name = "nvidia-smi"

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def joules(self) -> float | None:
        """It counts no energy."""
        return None

    def watts(self) -> float | None:
        """Board power."""
        return self._query("power.draw")

    def limit_w(self) -> float | None:
        """Power limit."""
        return self._query("power.limit")

    def _query(self, field: str) -> float | None:
        command = ["nvidia-smi", f"--id={self.gpu.driver_id}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
            return float(text.strip().splitlines()[0])
        except (OSError, ValueError, IndexError, subprocess.SubprocessError):
            return None


class Rapl:
    """All packages of a processor through the energy counters of the kernel's powercap."""

    name = "RAPL"

    def __init__(self, root: Path = RAPL) -> None:
        self.zones = [zone for zone in sorted(root.glob("*-rapl:*")) if zone.name.count(":") == 1]
        self._last: dict[Path, float] = {}
        self._wrapped: dict[Path, float] = {}

    def joules(self) -> float | None:
        """Energy of all packages since some moment, over wraps of the counters; None where they may not be read."""
        total = 0.0
        for zone in self.zones:
            value = _number(zone / "energy_uj")
            if value is None:
                return None
            if value < self._last.get(zone, 0.0):
                self._wrapped[zone] = self._wrapped.get(zone, 0.0) + (_number(zone / "max_energy_range_uj") or 0.0)
            self._last[zone] = value
            total += value + self._wrapped.get(zone, 0.0)
        return total * 1e-6 if self.zones else None

    def watts(self) -> float | None:
        """It tells no power."""
        return None

    def limit_w(self) -> float | None:
        """Long-term limits of all packages."""
        limits = [_number(zone / "constraint_0_power_limit_uw") for zone in self.zones]
        return sum(limit for limit in limits if limit) * 1e-6 or None


def gpu_meter(gpu: Gpu) -> Meter | None:
    """The best meter of a GPU."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        meter: Meter = Nvml(nvml, gpu)
        if meter.watts() is not None:
            return meter
    except Exception:  # pynvml raises errors of its own where there is no driver
        pass
    smi = Smi(gpu)
    return smi if smi.watts() is not None else None


def processor_meter(root: Path = RAPL) -> Meter | None:
    """The processor's energy counters, where this process may read them."""
    meter = Rapl(root)
    return meter if meter.joules() is not None else None


def mean_watts(meter: Meter, run: Callable[[], object], seconds: float) -> float | None:
    """Mean power while `run` is called again and again; the first quarter of the time is left out."""
    start = time.monotonic()
    while time.monotonic() - start < 0.25 * seconds:
        run()
    first, begin = meter.joules(), time.monotonic()
    readings: list[float] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.02):
            value = meter.watts()
            if value is not None:
                readings.append(value)

    reader = threading.Thread(target=read, daemon=True)
    if first is None:
        reader.start()
    while time.monotonic() - start < seconds:
        run()
    last, end = meter.joules(), time.monotonic()
    over.set()
    if first is not None and last is not None and end > begin:
        return (last - first) / (end - begin)
    reader.join()
    return statistics.median(readings) if readings else None


def at_rest(meter: Meter, seconds: float = 0.5) -> Power:
    """Idle power and limit."""
    return Power(meter.name, mean_watts(meter, lambda: time.sleep(0.02), seconds), meter.limit_w())


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None
