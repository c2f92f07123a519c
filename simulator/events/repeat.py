"""Sections repeated many times, simulated a few times: exact where the schedule has become periodic.

Two short runs, one copy longer than the other, must agree to the picosecond but for one period per section; then every
further copy adds that period. Where they do not agree, all copies are simulated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.events.engine import Integers, Schedule, places, simulate
from simulator.events.tasks import Net

FEW = 6
"""Copies of the shorter run: three to settle in, three to run out."""
HEAD = FEW // 2


def simulate_repeated(net: Net) -> Schedule:
    """The same schedule as `simulate`, faster where sections repeat. Raises TimelineError."""
    full = tuple(section.repeats for section in net.sections)
    short = tuple(min(count, FEW) if count > FEW + 1 else count for count in full)
    if short == full:
        return simulate(net)
    first = simulate(net, short)
    second = simulate(net, tuple(s + (s < count) for s, count in zip(short, full, strict=True)))
    periods = _periods(first, second, [s < count for s, count in zip(short, full, strict=True)])
    if periods is None:
        return simulate(net)
    return _stretched(first, full, periods, first.events + second.events)


def _blocks(schedule: Schedule, section: int) -> tuple[Integers, Integers]:
    """(copies, size) of start and of end of one section."""
    sizes = [len(part) for part in schedule.net.sections]
    at = sum(size * count for size, count in zip(sizes[:section], schedule.repeats[:section], strict=True))
    stop = at + sizes[section] * schedule.repeats[section]
    shape = (schedule.repeats[section], sizes[section])
    return schedule.start[at:stop].reshape(shape), schedule.end[at:stop].reshape(shape)


def _periods(first: Schedule, second: Schedule, repeated: list[bool]) -> list[int] | None:
    """Picoseconds that one more copy of each section takes; None if the two runs differ in any other way."""
    shift, found = 0, []
    for section, more in enumerate(repeated):
        if not len(first.net.sections[section]):
            found.append(0)
            continue
        period = 0
        for a, b in zip(_blocks(first, section), _blocks(second, section), strict=True):
            if not more:
                if not np.array_equal(a + shift, b):
                    return None
                continue
            head, tail = a[:HEAD] + shift, a[HEAD:] + shift
            period = int(b[HEAD + 1, 0] - tail[0, 0])
            if not (np.array_equal(head, b[:HEAD]) and np.array_equal(tail + period, b[HEAD + 1 :])):
                return None
            if not (np.array_equal(b[HEAD - 1] + period, b[HEAD]) and np.array_equal(head[-2] + period, head[-1])):
                return None
        found.append(period)
        shift += period
    return found


def _stretched(short: Schedule, full: tuple[int, ...], periods: list[int], events: int) -> Schedule:
    """The short run with further copies of the last one of each head."""
    sizes = [len(section) for section in short.net.sections]
    source: list[Integers] = []
    shift: list[Integers] = []
    moved: list[Integers] = []
    begin = delay = added = 0
    for size, few, count, period in zip(sizes, short.repeats, full, periods, strict=True):
        more = count - few
        copies = np.arange(count)
        kept = np.where(copies < HEAD, copies, np.maximum(HEAD - 1, copies - more)) if more else copies
        late = copies - kept
        source.append((begin + kept[:, None] * size + np.arange(size)).ravel())
        shift.append(np.repeat(delay + late * period, size))
        moved.append(np.repeat(added + late * size, size))
        begin += size * few
        delay += more * period
        added += more * size
    index, late_ps, further = np.concatenate(source), np.concatenate(shift), np.concatenate(moved)
    cause = short.cause[index]
    section, copy, position = places(sizes, full)
    return replace(
        short,
        repeats=full,
        section=section,
        copy=copy,
        position=position,
        ready=short.ready[index] + late_ps,
        start=short.start[index] + late_ps,
        end=short.end[index] + late_ps,
        cause=np.where(cause >= 0, cause + further, -1),
        events=events,
    )
