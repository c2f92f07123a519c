"""What the further parts of a system reach: the cores of a host run kernels of their own, not those of the device they help.

Knows which calibration each part goes by; the efficiencies themselves are `simulator.cost.efficiency`.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.cost.efficiency import Engine, efficiency, find_calibration
from simulator.cost.reached import Efficiency
from simulator.mapping.machine import Machine, Unit
from simulator.spec.calibration import Calibration

MOST = 2
"""Calibrations beside the main device's that the arithmetic has room for; a further one shares the last."""


def calibrations(machine: Machine, calibration: Calibration) -> tuple[Calibration, ...]:
    """The calibration of the main device and those of parts that go by others, in the order of the units.

    >>> from simulator.mapping.machine import load_machine
    >>> machine = load_machine("server-a100")
    >>> [found.name for found in calibrations(machine, find_calibration(machine))]
    ['ampere', 'cpu']
    """
    found = [calibration]
    for unit in _others(machine):
        own = find_calibration(unit)
        if len(found) <= MOST and own.name not in [known.name for known in found]:
            found.append(own)
    return tuple(found)


def position(unit: Unit, machine: Machine, known: tuple[Calibration, ...]) -> int:
    """Which of `calibrations` a unit goes by."""
    if not _other(unit, machine):
        return 0
    names = [calibration.name for calibration in known]
    name = find_calibration(unit).name
    return names.index(name) if name in names else len(names) - 1


def efficiencies(
    machine: Machine, engine: Engine, known: tuple[Calibration, ...], main: Efficiency
) -> tuple[Efficiency, ...]:
    """Of the further parts, `MOST` in all: where there are fewer, the main device's stand in."""
    found = []
    for place, calibration in enumerate(known[1:], start=1):
        units = tuple(unit for unit in machine.units if position(unit, machine, known) == place)
        found.append(efficiency(replace(machine, units=units), engine, calibration))
    return (*found, *[main] * (MOST - len(found)))


def _others(machine: Machine) -> list[Unit]:
    return [unit for unit in machine.units if _other(unit, machine)]


def _other(unit: Unit, machine: Machine) -> bool:
    return bool(unit.device) and unit.device != machine.device
