"""A whole scenario by timelines: its prefill steps, its decode steps over the growing context, and what they add up to.

The same turns, placement and steps as `simulator.predict`, each timed by the event loop in place of a sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from simulator.cost.batches import NODES
from simulator.cost.runner import Shares
from simulator.cost.steps import step_seconds
from simulator.errors import UnsupportedError
from simulator.events.lower import lower
from simulator.events.policy import ANALYTIC, KINDS, Policy, Resources
from simulator.events.repeat import simulate_repeated
from simulator.events.timeline import Timeline
from simulator.graph.step import Slice, Step
from simulator.predict import Predictor, predictor
from simulator.result import Prediction
from simulator.run import BatchRun, Turn
from simulator.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Simulation:
    """A scenario's answer by timelines, with the closed form's beside it. Joules and watts are of all devices."""

    scenario: Scenario
    policy: Policy
    prediction: Prediction
    """The closed form."""
    prefill: Timeline
    decode: Timeline | None
    """The step in the middle of the output; None where nothing is decoded."""
    ttft_s: float
    tpot_s: float
    e2el_s: float
    output_tokens_per_s: float
    energy_j: float
    power_w: float

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """Prefill, then decode."""
        return (self.prefill,) if self.decode is None else (self.prefill, self.decode)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        keys = ("ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "energy_j", "power_w")
        closed = {key: getattr(self.prediction, key) for key in keys}
        return {
            **{key: getattr(self, key) for key in keys},
            "closed_form": closed,
            "steps": {timeline.label: step_record(timeline) for timeline in self.timelines},
            "provenance": dict(self.prediction.provenance),
        }

    def figure(self) -> Any:
        """One repetition, use of resources and power as a Plotly figure."""
        from simulator.views.timeline import timeline_figure

        return timeline_figure(self)

    def _repr_html_(self) -> str:
        from simulator.views.simulation import simulation_html

        return simulation_html(self)


def step_record(timeline: Timeline) -> dict[str, Any]:
    """One step as plain values."""
    return {
        "seconds": timeline.seconds,
        "closed_form_s": timeline.closed_form_s,
        "differences_s": timeline.differences,
        "tasks": len(timeline.schedule),
        "events": timeline.schedule.events,
        "energy_j": timeline.energy_j,
        "ledger_j": timeline.ledger(),
        "resources": {
            use.resource: {
                "group": use.group,
                "tasks": use.tasks,
                "busy_share": use.busy_s / timeline.seconds if timeline.seconds else 0.0,
                "critical_s": use.critical_s,
                "energy_j": use.energy_j,
            }
            for use in timeline.uses()
        },
        "waited": [
            {"on": one.on, "seconds": one.seconds, "share": one.share, "busy": one.busy} for one in timeline.waited()
        ],
    }


def simulate_scenario(scenario: Scenario, policy: Policy | None = None) -> Simulation:
    """The timelines of a scenario. Raises what `predict` raises, TimelineError, and UnsupportedError for a pipeline."""
    policy = policy or Policy()
    if scenario.pp > 1:
        raise UnsupportedError("the timeline of an inference pipeline", ["--tp", "`ridgeline predict` for --pp"])
    built = predictor(scenario)
    if policy.stream:
        built = _streaming(built)
    prediction = built.predict(scenario.batch, scenario.input_tokens, scenario.output_tokens)
    run = prediction.run
    assert isinstance(run, BatchRun)
    makespan = waited = tpot = energy = 0.0
    shown: tuple[Timeline, Timeline | None] | None = None
    for turn in run.turns:
        steps = [
            _timeline(built, step, turn, policy, repeats, "prefill") for step, repeats in _prefill(built, run, turn)
        ]
        first_s = sum(step.seconds * step.repeats for step in steps) + turn.first_s - turn.static.ttft_s
        first_j = sum(step.energy_j * step.repeats for step in steps) + turn.side_j
        each_s = each_j = 0.0
        middle = None
        for step, weight in _decode(run, turn):
            timeline = _timeline(built, step, turn, policy, run.generated - 1.0, "decode")
            each_s, each_j = each_s + weight * timeline.seconds, each_j + weight * timeline.energy_j
            middle = timeline if middle is None or weight == NODES[1][1] else middle
        seconds = first_s + each_s * (run.generated - 1)
        sequences = turn.repeats * turn.sequences
        waited += sequences * (makespan + first_s + (turn.repeats - 1) / 2 * seconds)
        tpot += sequences * each_s
        makespan += turn.repeats * seconds
        energy += turn.repeats * (first_j + each_j * (run.generated - 1))
        shown = shown or (steps[0], middle)
    assert shown is not None
    replica = sum(turn.repeats * turn.sequences for turn in run.turns)
    parallelism = built.resolved.parallelism
    energy *= parallelism.tp * parallelism.dp
    ttft, tpot = waited / replica, tpot / replica
    return Simulation(
        scenario=prediction.scenario,
        policy=policy,
        prediction=prediction,
        prefill=shown[0],
        decode=shown[1],
        ttft_s=ttft,
        tpot_s=tpot,
        e2el_s=ttft + tpot * (run.generated - 1),
        output_tokens_per_s=scenario.batch * run.generated / makespan,
        energy_j=energy,
        power_w=energy / makespan,
    )


def step_timeline(built: Predictor, step: Step, shares: Shares, policy: Policy, *, label: str = "step") -> Timeline:
    """The timeline of any step on one rank."""
    decoding = label == "decode"
    lowered = lower(built, step, shares, policy, decoding=decoding)
    built.runner.step(step, shares)
    totals = [float(value) for value in built.runner.scratch.totals]
    sequences = sum(part.sequences for part in step)
    return Timeline(
        label=label,
        schedule=simulate_repeated(lowered.net),
        ops=lowered.ops,
        static_w=lowered.static_w,
        waiting_w=lowered.waiting_w,
        closed_form_s=step_seconds(totals, built.host, sequences, decoding),
        tokens=sum(part.sequences * part.query_tokens for part in step),
    )


def explain_difference(built: Predictor, step: Step, shares: Shares, policy: Policy, label: str) -> dict[str, float]:
    """Seconds that each kind of resource adds when it is modelled event by event, one kind after the other.

    They add up to the difference between the timeline and the closed form.
    """
    event = [kind for kind in KINDS if getattr(policy, kind) == "event"]
    before = step_timeline(built, step, shares, replace(ANALYTIC, chunks=policy.chunks), label=label).seconds
    found: dict[str, float] = {}
    kinds: list[Resources] = []
    for kind in event:
        kinds.append(kind)
        seconds = step_timeline(built, step, shares, policy.only(*kinds), label=label).seconds
        if abs(seconds - before) > 1e-6 * seconds:
            found[kind] = seconds - before
        before = seconds
    return found


def _streaming(built: Predictor) -> Predictor:
    """The same scenario on a machine of which only the main part computes."""
    machine = built.resolved.machine
    main = next(memory.part for memory in machine.memories if memory.of_main)
    units = tuple(unit for unit in machine.units if unit.part == main)
    return Predictor(replace(built.resolved, machine=replace(machine, units=units)))


def _timeline(built: Predictor, step: Step, turn: Turn, policy: Policy, repeats: float, label: str) -> Timeline:
    shares = turn.placement.shares
    timeline = step_timeline(built, step, shares, policy, label=label)
    timeline.repeats = repeats
    if abs(timeline.seconds - timeline.closed_form_s) > 1e-3 * timeline.closed_form_s:
        timeline.differences = explain_difference(built, step, shares, policy, label)
    return timeline


def _prefill(built: Predictor, run: BatchRun, turn: Turn) -> Iterator[tuple[Step, float]]:
    """(step, how many like it): as many sequences as the engine takes at once and a rest, or the middle chunk of one."""
    limit, prompt, batch = built.host.max_tokens, run.prompt, float(turn.sequences)
    if prompt >= limit:
        chunks = prompt / limit
        query = prompt / chunks
        yield (Slice(1.0, query, 0.5 * (prompt - query), run.source, 1.0 / chunks),), batch * chunks
        return
    size = min(float(limit // prompt), batch)
    repeats = math.floor(batch / size)
    yield (Slice(size, prompt, 0.0, run.source),), float(repeats)
    rest = batch - repeats * size
    if rest > 0.0:
        yield (Slice(rest, prompt, 0.0, run.source),), 1.0


def _decode(run: BatchRun, turn: Turn) -> Iterator[tuple[Step, float]]:
    """(step, weight) at the nodes of the context that a batch decodes over."""
    if run.generated <= 1:
        return
    for node, weight in NODES:
        past = run.prompt - 0.5 + node * (run.generated - 1.0)
        yield (Slice(float(turn.sequences), 1.0, past, run.source),), weight
