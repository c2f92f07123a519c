"""Numbers as a spec file writes them: `2039 GB/s @ds`, a value, a unit and the key of its source.

Knows how to read and check one number. The table of sources that the keys point to belongs to the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from simulator import units
from simulator.errors import UnitError, close_matches


@dataclass(frozen=True, slots=True)
class Sourced:
    """One number in SI units and the key of the source it was taken from."""

    value: float
    source: str
    text: str = ""

    def __float__(self) -> float:
        return self.value


_TAGGED = re.compile(r"^(?P<number>[^@]*?)\s*(?:@\s*(?P<source>[\w.-]+))?\s*$")


def _read(dimension: units.Dimension, zero: bool, raw: Any, info: ValidationInfo) -> Sourced:
    if isinstance(raw, Sourced):
        return raw
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise PydanticCustomError(
            "quantity", "a number with its unit is needed, not {kind}", {"kind": type(raw).__name__}
        )
    match = _TAGGED.match(str(raw))
    if match is None:
        raise PydanticCustomError("quantity", "'{raw}' is not of the form 'NUMBER UNIT @source'", {"raw": str(raw)})
    try:
        value = units.to_si(match["number"], dimension)
    except UnitError as error:
        raise PydanticCustomError("unit", "{message}", {"message": str(error)}) from None
    if value < 0 or (value == 0 and not zero):
        raise PydanticCustomError(
            "range", "'{raw}' must be {bound} 0", {"raw": str(raw), "bound": "at least" if zero else "greater than"}
        )
    return Sourced(value, _source(match["source"], str(raw), info), match["number"].strip())


def _source(key: str | None, raw: str, info: ValidationInfo) -> str:
    context = info.context or {}
    sources: dict[str, Any] = context.get("sources") or {}
    chosen = key or context.get("default_source")
    if not chosen:
        raise PydanticCustomError(
            "source",
            "'{raw}' has no source: add a key of `sources`, as in '{raw} @ds', or set default_source",
            {"raw": raw},
        )
    if chosen not in sources:
        near = close_matches(chosen, sources)
        hint = f"; did you mean '{near[0]}'?" if near else "; add it there"
        raise PydanticCustomError("source", "source '{key}' is not in `sources`{hint}", {"key": chosen, "hint": hint})
    return str(chosen)


def _kind(dimension: units.Dimension, *, zero: bool = False) -> Any:
    example = units._NAMES[dimension][1]
    return Annotated[
        Sourced,
        BeforeValidator(partial(_read, dimension, zero)),
        PlainSerializer(lambda quantity: f"{quantity.text} @{quantity.source}", return_type=str),
        WithJsonSchema(
            {
                "type": ["string", "number"],
                "description": f"{units.describe(dimension)}",
                "examples": [f"{example} @ds"],
            }
        ),
    ]


Count = _kind(units.NUMBER)
Fraction = _kind(units.NUMBER, zero=True)
Capacity = _kind(units.CAPACITY)
Size = _kind(units.CAPACITY, zero=True)
Bandwidth = _kind(units.BANDWIDTH)
ComputeRate = _kind(units.COMPUTE_RATE)
Time = _kind(units.TIME, zero=True)
Frequency = _kind(units.FREQUENCY)
Power = _kind(units.POWER, zero=True)
EnergyPerByte = _kind(units.ENERGY_PER_BYTE, zero=True)
EnergyPerFlop = _kind(units.ENERGY_PER_FLOP, zero=True)
Money = _kind(units.MONEY, zero=True)
MoneyPerTime = _kind(units.MONEY_PER_TIME, zero=True)
