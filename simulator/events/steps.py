"""The steps of a scenario as timelines: prompts, tokens of the answer, chunks that ride along; and what modelling adds.

Which steps there are is the schedule's; what they sum up to is `simulation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from simulator.cost.batches import NODES
from simulator.cost.runner import Shares
from simulator.cost.steps import step_seconds
from simulator.errors import ScenarioError
from simulator.events.lower import lower
from simulator.events.policy import ANALYTIC, KINDS, Policy, Resources
from simulator.events.repeat import simulate_repeated
from simulator.events.timeline import Timeline
from simulator.graph.step import Slice, Step
from simulator.predict import Predictor
from simulator.run import BatchRun, Turn

DECODING = ("decode", "mixed")
"""Labels of steps that the host times as those of answers."""


def step_timeline(built: Predictor, step: Step, shares: Shares, policy: Policy, *, label: str = "step") -> Timeline:
    """The timeline of any step on one rank."""
    decoding = label in DECODING
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


def restricted(built: Predictor, policy: Policy) -> Predictor:
    """The same scenario on a machine of which only the main part, or only some units, compute. Raises ScenarioError."""
    machine = built.resolved.machine
    if not policy.stream and policy.units is None:
        return built
    main = next(memory.part for memory in machine.memories if memory.of_main)
    units = tuple(
        unit
        for unit in machine.units
        if (unit.part == main or not policy.stream) and (policy.units is None or policy.units in unit.name)
    )
    if not units:
        known = ", ".join(unit.name for unit in machine.units)
        raise ScenarioError(f"{machine.name} has no unit '{policy.units}' that may compute; it has {known}")
    return Predictor(replace(built.resolved, machine=replace(machine, units=units)))


def prefill_steps(
    built: Predictor, run: BatchRun, turn: Turn, size: float | None = None
) -> Iterator[tuple[Step, float]]:
    """(step, how many like it): as many sequences as the engine takes at once and a rest, or the middle chunk of one.

    `size`: sequences of a step, where it is not as many as possible. Tokens that are known already are only attended to.
    """
    host, prompt, batch = built.host, run.prompt, float(turn.sequences)
    fresh = max(1.0, prompt - max(host.known_tokens, host.known_share * prompt))
    known = prompt - fresh
    if fresh >= host.max_tokens:
        chunks = fresh / host.max_tokens
        query = fresh / chunks
        yield (Slice(1.0, query, known + 0.5 * (fresh - query), run.source, 1.0 / chunks),), batch * chunks
        return
    size = min(size or float(math.floor(host.max_tokens / fresh)), batch)
    repeats = math.floor(batch / size)
    yield (Slice(size, fresh, known, run.source),), float(repeats)
    rest = batch - repeats * size
    if rest > 0.0:
        yield (Slice(rest, fresh, known, run.source),), 1.0


def decode_steps(built: Predictor, run: BatchRun, turn: Turn, stages: int) -> Iterator[tuple[Step, float]]:
    """(step of one micro-batch, weight) at the nodes of the context that a batch decodes over."""
    if run.generated <= 1:
        return
    host = built.host
    sequences = turn.sequences * host.samples
    micro = float(math.ceil(sequences / min(stages, sequences)))
    for node, weight in NODES:
        past = min(run.prompt - 0.5 + node * (run.generated - 1.0), host.past_limit)
        yield (Slice(micro, host.step_tokens, past, run.source, host.sampled_tokens),), weight


def mixed_step(built: Predictor, run: BatchRun, turn: Turn) -> tuple[Step, float, float]:
    """A step in which a chunk of a prompt rides, how many of them a batch takes, and decode steps that are left over.

    The counts of `simulator.schedules.mixed_batch`.
    """
    chunk, prompt, batch = built.schedule.chunk_tokens, run.prompt, float(turn.sequences)
    count = batch * prompt / chunk
    riding = min(batch, batch * (run.generated - 1.0) / count)
    step: Step = (Slice(1.0, float(min(chunk, prompt)), prompt / 2.0, 0.0, min(1.0, chunk / prompt)),)
    if riding > 0.0:
        step = (*step, Slice(riding, 1.0, prompt + run.generated / 2.0, 0.0, 1.0))
    return step, count, max(0.0, run.generated - 1.0 - count)
