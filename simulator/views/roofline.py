"""The hierarchical roofline of a prediction: a roof per memory, cache and link in use, a roof per rate, a point per op.

`roofs` and `points` are the data, per device, at datasheet rates; `roofline_figure` only draws them. A point stands at
the intensity of the level that binds the op, so that its distance from that level's roof is what efficiency costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from simulator.result import OpCost, Prediction
from simulator.units import in_engineering

if TYPE_CHECKING:
    from simulator.cost.table import Table
    from simulator.predict import Predictor
    from simulator.views.labels import Size


@dataclass(frozen=True, slots=True)
class Roof:
    """A limit: bytes per second of a level, or FLOPs per second of a unit in one number format."""

    kind: str
    """memory, cache, link or compute."""
    name: str
    units: tuple[str, ...]
    """The compute units that reach the memory at this rate, or the one that has the rate; none for a link."""
    per_s: float
    """Bytes/s, or FLOP/s of a compute roof."""

    @property
    def label(self) -> str:
        """Name and rate."""
        return f"{self.name} {in_engineering(self.per_s, 'FLOP/s' if self.kind == 'compute' else 'B/s')}"


@dataclass(frozen=True, slots=True)
class Point:
    """One op of one step, or a whole step over the links."""

    phase: str
    op: str
    block: str
    unit: str
    bound: str
    level: str
    """The memory, cache or link whose intensity it stands at."""
    flop_per_byte: float
    flop_per_s: float
    share: float
    time_s: float
    terms: str


def roofs(prediction: Prediction) -> list[Roof]:
    """Every limit that an op of the prediction meets, memories first, without two of the same name and rate."""
    from simulator.cost.formats import usable_dtype
    from simulator.mapping.machine import load_machine

    predictor = _predictor(prediction)
    table, machine = predictor.runner.table, load_machine(prediction.scenario.hardware)
    graph_ops = {op.name: (position, op) for position, op in enumerate(table.ops)}
    units: dict[tuple[str, str, float], list[str]] = {}
    for op in prediction.ops():
        position, graph_op = graph_ops[op.op]
        met: list[tuple[str, str, float]] = []
        if op.kind == "collective":
            link = machine.interconnect(graph_op.groups)
            if link is not None and op.link_s > 0:
                units.setdefault(("link", link.name, link.bytes_per_s), [])
            continue
        column = table.unit_names.index(op.unit)
        met += [("memory", name, table.bandwidth[column][table.memory_names.index(name)]) for name in op.memory_s]
        if op.cache_s > 0:
            met.append(("cache", _cache_name(table, op.unit, prediction), table.units[column].cache_bytes_per_s))
        if op.flops > 0:
            dtype = usable_dtype(graph_op.dtype, machine.units[column])
            met.append(("compute", f"{op.unit} {dtype}", table.rates[position][column]))
        for key in met:
            known = units.setdefault(key, [])
            if key[2] > 0 and op.unit not in known:
                known.append(op.unit)
    order = {"memory": 0, "cache": 1, "link": 2, "compute": 3}
    names = [name for kind, name, _ in units if kind == "memory"]
    found = []
    for (kind, name, per_s), reached in units.items():
        if per_s > 0:
            told_apart = kind == "memory" and names.count(name) > 1
            found.append(Roof(kind, f"{name} to {_shared(reached)}" if told_apart else name, tuple(reached), per_s))
    return sorted(found, key=lambda roof: (order[roof.kind], -roof.per_s))


def points(prediction: Prediction) -> list[Point]:
    """A point per op that computes and moves something, and one per step that uses links."""
    predictor = _predictor(prediction)
    table = predictor.runner.table
    ops = prediction.ops()
    found = [point for op in ops if (point := _point(op, table, prediction)) is not None]
    for phase in ("prefill", "decode"):
        chosen = [op for op in ops if op.phase == phase]
        moved = sum(_link_bytes(op, predictor) for op in chosen)
        seconds = sum(op.time_s for op in chosen)
        flops = sum(op.flops for op in chosen)
        if moved > 0 and flops > 0:
            link_s = sum(op.link_s for op in chosen)
            found.append(
                Point(
                    phase=phase,
                    op=f"whole {phase} step",
                    block="exchange",
                    unit="all",
                    bound="link" if link_s > 0.5 * seconds else "other",
                    level=next(roof.name for roof in roofs(prediction) if roof.kind == "link"),
                    flop_per_byte=flops / moved,
                    flop_per_s=flops / seconds,
                    share=link_s / seconds,
                    time_s=seconds,
                    terms=f"{link_s / seconds:.0%} of the step is exchange; latency is counted as bytes",
                )
            )
    return found


def undrawn(prediction: Prediction) -> list[OpCost]:
    """Ops without a place on logarithmic axes: those that compute nothing or touch no memory."""
    drawn = {(point.phase, point.op) for point in points(prediction)}
    return [op for op in prediction.ops() if (op.phase, op.op) not in drawn]


def roofline_json(prediction: Prediction) -> dict[str, Any]:
    """The chart's data, for other programs."""
    return {
        "scenario": prediction.to_dict()["provenance"],
        "roofs": [asdict(roof) for roof in roofs(prediction)],
        "points": [asdict(point) for point in points(prediction)],
        "not_drawn": [{"phase": op.phase, "op": op.op, "share": op.share} for op in undrawn(prediction)],
    }


def roofline_figure(prediction: Prediction, size: Size | None = None) -> Any:
    """The chart as a Plotly figure, 1200 x 740 where no size is given."""
    from simulator.views.chart import roofline_chart
    from simulator.views.labels import FULL

    return roofline_chart(prediction, size or FULL)


def ridge_points(found: Sequence[Roof]) -> list[tuple[Roof, Roof, float]]:
    """(sloped roof, flat roof, FLOP/B): each level and the highest flat roof of the units that reach it."""
    flat = [roof for roof in found if roof.kind == "compute"]
    ridges = []
    for roof in found:
        if roof.kind == "compute":
            continue
        reached = [top for top in flat if top.units[0] in roof.units] or flat
        if reached:
            top = max(reached, key=lambda candidate: candidate.per_s)
            ridges.append((roof, top, top.per_s / roof.per_s))
    return ridges


def _shared(units: Sequence[str]) -> str:
    """The part of a system that all units belong to, or their names."""
    parts = {unit.partition(".")[0] for unit in units}
    return parts.pop() if len(parts) == 1 and len(units) > 1 else ", ".join(units)


def _predictor(prediction: Prediction) -> Predictor:
    from simulator.predict import predictor

    return predictor(prediction.scenario)


def _point(op: OpCost, table: Table, prediction: Prediction) -> Point | None:
    from simulator.views.text import op_terms

    if op.kind == "collective" or op.flops <= 0 or op.time_s <= 0:
        return None
    row = table.units[table.unit_names.index(op.unit)]
    levels = {name: (seconds, op.memory_bytes.get(name, 0.0)) for name, seconds in op.memory_s.items()}
    if op.cache_s > 0:
        through = op.cache_s * row.cache_bytes_per_s * table.efficiency.cache_bandwidth
        levels["cache"] = (op.cache_s, through)
    kind, _, name = op.bound.partition(" ")
    binding = name if kind == "memory" else kind
    if binding not in levels:
        binding = max(levels, key=lambda level: levels[level][0], default="")
    if not binding or levels[binding][1] <= 0:
        return None
    return Point(
        phase=op.phase,
        op=op.op,
        block=op.block,
        unit=op.unit,
        bound=op.bound,
        level=_cache_name(table, op.unit, prediction) if binding == "cache" else binding,
        flop_per_byte=op.flops / levels[binding][1],
        flop_per_s=op.flops / op.time_s,
        share=op.share,
        time_s=op.time_s,
        terms=op_terms(op),
    )


def _cache_name(table: Table, unit_name: str, prediction: Prediction) -> str:
    """The last cache or scratchpad beside a unit, which is the one the cost model counts."""
    from simulator.mapping.machine import load_machine

    machine = load_machine(prediction.scenario.hardware)
    part = machine.units[table.unit_names.index(unit_name)].part
    caches = [m for m in machine.memories if m.part == part and m.kind in ("cache", "scratchpad")]
    return max(caches, key=lambda memory: memory.capacity_bytes).name if caches else "cache"


def _link_bytes(op: OpCost, predictor: Predictor) -> float:
    if op.link_s <= 0:
        return 0.0
    table = predictor.runner.table
    position = next(position for position, known in enumerate(table.ops) if known.name == op.op)
    return op.link_s * table.links[position].bytes_per_s
