"""A simulation in the Trace Event Format that ui.perfetto.dev and chrome://tracing open: a process per step.

One track per resource, and as many more as tasks run side by side on it; counters for power and use; arrows along the
critical path. Times in microseconds, of whole nanoseconds. Format: "Trace Event Format", Google, JSON object form.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from simulator.events.layout import PICOSECONDS
from simulator.events.simulation import Simulation
from simulator.events.timeline import Timeline

MICROSECONDS = PICOSECONDS // 10**6
NANOSECONDS = PICOSECONDS // 10**9
"""Picoseconds in one. Readers keep whole nanoseconds: what is rounded apart by them overlaps, and overlaps are dropped."""
COUNTER_POINTS = 200


def trace(simulation: Simulation) -> dict[str, Any]:
    """The whole trace: its steps one after the other."""
    events: list[dict[str, Any]] = []
    begin = 0
    for process, timeline in enumerate(simulation.timelines, start=1):
        events += step_events(timeline, process, begin)
        begin += int(timeline.schedule.end.max())
    names = simulation.prediction.provenance
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {key: str(names[key]) for key in ("model", "hardware", "engine")},
    }


def step_events(timeline: Timeline, process: int, begin_ps: int) -> list[dict[str, Any]]:
    """Metadata, tasks (`X`) and counters (`C`) of one step."""
    found = [_meta(process, 0, "process_name", name=f"{timeline.label} step" if timeline.ops else timeline.label)]
    found.append(_meta(process, 0, "process_sort_index", sort_index=process))
    thread = 0
    critical = set(timeline.critical_path)
    places: dict[int, int] = {}
    for position, resource in enumerate(timeline.schedule.net.resources):
        tracks = _tracks(timeline, position)
        for number, track in enumerate(tracks):
            thread += 1
            label = resource.name if len(tracks) == 1 else f"{resource.name} ({number + 1})"
            found.append(_meta(process, thread, "thread_name", name=label))
            found.append(_meta(process, thread, "thread_sort_index", sort_index=thread))
            found += [_task(timeline, task, process, thread, begin_ps, critical) for task in track]
            places.update(dict.fromkeys(track, thread))
    found += _arrows(timeline, process, begin_ps, places)
    found += _counters(timeline, process, begin_ps)
    return found


def _tracks(timeline: Timeline, position: int) -> list[list[int]]:
    """Tasks of one resource on as few tracks as keep them from overlapping; those that take no time are left out."""
    schedule = timeline.schedule
    mine = [int(t) for t in (timeline.resource == position).nonzero()[0] if schedule.end[t] > schedule.start[t]]
    mine.sort(key=lambda task: (int(schedule.start[task]), task))
    tracks: list[list[int]] = []
    free: list[int] = []
    for task in mine:
        for number, since in enumerate(free):
            if since <= schedule.start[task]:
                tracks[number].append(task)
                free[number] = int(schedule.end[task])
                break
        else:
            tracks.append([task])
            free.append(int(schedule.end[task]))
    return tracks


def _task(
    timeline: Timeline, task: int, process: int, thread: int, begin_ps: int, critical: set[int]
) -> dict[str, Any]:
    schedule = timeline.schedule
    section = schedule.net.sections[int(schedule.section[task])]
    position = int(schedule.position[task])
    waited = int(schedule.start[task] - max(0, schedule.ready[task]))
    return {
        "name": section.name[position],
        "cat": section.kind[position],
        "ph": "X",
        "ts": _at(begin_ps + int(schedule.start[task])),
        "dur": _at(begin_ps + int(schedule.end[task]), begin_ps + int(schedule.start[task])),
        "pid": process,
        "tid": thread,
        "args": {
            "repetition": int(schedule.copy[task]),
            "waited_us": waited / MICROSECONDS,
            "energy_j": section.joules[position],
            "critical": task in critical,
        },
    }


def _at(picoseconds: int, since: int = 0) -> float:
    """Microseconds from one time to another, each rounded down to a nanosecond."""
    return (picoseconds // NANOSECONDS - since // NANOSECONDS) / 1000


def _arrows(timeline: Timeline, process: int, begin_ps: int, places: dict[int, int]) -> Iterator[dict[str, Any]]:
    """From each task of the critical path to the one that it let start (`s`, `f`), where both take time."""
    drawn = [task for task in timeline.critical_path if task in places]
    for number, (before, after) in enumerate(itertools.pairwise(drawn)):
        for phase, task in (("s", before), ("f", after)):
            yield {
                "name": "critical path",
                "cat": "critical path",
                "ph": phase,
                "id": (process << 32) + number,
                "ts": _at(begin_ps + int(timeline.schedule.start[task])),
                "pid": process,
                "tid": places[task],
                **({"bp": "e"} if phase == "f" else {}),
            }


def _counters(timeline: Timeline, process: int, begin_ps: int) -> Iterator[dict[str, Any]]:
    edges, watts = timeline.power(COUNTER_POINTS)
    schedule = timeline.schedule
    whole = int(schedule.end.max())
    series = {"power": {f"{group} in W": values.round(3).tolist() for group, values in watts.items()}}
    for position, resource in enumerate(schedule.net.resources):
        if resource.service != "delay" and (timeline.resource == position).any():
            busy = 100.0 * timeline.utilisation(position, COUNTER_POINTS)
            series[f"{resource.name} busy"] = {"%": busy.round(2).tolist()}
    for name, values in series.items():
        for at in range(len(edges) - 1):
            args = {group: value[at] for group, value in values.items()}
            yield _counter(name, process, begin_ps + whole * at // COUNTER_POINTS, args)
        yield _counter(name, process, begin_ps + whole, dict.fromkeys(values, 0.0))


def _counter(name: str, process: int, at: int, args: dict[str, float]) -> dict[str, Any]:
    return {"name": name, "ph": "C", "ts": _at(at), "pid": process, "tid": 0, "args": args}


def _meta(process: int, thread: int, event: str, **args: Any) -> dict[str, Any]:
    return {"name": event, "ph": "M", "ts": 0, "pid": process, "tid": thread, "args": args}
