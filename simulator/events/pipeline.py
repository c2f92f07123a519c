"""Inference through a pipeline of stages: micro-batches pass one after the other, and come back with each token.

Times of a stage are those of a simulated step, its layers divided evenly; here is the order, and the bubbles that it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.events.engine import Schedule, simulate
from simulator.events.layout import PICOSECONDS
from simulator.events.tasks import Net, Resource
from simulator.events.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Passage:
    """One step's way through the stages. Seconds."""

    stages: tuple[float, ...]
    send_s: float = 0.0
    """To the next stage."""
    host_s: float = 0.0
    """Of the host, before the first stage: it schedules one step while the stages are at others."""


def passage(timeline: Timeline, stages: int, host_s: float) -> Passage:
    """A step of the whole length as a passage: the embedding in the first stage, the head in the last."""
    ends = {"embedding": 0.0, "head": 0.0}
    send_s = 0.0
    for terms in timeline.ops.values():
        seconds = (terms.launch_s + terms.floor_s + terms.body_s) * float(terms.op.repeat)
        if terms.op.axis == "pp":
            send_s += seconds
        elif terms.op.block in ends:
            ends[terms.op.block] += seconds
    inner = max(0.0, timeline.seconds - host_s - send_s - sum(ends.values())) / stages
    found = [inner] * stages
    found[0] += ends["embedding"]
    found[-1] += ends["head"]
    return Passage(tuple(found), send_s / max(1, stages - 1), host_s)


def stream_net(rows: Sequence[Sequence[Passage]]) -> Net:
    """Rows of steps: those of a row follow one another, each after the one before has left the last stage.

    Rows take turns: the stages serve the first step of every row, then the second of every row.
    """
    net = Net()
    depth = len(rows[0][0].stages)
    stages = [net.resource(Resource(f"stage {stage}", "unit")) for stage in range(depth)]
    links = [net.resource(Resource(f"link {stage} to {stage + 1}", "link")) for stage in range(depth - 1)]
    host = net.resource(Resource("host thread", "host"))
    before: list[list[int]] = [[] for _ in rows]
    for turn in range(max(len(row) for row in rows)):
        for number, row in enumerate(rows):
            if turn >= len(row):
                continue
            step, waits = row[turn], before[number]
            if step.host_s > 0.0:
                waits = [net.task(f"schedule {turn} of {number}", host, step.host_s, kind="wait", after=waits)]
            for stage, seconds in enumerate(step.stages):
                task = net.task(f"step {turn} of {number}", stages[stage], seconds, after=waits)
                if stage + 1 < depth and step.send_s > 0.0:
                    task = net.task(
                        f"send {turn} of {number}", links[stage], step.send_s, kind="exchange", after=[task]
                    )
                waits = [task]
            before[number] = waits
    return net


def prefill_schedule(steps: Sequence[Passage]) -> Schedule:
    """Prompts in steps that do not wait for one another."""
    return simulate(stream_net([[step] for step in steps]))


def decode_period(step: Passage, together: int, turns: int = 12) -> tuple[float, Schedule]:
    """Seconds between two tokens of a micro-batch when `together` of them decode side by side, and the schedule.

    >>> decode_period(Passage((1.0, 1.0, 1.0, 1.0)), 4)[0], decode_period(Passage((1.0, 1.0, 1.0, 1.0)), 2)[0]
    (4.0, 4.0)
    """
    schedule = simulate(stream_net([[step] * turns for _ in range(together)]))
    last = np.flatnonzero(np.asarray(schedule.column("resource")) == len(step.stages) - 1)
    ends = np.sort(schedule.end[last])
    half = len(ends) // 2
    period = float(ends[-1] - ends[half - 1]) / (len(ends) - half) * together
    return period / PICOSECONDS, schedule


def bubble_share(schedule: Schedule, stages: int) -> float:
    """Mean share of the time between its first and its last step that a stage stands still."""
    resource = np.asarray(schedule.column("resource"))
    shares = []
    for stage in range(stages):
        mine = resource == stage
        span = int(schedule.end[mine].max() - schedule.start[mine].min())
        busy = int((schedule.end - schedule.start)[mine].sum())
        shares.append(1.0 - busy / span if span else 0.0)
    return float(np.mean(shares))
