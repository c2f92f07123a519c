"""From a net to its schedule: columns to arrays, the compiled loop, and what is wrong if not every task can run.

Sections that repeat are simulated as often as they are repeated; `simulator.events.repeat` does it once where it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import TimelineError
from simulator.events import layout, loop
from simulator.events.layout import (
    L_CAUSE,
    L_END,
    L_PENDING,
    L_READY,
    L_START,
    LONGEST_PS,
    NUM_LOG,
    NUM_STATE,
    PICOSECONDS,
    SHARED,
    STATE_EVENTS,
    T_DURATION,
    T_GIVES,
    T_LANE,
    T_RESOURCE,
    T_SUCCESSORS,
    T_SUCCESSORS_END,
    T_TAKES,
    T_WIDTH,
    Program,
    Work,
)
from simulator.events.tasks import Net

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each of N tasks ran, in picoseconds; tasks stand in the order of sections, copies and positions."""

    net: Net
    repeats: tuple[int, ...]
    """Copies of each section."""
    section: Integers
    """(N,)"""
    copy: Integers
    """(N,) which repetition of its section, from 0."""
    position: Integers
    """(N,) in its section."""
    ready: Integers
    start: Integers
    end: Integers
    cause: Integers
    """(N,) the task whose end let it start; -1 at the beginning."""
    events: int
    """Events that were processed."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return float(self.end.max() / PICOSECONDS) if len(self.end) else 0.0

    def column(self, name: str) -> Any:
        """(N,) values of a column of the sections, such as `resource` or `joules`."""
        parts = [
            np.tile(np.asarray(getattr(section, name)), count)
            for section, count in zip(self.net.sections, self.repeats, strict=True)
            if len(section) and count
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def name(self, task: int) -> str:
        """Name of a task."""
        return self.net.sections[int(self.section[task])].name[int(self.position[task])]


@lru_cache(maxsize=1)
def compiled() -> Any:
    """`simulator.events.loop` with its functions compiled."""
    from simulator.cost.compiled import compile_modules

    return compile_modules((layout, loop), "the event loop")[-1]


def simulate(net: Net, repeats: Sequence[int] | None = None) -> Schedule:
    """Runs every copy of every section; `repeats` replaces the sections' own. Raises TimelineError.

    >>> from simulator.events.tasks import Resource
    >>> net = Net()
    >>> core = net.resource(Resource("core", "unit"))
    >>> first = net.task("first", core, 2e-6)
    >>> _ = net.task("second", core, 3e-6, after=[first])
    >>> simulate(net).seconds
    5e-06
    """
    counts = tuple(section.repeats for section in net.sections) if repeats is None else tuple(repeats)
    check_length(net)
    program = assemble(net, counts)
    work = buffers(program)
    done = compiled().run(program, work)
    schedule = _schedule(net, counts, work)
    if done < len(schedule):
        raise _stuck(schedule, program, work)
    return schedule


def check_length(net: Net) -> None:
    """Raises TimelineError if the tasks, one after the other, take longer than picoseconds can count."""
    lengths = [section.repeats * sum(section.duration_ps) for section in net.sections]
    if sum(lengths) >= LONGEST_PS:
        section = net.sections[lengths.index(max(lengths))]
        longest = section.duration_ps.index(max(section.duration_ps))
        days = LONGEST_PS / PICOSECONDS / 86400
        raise TimelineError(
            section.name[longest], f"it and its like take longer than {days:.0f} days, the most there is room for"
        )


def assemble(net: Net, counts: Sequence[int]) -> Program:
    """The arrays of a net with so many copies of each section."""
    edges: list[Integers] = []
    exits: dict[str, Integers] = {}
    base = 0
    for section, count in zip(net.sections, counts, strict=True):
        size = len(section)
        if not size or not count:
            continue
        starts = base + size * np.arange(count, dtype=np.int64)
        inner = np.asarray(section.edges, dtype=np.int64).reshape(-1, 2)
        edges.append((starts[:, None, None] + inner).reshape(-1, 2))
        for thread, entering in section.entries.items():
            entries = np.asarray(entering, np.int64)
            if thread in exits:
                edges.append(_joined(exits[thread], base + entries))
            if count > 1 and thread in section.exits:
                steps = _joined(np.asarray(section.exits[thread], np.int64), entries + size)
                edges.append((starts[:-1, None, None] + steps).reshape(-1, 2))
        for thread, leaving in section.exits.items():
            exits[thread] = starts[-1] + np.asarray(leaving, np.int64)
        base += size * count
    joined = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    order = np.argsort(joined[:, 0], kind="stable")
    column = _columns(net, counts)
    resources, room = net.resources, [buffer.capacity_bytes for buffer in net.buffers]
    resource = column("resource")
    kind = np.array([resource.code for resource in resources], np.int64)
    lanes, lane = _lanes(net, resource, column("priority"))
    offsets = _offsets(np.bincount(joined[:, 0], minlength=base))
    task = np.empty((base, 8), np.int64)
    task[:, T_DURATION] = column("duration_ps")
    task[:, T_RESOURCE] = resource
    task[:, T_WIDTH] = column("width")
    task[:, T_LANE] = lane
    task[:, T_SUCCESSORS] = offsets[:-1]
    task[:, T_SUCCESSORS_END] = offsets[1:]
    task[:, T_TAKES] = column("takes")
    task[:, T_GIVES] = column("gives")
    return Program(
        task=task,
        waits=np.bincount(joined[:, 1], minlength=base).astype(np.int64),
        successors=joined[order, 1],
        takes_bytes=column("takes_bytes"),
        gives_bytes=column("gives_bytes"),
        kind=kind,
        capacity=np.array([resource.slots for resource in resources], np.int64),
        lanes=lanes,
        transfers=_offsets(np.bincount(resource, minlength=len(resources)) * (kind == SHARED)),
        room=np.array(room, np.int64),
    )


def buffers(program: Program) -> Work:
    """What the loop writes into, as it is before the first event."""
    tasks, resources, rooms = len(program.task), len(program.kind), len(program.room)
    # Each task ends once; a shared link announces a completion at each arrival and each end.
    shared, queues = int(program.transfers[-1]), int(program.lanes[-1]) + rooms

    def zeros(*shape: int) -> Any:
        return np.zeros(shape, np.int64)

    log = np.full((tasks, NUM_LOG), -1, np.int64)
    log[:, L_PENDING] = program.waits
    return Work(
        log=log,
        following=zeros(tasks),
        head=np.full(queues, -1, np.int64),
        tail=zeros(queues),
        queued=zeros(resources),
        transfer=zeros(shared, 2),
        free=program.capacity.copy(),
        virtual=np.zeros(resources),
        touched=zeros(resources),
        due=np.full(resources, -1, np.int64),
        left=program.room.copy(),
        event=zeros(tasks + 2 * shared + 1, 2),
        state=zeros(NUM_STATE),
    )


def _columns(net: Net, counts: Sequence[int]) -> Any:
    def column(name: str) -> Any:
        parts = [
            np.tile(np.asarray(getattr(section, name), np.int64), count)
            for section, count in zip(net.sections, counts, strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    return column


def _lanes(net: Net, resource: Integers, priority: Integers) -> tuple[Integers, Integers]:
    """Where each resource's lanes begin, one per priority in use, and the lane of each task."""
    levels = np.array(sorted({level for section in net.sections for level in section.priority}), np.int64)
    resources = len(net.resources)
    key = resource * len(levels) + np.searchsorted(levels, priority)
    used = np.bincount(key, minlength=resources * len(levels)) > 0
    return _offsets(used.reshape(resources, len(levels)).sum(axis=1)), (np.cumsum(used) - 1)[key]


def _joined(before: Integers, after: Integers) -> Integers:
    """(len(before) * len(after), 2) pairs."""
    return np.stack([np.repeat(before, len(after)), np.tile(after, len(before))], axis=1)


def _offsets(counts: Any) -> Integers:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _schedule(net: Net, counts: tuple[int, ...], work: Work) -> Schedule:
    sizes = [len(section) for section in net.sections]
    where = places(sizes, counts)
    ready, start, end, cause = (work.log[:, column] for column in (L_READY, L_START, L_END, L_CAUSE))
    return Schedule(net, counts, *where, ready, start, end, cause, int(work.state[STATE_EVENTS]))


def places(sizes: Sequence[int], counts: Sequence[int]) -> tuple[Integers, Integers, Integers]:
    """(section, copy, position) of each task."""
    totals = [size * count for size, count in zip(sizes, counts, strict=True)]
    section = np.repeat(np.arange(len(sizes)), totals)
    pairs = list(zip(sizes, counts, strict=True))
    copy = np.concatenate([np.repeat(np.arange(count), size) for size, count in pairs] or [np.zeros(0, np.int64)])
    position = np.concatenate([np.tile(np.arange(size), count) for size, count in pairs] or [np.zeros(0, np.int64)])
    return section, copy, position


def _stuck(schedule: Schedule, program: Program, work: Work) -> TimelineError:
    """Why tasks are left over: a cycle of dependencies, or room that nobody frees."""
    left = set(np.flatnonzero(schedule.end < 0).tolist())
    in_line = sorted(task for task in left if work.log[task, L_PENDING] == 0)
    if in_line:
        first = in_line[0]
        buffer = schedule.net.buffers[int(program.task[first, T_TAKES])]
        return TimelineError(
            schedule.name(first),
            f"waits for room in buffer '{buffer.name}' that no task which can still run frees",
        )
    before: dict[int, int] = {}
    for task in left:
        for at in range(*program.task[task, T_SUCCESSORS : T_SUCCESSORS_END + 1].tolist()):
            before[int(program.successors[at])] = task
    here, seen = next(iter(sorted(left))), []
    while here not in seen:
        seen.append(here)
        here = before[here]
    cycle = [schedule.name(task) for task in [*reversed(seen[seen.index(here) :])]]
    return TimelineError(cycle[0], f"waits for itself: {' -> '.join([*cycle, cycle[0]])}")
