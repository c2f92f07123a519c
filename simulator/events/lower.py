"""A step of a scenario as tasks on the machine's resources: who waits for what.

Service times come from `simulator.events.service`; this module adds order, room, and what may run ahead. It asks what
units, memories and links there are, never which device.
"""

from __future__ import annotations

import math
from dataclasses import replace

from simulator.cost.runner import Shares
from simulator.events.memory import Access, access
from simulator.events.policy import Policy
from simulator.events.progress import Lowered, Progress, halved, runs_of
from simulator.events.service import Flow, service, waves
from simulator.events.tasks import Net, Resource
from simulator.events.terms import OpTerms, step_terms
from simulator.events.transfers import Moves, Transfer, find_moves
from simulator.graph.step import Step
from simulator.predict import Predictor

QUEUED_LAUNCHES = 1024
"""Launches that a driver's queue holds before the host waits."""
FETCH_PIECES = 4
"""Pieces that the operands of one op cross a link in."""
LINK_STEPS = 4
"""Pieces that the bytes of a collective flow in."""
THREADS = ("ops", "weights", "fetch", "launch", "pending")


def lower(predictor: Predictor, step: Step, shares: Shares, policy: Policy, *, decoding: bool) -> Lowered:
    """One step on one rank. Raises TimelineError for work that a resource cannot do."""
    return _Lowering(predictor, step, shares, policy, decoding).build()


class _Lowering:
    def __init__(self, predictor: Predictor, step: Step, shares: Shares, policy: Policy, decoding: bool) -> None:
        self.predictor, self.policy, self.decoding = predictor, policy, decoding
        self.machine, self.table, self.host = predictor.resolved.machine, predictor.runner.table, predictor.host
        self.beside = policy.collectives or (policy.link == "event" and predictor.schedule.link_beside) or "after"
        halves = halved(step) if self.beside == "halves" else (step,)
        self.lanes: list[tuple[str, list[OpTerms], Moves]] = []
        for number, half in enumerate(halves):
            terms = step_terms(predictor.runner, half, shares)
            self.lanes.append(("b" * number, *find_moves(predictor, half, shares, policy, terms)))
        self.ops = [terms for _, ops, _ in self.lanes for terms in ops]
        self.shown = self._shown_exchange()
        self.sequences = sum(part.sequences for part in step)
        self.graph = bool(self.host.graph_decode if decoding else self.host.graph_prefill)
        self.net = Net()
        self.units = [
            self.net.resource(Resource(unit.name, "unit", slots=max(1, int(unit.count)))) for unit in self.machine.units
        ]
        self.others: dict[str, int] = {}
        self.accesses: dict[int, dict[int, Access | None]] = {}
        self.launches = self.net.resource(Resource("launch", "launch", "delay"))
        self.thread = self.net.resource(Resource("host thread", "host"))
        self.queue = self.net.buffer("launch queue", QUEUED_LAUNCHES)
        self.room = -1
        self.pads: dict[str, int] = {}

    def build(self) -> Lowered:
        """The whole step: the host's turn, then runs of ops that repeat alike."""
        waited = self.host.step_s if self.decoding else self.host.prefill_s
        first = self.net.section(1, "host")
        waited += self.host.per_sequence_s * self.sequences
        begun = self.net.task("schedule the step", self.thread, waited, kind="wait")
        for lane, _, _ in self.lanes:
            for thread in THREADS:
                first.leave(thread + lane, [begun])
        kernels = sum(terms.kernels * float(terms.op.repeat) for terms in self.ops)
        issue_s = 0.0 if self.graph else kernels * self.host.kernel_s + self.host.issue_s
        if issue_s > 0.0 and self.policy.host == "analytic":
            self.net.task("launches of the step", self.thread, issue_s, kind="launch", after=[begun])
        self._make_room()
        runs = [runs_of(ops) for _, ops, _ in self.lanes]
        for alike in zip(*runs, strict=True):
            copies = max(1, round(alike[0][0]))
            section = self.net.section(copies, alike[0][1][0].op.block)
            sides = [
                (Progress(section, repeat / copies, lane), moves)
                for (repeat, _), (lane, _, moves) in zip(alike, self.lanes, strict=True)
            ]
            for turn in zip(*(run for _, run in alike), strict=True):
                for terms, (progress, moves) in zip(turn, sides, strict=True):
                    self._op(terms, progress, moves)
            for progress, _ in sides:
                section.leave("ops" + progress.lane, progress.ops)
                if progress.pending:
                    section.leave("pending" + progress.lane, progress.pending)
                for thread, task in progress.last.items():
                    section.leave(thread + progress.lane, [task])
        power = self.table.power
        busy_s = sum((terms.launch_s + terms.floor_s + terms.body_s) * float(terms.op.repeat) for terms in self.ops)
        static_j = sum(terms.static_j * float(terms.op.repeat) for terms in self.ops)
        static_w = static_j / busy_s if busy_s > 0.0 else power.static_w
        waiting_w = power.waiting_w
        return Lowered(self.net, {terms.index: terms for terms in self.ops}, static_w, waiting_w)

    def _shown_exchange(self) -> float:
        """Share of the time of exchanges that shows, where the closed form hides a share of all of them."""
        hidden = self.host.hidden_link
        if self.policy.link == "event" or hidden <= 0.0:
            return 1.0
        seconds = [(terms.unit < 0, (terms.launch_s + terms.floor_s + terms.body_s) * float(terms.op.repeat))
                   for terms in self.ops]  # fmt: skip
        link = sum(one for exchanges, one in seconds if exchanges)
        rest = sum(one for exchanges, one in seconds if not exchanges)
        return 1.0 - hidden * min(link, rest) / link if link > 0.0 else 1.0

    def _make_room(self) -> None:
        """Buffers: for what is fetched ahead, so many layers of the largest; for weights, half of a scratchpad."""
        layers, single = [0.0], [0.0]
        for _, ops, moves in self.lanes:
            for _, run in runs_of(ops):
                layers.append(sum(part.size for terms in run for part in moves.ahead.get(terms.index, ())))
            single += [sum(part.size for part in parts) for parts in moves.ahead.values()]
        if max(single) > 0.0:
            depth = 1.0 + self.policy.prefetch_layers
            wanted = min(depth * max(layers), sum(layers)) if self.policy.prefetch_layers >= 1 else 0.0
            self.room = self.net.buffer("prefetch buffer", 2.0 + math.ceil(max(wanted, (1 + depth) * max(single))))
        for memory in self.machine.memories:
            if memory.kind == "scratchpad" and self.policy.unit == "event":
                self.pads[memory.part] = self.net.buffer(f"weights in {memory.name}", memory.capacity_bytes / 2.0)

    def _op(self, terms: OpTerms, at: Progress, moves: Moves) -> None:
        """One op: its fetch, its launch, and pieces whose loads run one piece ahead of their waves.

        The part of an op that lies elsewhere and is computed there runs beside the rest of it.
        """
        if terms.unit < 0:
            self._collective(terms, at)
            return
        whole, waited_for = at.forked
        beside = self.policy.unit == "event" and terms.op.name == f"{whole}.cold"
        other = at.ops if beside else []
        at.forked = (terms.op.name, list(waited_for if beside else at.ops))
        at.ops = list(at.forked[1])
        unit = self.machine.units[terms.unit]
        pad = -1 if unit.near_inside else self.pads.get(unit.part, -1)
        start = self._start(terms, at, moves, fused=pad >= 0)
        parts = service(terms, unit.read_bytes_per_s, self._accesses(terms.unit))
        wave: int | None = None
        previous: dict[str, int] = {}
        ended: list[int] = []
        at.waves = []
        pieces = waves(terms.tiles, unit.count, terms.body_s, self.policy.chunks)
        for piece, (width, share) in enumerate(pieces):
            gate = start if wave is None else wave
            flowing: list[int] = []
            staged: list[int] = []
            held = 0.0
            for flow in parts.flows:
                size = flow.size * share * at.stretch
                ahead = pad >= 0 and flow.stream.weight > 0.5 and 2.0 * size <= self.net.buffers[pad].capacity_bytes
                if ahead:
                    staged.append(self._load(terms, flow, piece, share, at, gate, previous, pad, size))
                    held += math.ceil(size)
                else:
                    flowing.append(self._load(terms, flow, piece, share, at, gate, previous, -1, size))
            if parts.cache_s > 0.0:
                waits = [gate, *([previous["tiles"]] if "tiles" in previous else [])]
                previous["tiles"] = self.net.task(
                    f"{terms.op.name}: tiles {piece}", self._other(self._cache(terms.unit), "cache"),
                    parts.cache_s * share * at.stretch, kind="load", after=waits,
                    joules=terms.cache_j * share * at.stretch, op=terms.index,
                )  # fmt: skip
                flowing.append(previous["tiles"])
            # A wave streams its own operands, so that the next one waits for them; what is staged has to be there first.
            wave = self.net.task(
                f"{terms.op.name}: wave {piece}", self.units[terms.unit], parts.compute_s * share * at.stretch,
                after=dict.fromkeys([gate, *staged, *ended]), width=width, op=terms.index,
                joules=terms.compute_j * share * at.stretch, gives=(pad, held) if held else None,
            )  # fmt: skip
            at.waves.append(wave)
            ended = flowing
        assert wave is not None
        at.ops = [*other, *self._freed(terms, moves, [*dict.fromkeys([wave, *ended])])]

    def _load(
        self,
        terms: OpTerms,
        flow: Flow,
        piece: int,
        share: float,
        at: Progress,
        gate: int,
        previous: dict[str, int],
        pad: int,
        size: float,
    ) -> int:
        """One piece of one stream: after the one before it, and either when its wave may start or when there is room."""
        thread = "weights" if pad >= 0 else "loads"
        before = at.last if pad >= 0 else previous
        waits = [before[thread]] if thread in before else []
        memory, unit = self.machine.memories[flow.stream.memory], self.machine.units[terms.unit]
        name = self.table.memory_names[flow.stream.memory]
        resource = self._other(name, "memory")
        if memory.part != unit.part:
            resource = self._other(f"{name} to {unit.part or unit.name}", "link")
        task = self.net.task(
            f"{terms.op.name}: {name} {piece}", resource, flow.seconds * share * at.stretch,
            kind=flow.kind, after=waits if pad >= 0 else [gate, *waits], priority=1 if pad >= 0 else 0,
            joules=flow.stream.joules * share * at.stretch, op=terms.index, takes=(pad, size) if pad >= 0 else None,
        )  # fmt: skip
        if pad >= 0 and not waits:
            at.section.enter("weights" + at.lane, task)
        before[thread] = task
        return task

    def _start(self, terms: OpTerms, at: Progress, moves: Moves, *, fused: bool) -> int:
        """The launch of an op, when the op before has ended and the host has issued it."""
        issued = self._issue(terms, at)
        fetched = self._fetch(terms, at, moves.ahead)
        if terms.index in moves.demand:
            at.ops = self._on_demand(terms, at, moves.demand[terms.index])
        if terms.index in moves.again_s:
            again = self.net.task(
                f"{terms.op.name}: recompute keys and values", self.units[terms.unit],
                moves.again_s[terms.index] * at.stretch, after=[*at.ops, *fetched], op=terms.index,
            )  # fmt: skip
            if not at.ops:
                at.section.enter("ops" + at.lane, again)
            at.ops = [again]
        gap = 0.0 if self.graph else self.host.gap_s * terms.kernels
        gives = (self.queue, float(math.ceil(terms.kernels))) if issued else None
        launch_s = (terms.launch_s + gap) * at.stretch
        ready = [*at.ops, *fetched]
        if fused:
            # One program: its sections start one another while earlier ones still work.
            waits = [at.last["launch"]] if "launch" in at.last else []
            launch = self.net.task(
                f"{terms.op.name}: launch",
                self.launches,
                launch_s,
                kind="launch",
                after=[*waits, *issued],
                op=terms.index,
            )
            if not waits:
                at.section.enter("launch" + at.lane, launch)
            at.last["launch"] = launch
            ready.append(launch)
            launch_s = 0.0
        else:
            ready += issued
        start = self.net.task(
            f"{terms.op.name}: start", self.launches, launch_s + terms.floor_s * at.stretch, kind="launch", after=ready,
            op=terms.index, gives=gives,
        )  # fmt: skip
        if not at.ops:
            at.section.enter("ops" + at.lane, start)
        return start

    def _issue(self, terms: OpTerms, at: Progress) -> list[int]:
        """The host's part of a launch, where it issues kernels one by one."""
        seconds = 0.0 if self.graph or self.policy.host == "analytic" else self.host.kernel_s * terms.kernels
        if seconds <= 0.0:
            return []
        task = self.net.task(
            f"{terms.op.name}: issue", self.thread, seconds * at.stretch, kind="launch", op=terms.index,
            takes=(self.queue, math.ceil(terms.kernels)), after=[at.last["issue"]] if "issue" in at.last else [],
        )  # fmt: skip
        if "issue" not in at.last:
            at.section.enter("issue" + at.lane, task)
        at.last["issue"] = task
        return [task]

    def _fetch(self, terms: OpTerms, at: Progress, ahead: dict[int, list[Transfer]]) -> list[int]:
        """What crosses a link before the op, in the order of use, as far ahead as there is room."""
        found: list[int] = []
        for part in ahead.get(terms.index, ()):
            for piece in range(FETCH_PIECES):
                waits = [at.last["fetch"]] if "fetch" in at.last else []
                task = self.net.task(
                    f"{terms.op.name}: fetch {piece}", self._other(part.hops[0].name, "link"),
                    part.hops[0].seconds / FETCH_PIECES * at.stretch, kind="load", after=waits, priority=1,
                    takes=(self.room, part.size / FETCH_PIECES), op=terms.index,
                    joules=part.joules / FETCH_PIECES * at.stretch,
                )  # fmt: skip
                if not waits:
                    at.section.enter("fetch" + at.lane, task)
                at.last["fetch"] = task
                for hop in part.hops[1:]:
                    task = self.net.task(
                        f"{terms.op.name}: fetch {piece}", self._other(hop.name, "link"),
                        hop.seconds / FETCH_PIECES * at.stretch, kind="load", after=[task], priority=1, op=terms.index,
                    )  # fmt: skip
            found.append(task)
        return found

    def _on_demand(self, terms: OpTerms, at: Progress, parts: list[Transfer]) -> list[int]:
        """What crosses a link once everything before the op has ended."""
        ended: list[int] = []
        for part in parts:
            for piece in range(FETCH_PIECES if len(part.hops) > 1 else 1):
                waits, first = list(at.ops), True
                for hop in part.hops:
                    share = 1.0 / (FETCH_PIECES if len(part.hops) > 1 else 1)
                    task = self.net.task(
                        f"{terms.op.name}: fetch on demand {piece}", self._other(hop.name, "link"),
                        hop.seconds * share * at.stretch, kind="load", after=waits, op=terms.index,
                        joules=part.joules * share * at.stretch if first else 0.0,
                    )  # fmt: skip
                    if not waits:
                        at.section.enter("ops" + at.lane, task)
                    waits, first = [task], False
            ended.append(task)
        return ended

    def _freed(self, terms: OpTerms, moves: Moves, ended: list[int]) -> list[int]:
        """After an op: stores of what lies beyond a link, which nothing waits for, and the room of what was fetched."""
        for part in moves.behind.get(terms.index, ()):
            way = self._other(part.hops[0].name, "link")
            name = f"{terms.op.name}: store"
            seconds = part.hops[0].seconds
            self.net.task(name, way, seconds, kind="store", after=ended, joules=part.joules, op=terms.index)
        parts = moves.ahead.get(terms.index)
        if not parts:
            return ended
        size = sum(FETCH_PIECES * math.ceil(part.size / FETCH_PIECES) for part in parts)
        name = f"{terms.op.name}: free"
        return [self.net.task(name, self.launches, kind="launch", after=ended, gives=(self.room, size), op=terms.index)]

    def _collective(self, terms: OpTerms, at: Progress) -> None:
        """An exchange among ranks: its latency, then its bytes. What runs beside it is the policy's."""
        name = terms.op.name
        axis = terms.op.axis or "tp"
        early = self.beside == "tiles" and bool(at.waves)
        wire = self._other(f"{axis} latency", "wait")
        link = self._other(f"{axis} link", "link")
        if self.beside == "blocks":
            at.ops = [self._joined(name, at)]
        started: int | None = None
        streaming = max(0.0, terms.body_s - terms.latency_s) * self.shown
        tasks: list[int] = []
        for piece in range(LINK_STEPS):
            waits = list(at.ops)
            if early:
                waits = [at.waves[((piece + 1) * len(at.waves) - 1) // LINK_STEPS]]
                waits += at.ops if piece == LINK_STEPS - 1 else []
            if started is None:
                started = self.net.task(
                    f"{name}: latency", wire, terms.latency_s * self.shown * at.stretch, kind="wait", after=waits,
                    op=terms.index,
                )  # fmt: skip
                if not at.ops:
                    at.section.enter("ops" + at.lane, started)
            tasks.append(
                self.net.task(
                    f"{name}: step {piece}", link, streaming / LINK_STEPS * at.stretch, kind="exchange",
                    after=dict.fromkeys([started, *waits, *tasks[-1:]]), op=terms.index,
                    joules=terms.link_j / LINK_STEPS * at.stretch,
                )
            )  # fmt: skip
        at.forked = ("", [])
        at.waves = []
        if self.beside == "blocks":
            at.pending = [tasks[-1]]
        else:
            at.ops = [tasks[-1]]

    def _joined(self, name: str, at: Progress) -> int:
        """When the ops before and the exchange before this one have ended: the next block reads what that one gave."""
        task = self.net.task(f"{name}: reduced", self.launches, kind="launch", after=[*at.ops, *at.pending])
        if not at.ops:
            at.section.enter("ops" + at.lane, task)
        if not at.pending:
            at.section.enter("pending" + at.lane, task)
        return task

    def _accesses(self, unit: int) -> dict[int, Access | None]:
        """The memories that this unit reads by their own timings."""
        if unit not in self.accesses:
            chosen: dict[int, Access | None] = {}
            for position, memory in enumerate(self.machine.memories):
                kind = self.policy.flash if memory.kind == "storage" else self.policy.memory
                by = access(memory, position, self.machine.units[unit]) if kind == "event" else None
                if by is not None and memory.of_main and self.predictor.resolved.calibration.tag != "datasheet":
                    by = replace(by, least=True)
                chosen[position] = by
            self.accesses[unit] = chosen
        return self.accesses[unit]

    def _cache(self, unit: int) -> str:
        """The last cache or scratchpad beside a unit."""
        part = self.machine.units[unit].part
        caches = [m for m in self.machine.memories if m.part == part and m.kind in ("cache", "scratchpad")]
        last = max(caches, key=lambda memory: memory.capacity_bytes)
        return f"{part}.{last.name}" if part else last.name

    def _other(self, name: str, group: str) -> int:
        """A memory, cache or link, when the first task needs it."""
        if name not in self.others:
            service = "delay" if group == "wait" else "shared" if name.endswith(" link") else "slots"
            self.others[name] = self.net.resource(Resource(name, group, service))  # type: ignore[arg-type]
        return self.others[name]
