"""Training steps in a pipeline of stages as tasks: GPipe, 1F1B and interleaved 1F1B, with sends and exchanges beside.

The order on each stage is the schedule's; when anything starts follows from what it waits for. Durations are the
closed form's, from `simulator.trainer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from simulator.cost.layout import R_ENERGY
from simulator.errors import ScenarioError
from simulator.events.engine import simulate
from simulator.events.tasks import Net, Resource
from simulator.events.timeline import Timeline
from simulator.trainer import Trainer, TrainingScenario

Schedule = Literal["gpipe", "1f1b", "interleaved"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


class Work(NamedTuple):
    """One pass of one micro-batch through one chunk of layers of a stage."""

    backward: bool
    chunk: int
    micro: int


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds of one stage: per micro-batch, and once per step."""

    forward_s: float
    backward_s: float
    gather_s: float = 0.0
    """Exchange that runs beside each forward pass."""
    scatter_s: float = 0.0
    """The same beside each backward pass."""
    reduce_s: float = 0.0
    """Exchange of gradients that starts with the last backward pass."""
    update_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PipelineTimeline:
    """A simulated training step of one pipeline."""

    schedule: Schedule
    timeline: Timeline
    bubble_share: float
    """Of the step without its update: the mean share of time that a stage neither works nor updates."""
    in_flight: tuple[int, ...]
    """Most passes, per stage, whose activations are kept at once; of a chunk each when interleaved."""

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.timeline.seconds


def order(schedule: Schedule, stage: int, stages: int, micro: int, chunks: int = 1) -> list[Work]:
    """What a stage does, in order. Raises ScenarioError for a schedule that does not exist for these numbers.

    GPipe (arXiv 1811.06965): all forward, then all backward. 1F1B (arXiv 1806.03377): p - 1 - s forward passes, then one
    of each in turn. Interleaved (arXiv 2104.04473): the same with `chunks` parts of the layers per stage, p at a time.

    >>> [("B" if w.backward else "F") + str(w.micro) for w in order("1f1b", 0, 2, 3)]
    ['F0', 'F1', 'B0', 'F2', 'B1', 'B2']
    """
    if schedule not in SCHEDULES:
        raise ScenarioError(f"no schedule '{schedule}'; there are {', '.join(SCHEDULES)}")
    if schedule == "gpipe":
        return [Work(False, 0, i) for i in range(micro)] + [Work(True, 0, i) for i in range(micro)]
    if schedule == "1f1b":
        total, warm = micro, min(micro, stages - 1 - stage)
        chunks = 1
    else:
        if chunks < 2:
            raise ScenarioError(f"interleaving needs at least 2 chunks of layers per stage, not {chunks}")
        if micro % stages:
            raise ScenarioError(f"interleaving needs micro-batches in multiples of the {stages} stages, not {micro}")
        total = micro * chunks
        warm = total if micro == stages else min(total, 2 * (stages - 1 - stage) + (chunks - 1) * stages)

    def unit(k: int, backward: bool) -> Work:
        if schedule == "1f1b":
            return Work(backward, 0, k)
        chunk = k // stages % chunks
        return Work(backward, chunks - 1 - chunk if backward else chunk, k // (stages * chunks) * stages + k % stages)

    found = [unit(k, False) for k in range(warm)]
    for k in range(total - warm):
        found += [unit(warm + k, False), unit(k, True)]
    return found + [unit(k, True) for k in range(total - warm, total)]


def pipeline_net(
    schedule: Schedule,
    times: Sequence[StageTimes],
    micro: int,
    chunks: int = 1,
    send_s: float = 0.0,
    joules: float = 0.0,
) -> Net:
    """The tasks of one step. `send_s`: of one micro-batch's activations to the next stage, or of their gradients back."""
    stages = len(times)
    chunks = chunks if schedule == "interleaved" else 1
    orders = [order(schedule, stage, stages, micro, chunks) for stage in range(stages)]
    busy = micro * sum(one.forward_s + one.backward_s for one in times) or 1.0
    net = Net()
    net.section(1, "step")
    units = [net.resource(Resource(f"stage {stage}", "unit")) for stage in range(stages)]
    beside = [net.resource(Resource(f"exchange {stage}", "link")) for stage in range(stages)]
    ways = {
        (a, b): net.resource(Resource(f"link {a} to {b}", "link"))
        for a in range(stages)
        for b in ((a + 1) % stages, (a - 1) % stages)
        if a != b
    }
    done: dict[tuple[int, Work], list[int]] = {}
    last: list[list[int]] = [[] for _ in range(stages)]
    at = [0] * stages
    while any(position < len(orders[stage]) for stage, position in enumerate(at)):
        moved = False
        for stage in range(stages):
            while at[stage] < len(orders[stage]):
                work = orders[stage][at[stage]]
                source = _source(work, stage, stages, chunks)
                if source is not None and source not in done:
                    break
                arrived = list(done[source]) if source is not None else []
                if source is not None and source[0] != stage and send_s > 0.0:
                    way = ways[source[0], stage]
                    arrived = [net.task(f"send {_label(work)}", way, send_s, kind="exchange", after=arrived)]
                last[stage] = _pass(net, work, units[stage], beside[stage], times[stage], chunks, arrived, last[stage],
                                    joules / busy, first=at[stage] == len(orders[stage]) - 1)  # fmt: skip
                done[stage, work] = last[stage]
                at[stage] += 1
                moved = True
        assert moved, "an order that waits for itself"
    for stage, one in enumerate(times):
        if one.update_s > 0.0:
            net.task("update", units[stage], one.update_s, after=last[stage])
    return net


def simulate_training(
    scenario: TrainingScenario, schedule: Schedule = "1f1b", chunks: int = 1, *, sends: bool = True
) -> PipelineTimeline:
    """A training step by its schedule. Raises what `predict_training` raises, and ScenarioError."""
    trainer = Trainer(scenario)
    stages, micro = trainer.parallelism.pp, scenario.gradient_accumulation
    ends = ["embedding", *["layers"] * (stages - 2), "head"] if stages > 1 else [""]
    if schedule == "interleaved" and stages == 1:
        raise ScenarioError("interleaving needs several stages (--pp)")
    times, send_s = [], 0.0
    host = trainer.runners[0].host
    for end in ends:
        spent, _ = trainer.passes(end)
        forward, backward = spent["forward"] / micro, spent["backward"] / micro
        issue = 0.0 if host.graph_prefill else spent["kernels"] / micro * host.kernel_s
        stretch = (max(forward + backward, issue) + host.prefill_s) / (forward + backward or 1.0)
        divided = scenario.zero_stage >= 2
        scatter = (spent["regather"] + spent["gradients"]) / micro if divided else 0.0
        times.append(
            StageTimes(
                forward * stretch,
                backward * stretch,
                spent["gather"] / micro,
                scatter,
                0.0 if divided else spent["gradients"],
                spent["update"] + spent["assemble"],
            )
        )
        send_s = spent["send"] / micro / 2.0 if sends else 0.0
    dynamic_j = sum(float(runner.scratch.totals[R_ENERGY]) for runner in trainer.runners)
    net = pipeline_net(schedule, times, micro, chunks, send_s, dynamic_j)
    closed = max(trainer.stage_s(end)[0] for end in trainer.ends)
    static_w = trainer.runners[0].table.power.static_w * stages
    timeline = Timeline("train", simulate(net), {}, static_w, static_w, closed, float(micro))
    return PipelineTimeline(schedule, timeline, _bubble(timeline, stages), _in_flight(timeline, stages))


def _source(work: Work, stage: int, stages: int, chunks: int) -> tuple[int, Work] | None:
    """The stage and pass that a pass gets its operands from."""
    if not work.backward:
        if stage > 0:
            return stage - 1, work
        return (stages - 1, work._replace(chunk=work.chunk - 1)) if work.chunk > 0 else None
    if stage < stages - 1:
        return stage + 1, work
    if work.chunk < chunks - 1:
        return 0, work._replace(chunk=work.chunk + 1)
    return stage, work._replace(backward=False)


def _pass(
    net: Net, work: Work, unit: int, beside: int, times: StageTimes, chunks: int, arrived: list[int], before: list[int],
    joules_per_s: float, *, first: bool,
) -> list[int]:  # fmt: skip
    """One pass and the exchange beside it; `first`: it is the last of its stage, with which gradients begin to flow."""
    seconds = (times.backward_s if work.backward else times.forward_s) / chunks
    waits = list(dict.fromkeys([*arrived, *before]))
    tasks = [net.task(_label(work), unit, seconds, after=waits, joules=seconds * joules_per_s)]
    exchange = (times.scatter_s if work.backward else times.gather_s) / chunks
    if work.backward and first:
        exchange += times.reduce_s
    if exchange > 0.0:
        tasks.append(net.task(f"exchange {_label(work)}", beside, exchange, kind="exchange", after=waits))
    return tasks


def _label(work: Work) -> str:
    chunk = f".{work.chunk}" if work.chunk else ""
    return f"{'backward' if work.backward else 'forward'} {work.micro}{chunk}"


def _bubble(timeline: Timeline, stages: int) -> float:
    """1 - busy / (stages x span), of the passes from the first to the last."""
    schedule = timeline.schedule
    names = schedule.net.sections[0].name
    passes = np.array([name.startswith(("forward", "backward")) for name in names])
    busy = int((schedule.end - schedule.start)[passes].sum())
    span = int(schedule.end[passes].max() - schedule.start[passes].min())
    return 1.0 - busy / (stages * span) if span else 0.0


def _in_flight(timeline: Timeline, stages: int) -> tuple[int, ...]:
    """Most forward passes without their backward pass, per stage."""
    schedule = timeline.schedule
    names, found = schedule.net.sections[0].name, []
    for stage in range(stages):
        changes = []
        for task in np.flatnonzero(timeline.resource == stage).tolist():
            if names[task].startswith("forward"):
                changes.append((int(schedule.start[task]), 1))
            elif names[task].startswith("backward"):
                changes.append((int(schedule.end[task]), -1))
        kept = most = 0
        for _, change in sorted(changes):
            kept += change
            most = max(most, kept)
        found.append(most)
    return tuple(found)
