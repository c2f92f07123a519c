"""The fixed set of scenarios that the gate predicts: read from `scenarios.yaml`, every combination of a group's values.

Knows names and the form of the file only; predictions are made in `answers`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from simulator.errors import Problem, SpecError, shorten
from simulator.scenario import Scenario
from simulator.spec.loader import Spec, load, place
from simulator.trainer import TrainingScenario

SET = Path(__file__).with_name("scenarios.yaml")
WORK = re.compile(r"(\d+) x (\d+) \+ (\d+)")
STEP = re.compile(r"(\d+) x (\d+)")


class Group(Spec):
    """Scenarios that are stored in one file: every combination of the lists."""

    group: str = Field(pattern=r"^[a-z][a-z-]*$")
    """Name of the file of baselines; several groups may share one."""
    model: list[str] = Field(min_length=1)
    hardware: list[str] = Field(min_length=1)
    work: list[str] = Field(min_length=1)
    """`batch x input + output` in tokens; of a training step, `micro-batch x sequence`."""
    engine: list[str | None] = Field(default_factory=lambda: [None])
    techniques: list[list[str]] = Field(default_factory=lambda: [[]])
    more: list[dict[str, Any]] = Field(default_factory=lambda: [{}])
    """Further fields of a scenario: degrees of parallelism, number formats, a power cap."""
    train: bool = False

    @field_validator("work")
    @classmethod
    def _readable(cls, work: list[str]) -> list[str]:
        for text in work:
            if not (WORK.fullmatch(text) or STEP.fullmatch(text)):
                raise ValueError(f"'{text}' is not like 8 x 512 + 128 (batch x input + output tokens)")
        return work


class GateSet(Spec):
    """The file: groups of scenarios."""

    groups: list[Group] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Item:
    """One scenario of the set, under the name that stands in the baselines."""

    group: str
    name: str
    scenario: Scenario | TrainingScenario


def items(path: Path = SET) -> list[Item]:
    """Every scenario of a set file, in its order. Raises SpecError, also for two of the same name."""
    spec = load(path, GateSet)
    found: dict[str, Item] = {}
    for position, group in enumerate(spec.groups):
        for item in _expanded(group, path, position):
            if item.name in found:
                line, column = place(path, "groups", position)
                raise SpecError(
                    [Problem(shorten(path), line, column, f"groups.{position}", f"'{item.name}' is there twice")]
                )
            found[item.name] = item
    return list(found.values())


def _expanded(group: Group, path: Path, position: int) -> Iterator[Item]:
    combinations = itertools.product(
        group.model, group.hardware, group.engine, group.techniques, group.more, group.work
    )
    for model, hardware, engine, techniques, more, work in combinations:
        values: dict[str, Any] = {"model": model, "hardware": hardware, "techniques": tuple(techniques), **more}
        if engine is not None:
            values["engine"] = engine
        try:
            if group.train:
                numbers = STEP.fullmatch(work)
                assert numbers is not None
                values |= {"micro_batch": int(numbers[1]), "sequence_tokens": int(numbers[2])}
                scenario: Scenario | TrainingScenario = TrainingScenario(**values)
            else:
                numbers = WORK.fullmatch(work)
                assert numbers is not None
                names = ("batch", "input_tokens", "output_tokens")
                values |= dict(zip(names, map(int, numbers.groups()), strict=True))
                scenario = Scenario(**values)
        except (TypeError, AssertionError):
            line, column = place(path, "groups", position)
            unlike = "a training step" if group.train else "a scenario"
            message = f"{', '.join(more) or work} do not belong to {unlike}"
            raise SpecError([Problem(shorten(path), line, column, f"groups.{position}", message)]) from None
        yield Item(group.group, _name(model, hardware, engine, techniques, more, work), scenario)


def _name(model: str, hardware: str, engine: str | None, techniques: list[str], more: dict[str, Any], work: str) -> str:
    parts = [f"{model} on {hardware}", engine or "", work.replace(" ", "")]
    parts += [f"{key}={value}" for key, value in more.items()]
    parts += [f"+{name}" for name in techniques]
    return " ".join(part for part in parts if part)
