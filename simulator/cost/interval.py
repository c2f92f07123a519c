"""How sure a prediction is: which group of measured predictions it belongs to, and how far those were off.

Reads the interval file; the tag follows from where measurements exist. Holds no numbers and fits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from simulator import catalog
from simulator.cost.efficiency import Engine
from simulator.graph.build import Model
from simulator.graph.op import BITS
from simulator.mapping.machine import Machine
from simulator.spec.calibration import Calibration
from simulator.spec.interval import Constants, Intervals, MeasuredRange, Regime, Tag
from simulator.spec.loader import load

FAMILY = {
    "output_tokens_per_s": "e2el_s",
    "total_tokens_per_s": "e2el_s",
    "usd_per_million_output_tokens": "e2el_s",
    "decode_tokens_per_s": "tpot_s",
    "prefill_energy_j": "energy_j_per_output_token",
}
"""Metric -> the one whose measured ratios it has: rates and rents go with the time."""
SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a prediction is of, as far as its range matters."""

    batch: float
    context: float
    weight_bytes: float
    """Of one device."""
    devices: int
    formats: frozenset[str]
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Founding:
    """How well founded a prediction is."""

    tag: Tag
    engine: Constants
    outside: tuple[str, ...] = field(default=())
    """What lies outside the measured range, in words."""


@dataclass(frozen=True, slots=True)
class Table:
    """An interval file, indexed."""

    engines: frozenset[str]
    measured: dict[tuple[str, str], MeasuredRange]
    devices: frozenset[str]
    ratios: dict[tuple[str, Tag, Constants, Regime], tuple[float, float]]

    def found(self, machine: Machine, engine: Engine, calibration: Calibration, sizes: Sizes) -> Founding:
        """The group of a prediction."""
        constants: Constants = "ideal" if engine.ideal else "measured" if engine.family in self.engines else "assumed"
        if calibration.tag != "in-grid":
            return Founding(calibration.tag, constants)
        if calibration.interval_low is not None and machine.device in calibration.devices:
            return Founding("in-grid", constants)
        if machine.device not in self.devices:
            return Founding("transferred", constants, (f"no end-to-end run on {machine.device} was measured",))
        held = self.measured.get((machine.device, engine.family))
        outside: tuple[str, ...]
        if held is None:
            outside = () if engine.ideal else (f"{engine.name} was not measured on {machine.device}",)
        else:
            outside = beyond(sizes, held)
        return Founding("extrapolated" if outside else "in-grid", constants, outside)

    def ratio(self, metric: str, founding: Founding, regime: Regime = "static") -> tuple[float, float] | None:
        """Measured over predicted: (low, high) of the group, of a time where the metric is a rate; None if unknown."""
        key = FAMILY.get(metric, metric)
        for constants in (founding.engine, "any"):
            for when in (regime, "static"):
                known = self.ratios.get((key, founding.tag, constants, when))
                if known is not None:
                    return known
        return None


def beyond(sizes: Sizes, held: MeasuredRange) -> tuple[str, ...]:
    """What of the sizes lies outside a measured range."""
    found = []
    spans = (
        ("batch", sizes.batch, held.batch),
        ("context", sizes.context, held.context),
        ("bytes of weights per device", sizes.weight_bytes, held.weight_bytes),
        ("devices", sizes.devices, held.devices),
    )
    for label, value, (low, high) in spans:
        if not low * (1.0 - SLACK) <= value <= high * (1.0 + SLACK):
            found.append(f"{label} {value:.4g}, measured {low:.4g} to {high:.4g}")
    for label, values, known in (("format", sizes.formats, held.formats), ("op", sizes.kinds, held.kinds)):
        found += [f"{label} {value} was not measured" for value in sorted(values.difference(known))]
    return tuple(found)


def formats_of(model: Model) -> frozenset[str]:
    """Bits of the weights of matrix products and of what attention keeps, as `weights 16` and `cache 8`."""
    found = set()
    for op in model.graph.ops:
        for tensor in op.tensors:
            if tensor.role == "weight" and op.kind == "gemm":
                found.add(f"weights {BITS[tensor.dtype]:g}")
            elif tensor.role == "kv":
                found.add(f"cache {BITS[tensor.dtype]:g}")
    return frozenset(found)


def kinds_of(model: Model) -> frozenset[str]:
    """Kinds of op in the decoder; routed experts are a kind of their own."""
    kinds = {str(op.kind) for op in model.graph.ops if op.kind != "collective"}
    return frozenset(kinds | {"routed" for op in model.graph.ops if op.routing is not None})


def interval_table() -> Table:
    """The first interval file that is found: the user's own, or the shipped one. Empty where there is none."""
    path = next(catalog.files("interval"), None)
    return Table(frozenset(), {}, frozenset(), {}) if path is None else _load(path, path.stat().st_mtime_ns)


def table_of(spec: Intervals) -> Table:
    """An interval file's content, indexed."""
    return Table(
        frozenset(spec.engines),
        {(row.hardware, row.engine): row for row in spec.measured},
        frozenset(row.hardware for row in spec.measured),
        {(row.metric, row.tag, row.engine, row.regime): (row.low.value, row.high.value) for row in spec.ratios},
    )


@lru_cache(maxsize=4)
def _load(path: Path, stamp: int) -> Table:
    return table_of(load(path, Intervals))
