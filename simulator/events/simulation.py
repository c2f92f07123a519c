"""A whole scenario by timelines: its prefill steps, its decode steps over the growing context, and what they add up to.

The same turns, placement and steps as `simulator.predict`, each timed by the event loop in place of a sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from simulator.events.growth import Growth, grown, phases
from simulator.events.pipeline import decode_period, passage, prefill_schedule
from simulator.events.policy import Policy
from simulator.events.speculation import seconds_per_token
from simulator.events.steps import (
    decode_steps,
    explain_difference,
    mixed_step,
    prefill_steps,
    restricted,
    step_timeline,
)
from simulator.events.timeline import Timeline
from simulator.graph.step import Step
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
    prefill_energy_j: float
    energy_j: float
    power_w: float
    further: tuple[Timeline, ...] = ()
    """How steps follow one another: through the stages of a pipeline, or as drafts and checks."""

    @property
    def steps(self) -> tuple[Timeline, ...]:
        """Prefill, then decode."""
        return (self.prefill,) if self.decode is None else (self.prefill, self.decode)

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """Prefill, decode, then what they are part of."""
        return (*self.steps, *self.further)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        keys = ("ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "energy_j", "power_w")
        closed = {key: getattr(self.prediction, key) for key in keys}
        return {
            **{key: getattr(self, key) for key in keys},
            "fits": self.prediction.fits,
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


@dataclass(slots=True)
class _Sums:
    """What the turns of a run add up to. Seconds and joules of one rank of tensor parallelism."""

    makespan: float = 0.0
    waited: float = 0.0
    tpot: float = 0.0
    prefill_j: float = 0.0
    energy: float = 0.0


def simulate_scenario(scenario: Scenario, policy: Policy | None = None, *, explain: bool = True) -> Simulation:
    """The timelines of a scenario. Raises what `predict` raises, and TimelineError.

    `explain`: also what modelling each kind of resource adds to each step, which takes several times as long.
    """
    policy = policy or Policy()
    built = restricted(predictor(scenario), policy)
    prediction = built.predict(scenario.batch, scenario.input_tokens, scenario.output_tokens)
    run = prediction.run
    assert isinstance(run, BatchRun)
    sums, shown = _Sums(), None
    further: tuple[Timeline, ...] = ()
    preempted = grown(built, run) if policy.host == "event" else None
    if preempted is not None:
        shown = _grown(built, run, preempted, policy, explain, sums)
    for turn in () if preempted is not None else run.turns:
        found = _Turn(built, run, turn, policy, explain)
        first_s, first_j, each_s, each_j = found.times()
        seconds = first_s + each_s * (run.generated - 1)
        sequences = turn.repeats * turn.sequences
        sums.waited += sequences * (sums.makespan + first_s + (turn.repeats - 1) / 2 * seconds)
        sums.tpot += sequences * each_s
        sums.makespan += turn.repeats * seconds
        sums.prefill_j += turn.repeats * first_j
        sums.energy += turn.repeats * (first_j + each_j * (run.generated - 1))
        if shown is None:
            shown, further = (found.prefill[0], found.middle), tuple(found.further)
    assert shown is not None
    replica = sum(turn.repeats * turn.sequences for turn in run.turns)
    parallelism = built.resolved.parallelism
    groups = parallelism.tp * parallelism.dp
    ttft, tpot = sums.waited / replica, sums.tpot / replica
    return Simulation(
        scenario=prediction.scenario,
        policy=policy,
        prediction=prediction,
        prefill=shown[0],
        decode=shown[1],
        ttft_s=ttft,
        tpot_s=tpot,
        e2el_s=ttft + tpot * (run.generated - 1),
        output_tokens_per_s=scenario.batch * built.schedule.samples * run.generated / sums.makespan,
        prefill_energy_j=sums.prefill_j * groups,
        energy_j=sums.energy * groups,
        power_w=sums.energy * groups / sums.makespan,
        further=further,
    )


def _grown(
    built: Predictor, run: BatchRun, found: Growth, policy: Policy, explain: bool, sums: _Sums
) -> tuple[Timeline, Timeline | None]:
    """Adds a batch whose last sequences are preempted, and run again when the others are done."""
    filling, running, again, waited, resumed = phases(run, found)
    start = _Turn(built, run, filling, policy, explain)
    first_s, first_j = start._prefill()
    first_s += filling.first_s - filling.static.ttft_s
    decoding = _Turn(built, run, running, policy, explain)
    each_s, each_j = decoding._decode()
    back_s, back_j = _Turn(built, again, waited, policy, False)._prefill()
    more_s, more_j = _Turn(built, again, resumed, policy, False)._decode()
    made, rest = run.generated - 1, again.generated - 1
    sums.makespan = first_s + each_s * made + back_s + more_s * rest
    sums.waited = found.batch * first_s
    sums.tpot = found.batch * each_s + found.waited * (back_s + more_s * rest) / made
    sums.prefill_j = first_j + filling.side_j
    sums.energy = sums.prefill_j + each_j * made + back_j + more_j * rest
    return start.prefill[0], decoding.middle


class _Turn:
    """One turn's steps, and what they take together."""

    def __init__(self, built: Predictor, run: BatchRun, turn: Turn, policy: Policy, explain: bool) -> None:
        self.built, self.run, self.turn, self.policy, self.explain = built, run, turn, policy, explain
        self.stages = built.resolved.parallelism.pp
        self.prefill: list[Timeline] = []
        self.middle: Timeline | None = None
        self.further: list[Timeline] = []

    def times(self) -> tuple[float, float, float, float]:
        """Seconds and joules to the first token, and per further token."""
        schedule, turn = self.built.schedule, self.turn
        each_s, each_j = self._decode()
        first_s, first_j = self._prefill()
        if schedule.chunk_tokens and self.run.generated > 1:
            first_s, first_j, each_s, each_j = self._mixed(each_s, each_j)
        first_s, first_j = first_s * schedule.passes, first_j * schedule.passes
        each_s, each_j = self._drafted(each_s, each_j)
        if self.built.helpers.decoder is not None and self.run.generated > 1:
            each_s, each_j = self._elsewhere()
        return first_s + turn.first_s - turn.static.ttft_s, first_j + turn.side_j, each_s, each_j

    def _timeline(self, step: Step, repeats: float, label: str) -> Timeline:
        shares = self.turn.placement.shares
        timeline = step_timeline(self.built, step, shares, self.policy, label=label)
        timeline.repeats = repeats
        if self.explain and abs(timeline.seconds - timeline.closed_form_s) > 1e-3 * timeline.closed_form_s:
            timeline.differences = explain_difference(self.built, step, shares, self.policy, label)
        return timeline

    def _prefill(self) -> tuple[float, float]:
        steps, seconds = self._prompts(None)
        if self.stages > 1 and self.run.prompt < self.built.host.max_tokens:
            size = 1.0
            while size < self.turn.sequences and size * self.run.prompt < self.built.host.max_tokens:
                other, took = self._prompts(size)
                steps, seconds = min(((steps, seconds), (other, took)), key=lambda one: one[1])
                size *= 2.0
        self.prefill = steps
        joules = sum(self._joules(step) * step.repeats for step in steps)
        if self.stages > 1:
            joules += self.built.runner.table.power.waiting_w * seconds * self.stages
        return seconds, joules

    def _prompts(self, size: float | None) -> tuple[list[Timeline], float]:
        """The steps of all prompts and what they take, through stages if there are any."""
        steps = [
            self._timeline(step, repeats, "prefill")
            for step, repeats in prefill_steps(self.built, self.run, self.turn, size)
        ]
        if self.stages == 1:
            return steps, sum(step.seconds * step.repeats for step in steps)
        host = self.built.host
        ways = [passage(step, self.stages, host.prefill_s) for step in steps]
        many = [way for way, step in zip(ways, steps, strict=True) for _ in range(max(1, round(step.repeats)))]
        return steps, prefill_schedule(many).seconds

    def _decode(self) -> tuple[float, float]:
        """Seconds and joules per token, over the nodes of the context."""
        host, sequences = self.built.host, self.turn.sequences * self.built.host.samples
        together = int(min(self.stages, sequences))
        each_s = each_j = 0.0
        for step, weight in decode_steps(self.built, self.run, self.turn, self.stages):
            timeline = self._timeline(step, self.run.generated - 1.0, "decode")
            seconds, joules = timeline.seconds, self._joules(timeline)
            if self.stages > 1:
                waited = host.step_s + host.per_sequence_s * sum(part.sequences for part in step)
                seconds, schedule = decode_period(passage(timeline, self.stages, waited), together)
                joules = together * joules + self.built.runner.table.power.waiting_w * seconds * self.stages
                if not self.further:
                    power = self.built.runner.table.power
                    self.further.append(
                        Timeline("decode pipeline", schedule, {}, power.static_w * self.stages,
                                 power.waiting_w * self.stages, 0.0, float(len(schedule)))
                    )  # fmt: skip
            each_s += weight / host.gained_tokens * seconds
            each_j += weight / host.gained_tokens * joules
            nearer = self.middle is None or weight > 0.4
            self.middle = timeline if nearer else self.middle
        return each_s * self.built.schedule.padding, each_j * self.built.schedule.padding

    def _joules(self, timeline: Timeline) -> float:
        """Of a step; in a pipeline without what waiting draws, which depends on the others."""
        if self.stages == 1:
            return timeline.energy_j
        return timeline.energy_j - timeline.waiting_w * timeline.seconds

    def _mixed(self, each_s: float, each_j: float) -> tuple[float, float, float, float]:
        """Chunks of prompts that ride with decode steps, as `simulator.schedules.mixed_batch` counts them."""
        step, count, alone = mixed_step(self.built, self.run, self.turn)
        mixed = self._timeline(step, count, "mixed")
        chunks = self.run.prompt / self.built.schedule.chunk_tokens
        first_s, first_j = chunks * mixed.seconds, chunks * mixed.energy_j
        rest = max(1.0, self.run.generated - 1.0)
        each_s = max(0.0, count * mixed.seconds + alone * each_s - first_s) / rest
        each_j = max(0.0, count * mixed.energy_j + alone * each_j - first_j) / rest
        self.prefill = [mixed]
        return first_s, first_j, each_s, each_j

    def _drafted(self, each_s: float, each_j: float) -> tuple[float, float]:
        """With a draft model: its steps beside the checks, in turns or on instances of their own."""
        built, schedule = self.built, self.built.schedule
        if schedule.draft is None or self.run.generated <= 1:
            return each_s, each_j
        beside = built.helpers.beside(self.turn.sequences, self.run.prompt, self.run.generated, built.cache)
        check_s, draft_s = each_s * schedule.gained_tokens, beside.step_s
        joules = each_j + beside.step_j / schedule.gained_tokens
        if schedule.draft_acceptance is None or (schedule.draft_overlap and not schedule.draft_servers):
            shown = check_s + draft_s - schedule.draft_overlap * min(check_s, draft_s)
            return shown / schedule.gained_tokens, joules
        tokens = max(1, round(schedule.draft_tokens))
        seconds, drafted = seconds_per_token(
            draft_s / tokens, check_s, tokens, schedule.draft_acceptance, schedule.draft_servers
        )
        self.further.append(Timeline("drafts and checks", drafted, {}, 0.0, 0.0, 0.0, float(len(drafted))))
        return seconds, joules

    def _elsewhere(self) -> tuple[float, float]:
        """Answers that another machine generates."""
        other = self.built.helpers.decoder
        assert other is not None
        answer = simulate_scenario(
            replace(other.resolved.scenario, batch=math.ceil(self.turn.sequences),
                    input_tokens=max(1, round(self.run.prompt)), output_tokens=self.run.generated),
            self.policy, explain=False,
        )  # fmt: skip
        parallelism = self.built.resolved.parallelism
        joules = (answer.energy_j - answer.prefill_energy_j) / (self.run.generated - 1)
        return answer.tpot_s, joules / (parallelism.tp * parallelism.dp)
