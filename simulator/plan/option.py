"""What may be rented: an instance of some hardware with its engine and techniques, its price and the limits on it.

From the options of a plan file to a flat list, one per combination and load, with prices looked up.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator import catalog
from simulator.cost.efficiency import load_engine
from simulator.cost.price import hourly_price
from simulator.errors import Problem, SimulatorError, SpecError, UnknownNameError, shorten
from simulator.mapping.machine import load_machine
from simulator.spec.loader import load as load_file
from simulator.spec.loader import place
from simulator.spec.plan import OptionSpec, PlanSpec, Purchase
from simulator.spec.price import PriceTable

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Option:
    """One kind of deployment for one load; its instances are alike."""

    name: str
    load: str
    hardware: str
    usd_per_hour: float
    """Of an instance."""
    price: str = "given"
    """Where that is from."""
    usd_per_kwh: float = 0.0
    """Paid for electricity on top."""
    table: str = ""
    """Its name in tables of throughput."""
    tp: int = 1
    engine: str | None = None
    techniques: tuple[str, ...] = ()
    role: str = "whole"
    purchase: Purchase = "on_demand"
    region: str | None = None
    pue: float = 1.0
    carbon_g_per_kwh: float | None = None
    power_w: float | None = None
    idle_w: float | None = None
    available: float = 1.0
    """Share of the time that an instance serves: below 1 where spot instances are taken away."""
    min_replicas: int = 0
    keep: int = 0
    max_replicas: int | None = None
    current: int = 0

    @property
    def devices(self) -> int:
        """Of an instance."""
        return self.tp


def expanded(spec: PlanSpec, path: Path, *, tables: bool) -> tuple[list[Option], list[str]]:
    """Every option of a plan file, and notes on what was assumed. Raises SpecError with all problems at their lines.

    With `tables` of throughput, hardware need not be known.
    """
    prices = _price_table(spec.prices, path)
    loads = [load.name for load in spec.loads]
    found: list[Option] = []
    notes: list[str] = []
    problems: list[Problem] = []
    for position, given in enumerate(spec.options):

        def problem(message: str, *keys: str, position: int = position) -> None:
            line, column = place(path, "options", position, *keys)
            problems.append(Problem(shorten(path), line, column, ".".join(["options", str(position), *keys]), message))

        if not tables:
            for key, message in _unknown(given):
                problem(message, key)
        for name in given.loads or ():
            if name not in loads:
                problem(f"no load '{name}'; loads are {', '.join(loads)}", "loads")
        for option in _combinations(given, loads):
            try:
                found.append(_priced(option, given, prices, spec, notes, tables=tables))
            except UnknownNameError as error:
                problem(str(error), "hardware")
                break
            except SimulatorError as error:
                problem(str(error), "hardware")
    if problems:
        raise SpecError(sorted(set(problems), key=lambda one: (one.line, one.column)))
    return _named(found), list(dict.fromkeys(notes))


def _unknown(given: OptionSpec) -> list[tuple[str, str]]:
    """Keys and messages of engines and techniques that there are none of."""
    found = []
    for name in _listed(given.engine):
        try:
            load_engine(name or "ideal")
        except UnknownNameError as error:
            found.append(("engine", str(error)))
    for variant in given.techniques:
        for name in _techniques(variant):
            try:
                catalog.find("technique", name.partition(":")[0])
            except UnknownNameError as error:
                found.append(("techniques", str(error)))
    return found


def _techniques(variant: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in variant.split("+") if name.strip() not in ("", "none"))


def _combinations(given: OptionSpec, loads: Sequence[str]) -> list[Option]:
    found = []
    for hardware, tp, engine, variant, purchase, region, load in itertools.product(
        _listed(given.hardware), _listed(given.tp), _listed(given.engine), given.techniques,
        _listed(given.purchase), _listed(given.region), given.loads or loads,
    ):  # fmt: skip
        found.append(
            Option(
                "",
                load,
                hardware,
                0.0,
                table=given.table or hardware,
                tp=tp,
                engine=engine,
                techniques=_techniques(variant),
                role=given.role,
                purchase=purchase,
                region=region,
                power_w=given.power,
                idle_w=given.idle_power,
                min_replicas=given.min_replicas,
                keep=given.keep,
                max_replicas=given.max_replicas,
                current=given.current,
            )
        )
    return found


def _priced(
    option: Option, given: OptionSpec, prices: PriceTable, spec: PlanSpec, notes: list[str], *, tables: bool
) -> Option:
    """The option with its price and what its region says."""
    if option.tp < 1:
        raise SimulatorError(f"tp must be at least 1, not {option.tp}")
    try:
        device = load_machine(option.hardware).name
    except UnknownNameError:
        if not tables:
            raise
        device = option.hardware
    known = device != option.hardware or not tables or _is_known(option.hardware)
    if given.price is not None:
        per_hour, source, kwh = given.price * HOUR_S, "given", 0.0
    else:
        per_hour, source, kwh = _listed_price(device, option, given.provider, prices, notes, known=known)
    region = spec.regions.get(option.region or "")
    available = 1.0
    if option.purchase == "spot" and given.interruptions_per_hour:
        available = 1.0 / (1.0 + given.interruptions_per_hour * spec.spot.recovery / HOUR_S)
    if region is not None and region.electricity is not None:
        kwh = region.electricity * 1000.0 * HOUR_S
    return replace(
        option, hardware=device, usd_per_hour=per_hour * option.tp, price=source, usd_per_kwh=kwh,
        pue=region.pue if region else 1.0, carbon_g_per_kwh=region.carbon_g_per_kwh if region else None,
        available=available,
    )  # fmt: skip


def _is_known(name: str) -> bool:
    try:
        catalog.find("hardware", name)
    except UnknownNameError:
        return False
    return True


def _listed_price(
    device: str, option: Option, provider: str | None, prices: PriceTable, notes: list[str], *, known: bool
) -> tuple[float, str, float]:
    """USD per device and hour, its source, and USD per kWh on top."""
    rows = [row for row in prices.prices if row.device == device]
    if provider is not None:
        rows = [row for row in rows if catalog.normal(row.provider) == catalog.normal(provider)]
    if option.region is not None:
        rows = [row for row in rows if row.region == option.region] or [row for row in rows if row.region is None]
    offers = [(value.value, row) for row in rows if (value := getattr(row, option.purchase)) is not None]
    if offers:
        per_s, row = min(offers, key=lambda offer: offer[0])
        words = f"{row.provider} {option.purchase.replace('_', ' ')}, {prices.date.isoformat()}"
        return per_s * HOUR_S, words, 0.0
    own = hourly_price(load_machine(device)) if known and provider is None and option.purchase == "on_demand" else None
    if own is not None:
        notes.append(f"{device}: the table '{prices.name}' lists no price for it; {own.source} taken in its place")
        return own.usd_per_hour, own.source, own.usd_per_kwh
    where = "".join(
        f" {word} {value}" for word, value in (("from", provider), ("in", option.region)) if value is not None
    )
    raise SimulatorError(
        f"the table '{prices.name}' lists no {option.purchase.replace('_', ' ')} price of {device}{where}; "
        f"add `price: 1.23 USD/h` to the option, or name another table under `prices`"
    )


def _price_table(name: str, path: Path) -> PriceTable:
    try:
        return load_file(catalog.find("price", name), PriceTable)
    except UnknownNameError as error:
        line, column = place(path, "prices")
        raise SpecError([Problem(shorten(path), line, column, "prices", str(error))]) from None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _named(options: list[Option]) -> list[Option]:
    """Names made of what tells the options apart. Raises SpecError where two are the same."""

    def differ(column: str) -> bool:
        return len({getattr(option, column) for option in options}) > 1

    shown = {column: differ(column) for column in ("engine", "purchase", "region", "role", "load")}
    found = []
    for option in options:
        words = [option.hardware + (f" x{option.tp}" if option.tp > 1 else "")]
        words += [option.engine] if shown["engine"] and option.engine else []
        words += option.techniques
        words += [option.purchase.replace("_", " ")] if shown["purchase"] else []
        words += [option.region] if shown["region"] and option.region else []
        words += [option.role] if shown["role"] and option.role != "whole" else []
        words += [f"for {option.load}"] if shown["load"] else []
        found.append(replace(option, name=", ".join(words)))
    names = [option.name for option in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            [Problem("options", 0, 0, "", f"{', '.join(twice)}: stands there twice; join or tell them apart")]
        )
    return found
