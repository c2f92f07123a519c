"""How long each part of an op holds its resource, and in which pieces: streams, tiles in the cache, waves over cores.

What binds an op is stretched to the op's own time, so that its losses lie where they arise; the other parts keep their
own. A memory's timings replace the calibrated share of its bandwidth, or bound it where that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.events.memory import Access
from simulator.events.tasks import Kind
from simulator.events.terms import OpTerms, Stream

LOCKSTEP = 1.5
"""Arithmetic that takes at most this many times as long as its operands' way out of the banks, at full rates, is part of the
bursts: the banks multiply what they read. Slower arithmetic (processors beside the banks) takes its own time."""
SHORT_S = 5e-6
"""An op shorter than this is cut into two pieces only."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A stream of one op with the time that it holds its memory."""

    stream: Stream
    seconds: float
    kind: Kind
    size: float
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Service:
    """Seconds of one execution on each kind of resource."""

    compute_s: float
    cache_s: float
    flows: tuple[Flow, ...]


def service(terms: OpTerms, read_bytes_per_s: tuple[float, ...], accesses: Mapping[int, Access | None]) -> Service:
    """The parts of an op; `accesses` holds the memories whose own timings are modelled."""
    compute, cache, stretch = terms.compute_s, terms.cache_s, 1.0
    if terms.binding == "memory" and terms.memory_s > 0.0:
        stretch = terms.body_s / terms.memory_s
    elif terms.binding == "cache":
        cache = terms.body_s
    else:
        compute = terms.body_s
    flows = []
    for stream in terms.streams:
        size = stream.seconds * read_bytes_per_s[stream.memory]
        by = accesses.get(stream.memory)
        if by is None:
            flows.append(Flow(stream, stream.seconds * stretch, "load", size))
            continue
        seconds = max(by.seconds(size), stream.seconds * stretch if by.least else 0.0)
        flows.append(Flow(stream, seconds, by.kind, size))
        if by.kind == "pim burst" and terms.binding != "power" and terms.compute_s <= LOCKSTEP * stream.seconds:
            compute = min(compute, seconds)
    return Service(compute, cache, tuple(flows))


def waves(tiles: float, cores: float, seconds: float, chunks: int) -> list[tuple[int, float]]:
    """(cores at work, share of the time) of each piece of an op, in order; the shares sum to 1.

    ceil(tiles / cores) waves of equal length, the last of which may leave cores idle. Many waves are grouped, few are
    cut, so that other work can come between.

    >>> waves(tiles=109, cores=108, seconds=1.0, chunks=2)
    [(108, 0.5), (1, 0.5)]
    """
    cores, tiles = max(1, int(cores)), max(1.0, tiles)
    chunks = min(chunks, 2) if seconds < SHORT_S else chunks
    count = math.ceil(tiles / cores)
    tail = min(cores, max(1, math.ceil(tiles - (count - 1.0) * cores)))
    if count == 1:
        return [(tail, 1.0 / chunks)] * chunks
    cut = max(1, chunks // count)
    before = min(count - 1, max(1, chunks - 1)) if cut == 1 else (count - 1) * cut
    share = (count - 1.0) / count / before
    return [(cores, share)] * before + [(tail, 1.0 / count / cut)] * cut
