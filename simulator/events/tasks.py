"""Tasks, what they run on, and in what order: the input of a simulation, as columns.

A `Net` is a sequence of sections; a section is a list of tasks that is repeated, such as the layers of a model. Checks
each task as it is added. Knows nothing of machines or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from simulator.errors import TimelineError
from simulator.events.layout import DELAY, LONGEST_PS, PICOSECONDS, SHARED, SLOTS

Kind = Literal["compute", "load", "store", "exchange", "launch", "flash read", "pim burst", "wait"]
Group = Literal["unit", "memory", "cache", "link", "host", "launch", "wait"]

_SERVICE = {"slots": SLOTS, "shared": SHARED, "delay": DELAY}


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that tasks run on."""

    name: str
    group: Group
    service: Literal["slots", "shared", "delay"] = "slots"
    """slots: so many at once, in order of priority and arrival. shared: all at once, each at an even share of the rate.
    delay: any number at once, without slowing one another."""
    slots: int = 1
    bytes_per_s: float | None = None
    """Rate of a memory or a link, for tasks given in bytes."""

    @property
    def code(self) -> int:
        """Its kind in the arrays."""
        return _SERVICE[self.service]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Room that tasks take before they run and free when the last reader ends: back-pressure, and prefetch depth."""

    name: str
    capacity_bytes: int


@dataclass(slots=True)
class Section:
    """Tasks that are repeated as a block, in columns.

    Copies and sections are joined per thread of work: the ops themselves, loads that run ahead of them, launches.
    """

    repeats: int = 1
    label: str = ""
    name: list[str] = field(default_factory=list)
    kind: list[Kind] = field(default_factory=list)
    op: list[int] = field(default_factory=list)
    """Position of the op that a task is part of; -1 for none."""
    resource: list[int] = field(default_factory=list)
    duration_ps: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    priority: list[int] = field(default_factory=list)
    takes: list[int] = field(default_factory=list)
    takes_bytes: list[int] = field(default_factory=list)
    gives: list[int] = field(default_factory=list)
    gives_bytes: list[int] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    entries: dict[str, list[int]] = field(default_factory=dict)
    """Per thread of work, the tasks that wait for the exits of that thread in the copy or section before."""
    exits: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.name)

    def enter(self, thread: str, task: int) -> None:
        """The task waits for what came before in its thread. Raises TimelineError."""
        self._check(thread, task)
        self.entries.setdefault(thread, []).append(task)

    def leave(self, thread: str, tasks: Iterable[int]) -> None:
        """What comes next in the thread waits for these tasks. Raises TimelineError."""
        self.exits[thread] = list(dict.fromkeys(tasks))
        self._check(thread, *self.exits[thread])

    def _check(self, thread: str, *tasks: int) -> None:
        for task in tasks:
            if not 0 <= task < len(self):
                raise TimelineError(f"{thread} {task}", f"the section has no such task; it has {len(self)}")


class Net:
    """Resources, buffers and sections of one simulation.

    >>> net = Net()
    >>> core = net.resource(Resource("core", "unit"))
    >>> first = net.task("first", core, 2e-6)
    >>> second = net.task("second", core, 3e-6, after=[first])
    >>> len(net.sections[0])
    2
    """

    __slots__ = ("buffers", "resources", "sections")

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.buffers: list[Buffer] = []
        self.sections: list[Section] = []

    def resource(self, resource: Resource) -> int:
        """Adds a resource; returns its position."""
        if resource.slots < 1:
            raise TimelineError(resource.name, f"a resource needs at least one slot, not {resource.slots}")
        if resource.service not in _SERVICE:
            raise TimelineError(resource.name, f"serves as one of {', '.join(_SERVICE)}, not '{resource.service}'")
        self.resources.append(resource)
        return len(self.resources) - 1

    def find(self, name: str, task: str) -> int:
        """Position of the resource of that name. Raises TimelineError naming the task that wanted it."""
        for position, resource in enumerate(self.resources):
            if resource.name == name:
                return position
        known = ", ".join(resource.name for resource in self.resources)
        raise TimelineError(task, f"there is no resource '{name}'; there are {known or 'none'}")

    def buffer(self, name: str, capacity_bytes: float) -> int:
        """Adds a buffer; returns its position. Raises TimelineError."""
        if not 0 <= capacity_bytes < math.inf:
            raise TimelineError(
                name, f"a buffer's capacity must be finite and not below zero, not {capacity_bytes} bytes"
            )
        self.buffers.append(Buffer(name, int(capacity_bytes)))
        return len(self.buffers) - 1

    def section(self, repeats: int = 1, label: str = "") -> Section:
        """Opens a new section, to which tasks are added from now on. Raises TimelineError."""
        if repeats < 0:
            raise TimelineError(label or f"section {len(self.sections)}", f"cannot be repeated {repeats} times")
        self.sections.append(Section(repeats, label))
        return self.sections[-1]

    def task(
        self,
        name: str,
        resource: int,
        seconds: float = 0.0,
        *,
        bytes: float = 0.0,
        kind: Kind = "compute",
        after: Iterable[int] = (),
        width: int = 1,
        priority: int = 0,
        takes: tuple[int, float] | None = None,
        gives: tuple[int, float] | None = None,
        joules: float = 0.0,
        op: int = -1,
    ) -> int:
        """Adds a task to the open section: `seconds` and `bytes` at the resource's rate, after others of the section.

        `takes` and `gives` are (buffer, bytes). Returns its position in the section. Raises TimelineError.
        """
        section = self.sections[-1] if self.sections else self.section()
        if not 0 <= resource < len(self.resources):
            raise TimelineError(name, f"there is no resource {resource}; there are {len(self.resources)}")
        on = self.resources[resource]
        if not 0.0 <= bytes < math.inf:
            raise TimelineError(name, f"moves {bytes} bytes over {on.name}; they must be finite and not below zero")
        if bytes > 0.0:
            if on.bytes_per_s is None or not 0.0 < on.bytes_per_s < math.inf:
                rate = "none is given" if on.bytes_per_s is None else f"it is {on.bytes_per_s} bytes/s"
                raise TimelineError(
                    name,
                    f"{on.name} has no bandwidth ({rate}), and the task moves {bytes:.0f} bytes; give one above zero",
                )
            seconds += bytes / on.bytes_per_s
        if not (seconds >= 0.0 and seconds * PICOSECONDS < LONGEST_PS):
            raise TimelineError(name, f"lasts {seconds} s on {on.name}; a time must be finite and not below zero")
        if not 1 <= width <= on.slots and on.service == "slots":
            raise TimelineError(name, f"needs {width} slots at once of {on.name}, which has {on.slots}")
        for direction in (takes, gives):
            if direction is not None:
                self._check_room(name, *direction)
        position = len(section)
        section.name.append(name)
        section.kind.append(kind)
        section.op.append(op)
        section.resource.append(resource)
        section.duration_ps.append(round(seconds * PICOSECONDS))
        section.width.append(width)
        section.priority.append(priority)
        section.takes.append(takes[0] if takes else -1)
        section.takes_bytes.append(math.ceil(takes[1]) if takes else 0)
        section.gives.append(gives[0] if gives else -1)
        section.gives_bytes.append(math.ceil(gives[1]) if gives else 0)
        section.joules.append(joules)
        for before in after:
            if not 0 <= before < len(self.sections[-1].name):
                raise TimelineError(name, f"waits for task {before} of its section, which has no such task")
            section.edges.append((before, position))
        return position

    def _check_room(self, task: str, buffer: int, size: float) -> None:
        if not 0 <= buffer < len(self.buffers):
            raise TimelineError(task, f"there is no buffer {buffer}; there are {len(self.buffers)}")
        whole = self.buffers[buffer]
        if not 0 <= size < math.inf:
            raise TimelineError(
                task, f"moves {size} bytes in buffer '{whole.name}'; they must be finite and not below zero"
            )
        if math.ceil(size) > whole.capacity_bytes:
            raise TimelineError(
                task,
                f"moves {size:.0f} bytes at once, and buffer '{whole.name}' holds {whole.capacity_bytes}; "
                "make the pieces smaller or the buffer larger",
            )
