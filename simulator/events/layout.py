"""The plain arrays that the event loop reads and writes, and the codes in them.

Times are whole picoseconds, so that sums are exact, ties are real and a repeated pattern can be recognised by equality.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Kinds of resource: slots served in order of priority; a link whose transfers share it evenly; a wait that any number
# of tasks may spend side by side.
SLOTS, SHARED, DELAY = range(3)

# Places of `Work.state`.
STATE_EVENTS, STATE_SEQUENCE, STATE_QUEUED, STATE_DONE, STATE_CURRENT, NUM_STATE = range(6)

# Columns of `Program.task`: one cache line of what every event needs of a task.
T_DURATION, T_RESOURCE, T_WIDTH, T_LANE, T_SUCCESSORS, T_SUCCESSORS_END, T_TAKES, T_GIVES = range(8)

# Columns of `Work.log`.
L_PENDING, L_READY, L_START, L_END, L_CAUSE, NUM_LOG = range(6)

PICOSECONDS = 10**12
"""Per second."""
LONGEST_PS = 2**62
"""Nothing lasts longer: 53 days."""
WHO_BITS = 31
"""Bits of an event's second word that say whose it is; above them stands its sequence number."""
WHO_MASK = 2**31 - 1


class Program(NamedTuple):
    """What there is to do: N tasks, E dependencies, R resources, B buffers."""

    task: Any
    """(N, 8): picoseconds alone; resource; slots held; lane of its resource; where its successors begin and end; the
    buffer in which it needs room before it can queue, and the one in which it frees room when it ends, or -1."""
    waits: Any
    """(N,) number of tasks that it waits for."""
    successors: Any
    """(E,)"""
    takes_bytes: Any
    """(N,)"""
    gives_bytes: Any
    kind: Any
    """(R,) SLOTS, SHARED or DELAY."""
    capacity: Any
    """(R,) slots."""
    lanes: Any
    """(R + 1,) where each resource's lanes begin: one queue per priority, the most urgent first."""
    transfers: Any
    """(R + 1,) where each shared link's transfers begin in `Work.transfer`."""
    room: Any
    """(B,) capacity of each buffer."""


class Work(NamedTuple):
    """What the loop writes into. The log is the schedule."""

    log: Any
    """(N, NUM_LOG): dependencies still open; when the last was met; start; end; the task whose end let it start, or -1."""
    following: Any
    """(N,) the next task in the same queue."""
    head: Any
    """(L + B,) first task of the queue of each lane, then of each buffer; -1 if it is empty."""
    tail: Any
    queued: Any
    """(R,) tasks in all lanes of a resource, or transfers on a shared link."""
    transfer: Any
    """(., 2) binary heaps, one per shared link: the virtual time at which a transfer ends, and the task."""
    free: Any
    """(R,) slots."""
    virtual: Any
    """(R,) picoseconds of service that each transfer of a shared link has had since the link was last idle."""
    touched: Any
    """(R,) when `virtual` was last brought up to date."""
    due: Any
    """(R,) when the next transfer of a shared link ends, or -1; announcements of other times are void."""
    left: Any
    """(B,) room."""
    event: Any
    """(., 2) binary heap of what happens next: when; sequence number and who, a task or N + r for a shared link."""
    state: Any
    """(NUM_STATE,)"""
