"""Every shipped device, system and price file loads, and says where its numbers come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import catalog
from simulator.cost.efficiency import find_calibration
from simulator.mapping.machine import load_machine
from simulator.spec.hardware import DeviceSpec, SystemSpec
from simulator.spec.loader import load, read_mapping
from simulator.spec.price import PriceTable

PATHS = list(catalog.files("hardware"))


def load_any(path: Path) -> DeviceSpec | SystemSpec:
    kind = SystemSpec if read_mapping(path).get("class") == "system" else DeviceSpec
    return load(path, kind)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_file_is_valid(path: Path) -> None:
    spec = load_any(path)
    assert spec.name == path.stem
    assert spec.sources
    if isinstance(spec, SystemSpec):
        for part in spec.parts:
            assert catalog.find("hardware", part.device).stem == part.device


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_numbers_are_physical(path: Path) -> None:
    spec = load_any(path)
    if spec.power and spec.power.tdp and spec.power.idle:
        assert spec.power.idle.value < spec.power.tdp.value
    if isinstance(spec, SystemSpec):
        return
    for unit in spec.compute:
        for dtype, peak in unit.peak.items():
            assert 1e5 < peak.value < 1e17, (unit.name, dtype)
        if unit.tile and unit.count and unit.clock and unit.kind == "matrix":
            per_core_cycle = max(peak.value for peak in unit.peak.values()) / unit.count.value / unit.clock.value
            assert per_core_cycle >= 1
    for memory in spec.memory:
        assert 1e3 < memory.capacity.value < 1e14, memory.name
        assert 1e6 < memory.bandwidth.value < 1e15, memory.name
        if memory.energy:
            assert memory.energy.value < 5e-9, f"{memory.name}: J/B"
    main = [memory for memory in spec.memory if memory.kind == "main"]
    caches = [memory for memory in spec.memory if memory.kind in ("cache", "scratchpad")]
    for cache in caches:
        for memory in main:
            assert cache.capacity.value < memory.capacity.value, (cache.name, memory.name)


def test_prices_name_known_devices() -> None:
    for path in catalog.files("price"):
        for row in load(path, PriceTable).prices:
            assert catalog.find("hardware", row.device).stem == row.device


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_gpu_inherits_the_parameters_of_gpus(path: Path) -> None:
    """Also where it shares its memory with a CPU, and so stands among boards and phones."""
    spec = load_any(path)
    if isinstance(spec, SystemSpec) or not spec.compute:
        return
    drives = spec.compute[0].name in ("cuda", "tensor", "gpu")
    if spec.class_ == "gpu" or (spec.class_ in ("sbc", "mobile") and drives):
        assert find_calibration(load_machine(path.stem)).name != "cpu"
