"""Attention on an array with vector lanes, tile by tile: which of them takes the softmax, and in how many passes.

Three passes: scores of whole rows, their maximum, exponentials and sum, division; all on the lanes (FLAT, arXiv 2107.06419).
One pass: exponentials, running maximum and sum on the array, corrections on the lanes (FuseMax, arXiv 2406.10491).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from simulator.errors import ScenarioError
from simulator.events.engine import simulate
from simulator.events.repeat import simulate_repeated
from simulator.events.tasks import Net, Resource
from simulator.events.timeline import Timeline
from simulator.graph.op import Op
from simulator.mapping.machine import Machine, Unit

Passes = Literal["three", "one"]
LANE_OPS = 4.0
"""Per score on the lanes in three passes: maximum, exponential of the difference, sum, division."""
ARRAY_OPS = 8.0
"""Per score on the array in one pass: an exponential of six multiply-adds, a maximum and a sum."""
ROW_OPS = 6.0
"""Per row, tile of keys and column of values on the lanes in one pass, over the columns: corrections of sum and output."""
TILE = 256
MOST_TILES = 64
"""Tasks that the keys of a block of rows are divided into; more tiles are taken together."""


@dataclass(frozen=True, slots=True)
class CascadeTimeline:
    """Attention of one layer and one sequence."""

    timeline: Timeline
    repeats: float
    """Heads that run one after the other."""

    @property
    def seconds(self) -> float:
        """Of all heads."""
        return self.timeline.seconds * self.repeats

    @property
    def array_share(self) -> float:
        """Share of the time that the array is busy."""
        return next(use.busy_s for use in self.timeline.uses() if use.group == "unit") / self.timeline.seconds


def cascade_net(machine: Machine, queries: int, keys: int, head: int, value: int, passes: Passes) -> Net:
    """One head: blocks of rows, each against all tiles of keys. Raises ScenarioError for a machine without lanes."""
    if passes not in get_args(Passes):
        raise ScenarioError(f"an attention cascade takes {' or '.join(get_args(Passes))} passes, not '{passes}'")
    array, lanes = _unit(machine, "matrix"), _unit(machine, "vector")
    macs_per_s = max(array.peak_flop_per_s.values()) / 2.0
    lane_per_s = max(lanes.peak_flop_per_s.values())
    memory = next(level for level in machine.memories if level.kind == "main")
    buffer = max((level for level in machine.memories if level.kind == "scratchpad"), key=lambda m: m.capacity_bytes)
    net = Net()
    on_array, on_lanes = net.resource(Resource("array", "unit")), net.resource(Resource("lanes", "unit"))
    dram = net.resource(Resource("dram", "memory", bytes_per_s=memory.bytes_per_s))
    rows = (
        min(TILE, queries, max(1, int(buffer.capacity_bytes / (4.0 * keys))))
        if passes == "three"
        else min(TILE, queries)
    )
    width = max(TILE, math.ceil(keys / MOST_TILES))
    tiles = math.ceil(keys / width)
    room = net.buffer("rows of scores", 2)
    blocks = math.ceil(queries / rows)
    block = net.section(blocks, "rows")
    scores = rows * min(width, keys)
    load = net.task("load rows", dram, bytes=2.0 * rows * (head + value), kind="load", takes=(room, 1))
    block.enter("load", load)
    block.leave("load", [load])
    products: list[int] = []
    softened: list[int] = []
    last = load
    for tile in range(tiles):
        product = net.task(f"scores {tile}", on_array, scores * head / macs_per_s, after=[load])
        products.append(product)
        if passes == "one":
            last = net.task(
                f"exponentials {tile}", on_array, scores * ARRAY_OPS / macs_per_s, after=[product], priority=1
            )
            fixed = net.task(
                f"corrections {tile}",
                on_lanes,
                rows * ROW_OPS * width / TILE / lane_per_s,
                after=[last, *softened[-1:]],
            )
            softened.append(fixed)
            last = net.task(f"values {tile}", on_array, scores * value / macs_per_s, after=[last], priority=2)
    if passes == "three":
        for step, ops in (("maximum", 1.0), ("exponentials", 2.0), ("division", LANE_OPS - 3.0)):
            before = list(softened)
            softened = [
                net.task(f"{step} {tile}", on_lanes, scores * ops / lane_per_s,
                         after=[products[tile]] if step == "maximum" else before)
                for tile in range(tiles)
            ]  # fmt: skip
            if step != "division":
                softened = [net.task(f"{step} done", on_lanes, after=softened)]
        values = [
            net.task(f"values {tile}", on_array, scores * value / macs_per_s, after=[softened[tile]], priority=1)
            for tile in range(tiles)
        ]
    else:
        values = [last, *softened[-1:]]
    net.task("rows done", on_lanes, after=values, gives=(room, 1))
    return net


def simulate_cascade(machine: Machine, op: Op, tokens: int, passes: Passes) -> CascadeTimeline:
    """Attention of all heads over `tokens` tokens, without a mask."""
    value = op.value_dim or op.head_dim
    net = cascade_net(machine, tokens, tokens, op.head_dim, value, passes)
    schedule = simulate_repeated(net) if net.sections[0].repeats > 1 else simulate(net)
    timeline = Timeline("attention", schedule, {}, machine.static_w, machine.static_w, schedule.seconds, float(tokens))
    return CascadeTimeline(timeline, float(op.heads))


def _unit(machine: Machine, kind: str) -> Unit:
    for unit in machine.units:
        if unit.kind == kind:
            return unit
    raise ScenarioError(f"{machine.name} has no {kind} unit, which an attention cascade needs")
