"""Laws that every prediction keeps, checked on real scenarios: the property tests check them on drawn ones.

Each function yields the laws that a prediction breaks, with the numbers that show it. Nothing is repaired here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from simulator.errors import SimulatorError
from simulator.mapping.machine import Machine
from simulator.predict import Predictor, predict, predictor
from simulator.result import Prediction
from simulator.scenario import Scenario
from simulator.train import TrainingPrediction, predict_training
from validation.whatif import faster

SLACK = 1e-6
"""Sums in another order; a law that is broken is broken by more."""
FACTOR = 1.5
"""How much faster memories and arithmetic are made."""
SUM = "memory is the sum of its roles"
ENERGY = "energy is power times time"
PARTS = "energy is the sum of its parts"
LIGHT = "nothing is faster than datasheet rates allow"
BANDWIDTH = "faster memories never slow"
COMPUTE = "faster arithmetic never slows"
ENCLOSED = "the interval encloses the value"
LAWS = (SUM, ENERGY, PARTS, LIGHT, BANDWIDTH, COMPUTE, ENCLOSED)


@dataclass(frozen=True, slots=True)
class Broken:
    """A law that a prediction breaks."""

    law: str
    scenario: str
    text: str


def check(name: str, answer: Prediction) -> Iterator[Broken]:
    """The laws that an inference breaks."""
    yield from _equal(SUM, name, sum(answer.memory_by_role_bytes.values()), answer.memory_bytes)
    yield from _equal(ENERGY, name, answer.energy_j_per_output_token * answer.output_tokens_per_s, answer.power_w)
    if answer.turns == 1 and answer.e2el_s > 0.0:
        yield from _equal(ENERGY, name, answer.power_w * answer.e2el_s, answer.energy_j)
    parts = answer.energy_by_component_j
    yield from _equal(PARTS, name, sum(parts.values()), answer.energy_j)
    yield from (Broken(PARTS, name, f"{part} is {joules:g} J") for part, joules in parts.items() if joules < 0.0)
    yield from _enclosed(name, answer.interval, {key: getattr(answer, key) for key in answer.interval})
    yield from _light(name, answer)
    yield from _monotone(name, answer)


def check_training(name: str, answer: TrainingPrediction) -> Iterator[Broken]:
    """The laws that a training step breaks."""
    yield from _equal(SUM, name, sum(answer.memory_by_role_bytes.values()), answer.memory_bytes)
    yield from _equal(ENERGY, name, answer.power_w * answer.step_s, answer.energy_j)
    yield from _equal(PARTS, name, sum(answer.energy_by_component_j.values()), answer.energy_j)
    yield from _enclosed(name, answer.interval, {key: getattr(answer, key) for key in answer.interval})
    bound = predict_training(replace(answer.scenario, engine="ideal"))
    yield from _least(LIGHT, name, "step_s", answer.step_s, bound.step_s)


def _light(name: str, answer: Prediction) -> Iterator[Broken]:
    """Of runs that fit: what does not fit is timed as if it did by the ideal engine, which takes no turns."""
    if not answer.fits or answer.scenario.engine == "ideal":
        return
    bound = predict(answer.scenario.with_(engine="ideal"))
    yield from _least(LIGHT, name, "e2el_s", answer.e2el_s, bound.e2el_s)


def _monotone(name: str, answer: Prediction) -> Iterator[Broken]:
    """Where several memories could hold a network the whole run is what is made short, so its end is compared."""
    resolved = predictor(answer.scenario).resolved
    for law, machine in ((BANDWIDTH, faster(resolved.machine, FACTOR)), (COMPUTE, stronger(resolved.machine, FACTOR))):
        asked: Scenario = answer.scenario
        try:
            better = Predictor(replace(resolved, machine=machine)).predict(
                asked.batch, asked.input_tokens, asked.output_tokens
            )
        except SimulatorError as error:
            yield Broken(law, name, f"cannot be predicted with {FACTOR:g} x the rate: {error}")
            continue
        yield from _least(law, name, "e2el_s", answer.e2el_s, better.e2el_s)


def stronger(machine: Machine, factor: float) -> Machine:
    """The machine with arithmetic `factor` times as fast."""
    units = tuple(
        replace(unit, peak_flop_per_s={dtype: rate * factor for dtype, rate in unit.peak_flop_per_s.items()})
        for unit in machine.units
    )
    return replace(machine, units=units)


def _equal(law: str, name: str, left: float, right: float) -> Iterator[Broken]:
    if not abs(left - right) <= SLACK * max(abs(left), abs(right)):
        yield Broken(law, name, f"{left:.9g} is not {right:.9g}")


def _least(law: str, name: str, key: str, value: float, least: float) -> Iterator[Broken]:
    if not value * (1.0 + SLACK) >= least:
        yield Broken(law, name, f"{key} {value:.9g} is below {least:.9g}")


def _enclosed(name: str, intervals: Mapping[str, tuple[float, float]], values: Mapping[str, float]) -> Iterator[Broken]:
    for key, (low, high) in intervals.items():
        value = values[key]
        if not low * (1.0 - SLACK) <= value <= high * (1.0 + SLACK):
            yield Broken(ENCLOSED, name, f"{key} {value:.6g} is not between {low:.6g} and {high:.6g}")
