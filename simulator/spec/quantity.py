"""Numbers as a spec file writes them: `2039 GB/s @ds`, a value, a unit and the key of its source.

Knows how to read and check one number. The table of sources that the keys point to belongs to the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

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


class Reads:
    """Marks a field as a number of one dimension: how pydantic reads, writes and documents it."""

    def __init__(self, dimension: units.Dimension, *, zero: bool = False) -> None:
        self.dimension, self.zero = dimension, zero

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read by `_read`, written back as text with its source."""
        written = core_schema.plain_serializer_function_ser_schema(_written, return_schema=core_schema.str_schema())
        return core_schema.with_info_plain_validator_function(
            partial(_read, self.dimension, self.zero), serialization=written
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A string with an example, or a plain number."""
        example = f"{units.example(self.dimension)} @ds"
        return {"type": ["string", "number"], "description": units.describe(self.dimension), "examples": [example]}


def _written(quantity: Sourced) -> str:
    return f"{quantity.text} @{quantity.source}"


Count = Annotated[Sourced, Reads(units.NUMBER)]
Fraction = Annotated[Sourced, Reads(units.NUMBER, zero=True)]
Capacity = Annotated[Sourced, Reads(units.CAPACITY)]
Size = Annotated[Sourced, Reads(units.CAPACITY, zero=True)]
Bandwidth = Annotated[Sourced, Reads(units.BANDWIDTH)]
ComputeRate = Annotated[Sourced, Reads(units.COMPUTE_RATE)]
Time = Annotated[Sourced, Reads(units.TIME, zero=True)]
Frequency = Annotated[Sourced, Reads(units.FREQUENCY)]
Power = Annotated[Sourced, Reads(units.POWER, zero=True)]
EnergyPerByte = Annotated[Sourced, Reads(units.ENERGY_PER_BYTE, zero=True)]
EnergyPerFlop = Annotated[Sourced, Reads(units.ENERGY_PER_FLOP, zero=True)]
Money = Annotated[Sourced, Reads(units.MONEY, zero=True)]
MoneyPerTime = Annotated[Sourced, Reads(units.MONEY_PER_TIME, zero=True)]
