"""What each op of a step asks of each resource, taken from the record that the cost arithmetic leaves of it.

The time of an op is the closed form's; here it is told apart into launch, waves, streams per memory and role, exchange,
and what binds it. Computes no time of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.cost.collective import collective_time
from simulator.cost.layout import (
    ACTIVATION_BYTES,
    CACHE_BYTES,
    R_CACHE,
    R_CACHE_J,
    R_COMPUTE,
    R_COMPUTE_J,
    R_COPY,
    R_ENERGY,
    R_KERNELS,
    R_LAUNCH,
    R_LINK_J,
    R_MEMORY,
    R_STATIC_J,
    R_TIME,
    R_UNIT,
    ROWS,
    WEIGHT_BYTES,
    LinkRow,
)
from simulator.cost.runner import Runner, Shares
from simulator.graph.op import Op
from simulator.graph.step import Features, Step

POWER_BOUND = 1e-6
"""Relative distance from the power limit below which it is what binds."""
QUERY_TILE = 128
SPLIT_TOKENS = 512
"""Pieces that attention is drawn in: query rows of a block, cached positions of a split. Times do not depend on them."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What one execution moves from one memory to its unit."""

    memory: int
    seconds: float
    """At the memory's full rate as the unit sees it."""
    joules: float
    weight: float
    """Shares of its bytes that are weights, cache that is read and cache that is written; the rest are activations."""
    cache: float
    written: float


@dataclass(frozen=True, slots=True)
class OpTerms:
    """One execution of one op. Seconds."""

    op: Op
    index: int
    unit: int
    """-1 for a collective."""
    body_s: float
    """Without launch: what all parts of the op together take when nothing else runs."""
    launch_s: float
    floor_s: float
    """That the op takes besides its launch whatever its size."""
    kernels: float
    compute_s: float
    cache_s: float
    streams: tuple[Stream, ...]
    binding: str
    """compute, memory, cache, power or link: the part that is stretched to `body_s`."""
    latency_s: float
    """Of a collective, before its bytes flow."""
    tiles: float
    """Pieces that can run on different cores at once."""
    compute_j: float
    cache_j: float
    link_j: float
    static_j: float
    """Drawn besides switching while it runs."""
    copy_s: float = 0.0
    """To copy operands from where a technique keeps them, all that are missed."""
    copy_j: float = 0.0
    written: float = 0.0
    """Share of its cache bytes that it writes."""

    @property
    def memory_s(self) -> float:
        """All streams, one after the other."""
        return sum(stream.seconds for stream in self.streams)


def step_terms(runner: Runner, step: Step, shares: Shares) -> list[OpTerms]:
    """Times a step and tells its ops apart; ops that have nothing to do are left out."""
    runner.step(step, shares)
    table = runner.table
    found = []
    for index, (op, record) in enumerate(zip(table.ops, runner.scratch.records, strict=True)):
        row = [float(value) for value in record]
        if row[R_TIME] > 0.0:
            found.append(_terms(runner, index, op, row, step, shares))
    return found


def _terms(runner: Runner, index: int, op: Op, row: Sequence[float], step: Step, shares: Shares) -> OpTerms:
    table, repeat = runner.table, float(op.repeat)
    one = [value / repeat for value in row]
    power = table.power
    static_j = one[R_STATIC_J]
    if op.kind == "collective":
        link = table.links[index]
        message = table.amounts[index][ACTIVATION_BYTES].at(op.seen(step))
        streaming = collective_time(table.rows[index], _at_rate(link), message, table.efficiency.ideal)
        return OpTerms(
            op, index, -1, one[R_TIME], 0.0, 0.0, one[R_KERNELS], 0.0, 0.0, (), "link",
            max(0.0, one[R_TIME] - streaming), 1.0, 0.0, 0.0, one[R_LINK_J], static_j,
        )  # fmt: skip
    unit, before = int(row[R_UNIT]), min(one[R_LAUNCH], one[R_TIME])
    body = one[R_TIME] - before
    launch = min(before, table.units[unit].launch_s * one[R_KERNELS])
    copy_j = _copy_j(runner, index, one[R_COPY], shares)
    streams = _streams(runner, index, op, one, step, shares)
    parts = {"compute": one[R_COMPUTE], "memory": sum(s.seconds for s in streams), "cache": one[R_CACHE]}
    binding = max(parts, key=lambda name: parts[name])
    if power.tdp_w > 0.0 and one[R_ENERGY] - copy_j + static_j >= power.tdp_w * one[R_TIME] * (1.0 - POWER_BOUND):
        binding = "power"
    return OpTerms(
        op, index, unit, body, launch, before - launch, one[R_KERNELS], one[R_COMPUTE], one[R_CACHE], streams, binding, 0.0,
        _tiles(runner, index, op, unit, step), one[R_COMPUTE_J], one[R_CACHE_J], 0.0, static_j, one[R_COPY], copy_j,
        _written_share(op, op.seen(step)),
    )  # fmt: skip


def _streams(
    runner: Runner, index: int, op: Op, one: Sequence[float], step: Step, shares: Shares
) -> tuple[Stream, ...]:
    """What is read from each memory, with the shares of the roles in it."""
    memories = len(runner.table.memory_names)
    seen = op.seen(step)
    amounts = runner.table.amounts[index]
    weight = amounts[WEIGHT_BYTES].at(seen) * op.touched_share(seen.tokens)
    cache, activation = amounts[CACHE_BYTES].at(seen), amounts[ACTIVATION_BYTES].at(seen)
    written = _written_share(op, seen)
    part = int(runner.table.rows[index].part)
    rows = shares[4 * part - 1 : 4 * part + 2] if part else shares[:3]
    found = []
    for memory in range(memories):
        seconds = one[R_MEMORY + memory]
        if seconds <= 0.0:
            continue
        parts = [size * row[memory] for size, row in zip((weight, cache, activation), rows, strict=True)]
        whole = sum(parts) or 1.0
        joules = one[R_MEMORY + memories + memory]
        cached = parts[1] / whole
        found.append(Stream(memory, seconds, joules, parts[0] / whole, cached * (1.0 - written), cached * written))
    return tuple(found)


def _copy_j(runner: Runner, index: int, copy_s: float, shares: Shares) -> float:
    """Joules of an op's copies: those of a byte over its seconds, which a rule gives for one role only."""
    part = int(runner.table.rows[index].part)
    if copy_s <= 0.0 or part == 0:
        return 0.0
    seconds, cached_s, joules, cached_j = shares[4 * part + 2]
    return copy_s * (joules / seconds if seconds > 0.0 else cached_j / cached_s)


def _written_share(op: Op, seen: Features) -> float:
    """Of the cache bytes that an op moves, those that it writes."""
    kept = [t for t in op.tensors if t.role in ("kv", "state")]
    written = sum(t.write.at(seen) * t.bytes_per_element for t in kept)
    whole = written + sum(t.read.at(seen) * t.bytes_per_element for t in kept)
    return written / whole if whole > 0.0 else 0.0


def _tiles(runner: Runner, index: int, op: Op, unit: int, step: Step) -> float:
    """Output tiles of a product at the unit's largest tile, blocks of an attention, or all cores for anything else."""
    row, table = runner.table.units[unit], runner.table
    seen = op.seen(step)
    if op.kind == "gemm":
        rows = table.amounts[index][ROWS].at(seen)
        groups = max(1.0, op.groups * op.touched_share(seen.tokens))
        return groups * math.ceil(rows / groups / row.tile_m) * math.ceil(op.n / row.tile_n)
    if op.kind == "attention":
        query = seen.tokens / seen.sequences if seen.sequences else 1.0
        if query > 1.0:
            return max(1.0, seen.sequences * op.heads * math.ceil(query / QUERY_TILE))
        reads = seen.context / max(1.0, seen.sequences)
        return max(1.0, seen.sequences * op.kv_heads * max(1.0, reads // SPLIT_TOKENS))
    return row.cores


__all__ = ["OpTerms", "Stream", "step_terms"]


def _at_rate(link: LinkRow) -> LinkRow:
    """The same link without any latency: what is left of a collective is the flow of its bytes."""
    return link._replace(
        latency_s=0.0, wait_s=0.0, rank_s=0.0, second_s=0.0, library_latency_s=0.0, hop_s=0.0, slow_s=0.0,
        switch_latency_s=0.0,
    )  # fmt: skip
