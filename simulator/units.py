"""Numbers with units, read from text into SI and printed back.

The only place where 1e12 and 2**30 are written. Inside the program every quantity is a float in SI units and its
name ends in the unit. GB is 1e9 bytes and GiB is 2**30; 1 MAC is 2 FLOPs; an integer operation counts as a FLOP.
"""

from __future__ import annotations

import re
from functools import lru_cache

from simulator.errors import UnitError

# Exponents of (byte, flop, second, joule, dollar).
Dimension = tuple[int, int, int, int, int]

NUMBER: Dimension = (0, 0, 0, 0, 0)
CAPACITY: Dimension = (1, 0, 0, 0, 0)
BANDWIDTH: Dimension = (1, 0, -1, 0, 0)
COMPUTE_RATE: Dimension = (0, 1, -1, 0, 0)
TIME: Dimension = (0, 0, 1, 0, 0)
FREQUENCY: Dimension = (0, 0, -1, 0, 0)
POWER: Dimension = (0, 0, -1, 1, 0)
ENERGY_PER_BYTE: Dimension = (-1, 0, 0, 1, 0)
ENERGY_PER_FLOP: Dimension = (0, -1, 0, 1, 0)
MONEY: Dimension = (0, 0, 0, 0, 1)
MONEY_PER_TIME: Dimension = (0, 0, -1, 0, 1)
MONEY_PER_ENERGY: Dimension = (0, 0, 0, -1, 1)

_NAMES: dict[Dimension, tuple[str, str]] = {
    NUMBER: ("a plain number", "108"),
    CAPACITY: ("a capacity", "80 GB"),
    BANDWIDTH: ("a bandwidth", "2 TB/s"),
    COMPUTE_RATE: ("a compute rate", "312 TFLOP/s"),
    TIME: ("a time", "3 us"),
    FREQUENCY: ("a frequency", "1410 MHz"),
    POWER: ("a power", "400 W"),
    ENERGY_PER_BYTE: ("an energy per byte", "31 pJ/B"),
    ENERGY_PER_FLOP: ("an energy per FLOP", "0.6 pJ/FLOP"),
    MONEY: ("a price", "15000 USD"),
    MONEY_PER_TIME: ("a price per time", "3.67 USD/h"),
    MONEY_PER_ENERGY: ("a price per energy", "0.12 USD/kWh"),
}

_PREFIXES = {
    "": 1.0, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3,
    "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip

_BASES: dict[str, tuple[float, Dimension]] = {
    "B": (1.0, CAPACITY),
    "byte": (1.0, CAPACITY),
    "bit": (0.125, CAPACITY),
    "b": (0.125, CAPACITY),
    "FLOP": (1.0, (0, 1, 0, 0, 0)),
    "FLOPS": (1.0, COMPUTE_RATE),
    "OP": (1.0, (0, 1, 0, 0, 0)),
    "OPS": (1.0, COMPUTE_RATE),
    "MAC": (2.0, (0, 1, 0, 0, 0)),
    "s": (1.0, TIME),
    "min": (60.0, TIME),
    "h": (3600.0, TIME),
    "year": (365 * 24 * 3600.0, TIME),
    "Hz": (1.0, FREQUENCY),
    "W": (1.0, POWER),
    "Wh": (3600.0, (0, 0, 0, 1, 0)),
    "J": (1.0, (0, 0, 0, 1, 0)),
    "USD": (1.0, MONEY),
}

_QUANTITY = re.compile(r"^\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*?)?\s*$")


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[float, Dimension]:
    """The SI value and the dimension of `text`.

    >>> parse("2 TB/s") == (2e12, BANDWIDTH)
    True
    >>> parse("40 MiB")[0]
    41943040.0
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise UnitError(f"'{text}' is not a number with a unit, such as '80 GB' or '2 TB/s'")
    scale, dimension = _unit((match.group(2) or "").strip(), text)
    return float(match.group(1)) * scale, dimension


def to_si(text: str, dimension: Dimension) -> float:
    """`text` in SI units, if it is of that dimension.

    >>> to_si("3.9 pJ/bit", ENERGY_PER_BYTE)
    3.12e-11
    """
    value, found = parse(text)
    if found != dimension:
        wanted, example = _NAMES[dimension]
        raise UnitError(f"'{text}' is {describe(found)}, and {wanted} is needed, such as '{example}'")
    return value


def describe(dimension: Dimension) -> str:
    """What a dimension is called in an error message."""
    if dimension == NUMBER:
        return "a number without a unit"
    return _NAMES[dimension][0] if dimension in _NAMES else "of another unit"


def example(dimension: Dimension) -> str:
    """How a number of that dimension may be written."""
    return _NAMES[dimension][1]


@lru_cache(maxsize=1024)
def _unit(unit: str, text: str) -> tuple[float, Dimension]:
    if not unit:
        return 1.0, NUMBER
    numerator, *denominators = unit.split("/")
    scale, dimension = _simple(numerator, text)
    for denominator in denominators:
        below, exponents = _simple(denominator, text)
        scale /= below
        dimension = tuple(a - b for a, b in zip(dimension, exponents, strict=True))  # type: ignore[assignment]
    return scale, dimension


def _simple(unit: str, text: str) -> tuple[float, Dimension]:
    unit = unit.strip()
    for length in (0, 1, 2):
        prefix, base = unit[:length], unit[length:]
        if prefix in _PREFIXES and base in _BASES:
            scale, dimension = _BASES[base]
            return _PREFIXES[prefix] * scale, dimension
    raise UnitError(f"'{text}' has the unknown unit '{unit}'; known are B, bit, FLOP, OP, MAC, s, h, Hz, W, J, Wh, USD")


def in_engineering(value: float, unit: str, digits: int = 3) -> str:
    """`value` with an SI prefix, for people.

    >>> in_engineering(3.12e14, "FLOP/s")
    '312 TFLOP/s'
    >>> in_engineering(0.0127, "s")
    '12.7 ms'
    """
    if value == 0 or value != value or value in (float("inf"), float("-inf")):
        return f"{value:g} {unit}"
    for prefix, scale in (
        ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3),
        ("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9), ("p", 1e-12), ("f", 1e-15),
    ):  # fmt: skip
        if abs(value) >= scale * 0.9995:
            scaled = value / scale
            decimals = max(0, digits - 1 - (len(f"{abs(scaled):.0f}") - 1))
            shown = f"{scaled:.{decimals}f}"
            return f"{shown} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"
