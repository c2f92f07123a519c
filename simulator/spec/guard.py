"""What a guard file may hold: scenarios, the limits that their predictions have to keep, and how far they may move.

Knows the form and the units of limits; nothing is predicted here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from simulator.errors import UnitError, close_matches
from simulator.spec.loader import Spec
from simulator.units import CAPACITY, MONEY, NUMBER, POWER, TIME, Dimension, parse

ENERGY: Dimension = (0, 0, 0, 1, 0)
DIMENSIONS: dict[str, Dimension] = {
    **dict.fromkeys(("ttft_s", "tpot_s", "e2el_s"), TIME),
    **dict.fromkeys(("output_tokens_per_s", "total_tokens_per_s"), NUMBER),
    **dict.fromkeys(("weight_bytes", "kv_bytes", "activation_bytes", "memory_bytes", "capacity_bytes"), CAPACITY),
    **dict.fromkeys(("prefill_energy_j", "energy_j_per_output_token"), ENERGY),
    "power_w": POWER,
    "usd_per_million_output_tokens": MONEY,
}
"""Quantities that a limit can be set on, and what their unit measures."""
WORDS = ("fits", "bound")
"""Quantities that are compared for being equal."""
WATCHED = (
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "memory_bytes", "energy_j_per_output_token",
    "usd_per_million_output_tokens", "fits",
)  # fmt: skip
"""What is stored of a scenario, unless `watch` says otherwise."""
_LIMIT = re.compile(r"(<=|>=|at most|at least)\s*(\S.*)")
_SIDES = {"<=": "<=", ">=": ">=", "at most": "<=", "at least": ">="}
_EXAMPLE = {TIME: "<= 20 ms", CAPACITY: "<= 40 GB", POWER: "<= 400 W", ENERGY: "<= 0.5 J", MONEY: "<= 0.40 USD"}


def _share(value: Any) -> Any:
    """`2%` as 0.02."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100.0
        except ValueError:
            return value
    return value


Share = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_share)]
"""A fraction, as 0.02 or 2%."""


def limit(key: str, text: str | float) -> tuple[str, float]:
    """The side and the value, in SI units, of a limit on a quantity. Raises ValueError that says what is wanted.

    A number without a unit is in the unit that ends the quantity's name.

    >>> limit("tpot_s", "<= 20 ms"), limit("output_tokens_per_s", "at least 1500"), limit("memory_bytes", "<= 80 GB")
    (('<=', 0.02), ('>=', 1500.0), ('<=', 80000000000.0))
    """
    dimension = DIMENSIONS[key]
    example = _EXAMPLE.get(dimension, "at least 1000")
    found = _LIMIT.fullmatch(str(text).strip())
    if found is None:
        raise ValueError(f"'{text}' is no limit; write {example}")
    try:
        value, measured = parse(found[2])
    except UnitError as error:
        raise ValueError(f"{error}; write {example}") from None
    if measured not in (dimension, NUMBER):
        raise ValueError(f"'{text}' does not measure {key}; write {example}")
    return _SIDES[found[1]], value


class Fields(Spec):
    """The fields of a scenario, all of them optional: what a scenario leaves open is taken from `defaults`."""

    model: str | None = None
    """Name, or a path relative to this file."""
    hardware: str | None = None
    """Name, or a path relative to this file."""
    batch: int | None = Field(None, ge=1)
    input_tokens: int | None = Field(None, ge=1)
    output_tokens: int | None = Field(None, ge=1)
    engine: str | None = None
    devices: int | None = Field(None, ge=1)
    tp: int | None = Field(None, ge=1)
    pp: int | None = Field(None, ge=1)
    ep: int | None = Field(None, ge=1)
    dp: int | None = Field(None, ge=1)
    weight_dtype: str | None = None
    kv_dtype: str | None = None
    activation_dtype: str | None = None
    techniques: list[str] | None = None
    images: int | None = Field(None, ge=0)
    max_context: int | None = Field(None, ge=1)
    place: dict[str, str] | None = None
    """Role -> the memory that it is pinned to, as `{kv: flash}`."""
    power_cap_w: float | None = Field(None, gt=0)


class Guarded(Fields):
    """One scenario with what is expected of it."""

    name: str = Field(min_length=1)
    expect: dict[str, bool | str | float] = Field(default_factory=dict)
    """Quantity -> limit, as `tpot_s: <= 20 ms` or `at least 1500`; `fits: true`; `bound: memory hbm`."""
    sure: bool = False
    """The limits hold for the whole 90% interval, and not only for the prediction."""
    tolerance: Share | None = None
    """Replaces the file's; 0 allows no move."""
    stored: bool = True
    """false: nothing is stored of this scenario."""

    @model_validator(mode="after")
    def _limits(self) -> Guarded:
        for key, wanted in self.expect.items():
            if key not in DIMENSIONS and key not in WORDS:
                known = [*DIMENSIONS, *WORDS]
                near = close_matches(key, known)
                raise ValueError(f"'{key}' cannot be expected" + (f"; did you mean '{near[0]}'?" if near else
                                 f"; known are {', '.join(known)}"))  # fmt: skip
            if key == "fits" and not isinstance(wanted, bool):
                raise ValueError("fits is true or false")
            if key in DIMENSIONS:
                if isinstance(wanted, bool):
                    raise ValueError(f"{key} takes a limit, such as {_EXAMPLE.get(DIMENSIONS[key], 'at least 1000')}")
                limit(key, wanted)
        return self


class GuardSpec(Spec):
    """A guard file, `ridgeline.yaml` or `NAME.ridgeline.yaml`."""

    name: str | None = None
    """For people."""
    defaults: Fields = Field(default_factory=Fields)
    """Of every scenario that does not say otherwise."""
    tolerance: Share | None = None
    """How far a stored prediction may move; None: nothing is stored."""
    watch: list[str] = Field(default_factory=lambda: list(WATCHED))
    """The quantities that are stored."""
    scenarios: list[Guarded] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> GuardSpec:
        for key in self.watch:
            if key not in DIMENSIONS and key != "fits":
                near = close_matches(key, DIMENSIONS)
                raise ValueError(f"'{key}' cannot be watched" + (f"; did you mean '{near[0]}'?" if near else ""))
        names = [scenario.name for scenario in self.scenarios]
        for scenario in self.scenarios:
            if names.count(scenario.name) > 1:
                raise ValueError(f"two scenarios are named '{scenario.name}'")
            for field in ("model", "hardware"):
                if getattr(scenario, field) is None and getattr(self.defaults, field) is None:
                    raise ValueError(f"scenario '{scenario.name}' has no {field}, nor have the defaults")
        return self
