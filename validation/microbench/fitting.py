"""Fits the numbers of a calibration to a table of measurements: which of them matter is found out, not listed.

Coordinate search on the mean absolute log error, within physical bounds, from the class's calibration: no random numbers,
so that the same table gives the same fit. Held-out rows are never looked at. Knows no value and no device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost.efficiency import Engine
from simulator.mapping.machine import Machine
from simulator.spec.engine import Calibration
from simulator.spec.loader import Spec
from simulator.spec.quantity import Reads, Sourced
from simulator.units import ENERGY_PER_BYTE, TIME, Dimension
from validation.microbench.rows import Rows
from validation.microbench.sampling import NOISY
from validation.shapes import Numbers

SOURCE = "here"
"""Key of the source of fitted numbers in the files that are written."""
FACTORS = (4.0, 2.0, 1.4, 1.18, 1.08, 1.03)
"""Steps of the search, from coarse to fine."""
PAIR_FACTORS = (4.0, 2.0, 1.4, 1.18)
"""Steps of two parameters at once: a share and the share of a part of it can trade places."""
ROUNDS = 4
GRID = 9
"""Values of the first, coarse look at a parameter's whole range."""
GAIN = 2e-4
"""Least improvement of the error that a step has to bring: what does not matter keeps its value."""
LONGEST_S = 1e-3
"""Bound of fixed times."""
BOUNDS: dict[str, tuple[float, float]] = {
    "sharpness": (1.0, 12.0),
    "softmax": (0.0, 400.0),
    "tail": (0.0, 2.0),
    "skew": (0.0, 1.0),
    "vector_rows": (1.0, 16.0),
    "group_limit": (1.0, 1000.0),
}
"""Bounds of fields by the end of their names, where their kind does not give them."""
WIDE = "float32"
NARROW = ("w8a8", "fp8")
"""Number formats as the tables name them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Numbers that are fitted together."""

    ops: tuple[str, ...]
    """Of the rows fitted to."""
    formats: tuple[str, ...]
    """Number formats of those rows, besides the main one; all if empty."""
    main: bool
    """Whether rows of the main format take part."""
    keys: tuple[str, ...]
    """What the numbers' names begin with."""


STAGES = (
    Stage(("elementwise",), (), True, ("elementwise_bandwidth", "cache_bandwidth", "launch")),
    Stage(("gemm",), (WIDE,), True, ("gemm.", "sharpness", "multicast", "reduction", "saturating_share")),
    Stage(("gemm",), NARROW, False, ("gemm.narrow_compute",)),
    Stage(("context_attention",), (), True, ("attention.",)),
    Stage(("generation_attention",), (), True, ("attention.",)),
)
"""Stages of a fit in their order. Two stages may reach for the same number: the later one then fits what both measure."""
FRACTION_LOW = 0.01


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


@dataclass(frozen=True, slots=True)
class Residual:
    """Predicted over measured times of one op in one number format."""

    op: str
    dtype: str
    rows: int
    held_out: bool
    median_ape: float
    mape: float
    bias: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted calibration and how well it does."""

    calibration: Calibration
    parameters: tuple[Parameter, ...]
    """Those that were changed or tried."""
    residuals: tuple[Residual, ...]
    interval: tuple[float, float]
    """5% and 95% quantiles of measured over predicted times of the held-out rows."""
    left_out: int
    """Rows that were too noisy to be fitted to."""
    ranges: dict[str, str] = field(default_factory=dict)


def fit(table: pd.DataFrame, machine: Machine, engine: Engine, start: Calibration, main: str) -> Fit:
    """Fit `start` to the rows that are not held out, stage by stage. The table's columns are those of `measure`.

    `main` is the number format, as the table names it, that attention, passes and products are fitted in; products
    in float32 take part, narrower ones only with their own share of the peak: kernels of different formats follow
    different laws, while a calibration has one.
    """
    calm = table[table["dispersion"] <= NOISY]
    formats = pd.Series(_formats(calm), index=calm.index)
    calibration = _with_optional(start, machine)
    found: dict[str, Parameter] = {}
    earlier: list[Rows] = []
    for stage in STAGES:
        wanted = {*stage.formats, *([main] if stage.main else [])}
        chosen = calm["op_name"].isin(stage.ops) & formats.isin(wanted) & ~calm["held_out"].astype(bool)
        if not chosen.any():
            continue
        parts = [Rows(part, machine, engine) for part in _parts(calm[chosen])]
        keys = [p for p in parameters(calibration) if p.key.startswith(stage.keys)]
        shared = [rows for rows in earlier if any(key in found for key in (p.key for p in keys))]
        calibration, used = _search([*parts, *shared], calibration, keys)
        found |= {parameter.key: parameter for parameter in used}
        earlier = parts if stage.keys == STAGES[-1].keys else []
    residuals, ratios = score(calm, machine, engine, calibration, main)
    interval = (float(np.quantile(ratios, 0.05)), float(np.quantile(ratios, 0.95))) if len(ratios) >= 8 else (0.7, 1.4)
    return Fit(calibration, tuple(found.values()), tuple(residuals), interval, len(table) - len(calm), ranges(calm))


def score(
    table: pd.DataFrame, machine: Machine, engine: Engine, calibration: Calibration, main: str
) -> tuple[list[Residual], Numbers]:
    """Residuals by op and number format, and measured over predicted times of the held-out rows of the main one."""
    found: list[Residual] = []
    ratios: list[Numbers] = []
    for op, of_op in table.groupby("op_name", sort=False):
        for part in _parts(of_op):
            rows = Rows(part, machine, engine)
            predicted = rows.seconds(calibration)
            held = part["held_out"].to_numpy(bool)
            formats = _formats(part)
            ratios.append((rows.measured_s / predicted)[held & (predicted > 0.0) & (formats == main)])
            for dtype in pd.unique(formats):
                for chosen in (False, True):
                    here = (formats == dtype) & (held == chosen) & (predicted > 0.0)
                    if here.any():
                        error = predicted[here] / rows.measured_s[here] - 1.0
                        size = np.abs(error)
                        found.append(
                            Residual(
                                str(op), str(dtype), int(here.sum()), chosen, float(np.median(size)), float(size.mean()),
                                float(error.mean()),
                            )
                        )  # fmt: skip
    return found, np.concatenate(ratios) if ratios else np.empty(0)


def ranges(table: pd.DataFrame) -> dict[str, str]:
    """Range of the sizes of each op's rows, for people."""
    found = {}
    for op, part in table.groupby("op_name", sort=False):
        names = [name for name in ("m", "n", "k", "batch_size", "isl", "step", "head_dim") if part[name].notna().any()] \
            if "m" in part else []
        found[str(op)] = ", ".join(f"{name} {part[name].min():g}-{part[name].max():g}" for name in names)
    return found


def parameters(calibration: Calibration) -> list[Parameter]:
    """Every number of a calibration that may be fitted, with its bounds: shares up to 1, counts, fixed times."""
    return [
        Parameter(key, *_bounds(key, dimension, zero), "us" if dimension == TIME else _unit(key, value))
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
    if _unit_of(dimension):
        return 0.0, 4096.0
    return (FRACTION_LOW, 1.0) if zero else (1.0, 1024.0)


def _unit_of(dimension: Dimension) -> bool:
    """Whether numbers of the dimension carry a unit (bytes)."""
    return any(dimension)


def _unit(key: str, value: Sourced) -> str:
    """The unit that the file wrote, for dimensions other than time."""
    words = value.text.split()
    return "B" if len(words) > 1 else ""


def _with_optional(calibration: Calibration, machine: Machine) -> Calibration:
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


def _search(
    parts: Sequence[Rows], calibration: Calibration, candidates: Sequence[Parameter]
) -> tuple[Calibration, list[Parameter]]:
    measured = np.concatenate([part.measured_s for part in parts])

    def predicted(trial: Calibration) -> Numbers:
        return np.concatenate([part.seconds(trial) for part in parts])

    def loss(seconds: Numbers) -> float:
        return float(np.mean(np.abs(np.log(np.maximum(seconds, 1e-9) / measured))))

    first = predicted(calibration)
    used = [
        parameter
        for parameter in candidates
        if any(
            not np.allclose(predicted(replaced(calibration, parameter, trial)), first, rtol=1e-3)
            for trial in _grid(parameter)
        )
    ]
    best = loss(first)

    def tried(moves: Sequence[tuple[Parameter, float]]) -> bool:
        nonlocal best, calibration
        trial = calibration
        for parameter, value in moves:
            trial = replaced(trial, parameter, value)
        error = loss(predicted(trial))
        if error >= best - GAIN:
            return False
        best, calibration = error, trial
        return True

    def near(parameter: Parameter, factor: float) -> list[float]:
        return _neighbours(parameter, value_of(calibration, parameter.key), factor)

    for _ in range(ROUNDS):
        before = best
        for parameter in used:
            for value in _grid(parameter):
                tried([(parameter, value)])
        for factor in FACTORS:
            moved = True
            while moved:
                moved = False
                for parameter in used:
                    moved |= any([tried([(parameter, value)]) for value in near(parameter, factor)])
        for factor in PAIR_FACTORS:
            for first_of, second_of in combinations(used, 2):
                for one, other in product(near(first_of, factor), near(second_of, factor)):
                    tried([(first_of, one), (second_of, other)])
        if before - best < 5 * GAIN:
            break
    return calibration, used


def _grid(parameter: Parameter) -> list[float]:
    """Values all over the bounds: a step that helps may be far away."""
    found = [float(value) for value in np.geomspace(parameter.least, parameter.high, GRID)]
    return found if parameter.low > 0.0 else [0.0, *found]


def _neighbours(parameter: Parameter, value: float, factor: float) -> list[float]:
    """One step up and one down, within the bounds; from zero, a step of a unit."""
    steps = [value * factor, value / factor]
    if parameter.low <= 0.0 and value <= parameter.least:
        steps = [parameter.least * factor, parameter.least, 0.0]
    found = [min(max(step, parameter.low), parameter.high) for step in steps]
    return [step for step in dict.fromkeys(found) if step != value]


def _parts(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Rows with their own columns only, without formats that the model refuses to name."""
    if len(table):
        yield table.dropna(axis="columns", how="all").reset_index(drop=True)


def _formats(table: pd.DataFrame) -> Any:
    """The number format of each row, as the table names it."""
    found = pd.Series(np.nan, index=table.index, dtype=object)
    for name in ("gemm_dtype", "attn_dtype", "dtype"):
        if name in table:
            found = found.fillna(table[name].astype(object))
    return found.to_numpy(object)


def tidy(calibration: Calibration, name: str, title: str, updates: dict[str, Any]) -> Calibration:
    """The calibration as one device's own."""
    return calibration.model_copy(
        update={"name": name, "title": title, "architectures": [], "classes": [], **updates}
    )


__all__ = ["Fit", "Parameter", "Residual", "fit", "parameters", "score", "tidy", "value_of"]
