"""Commands to the banks of one DRAM channel, and page reads from the dies of flash: when the last byte is out.

In the subset of Python that Numba compiles. No heap: commands go out in the order of the requests, as early as the
timing constraints of their bank, bank group and channel allow. Times in picoseconds.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class BankTimes(NamedTuple):
    """Timing constraints of one channel, JEDEC's names; 0 for one that does not bind."""

    rcd: int
    rp: int
    ras: int
    rc: int
    ccd_s: int
    ccd_l: int
    rrd: int
    faw: int
    refi: int
    rfc: int
    rfb: int = 0
    """Refresh of one bank while the others work; then `rfc` is not used."""


def refresh_bank(bank: Any, i: int, window: int, now: int, t: BankTimes, state: Any) -> None:
    """Closes one bank for tRP + tRFC: of those furthest behind, one that the queue does not ask for, the last one used."""
    behind = state[0, 3]
    for b in range(len(state)):
        behind = min(behind, state[b, 3])
    chosen = -1
    for b in range(len(state)):
        if state[b, 3] > behind:
            continue
        asked = False
        for j in range(i, min(i + window, len(bank))):
            if bank[j] == b:
                asked = True
                break
        if not asked and (chosen < 0 or state[b, 2] > state[chosen, 2]):
            chosen = b
    if chosen < 0:  # all are asked for: the one used longest ago
        for b in range(len(state)):
            if state[b, 3] == behind and (chosen < 0 or state[b, 2] < state[chosen, 2]):
                chosen = b
    begin = max(max(now, state[chosen, 2]), state[chosen, 1] + t.ras)
    state[chosen, 0] = -1
    state[chosen, 1] = begin + t.rp + t.rfb - t.rc
    state[chosen, 3] += 1


def serve_banks(bank: Any, row: Any, per_group: int, window: int, t: BankTimes, state: Any, done: Any) -> int:
    """When the last of a channel's requests has its data: an open-page controller with a queue of `window` requests.

    Requests enter in order, as the one `window` before them is done, and do not block each other behind a busy bank. A
    hit reads one column slot (tCCD_S; tCCD_L if it enters next to one of its bank group). A miss precharges (tRAS after
    its activation), activates tRP later (tRC after the same bank's, in a slot of max(tRRD, tFAW / 4)) and reads tRCD
    after that. Every tREFI all banks close for tRFC; or, refreshed one by one, one of N closes every tREFI / N. `state`
    (banks, 4): open row, its activation, its last column, rounds of refreshes it has had.
    """
    column = 0
    activation = 0
    group = -1
    single = t.rfb > 0
    refresh = t.refi // len(state) if single else t.refi
    blocked = 0
    last = 0
    between = max(t.rrd, (t.faw + 3) // 4)
    for b in range(len(state)):
        state[b, 0] = -1
        state[b, 1] = -t.rc
        state[b, 2] = -t.ccd_l
        state[b, 3] = 0
    for i in range(window):
        done[i] = 0
    for i in range(len(bank)):
        b = bank[i]
        entered = max(done[i % window], blocked)
        column = max(column, entered) + (t.ccd_l if b // per_group == group else t.ccd_s)
        if t.refi > 0 and single and column >= refresh:
            refresh_bank(bank, i, window, column, t, state)
            refresh += t.refi // len(state)
        if t.refi > 0 and not single and column >= refresh:
            blocked = max(refresh, last) + t.rp + t.rfc
            refresh += t.refi
            entered = blocked
            column = blocked + t.ccd_s
            for other in range(len(state)):
                state[other, 0] = -1
        read = column
        if state[b, 0] != row[i]:
            start = max(entered, state[b, 2])
            if state[b, 0] >= 0:
                start = max(start, state[b, 1] + t.ras) + t.rp
            activation = max(activation + between, entered)
            opened = max(max(start, state[b, 1] + t.rc), activation)
            state[b, 0] = row[i]
            state[b, 1] = opened
        read = max(max(column, state[b, 1] + t.rcd), state[b, 2] + t.ccd_l)
        state[b, 2] = read
        group = b // per_group
        done[i % window] = read
        last = max(last, read)
    return int(last + t.ccd_s)


def serve_dies(pages: int, read: int, transfer: int, free: Any, bus: Any) -> int:
    """When the last of `pages` pages is out: dies read (tR) into a register, channels carry one page at a time.

    Pages go round the dies, which go round the channels; a die has a second register, so that it reads the next page
    while the first waits for the bus. `free` (dies, 2): when its array and its register are; `bus` (channels,).
    """
    for d in range(len(free)):
        free[d, 0] = 0
        free[d, 1] = 0
    for c in range(len(bus)):
        bus[c] = 0
    last = 0
    for i in range(pages):
        d = i % len(free)
        c = d % len(bus)
        done = max(free[d, 0] + read, free[d, 1])
        free[d, 0] = done
        sent = max(done, bus[c]) + transfer
        bus[c] = sent
        free[d, 1] = sent
        last = max(last, sent)
    return int(last)
