"""The time of one collective among ranks, by algorithm, message and what joins them.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`. Knows nothing of what runs beside it.
"""

from __future__ import annotations

import math

from simulator.cost.layout import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, REDUCE_SCATTER, LinkRow, OpRow


def library_time(link: LinkRow, steps: float, moved: float) -> float:
    """A general library's collective in `steps` around the ring: the cheaper of a protocol with little latency, whose flags
    take bandwidth, and one that waits longer at each step."""
    quick = steps * link.hop_s + moved / link.quick_bytes_per_s
    full = steps * (link.hop_s + link.slow_s) + moved / link.library_bytes_per_s
    return link.library_latency_s + min(quick, full)


def collective_time(op: OpRow, link: LinkRow, message: float, ideal: float) -> float:
    """Alpha-beta time of a collective over p ranks whose full message is `message` bytes per rank.

    All-reduce: a ring (2 (p - 1) hops, 2 (p - 1) / p m / b), or, where every rank writes to every other at once, the
    cheaper of one-shot (a, (p - 1) m / b) and two-shot (2 a, 2 (p - 1) / p m / b), and of the library's ring where one is
    known; all-gather and reduce-scatter: (p - 1) hops, (p - 1) / p m / b; all-to-all: the (p - 1) / p of the message that
    leaves, at once; send: m / b. Where the switch sums and multicasts, an all-reduce moves (1 + 1 / p) m if that is faster:
    each rank sends its message and 1 / p of the sum. Ranks wait for the last of them once, before the first hop.
    """
    ranks = op.groups
    if ranks <= 1.0 or message <= 0.0:
        return 0.0
    if link.bytes_per_s <= 0.0:
        return math.inf
    latency = 0.0 if ideal > 0.0 else link.latency_s
    wait = 0.0 if ideal > 0.0 else link.wait_s
    away = (ranks - 1.0) / ranks
    hop = latency * 0.5
    known = link.library_bytes_per_s > 0.0
    half = link.half_bandwidth_bytes
    if op.collective == ALL_REDUCE:
        moved = 2.0 * away * message
        if 0.0 < link.large_bytes < message and ideal <= 0.0:
            moved /= link.large_share
        best = math.inf
        if link.switch_bytes_per_s > 0.0:
            best = link.switch_latency_s + (1.0 + 1.0 / ranks) * message / link.switch_bytes_per_s
        if known:
            best = min(best, library_time(link, 2.0 * (ranks - 1.0), moved + half))
        if link.one_shot > 0.0:
            latency += (ranks - 2.0) * link.rank_s
            second = link.second_s if link.second_s >= 0.0 else latency
            direct = link.direct_bytes_per_s if link.direct_bytes_per_s > 0.0 else link.bytes_per_s
            once = latency + (ranks - 1.0) * message / direct
            return wait + min(best, once, latency + second + (moved + half) / link.bytes_per_s)
        if known:
            return wait + best
        return wait + min(best, latency + hop * 2.0 * (ranks - 2.0) + (moved + half) / link.bytes_per_s)
    if op.collective == ALL_GATHER or op.collective == REDUCE_SCATTER or op.collective == ALL_TO_ALL:
        if known:
            return wait + library_time(link, 1.0 if op.collective == ALL_TO_ALL else ranks - 1.0, away * message + half)
        hops = ranks - 2.0 if link.ring > 0.0 else 0.0
        return wait + latency + hop * hops + (away * message + half) / link.bytes_per_s
    return wait + latency + message / link.bytes_per_s
