"""What an hour of a device costs: the cheapest listed rent, a file's own figure, or its purchase written off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from simulator import catalog
from simulator.mapping.machine import Machine
from simulator.spec.loader import load
from simulator.spec.price import PriceTable

_HOURS_PER_YEAR = 365 * 24


@dataclass(frozen=True, slots=True)
class HourlyCost:
    """Money per device and hour."""

    usd_per_hour: float
    usd_per_kwh: float
    """Electricity on top; 0 where the rent includes it."""
    source: str


def hourly_price(machine: Machine) -> HourlyCost | None:
    """The price of one main device of a machine; None where neither a rent nor a purchase price is known.

    A table named `cloud` sets the rent: the cheapest on-demand provider; for a system with one kind of computing device,
    that of the device. A system that no cloud rents out costs what its file says. Otherwise the purchase price is written
    off over the table's lifetime, with electricity on top.
    """
    table = _table(tuple((path, path.stat().st_mtime_ns) for path in catalog.files("price")))
    alone = machine.hourly_usd is None and len({unit.part for unit in machine.units}) == 1
    names = [machine.name, machine.device] if alone else [machine.name]
    for name in names:
        offers = [row for row in table.prices if row.device == name]
        if offers:
            cheapest = min(offers, key=lambda row: row.on_demand.value)
            source = f"{cheapest.provider} on demand, {table.date.isoformat()}"
            return HourlyCost(cheapest.on_demand.value * 3600.0, 0.0, source)
    if machine.hourly_usd is not None:
        return HourlyCost(machine.hourly_usd * 3600.0, 0.0, f"total cost of ownership stated in {machine.name}.yaml")
    if machine.purchase_usd is not None:
        per_hour = machine.purchase_usd / (table.lifetime_years * _HOURS_PER_YEAR)
        source = f"purchase over {table.lifetime_years:g} years and {table.electricity_usd_per_kwh:g} USD/kWh"
        return HourlyCost(per_hour, table.electricity_usd_per_kwh, source)
    return None


@lru_cache(maxsize=4)
def _table(paths: tuple[tuple[Path, int], ...]) -> PriceTable:
    by_name = {path.stem: path for path, _ in paths}
    return load(by_name.get("cloud", paths[0][0]), PriceTable)
