"""The event loop: which task starts when, given what it waits for and what it runs on.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`; nothing is allocated. Ties go by sequence
number: what was queued first happens first. `p` is a `Program`, `w` a `Work`.
"""

from __future__ import annotations

import math
from typing import Any

from simulator.events.layout import (
    DELAY,
    L_CAUSE,
    L_END,
    L_PENDING,
    L_READY,
    L_START,
    SHARED,
    SLOTS,
    STATE_CURRENT,
    STATE_DONE,
    STATE_EVENTS,
    STATE_QUEUED,
    STATE_SEQUENCE,
    T_DURATION,
    T_GIVES,
    T_LANE,
    T_RESOURCE,
    T_SUCCESSORS,
    T_SUCCESSORS_END,
    T_TAKES,
    T_WIDTH,
    WHO_BITS,
    WHO_MASK,
)


def push_event(time: int, who: int, w: Any) -> None:
    """Adds to the heap of events."""
    at = w.state[STATE_QUEUED]
    w.state[STATE_QUEUED] = at + 1
    sequence = w.state[STATE_SEQUENCE]
    w.state[STATE_SEQUENCE] = sequence + 1
    while at > 0:
        above = (at - 1) >> 1
        if w.event[above, 0] <= time:
            break
        w.event[at, 0] = w.event[above, 0]
        w.event[at, 1] = w.event[above, 1]
        at = above
    w.event[at, 0] = time
    w.event[at, 1] = (sequence << WHO_BITS) + who


def drop_event(w: Any) -> None:
    """Takes the first event off the heap."""
    size = w.state[STATE_QUEUED] - 1
    w.state[STATE_QUEUED] = size
    time = w.event[size, 0]
    word = w.event[size, 1]
    at = 0
    below = 1
    while below < size:
        if below + 1 < size and (
            w.event[below + 1, 0] < w.event[below, 0]
            or (w.event[below + 1, 0] == w.event[below, 0] and w.event[below + 1, 1] < w.event[below, 1])
        ):
            below += 1
        if w.event[below, 0] > time or (w.event[below, 0] == time and w.event[below, 1] > word):
            break
        w.event[at, 0] = w.event[below, 0]
        w.event[at, 1] = w.event[below, 1]
        at = below
        below = 2 * at + 1
    w.event[at, 0] = time
    w.event[at, 1] = word


def join(queue: int, task: int, w: Any) -> None:
    """Adds to the end of the queue of a lane or a buffer."""
    w.following[task] = -1
    if w.head[queue] < 0:
        w.head[queue] = task
    else:
        w.following[w.tail[queue]] = task
    w.tail[queue] = task


def push_transfer(resource: int, ends: int, task: int, p: Any, w: Any) -> None:
    """Adds to the heap of a shared link. Transfers that end together end in an order that only depends on the heap."""
    base = p.transfers[resource]
    at = w.queued[resource]
    w.queued[resource] = at + 1
    while at > 0:
        above = (at - 1) >> 1
        if w.transfer[base + above, 0] <= ends:
            break
        w.transfer[base + at, 0] = w.transfer[base + above, 0]
        w.transfer[base + at, 1] = w.transfer[base + above, 1]
        at = above
    w.transfer[base + at, 0] = ends
    w.transfer[base + at, 1] = task


def drop_transfer(resource: int, p: Any, w: Any) -> None:
    """Takes the first transfer off the heap of a shared link."""
    base = p.transfers[resource]
    size = w.queued[resource] - 1
    w.queued[resource] = size
    ends = w.transfer[base + size, 0]
    task = w.transfer[base + size, 1]
    at = 0
    below = 1
    while below < size:
        if below + 1 < size and w.transfer[base + below + 1, 0] < w.transfer[base + below, 0]:
            below += 1
        if w.transfer[base + below, 0] >= ends:
            break
        w.transfer[base + at, 0] = w.transfer[base + below, 0]
        w.transfer[base + at, 1] = w.transfer[base + below, 1]
        at = below
        below = 2 * at + 1
    w.transfer[base + at, 0] = ends
    w.transfer[base + at, 1] = task


def begin(task: int, now: int, p: Any, w: Any) -> None:
    """Starts a task on slots or as a wait."""
    w.log[task, L_START] = now
    w.log[task, L_CAUSE] = w.state[STATE_CURRENT]
    push_event(now + p.task[task, T_DURATION], task, w)


def advance(resource: int, now: int, w: Any) -> None:
    """Brings a shared link up to date: n transfers have each had 1/n of the time that has passed."""
    sharing = w.queued[resource]
    if sharing > 0:
        w.virtual[resource] += (now - w.touched[resource]) / sharing
    else:
        w.virtual[resource] = 0.0
    w.touched[resource] = now


def expect(resource: int, now: int, p: Any, w: Any) -> None:
    """Announces when the next transfer of a shared link ends; what was announced before for another time is void."""
    sharing = w.queued[resource]
    if sharing == 0:
        w.due[resource] = -1
        return
    left = (w.transfer[p.transfers[resource], 0] - w.virtual[resource]) * sharing
    due = now + max(0, math.ceil(left))
    if due != w.due[resource]:
        w.due[resource] = due
        push_event(due, len(p.task) + resource, w)


def enter(task: int, now: int, p: Any, w: Any) -> None:
    """A task that has its dependencies and its room comes to its resource."""
    resource = p.task[task, T_RESOURCE]
    kind = p.kind[resource]
    if kind == DELAY:
        begin(task, now, p, w)
    elif kind == SHARED:
        w.log[task, L_START] = now
        w.log[task, L_CAUSE] = w.state[STATE_CURRENT]
        advance(resource, now, w)
        push_transfer(resource, math.ceil(w.virtual[resource] + p.task[task, T_DURATION]), task, p, w)
        expect(resource, now, p, w)
    elif w.queued[resource] == 0 and w.free[resource] >= p.task[task, T_WIDTH]:
        w.free[resource] -= p.task[task, T_WIDTH]
        begin(task, now, p, w)
    else:
        w.queued[resource] += 1
        join(p.task[task, T_LANE], task, w)


def arrive(task: int, now: int, p: Any, w: Any) -> None:
    """A task whose dependencies are met takes its room in a buffer, or waits in line for it."""
    w.log[task, L_READY] = now
    buffer = p.task[task, T_TAKES]
    if buffer >= 0:
        queue = p.lanes[len(p.kind)] + buffer
        if w.head[queue] >= 0 or w.left[buffer] < p.takes_bytes[task]:
            join(queue, task, w)
            return
        w.left[buffer] -= p.takes_bytes[task]
    enter(task, now, p, w)


def serve(resource: int, now: int, p: Any, w: Any) -> None:
    """Starts queued tasks, the most urgent lane first, until the next one needs more slots than are free."""
    for lane in range(p.lanes[resource], p.lanes[resource + 1]):
        while w.head[lane] >= 0:
            task = w.head[lane]
            if w.free[resource] < p.task[task, T_WIDTH]:
                return
            w.head[lane] = w.following[task]
            w.queued[resource] -= 1
            w.free[resource] -= p.task[task, T_WIDTH]
            begin(task, now, p, w)


def finish(task: int, now: int, p: Any, w: Any) -> None:
    """Ends a task: frees its slots and its room, tells its successors, then lets those that queue use the slots."""
    w.log[task, L_END] = now
    w.state[STATE_DONE] += 1
    w.state[STATE_CURRENT] = task
    resource = p.task[task, T_RESOURCE]
    slots = p.kind[resource] == SLOTS
    if slots:
        w.free[resource] += p.task[task, T_WIDTH]
    for at in range(p.task[task, T_SUCCESSORS], p.task[task, T_SUCCESSORS_END]):
        other = p.successors[at]
        pending = w.log[other, L_PENDING] - 1
        w.log[other, L_PENDING] = pending
        if pending == 0:
            arrive(other, now, p, w)
    buffer = p.task[task, T_GIVES]
    if buffer >= 0:
        w.left[buffer] += p.gives_bytes[task]
        queue = p.lanes[len(p.kind)] + buffer
        while w.head[queue] >= 0 and w.left[buffer] >= p.takes_bytes[w.head[queue]]:
            other = w.head[queue]
            w.head[queue] = w.following[other]
            w.left[buffer] -= p.takes_bytes[other]
            enter(other, now, p, w)
    if slots and w.queued[resource] > 0:
        serve(resource, now, p, w)


def run(p: Any, w: Any) -> int:
    """Runs all tasks; returns how many have ended. Fewer than all: they wait for one another."""
    tasks = len(p.task)
    w.state[STATE_CURRENT] = -1
    for task in range(tasks):
        if w.log[task, L_PENDING] == 0:
            arrive(task, 0, p, w)
    while w.state[STATE_QUEUED] > 0:
        now = w.event[0, 0]
        who = w.event[0, 1] & WHO_MASK
        drop_event(w)
        if who < tasks:
            w.state[STATE_EVENTS] += 1
            finish(who, now, p, w)
            continue
        resource = who - tasks
        if now != w.due[resource]:
            continue
        w.state[STATE_EVENTS] += 1
        w.due[resource] = -1
        advance(resource, now, w)
        task = w.transfer[p.transfers[resource], 1]
        drop_transfer(resource, p, w)
        finish(task, now, p, w)
        expect(resource, now, p, w)
    return int(w.state[STATE_DONE])
