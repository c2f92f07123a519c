"""A simulated step and what can be read from it: use of each resource, the critical path, energy and power over time.

Numbers only; tables, charts and traces of them are `simulator.views`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from simulator.events.engine import Integers, Schedule
from simulator.events.layout import PICOSECONDS
from simulator.events.terms import OpTerms


@dataclass(frozen=True, slots=True)
class Use:
    """What one resource did in a step."""

    resource: str
    group: str
    tasks: int
    busy_s: float
    """Time of its slots together over their number; of links and waits, the time that anything was under way."""
    critical_s: float
    """Of the critical path."""
    energy_j: float


@dataclass(frozen=True, slots=True)
class Waited:
    """What the resources did while the critical path was on one of them."""

    on: str
    seconds: float
    share: float
    """Of the step."""
    busy: dict[str, float]
    """Share of that time that each other resource was busy; those that were idle throughout are left out."""


@dataclass
class Timeline:
    """One step of one rank."""

    label: str
    schedule: Schedule
    ops: dict[int, OpTerms]
    static_w: float
    """Drawn besides switching while an op runs, and while none does."""
    waiting_w: float
    closed_form_s: float
    """The same step by the closed form."""
    tokens: float
    """Query tokens of the step."""
    repeats: float = 1.0
    """Equal steps that it stands for."""
    differences: dict[str, float] = field(default_factory=dict)
    """Seconds that modelling each kind of resource event by event adds to the closed form, one kind after the other."""

    @property
    def seconds(self) -> float:
        """From the host's first turn to the end of the last task."""
        return self.schedule.seconds

    @cached_property
    def resource(self) -> Integers:
        """(N,) position of the resource of each task."""
        return np.asarray(self.schedule.column("resource"), np.int64)

    @cached_property
    def joules(self) -> Any:
        """(N,) dynamic energy of each task."""
        return np.asarray(self.schedule.column("joules"), float)

    @cached_property
    def spent_j(self) -> list[float]:
        """Dynamic energy per resource of the net."""
        mine = (self.joules[self.resource == position] for position in range(len(self.schedule.net.resources)))
        return [math.fsum(joules.tolist()) for joules in mine]

    @cached_property
    def critical_path(self) -> list[int]:
        """Tasks from the beginning to the end, each of which let the next one start."""
        schedule = self.schedule
        if not len(schedule):
            return []
        task = int(np.argmax(schedule.end))
        path = [task]
        while schedule.cause[task] >= 0 and len(path) <= len(schedule):
            task = int(schedule.cause[task])
            path.append(task)
        return path[::-1]

    def uses(self) -> list[Use]:
        """Every resource that had a task, in the order of the net."""
        schedule, whole = self.schedule, max(1, int(self.schedule.end.max()))
        critical = np.zeros(len(schedule.net.resources))
        path = np.asarray(self.critical_path, np.int64)
        np.add.at(critical, self.resource[path], (schedule.end - schedule.start)[path])
        found = []
        for position, resource in enumerate(schedule.net.resources):
            mine = np.flatnonzero(self.resource == position)
            if not len(mine):
                continue
            busy = float(self._busy(position, np.array([whole]))[0]) / PICOSECONDS
            critical_s = float(critical[position]) / PICOSECONDS
            found.append(Use(resource.name, resource.group, len(mine), busy, critical_s, self.spent_j[position]))
        return found

    def waited(self) -> list[Waited]:
        """Per resource of the critical path, longest first: how busy the others were meanwhile."""
        schedule = self.schedule
        path = np.asarray(self.critical_path, np.int64)
        found = []
        for position in np.unique(self.resource[path]):
            mine = path[self.resource[path] == position]
            start, end = schedule.start[mine], schedule.end[mine]
            length = int((end - start).sum())
            if not length:
                continue
            busy = {}
            for other, resource in enumerate(schedule.net.resources):
                if other == position or resource.service == "delay":
                    continue
                share = float((self._busy(other, end) - self._busy(other, start)).sum() / length)
                if share > 0.0005:
                    busy[resource.name] = share
            name = schedule.net.resources[position].name
            found.append(Waited(name, length / PICOSECONDS, length / PICOSECONDS / self.seconds, busy))
        return sorted(found, key=lambda one: -one.seconds)

    def ledger(self) -> dict[str, float]:
        """Joules per resource, and what is drawn whatever runs. `energy_j` is their sum."""
        names = (resource.name for resource in self.schedule.net.resources)
        parts = {name: joules for name, joules in zip(names, self.spent_j, strict=True) if joules}
        parts["static"] = self.static_w * self.busy_s + self.waiting_w * (self.seconds - self.busy_s)
        return parts

    @cached_property
    def _at_work(self) -> tuple[Integers, Integers]:
        """Starts and ends of the stretches in which any op runs, from its launch on."""
        groups = np.array([resource.group != "host" for resource in self.schedule.net.resources], bool)
        mine = (np.asarray(self.schedule.column("op")) >= 0) & groups[self.resource]
        return _union(self.schedule.start[mine], self.schedule.end[mine])

    @property
    def busy_s(self) -> float:
        """That any op runs, anywhere but on the host."""
        start, end = self._at_work
        return float((end - start).sum()) / PICOSECONDS

    @property
    def energy_j(self) -> float:
        """Of the step, of one rank."""
        return math.fsum(self.ledger().values())

    def power(self, bins: int = 200) -> tuple[Any, dict[str, Any]]:
        """(edges (bins + 1,) in seconds, watts (bins,) per group of resources and static). Integrates to `energy_j`."""
        edges = np.linspace(0.0, float(self.schedule.end.max()), bins + 1)
        width = np.diff(edges) / PICOSECONDS
        watts: dict[str, Any] = {}
        groups = np.array([resource.group for resource in self.schedule.net.resources])[self.resource]
        for group in dict.fromkeys(groups.tolist()):
            mine = np.flatnonzero((groups == group) & (self.joules > 0.0))
            if len(mine):
                watts[group] = np.diff(self._spent(mine, edges)) / width
        start, end = self._at_work
        ones = np.ones(len(start))
        working = np.diff(_area(start, ones, edges) - _area(end, ones, edges)) / np.diff(edges)
        watts["static"] = self.waiting_w + (self.static_w - self.waiting_w) * working
        return edges / PICOSECONDS, watts

    def utilisation(self, position: int, bins: int = 200) -> Any:
        """(bins,) share of a resource's slots that were busy."""
        edges = np.linspace(0.0, float(self.schedule.end.max()), bins + 1)
        return np.diff(self._busy(position, edges)) / np.diff(edges)

    def _busy(self, position: int, at: Any) -> Any:
        """Picoseconds that a resource has been busy up to each time: of all slots over their number, or of any task."""
        schedule, resource = self.schedule, self.schedule.net.resources[position]
        mine = self.resource == position
        start, end = schedule.start[mine], schedule.end[mine]
        if resource.service == "slots":
            width = np.asarray(schedule.column("width"), float)[mine]
            return (_area(start, width, at) - _area(end, width, at)) / resource.slots
        start, end = _union(start, end)
        ones = np.ones(len(start))
        return _area(start, ones, at) - _area(end, ones, at)

    def _spent(self, tasks: Any, at: Any) -> Any:
        """Joules of some tasks up to each time; a task draws evenly while it runs."""
        start, end = self.schedule.start[tasks].astype(float), self.schedule.end[tasks].astype(float)
        joules = self.joules[tasks]
        moment = end <= start
        rate = np.where(moment, 0.0, joules / np.where(moment, 1.0, end - start))
        spent = _area(start, rate, at) - _area(end, rate, at)
        if moment.any():
            order = np.argsort(start[moment])
            total = np.concatenate([[0.0], np.cumsum(joules[moment][order])])
            past = np.where(at > 0.0, np.searchsorted(start[moment][order], at, side="right"), 0)
            spent = spent + total[past]
        return spent


def _area(begin: Any, weight: Any, at: Any) -> Any:
    """sum over i of weight_i max(0, at - begin_i), at many times."""
    order = np.argsort(begin, kind="stable")
    begin, weight = np.asarray(begin, float)[order], weight[order]
    total = np.concatenate([[0.0], np.cumsum(weight)])
    moment = np.concatenate([[0.0], np.cumsum(weight * begin)])
    count = np.searchsorted(begin, at, side="right")
    return total[count] * at - moment[count]


def _union(start: Integers, end: Integers) -> tuple[Integers, Integers]:
    """The stretches of time that any of the intervals covers."""
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    new = np.concatenate([[True], start[1:] > reach[:-1]]) if len(start) else np.zeros(0, bool)
    last = np.concatenate([new[1:], [True]]) if len(start) else new
    return start[new], reach[last]
