"""What a price table may hold: dated hourly prices of devices, per provider."""

from __future__ import annotations

import datetime

from pydantic import Field

from simulator.spec.hardware import Source
from simulator.spec.loader import Spec
from simulator.spec.quantity import MoneyPerTime


class HourlyPrice(Spec):
    """One device at one provider. Prices are per device, not per instance."""

    device: str
    """Name of a device or system file."""
    provider: str
    region: str | None = None
    on_demand: MoneyPerTime
    reserved: MoneyPerTime | None = None
    """Per hour with a one-year commitment."""
    spot: MoneyPerTime | None = None


class PriceTable(Spec):
    """A dated table of hourly prices."""

    name: str
    title: str
    date: datetime.date
    """The day the prices were read."""
    sources: dict[str, Source]
    default_source: str | None = None
    electricity_usd_per_kwh: float = Field(0.12, gt=0)
    """For devices that nobody rents out: electricity on top of the purchase price written off over `lifetime_years`."""
    lifetime_years: float = Field(4.0, gt=0)
    prices: list[HourlyPrice]
