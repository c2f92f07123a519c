"""One side of a comparison read off its timeline: times, rates, energy, and how much of what crosses links is hidden.

What does not depend on time (bytes, capacities, FLOPs) is the closed form's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np

from simulator.errors import ScenarioError
from simulator.events.cascade import simulate_cascade
from simulator.events.engine import Schedule
from simulator.events.layout import PICOSECONDS
from simulator.events.policy import Policy
from simulator.events.rings import RingTimeline, simulate_ring
from simulator.events.simulation import Simulation, simulate_scenario
from simulator.events.streams import StreamRun, stream
from simulator.events.swaps import SwapTimeline, simulate_swaps
from simulator.events.timeline import Timeline
from simulator.graph.step import Slice
from simulator.trainer import TrainingScenario
from validation.outcomes import Inference, rate
from validation.training_step import Training


class Simulated(Inference):
    """A simulation and what can be read off it."""

    def __init__(self, values: dict[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(values)
        options = dict(options)
        self.passes = options.pop("passes", None)
        known = {item.name for item in fields(Policy)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ScenarioError(f"a timeline has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        self.policy = Policy(**options)

    @cached_property
    def simulation(self) -> Simulation:
        """Of the scenario."""
        return simulate_scenario(self.scenario, self.policy, explain=False)

    def value(self, quantity: str) -> float:
        """See `comparison.Side.value`; also busy.RESOURCE and critical.RESOURCE of a decode step, prefill-busy.RESOURCE."""
        if quantity.startswith("cascade_"):
            return self._cascade_value(quantity)
        kind, dot, resource = quantity.partition(".")
        if dot and kind in ("busy", "critical", "prefill-busy", "prefill-critical"):
            return self._share(kind.removeprefix("prefill-"), resource, kind.startswith("prefill-"))
        found = self._read(quantity)
        return super().value(quantity) if found is None else found

    def _read(self, quantity: str) -> float | None:
        """What the timeline says; None for what it has no word on."""
        run, scenario = self.simulation, self.scenario
        samples = self.predictor.schedule.samples
        tokens = scenario.batch * samples * max(1, scenario.output_tokens)
        found = {
            "ttft_s": run.ttft_s, "tpot_s": run.tpot_s, "e2el_s": run.e2el_s, "decode_s": run.e2el_s - run.ttft_s,
            "step_s": run.prefill.seconds, "tokens_per_s": run.output_tokens_per_s,
            "tokens_per_s_per_device": run.output_tokens_per_s / run.prediction.devices,
            "prefill_tokens_per_s": rate(scenario.batch * scenario.input_tokens, run.ttft_s),
            "energy_j": run.energy_j, "energy_j_per_token": run.energy_j / tokens, "power_w": run.power_w,
            "prefill_energy_j": run.prefill_energy_j,
            "device_seconds": run.prediction.devices * run.e2el_s,
        }  # fmt: skip
        if quantity == "decode_tokens_per_s":
            return rate(scenario.batch * samples, run.tpot_s)
        if quantity in ("hidden_share", "prefill_hidden_share"):
            return hidden_share(self._step(quantity.startswith("prefill")))
        if quantity in ("link_share", "prefill_link_share"):
            step = self._step(quantity.startswith("prefill"))
            return sum(use.critical_s for use in step.uses() if use.group in ("link", "wait")) / step.seconds
        if quantity.startswith("stream_"):
            return float(getattr(self._stream, quantity.removeprefix("stream_")))
        if quantity == "max_host_bound_batch":
            return self._host_bound_batch()
        if quantity == "sublayer_s":
            return exchange_sublayers(self.simulation.prefill)
        return found.get(quantity)

    @cached_property
    def _stream(self) -> StreamRun:
        """Requests that keep coming; of the batch, each micro-batch of the pipeline has its share."""
        scenario, built = self.scenario, self.predictor
        slots = max(1, scenario.batch // (scenario.pp * scenario.dp))
        shares = self.prediction.run.turns[0].placement.shares  # type: ignore[attr-defined]
        chunk = built.schedule.chunk_tokens
        return stream(built, shares, slots, scenario.input_tokens, scenario.output_tokens, chunk)

    def _cascade_value(self, quantity: str) -> float:
        """Attention tile by tile on an array and its lanes: its seconds, those of the whole network, the array's share."""
        machine, batch, tokens = self.predictor.resolved.machine, self.scenario.batch, self.scenario.input_tokens
        ops = [op for op in self.predictor.graph.ops if op.kind == "attention"]
        runs = [(float(op.repeat), simulate_cascade(machine, op, tokens, self.passes)) for op in ops]
        attention = batch * sum(repeat * run.seconds for repeat, run in runs)
        if quantity == "cascade_array_share":
            return runs[0][1].array_share
        if quantity == "cascade_attention_s":
            return attention
        step = (Slice(float(batch), float(tokens)),)
        linear = sum(op.flops_at(step) for op in self.predictor.graph.ops if op.kind == "gemm")
        peak = max(rate for unit in machine.units for rate in unit.peak_flop_per_s.values())
        return attention + linear / peak

    def _host_bound_batch(self) -> float:
        """The largest batch, among powers of two, whose prompts wait for the host's launches most of the time; 0: none."""
        found = 0
        for power in range(11):
            run = simulate_scenario(self.scenario.with_(batch=2**power, output_tokens=1), self.policy, explain=False)
            uses = [use for use in run.prefill.uses() if use.group == "host"]
            if sum(use.critical_s for use in uses) < 0.5 * run.prefill.seconds:
                break
            found = 2**power
        return float(found)

    def _step(self, prefill: bool) -> Timeline:
        step = self.simulation.prefill if prefill else self.simulation.decode
        if step is None:
            raise ScenarioError("nothing is decoded")
        return step

    def _share(self, kind: str, resource: str, prefill: bool) -> float:
        step = self._step(prefill)
        uses = {use.resource: use for use in step.uses()}
        if resource not in uses:
            raise ScenarioError(f"no resource '{resource}' had a task; {', '.join(uses)} had")
        use = uses[resource]
        return (use.busy_s if kind == "busy" else use.critical_s) / step.seconds


class SimulatedTraining(Training):
    """A training step whose activations are swapped, and what can be read off it."""

    def __init__(self, values: dict[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.options = options

    @cached_property
    def step(self) -> SwapTimeline | RingTimeline:
        """Of the scenario: states passed among ranks, or activations swapped."""
        run = simulate_ring if "exchange" in self.options else simulate_swaps
        try:
            return run(TrainingScenario(**self.values), **self.options)  # type: ignore[operator,no-any-return]
        except TypeError as error:
            raise ScenarioError(f"timeline of a training step: {error}") from None

    def value(self, quantity: str) -> float:
        """See `validation.comparison.Side.value`."""
        run = self.step
        found = {
            "step_s": run.seconds, "e2el_s": run.seconds, "mfu": run.mfu, "flop_per_s_per_device": run.model_flop_per_s,
            "hidden_share": hidden_share(run.timeline),
        }  # fmt: skip
        if isinstance(run, SwapTimeline):
            found["swapped_share"] = run.swapped
        if quantity == "tokens_per_s":
            return self.prediction.step_s / run.seconds * super().value(quantity)
        return found[quantity] if quantity in found else super().value(quantity)


def hidden_share(step: Timeline) -> float:
    """Of the time that links are busy, the share that holds nothing up; 0 where no link is used."""
    links = [use for use in step.uses() if use.group == "link"]
    busy = sum(use.busy_s for use in links)
    return 1.0 - min(1.0, sum(use.critical_s for use in links) / busy) if busy > 0.0 else 0.0


def exchange_sublayers(step: Timeline) -> float:
    """Seconds of a step from the start of each op whose result an exchange moves to the exchange's end, summed."""
    schedule = step.schedule
    op = np.asarray(schedule.column("op"))
    order = list(step.ops)
    total = 0
    for place, index in enumerate(order):
        if step.ops[index].unit >= 0 or place == 0:
            continue
        ends, starts = _by_copy(schedule, op == index), _by_copy(schedule, op == order[place - 1])
        total += sum(int(schedule.end[ends[key]].max() - schedule.start[starts[key]].min()) for key in ends)
    return total / PICOSECONDS


def _by_copy(schedule: Schedule, chosen: Any) -> dict[tuple[int, int], Any]:
    """Positions of chosen tasks that take time, by section and copy."""
    found: dict[tuple[int, int], list[int]] = {}
    for task in np.flatnonzero(chosen & (schedule.end > schedule.start)).tolist():
        found.setdefault((int(schedule.section[task]), int(schedule.copy[task])), []).append(task)
    return found
