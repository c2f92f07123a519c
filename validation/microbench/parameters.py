"""The numbers of a calibration that a fit may change: found in the schema, with physical bounds. Holds no value.

Shares go up to 1, counts begin at 1, times at 0; a new field of the schema takes part without a change here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.mapping.machine import Machine
from simulator.spec.calibration import Calibration
from simulator.spec.loader import Spec
from simulator.spec.quantity import Reads, Sourced
from simulator.units import ENERGY_PER_BYTE, TIME, Dimension

SOURCE = "here"
"""Key of the source of fitted numbers in the files that are written."""
LEAST_SHARE = 0.01
LONGEST_S = 1e-3
"""Bound of fixed times."""
BOUNDS: dict[str, tuple[float, float]] = {
    "sharpness": (1.0, 12.0),
    "softmax": (0.0, 400.0),
    "tail": (0.0, 2.0),
    "vector_rows": (1.0, 16.0),
    "group_limit": (1.0, 1000.0),
}
"""Bounds of fields by the end of their names, where their kind does not give them."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number of a calibration and what it may become."""

    key: str
    """Dotted path in the file."""
    low: float
    high: float
    unit: str

    @property
    def least(self) -> float:
        """The least value that is not zero."""
        return self.low if self.low > 0.0 else {"us": 0.5e-6, "B": 16.0}.get(self.unit, 0.25)

    def text(self, value: float) -> str:
        """As the file holds it: three digits."""
        scaled = float(f"{value * (1e6 if self.unit == 'us' else 1.0):.3g}")
        return f"{scaled:g}{' ' + self.unit if self.unit else ''}"


def parameters(calibration: Calibration) -> list[Parameter]:
    """Every number of a calibration that may be fitted, with its bounds: shares up to 1, counts, fixed times."""
    return [
        Parameter(key, *_bounds(key, dimension, zero), "us" if dimension == TIME else _unit(value))
        for key, value, dimension, zero in _numbers(calibration, "")
        if dimension != ENERGY_PER_BYTE and not key.startswith(("interval", "link"))
    ]


def value_of(calibration: Calibration, key: str) -> float:
    """The number at a dotted key in SI units."""
    owner: Any = calibration
    for name in key.split("."):
        owner = getattr(owner, name)
    return float(owner)


def replaced(calibration: Calibration, parameter: Parameter, value: float) -> Calibration:
    """The calibration with one number replaced, rounded as the file will hold it."""
    text = parameter.text(value)
    rounded = float(text.split()[0]) * (1e-6 if parameter.unit == "us" else 1.0)
    found = _replaced(calibration, parameter.key.split("."), Sourced(rounded, SOURCE, text))
    assert isinstance(found, Calibration)
    return found


def _replaced(owner: Spec, path: Sequence[str], value: Sourced) -> Spec:
    inner = value if len(path) == 1 else _replaced(getattr(owner, path[0]), path[1:], value)
    return owner.model_copy(update={path[0]: inner})


def _numbers(owner: Spec, prefix: str) -> Iterator[tuple[str, Sourced, Dimension, bool]]:
    for name, info in type(owner).model_fields.items():
        value = getattr(owner, name)
        if isinstance(value, Spec):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, Sourced):
            reads = _reads(info)
            if reads is not None:
                yield prefix + name, value, reads.dimension, reads.zero


def _reads(info: Any) -> Reads | None:
    """How a field reads its number; found inside `X | None` too."""
    for mark in info.metadata:
        if isinstance(mark, Reads):
            return mark
    for part in getattr(info.annotation, "__args__", ()):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, Reads):
                return mark
    return None


def _bounds(key: str, dimension: Dimension, zero: bool) -> tuple[float, float]:
    for name, bounds in BOUNDS.items():
        if key.endswith(name):
            return bounds
    if dimension == TIME:
        return 0.0, LONGEST_S
    if any(dimension):  # bytes
        return 0.0, 4096.0
    return (LEAST_SHARE, 1.0) if zero else (1.0, 1024.0)


def _unit(value: Sourced) -> str:
    """The unit that the file wrote, for dimensions other than time."""
    words = value.text.split()
    return "B" if len(words) > 1 else ""


def with_optional(calibration: Calibration, machine: Machine) -> Calibration:
    """With the numbers that a file may leave out: at what their absence means, so that a fit may change them."""
    launch = max((unit.launch_s for unit in machine.units), default=0.0)
    gemm = calibration.gemm
    updates = {}
    if "floor" in type(gemm).model_fields and gemm.floor is None:
        updates["floor"] = Sourced(0.0, SOURCE, "0 us")
    if "wide_bandwidth" in type(gemm).model_fields and gemm.wide_bandwidth is None:
        updates["wide_bandwidth"] = Sourced(1.0, SOURCE, "1")
    return calibration.model_copy(
        update={
            "gemm": gemm.model_copy(update=updates),
            "launch": calibration.launch or Sourced(launch, SOURCE, f"{launch * 1e6:.3g} us"),
        }
    )
