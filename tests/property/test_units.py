"""Numbers with units: what is printed reads back, prefixes scale, dimensions are told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import units
from simulator.errors import UnitError

SYMBOLS = {
    "B": units.CAPACITY,
    "B/s": units.BANDWIDTH,
    "FLOP/s": units.COMPUTE_RATE,
    "s": units.TIME,
    "Hz": units.FREQUENCY,
    "W": units.POWER,
    "J/B": units.ENERGY_PER_BYTE,
    "J/FLOP": units.ENERGY_PER_FLOP,
    "USD": units.MONEY,
}
PREFIXES = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
POSITIVE = st.floats(1e-14, 1e17, allow_nan=False, allow_infinity=False)


@given(POSITIVE, st.sampled_from(sorted(SYMBOLS)))
def test_printed_quantities_read_back(value: float, symbol: str) -> None:
    shown = units.in_engineering(value, symbol, digits=12)
    assert units.to_si(shown, SYMBOLS[symbol]) == pytest.approx(value, rel=1e-9)


@given(POSITIVE, st.sampled_from(sorted(SYMBOLS)))
def test_three_digits_are_within_half_a_percent(value: float, symbol: str) -> None:
    assert units.to_si(units.in_engineering(value, symbol), SYMBOLS[symbol]) == pytest.approx(value, rel=5.1e-3)


@given(POSITIVE, st.sampled_from(sorted(SYMBOLS)))
def test_negative_quantities_read_back(value: float, symbol: str) -> None:
    shown = units.in_engineering(-value, symbol, digits=12)
    assert units.to_si(shown, SYMBOLS[symbol]) == pytest.approx(-value, rel=1e-9)


@given(st.floats(1e-3, 1e6), st.sampled_from(sorted(PREFIXES)), st.sampled_from(sorted(SYMBOLS)), st.booleans())
def test_prefixes_scale(value: float, prefix: str, symbol: str, spaced: bool) -> None:
    text = f"{value!r}{' ' if spaced else ''}{prefix}{symbol}"
    assert units.to_si(text, SYMBOLS[symbol]) == pytest.approx(value * PREFIXES[prefix], rel=1e-12)


@given(st.integers(0, 10**15))
def test_whole_numbers_are_exact(value: int) -> None:
    assert units.parse(str(value)) == (float(value), units.NUMBER)
    assert units.parse(f"{value} B") == (float(value), units.CAPACITY)
    assert units.parse(f"{value:_}") == (float(value), units.NUMBER)


@given(st.floats(0.1, 1e4), st.sampled_from(["K", "M", "G", "T"]))
def test_binary_and_decimal_prefixes_differ(value: float, prefix: str) -> None:
    power = "KMGT".index(prefix) + 1
    assert units.parse(f"{value!r} {prefix}iB")[0] == pytest.approx(value * 1024.0**power, rel=1e-12)
    assert units.parse(f"{value!r} {prefix}B")[0] == pytest.approx(value * 1000.0**power, rel=1e-12)


@given(st.floats(0.1, 1e4), st.sampled_from(sorted(SYMBOLS)), st.sampled_from(sorted(SYMBOLS)))
def test_dimensions_are_told_apart(value: float, symbol: str, wanted: str) -> None:
    if SYMBOLS[symbol] == SYMBOLS[wanted]:
        return
    with pytest.raises(UnitError, match="is needed, such as"):
        units.to_si(f"{value!r} {symbol}", SYMBOLS[wanted])


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_unit_error(text: str) -> None:
    try:
        value, _ = units.parse(text)
    except UnitError as error:
        message = str(error)
    else:
        assert isinstance(value, float)
        return
    assert text in message
