"""What one step moves over links before and after its ops: operands that lie in slower memories, or where a rule keeps them.

Tells fetches ahead, fetches on demand and stores apart, and finds the way of each, hop by hop. Orders nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.cost.layout import R_LINK, R_TIME
from simulator.cost.runner import Shares
from simulator.cost.steps import device_seconds
from simulator.events.policy import Policy
from simulator.events.terms import OpTerms, step_terms
from simulator.graph.step import Step
from simulator.mapping.machine import Machine, Unit
from simulator.mapping.parts import Part
from simulator.predict import Predictor

Names = tuple[str, ...]
"""Of the memories, with their part where two are called alike."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One resource on the way, and how long the whole transfer holds it."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes of one op that are fetched before it starts, or stored after it has ended."""

    hops: tuple[Hop, ...]
    size: float
    joules: float

    def share(self, part: float) -> Transfer:
        """A part of it.

        >>> Transfer((Hop("wire", 2.0),), 8.0, 1.0).share(0.5).hops[0].seconds
        1.0
        """
        hops = tuple(Hop(hop.name, hop.seconds * part) for hop in self.hops)
        return Transfer(hops, self.size * part, self.joules * part)


@dataclass(slots=True)
class Moves:
    """Transfers by the position of their op."""

    ahead: dict[int, list[Transfer]] = field(default_factory=dict)
    """As far ahead of the op as there is room."""
    demand: dict[int, list[Transfer]] = field(default_factory=dict)
    """When everything before the op has ended."""
    behind: dict[int, list[Transfer]] = field(default_factory=dict)
    """After the op; nothing waits for them."""
    again_s: dict[int, float] = field(default_factory=dict)
    """Seconds on the unit to compute keys and values again from hidden states that were fetched."""


def find_moves(
    predictor: Predictor, step: Step, shares: Shares, policy: Policy, ops: Sequence[OpTerms]
) -> tuple[list[OpTerms], Moves]:
    """The ops with their operands at hand, and what has to be moved for that."""
    found = Moves()
    if policy.link != "event":
        _exposed(predictor, policy, ops, found)
        return list(ops), found
    changed = _placed(predictor, step, shares, policy, ops, found) if policy.prefetch_layers > 0 else list(ops)
    _ruled(predictor, step, policy, ops, found)
    return changed, found


def way(
    machine: Machine, names: Names, memory: int, unit: Unit, seconds: float, size: float, policy: Policy
) -> tuple[Hop, ...]:
    """The hops from a memory to a unit: one link, or, with `through_host`, the host's memory and two."""
    level = machine.memories[memory]
    here = unit.part or "main"
    direct = (Hop(f"{names[memory]} to {here}", seconds),)
    if not policy.through_host or level.kind != "storage" or level.part == unit.part:
        return direct
    hosts = [m for m in machine.memories if m.kind == "main" and not m.of_main and m.part != level.part]
    for host in hosts:
        first = next((j for j in machine.joins if set(j.parts) == {host.part, level.part}), None)
        second = next((j for j in machine.joins if set(j.parts) == {host.part, unit.part}), None)
        if first is not None and second is not None:
            there = min(first.rate(level.part, host.part), level.bytes_per_s)
            on = min(second.rate(host.part, unit.part), host.bytes_per_s)
            host_name = names[machine.memories.index(host)]
            return (
                Hop(f"{names[memory]} to {host.part}", max(seconds, size / there)),
                Hop(f"{host_name} to {here}", size / on),
            )
    return direct


def is_far(unit: Unit, memory: int, home: int) -> bool:
    """Whether a unit that has its operands at home would rather have those of this memory brought there."""
    return memory != home and unit.near != memory and unit.read_bytes_per_s[memory] < unit.read_bytes_per_s[home]


def _again(predictor: Predictor, step: Step, policy: Policy, terms: OpTerms, earlier: float, found: Moves) -> float:
    """What is fetched over what the cache has, where a share is computed again from hidden states (arXiv 2411.17089).

    Hidden states of d elements give 2 w elements of keys and values by a product of 4 d w FLOP per position.
    """
    op, graph = terms.op, predictor.graph
    wide = op.kv_heads * (op.head_dim + (op.value_dim or op.head_dim))
    if policy.recompute_cache <= 0.0 or op.kind != "attention" or not wide:
        return 1.0
    positions = earlier * sum(part.sequences * (part.query_tokens + part.past_tokens) for part in step)
    table = predictor.runner.table
    place = int(table.units[terms.unit].calibration)
    rate = table.rates[terms.index][terms.unit] * (table.efficiency, *table.beside)[place].gemm_compute
    found.again_s[terms.index] = policy.recompute_cache * positions * 2.0 * graph.hidden * wide / rate
    return 1.0 - policy.recompute_cache * max(0.0, 1.0 - graph.hidden / wide)


def fresh_share(step: Step) -> float:
    """Share of the cached positions that a step reads which earlier steps have written."""
    positions = sum(part.sequences * (part.query_tokens + part.past_tokens) for part in step)
    return sum(part.sequences * part.past_tokens for part in step) / positions if positions else 0.0


def _exposed(predictor: Predictor, policy: Policy, ops: Sequence[OpTerms], found: Moves) -> None:
    """Copies as the closed form has them: what the whole step does not hide, in shares of each op's own."""
    machine, table, host = predictor.resolved.machine, predictor.runner.table, predictor.host
    copied = sum(terms.copy_s * float(terms.op.repeat) for terms in ops)
    if copied <= 0.0:
        return
    totals = [0.0] * len(predictor.runner.scratch.totals)
    for terms in ops:
        seconds = (terms.launch_s + terms.floor_s + terms.body_s) * float(terms.op.repeat)
        totals[R_TIME] += seconds
        totals[R_LINK] += seconds if terms.unit < 0 else 0.0
    busy = device_seconds(totals, host)
    share = (copied - host.hidden_copy * min(copied, busy)) / copied
    for terms in ops:
        if terms.copy_s > 0.0:
            part = predictor.placer.parts[int(table.rows[terms.index].part) - 1]
            unit = machine.units[terms.unit]
            hops = way(machine, table.memory_names, part.memory, unit, terms.copy_s * share, 0.0, policy)
            found.demand[terms.index] = [Transfer(hops[:1], 0.0, terms.copy_j)]


def _ruled(predictor: Predictor, step: Step, policy: Policy, ops: Sequence[OpTerms], found: Moves) -> None:
    """Copies that techniques ask for: a share beside the computation, the rest when the op is due.

    What a prompt has just put into its cache is at hand and is stored; what earlier steps have put there is fetched.
    """
    machine, table, parts = predictor.resolved.machine, predictor.runner.table, predictor.placer.parts
    earlier = fresh_share(step)
    for terms in ops:
        if terms.copy_s <= 0.0:
            continue
        part = parts[int(table.rows[terms.index].part) - 1]
        unit = machine.units[terms.unit]
        size = terms.copy_s * part.rule.missed / part.seconds_per_byte
        whole = Transfer(
            way(machine, table.memory_names, part.memory, unit, terms.copy_s, size, policy), size, terms.copy_j
        )
        read = 1.0
        if part.rule.role == "cache":
            read = (1.0 - terms.written) * earlier * _again(predictor, step, policy, terms, earlier, found)
            if terms.written > 0.0:
                found.behind.setdefault(terms.index, []).append(
                    _back(table.memory_names, part, unit, whole.share(terms.written))
                )
        early = part.rule.overlap if policy.prefetch_layers > 0 else 0.0
        for share, where in ((early, found.ahead), (1.0 - early, found.demand)):
            if share * read > 0.0:
                where.setdefault(terms.index, []).append(whole.share(share * read))


def _back(names: Names, part: Part, unit: Unit, moved: Transfer) -> Transfer:
    """The same bytes the other way."""
    name = f"{unit.part or 'main'} to {names[part.memory]}"
    rate = unit.writes(part.memory)
    return Transfer((Hop(name, moved.size / rate),), moved.size, moved.joules)


def _placed(
    predictor: Predictor, step: Step, shares: Shares, policy: Policy, ops: Sequence[OpTerms], found: Moves
) -> list[OpTerms]:
    """Ops whose weights or cache lie in a slower memory become a fetch and an op on operands at hand."""
    machine, names = predictor.resolved.machine, predictor.runner.table.memory_names
    memories = machine.memories
    home = max(range(len(memories)), key=lambda m: shares[2][m])
    earlier = fresh_share(step)
    moved_ops = set()
    for terms in ops:
        unit = machine.units[terms.unit]
        known = terms.op.routing is None or policy.prefetch_experts
        if terms.unit < 0 or not known or memories[home].part != unit.part:
            continue
        for stream in terms.streams:
            rate = unit.read_bytes_per_s[stream.memory]
            whole = stream.seconds * rate
            if not is_far(unit, stream.memory, home):
                continue
            read, written = stream.weight, stream.written
            if stream.cache * earlier > 0.0:
                read += stream.cache * earlier * _again(predictor, step, policy, terms, earlier, found)
            if read > 0.0:
                size = whole * read
                hops = way(machine, names, stream.memory, unit, size / rate, size, policy)
                found.ahead.setdefault(terms.index, []).append(Transfer(hops, size, stream.joules * read))
                moved_ops.add(terms.index)
            if written > 0.0:
                size = whole * written
                name = f"{unit.part or 'main'} to {names[stream.memory]}"
                hops = (Hop(name, size / unit.writes(stream.memory)),)
                found.behind.setdefault(terms.index, []).append(Transfer(hops, size, stream.joules * written))
                moved_ops.add(terms.index)
    if not moved_ops:
        return list(ops)
    near = []
    main = next(unit for unit in machine.units if unit.part == memories[home].part)
    away = [m for m in range(len(memories)) if is_far(main, m, home)]
    for position, row in enumerate(shares):
        if position >= 3 and (position - 3) % 4 == 3:
            near.append(row)  # what copying costs, which is no share of memories
            continue
        brought = sum(row[m] for m in away)
        near.append(tuple(0.0 if m in away else x + (brought if m == home else 0.0) for m, x in enumerate(row)))
    local = {terms.index: terms for terms in step_terms(predictor.runner, step, tuple(near))}
    return [local.get(terms.index, terms) if terms.index in moved_ops else terms for terms in ops]
