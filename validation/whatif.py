"""Where a claim holds: the gain of a scenario against batch, context and memory bandwidth.

Points that do not fit or cannot run are left out; a claim holds where the gain reaches the claimed one within tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from simulator.errors import SimulatorError
from simulator.mapping.machine import Machine
from simulator.predict import Predictor
from simulator.scenario import Scenario, resolve
from validation.claimspec import ClaimSpec, ScenarioSpec
from validation.comparison import Comparison, Side, frozen
from validation.outcomes import Inference
from validation.verdicts import TOLERANCE, claimed_value, smaller_is_better

AXES: dict[str, tuple[float, ...]] = {
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "input_tokens": (128, 512, 2048, 8192, 32768, 131072),
    "bandwidth": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
}
TRAINING_AXES: dict[str, tuple[float, ...]] = {
    "micro_batch": (1, 2, 4, 8, 16, 32),
    "sequence_tokens": (128, 512, 1024, 2048, 4096, 8192),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """The gain along one axis."""

    axis: str
    points: tuple[tuple[float, float], ...]
    """(value, gain)."""
    claimed: float
    holds: tuple[float, ...]
    """Values of the axis where the gain is within tolerance of the claimed one, or better."""


def curves(claim: ClaimSpec, scenario: ScenarioSpec) -> list[Curve]:
    """A curve per axis of AXES, or of TRAINING_AXES; none for claims without a value."""
    claimed, form = claimed_value(claim)
    if claimed is None:
        return []
    less = smaller_is_better(claim)
    found = []
    for axis, values in (TRAINING_AXES if scenario.baseline.get("train") else AXES).items():
        points = []
        for value in values:
            gain = _gain(claim, scenario, axis, value, form == "absolute")
            if gain is not None:
                points.append((value, gain))
        holds = tuple(
            value
            for value, gain in points
            if (gain <= claimed * (1.0 + TOLERANCE) if less else gain >= claimed * (1.0 - TOLERANCE))
        )
        found.append(Curve(axis, tuple(points), claimed, holds))
    return found


def _gain(claim: ClaimSpec, scenario: ScenarioSpec, axis: str, value: float, absolute: bool) -> float | None:
    change: dict[str, Any] = {} if axis == "bandwidth" else {axis: int(value)}
    baseline = {**scenario.baseline, **change}
    sides = (baseline, {**baseline, **scenario.technique, **change})
    try:
        runs = [_at_bandwidth(side, value) if axis == "bandwidth" else None for side in sides]
        comparison = Comparison(change, *(Side(side, run=run) for side, run in zip(sides, runs, strict=True)))
        return comparison.metric(claim.metric, claim.quantity, absolute)
    except (SimulatorError, ZeroDivisionError):
        return None


def _at_bandwidth(values: Mapping[str, Any], factor: float) -> Inference:
    """A side on a machine whose memories are so many times as fast."""
    run = Inference({key: frozen(value) for key, value in values.items()})
    scenario: Scenario = run.predictor.resolved.scenario
    resolved = resolve(scenario)
    run.predictor = Predictor(replace(resolved, machine=faster(resolved.machine, factor)))
    return run


def faster(machine: Machine, factor: float) -> Machine:
    """The machine with memories `factor` times as fast, caches and links left alone."""
    own = [memory.of_main and memory.kind not in ("cache", "scratchpad") for memory in machine.memories]
    units = tuple(
        replace(
            unit,
            read_bytes_per_s=tuple(
                rate * (factor if mine else 1.0) for rate, mine in zip(unit.read_bytes_per_s, own, strict=True)
            ),
        )
        for unit in machine.units
    )
    return replace(machine, units=units)
