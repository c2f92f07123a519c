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
from simulator.spec.calibration import Calibration
from validation.microbench.parameters import Parameter, parameters, replaced, value_of, with_optional
from validation.microbench.rows import Rows
from validation.microbench.sampling import NOISY
from validation.shapes import Numbers

FACTORS = (4.0, 2.0, 1.4, 1.18, 1.08, 1.03)
"""Steps of the search, from coarse to fine."""
SWITCHES = ("group_limit",)
"""Ends of the names of numbers that say which kernel runs: no small step leads from one to the other, so that the search
starts from their lower bound too."""
PAIR_FACTORS = (4.0, 2.0, 1.4, 1.18)
"""Steps of two parameters at once: a share and the share of a part of it can trade places."""
ROUNDS = 4
GRID = 9
"""Values of the first, coarse look at a parameter's whole range."""
GAIN = 2e-4
"""Least improvement of the error that a step has to bring: what does not matter keeps its value."""
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
    Stage(("gemm",), (), True, ("gemm.", "sharpness", "multicast", "reduction", "saturating_share")),
    Stage(("gemm",), (WIDE,), False, ("gemm.wide_bandwidth",)),
    Stage(("gemm",), NARROW, False, ("gemm.narrow_compute",)),
    Stage(("context_attention",), (), True, ("attention.",)),
    Stage(("generation_attention",), (), True, ("attention.",)),
)
"""Stages of a fit in their order. Two stages may reach for the same number: the later one then fits what both measure."""


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

    `main` is the number format, as the table names it, that is fitted to; of products in wider and narrower ones, only
    their own shares are: kernels of different formats follow different laws, while a calibration has one.
    """
    calm = table[table["dispersion"] <= NOISY]
    formats = pd.Series(_formats(calm), index=calm.index)
    calibration = with_optional(start, machine)
    found: dict[str, Parameter] = {}
    earlier: list[Rows] = []
    for stage in STAGES:
        wanted = {*stage.formats, *([main] if stage.main else [])}
        chosen = calm["op_name"].isin(stage.ops) & formats.isin(wanted) & ~calm["held_out"].astype(bool)
        if not chosen.any():
            continue
        parts = [Rows(part, machine, engine) for part in _parts(calm[chosen])]
        used = _sensitive(parts, calibration, [p for p in parameters(calibration) if p.key.startswith(stage.keys)])
        if any(parameter.key in found for parameter in used):
            parts += earlier
        starts = [calibration, *(replaced(calibration, p, p.low) for p in used if p.key.endswith(SWITCHES))]
        calibration = min((_search(parts, start, used) for start in starts), key=lambda trial: _loss(parts, trial))
        found |= {parameter.key: parameter for parameter in used}
        earlier = parts
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
        names = (
            [name for name in ("m", "n", "k", "batch_size", "isl", "step", "head_dim") if part[name].notna().any()]
            if "m" in part
            else []
        )
        found[str(op)] = ", ".join(f"{name} {part[name].min():g}-{part[name].max():g}" for name in names)
    return found


def _sensitive(parts: Sequence[Rows], calibration: Calibration, candidates: Sequence[Parameter]) -> list[Parameter]:
    """The parameters that change the time of any row."""
    first = [part.seconds(calibration) for part in parts]
    return [
        parameter
        for parameter in candidates
        if any(
            not np.allclose(part.seconds(replaced(calibration, parameter, trial)), before, rtol=1e-3)
            for trial in _grid(parameter)
            for part, before in zip(parts, first, strict=True)
        )
    ]


def _loss(parts: Sequence[Rows], calibration: Calibration) -> float:
    """Mean absolute log error of all rows."""
    errors = [np.abs(np.log(np.maximum(part.seconds(calibration), 1e-9) / part.measured_s)) for part in parts]
    return float(np.mean(np.concatenate(errors)))


def _search(parts: Sequence[Rows], calibration: Calibration, used: Sequence[Parameter]) -> Calibration:
    """The calibration with the least error: coarse looks, then steps of one parameter, then of two at once."""
    best = _loss(parts, calibration)

    def tried(moves: Sequence[tuple[Parameter, float]]) -> bool:
        nonlocal best, calibration
        trial = calibration
        for parameter, value in moves:
            trial = replaced(trial, parameter, value)
        error = _loss(parts, trial)
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
                    for value in near(parameter, factor):
                        moved |= tried([(parameter, value)])
        for factor in PAIR_FACTORS:
            for first_of, second_of in combinations(used, 2):
                for one, other in product(near(first_of, factor), near(second_of, factor)):
                    tried([(first_of, one), (second_of, other)])
        if before - best < 5 * GAIN:
            break
    return calibration


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
