"""From a scenario to its prediction: sharding, placement, the static batch, energy, money.

A `Predictor` is built once per model, machine, engine and division among devices, and answers for any batch and lengths.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

from simulator.cost.efficiency import efficiency
from simulator.cost.layout import HostRow
from simulator.cost.price import hourly_price
from simulator.cost.runner import Runner, Shares, StaticBatch
from simulator.cost.table import build_table, check_runnable
from simulator.explain import dominant, explain_ops
from simulator.graph.op import Graph
from simulator.graph.step import Amount
from simulator.mapping.footprint import CacheSize, cache_size, weight_bytes, workspace_rows
from simulator.mapping.place import Need, Placement, Policy, place, preferences
from simulator.result import Prediction
from simulator.scenario import Resolved, Scenario, check_lengths, named_files, resolve
from simulator.techniques.parallel import shard, stage_share

_FAMILY = {"batch": 1, "input_tokens": 1, "output_tokens": 1}


def predict(scenario: Scenario | None = None, **named: Any) -> Prediction:
    """The prediction of a scenario, or of `Scenario(**named)`.

    Raises UnknownNameError, SpecError, ScenarioError or UnsupportedError.

    >>> answer = predict(model="llama-3.1-8b", hardware="A100", engine="ideal", batch=1, input_tokens=128)
    >>> round(answer.tpot_s * 1e3, 1)
    7.9
    """
    asked = scenario if scenario is not None else Scenario(**named)
    return predictor(asked).predict(asked.batch, asked.input_tokens, asked.output_tokens)


def predictor(scenario: Scenario) -> Predictor:
    """The predictor of a scenario's family: everything but batch and lengths. Built again when one of its files changes."""
    family = replace(scenario, **_FAMILY)
    known = _predictors.get(family)
    if known is not None and all(_modified(path) == stamp for path, stamp in known.files):
        return known
    built = Predictor(resolve(family))
    if len(_predictors) >= 1024:
        _predictors.clear()
    _predictors[family] = built
    return built


_predictors: dict[Scenario, Predictor] = {}


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class Predictor:
    """Answers for any batch and lengths of one family of scenarios."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.files = tuple((path, _modified(path)) for path in named_files(resolved.scenario))
        machine, engine, calibration = resolved.machine, resolved.engine, resolved.calibration
        parallelism = resolved.parallelism
        self.policy = Policy(engine.memory_fraction, engine.workspace_bytes, engine.spills)
        self._efficiency = efficiency(machine, engine, calibration)
        host_launch = max((unit.host_launch_s for unit in machine.units), default=0.0)
        self._host = HostRow(
            step_s=engine.host_step_s,
            prefill_s=engine.host_prefill_s,
            per_sequence_s=engine.host_per_sequence_s,
            kernel_s=host_launch * engine.kernel_host_factor,
            graph_decode=float(engine.graph_decode or engine.ideal),
            graph_prefill=float(engine.graph_prefill or engine.ideal),
            max_tokens=engine.max_batched_tokens,
        )
        model = resolved.model
        self.graph = shard(model.graph, parallelism)
        self.runner = self._runner(self.graph, parallelism.pp)
        self.side_runners = [
            self._runner(shard(graph, parallelism), 1) for graph in (model.encoder, model.vision) if graph is not None
        ]
        self.stage_share = stage_share(model.graph, parallelism.pp)
        sides = [shard(graph, parallelism) for graph in (model.encoder, model.vision) if graph is not None]
        self.weights = weight_bytes(self.graph, self.stage_share) + sum(weight_bytes(graph, 1.0) for graph in sides)
        self.cache: CacheSize = cache_size(self.graph, self.stage_share)
        self.workspace: list[Amount] = workspace_rows(self.graph)
        self.hourly = hourly_price(machine)
        self._preferences = list(preferences(machine, self.policy))
        self._pinned = _pinned_preferences(resolved, self._preferences)

    def predict(self, batch: int, prompt: int, output: int) -> Prediction:
        """The prediction for `batch` sequences of `prompt` input and `output` generated tokens."""
        resolved = self.resolved
        scenario, model, parallelism = resolved.scenario, resolved.model, resolved.parallelism
        check_lengths(model, batch, prompt, output, scenario.images, scenario.max_context)
        asked = replace(scenario, batch=batch, input_tokens=prompt, output_tokens=output)
        per_replica = math.ceil(batch / parallelism.dp)
        source = float(model.source_tokens or prompt) if model.encoder is not None else 0.0
        decoder_prompt = 1.0 if model.encoder is not None else float(prompt + scenario.images * model.image_tokens)
        generated = output if model.decode else 1
        total_tokens = decoder_prompt + generated
        need = self.need(per_replica, decoder_prompt, total_tokens, source)
        turns, running = self._turns(need, per_replica)
        if turns > 1:
            need_at_once = self.need(running, decoder_prompt, total_tokens, source)
        else:
            need_at_once = need
        placement, static = self._fastest(need_at_once, running, decoder_prompt, generated, source)
        side_s, side_j = self._sides(running, float(source or prompt), scenario.images, placement.shares)
        ttft_alone = static.ttft_s + side_s
        decode_s = static.tpot_s * (generated - 1)
        makespan = turns * (ttft_alone + decode_s)
        waited = (turns - 1) / 2 * (ttft_alone + decode_s)
        ttft = ttft_alone + waited
        e2el = ttft + decode_s
        groups = parallelism.tp * parallelism.dp
        share_run = batch / (per_replica * parallelism.dp)
        prefill_j = (static.prefill_j + side_j) * turns * groups
        energy_j = prefill_j + static.step_j * (generated - 1) * turns * groups
        rate = batch * generated / makespan
        hourly = self._hourly_usd(energy_j / makespan)
        devices = parallelism.devices
        placed = place(resolved.machine, need, self.policy, self._preferences[0]) if turns > 1 else placement
        values: dict[str, float] = {
            "ttft_s": ttft,
            "tpot_s": static.tpot_s,
            "e2el_s": e2el,
            "output_tokens_per_s": rate,
            "total_tokens_per_s": batch * (generated + (prompt if model.decode else 0)) / makespan,
            "energy_j_per_output_token": energy_j / (batch * generated),
        }
        prefill_totals = tuple(float(value) for value in self.runner.prefill_totals)
        decode_totals = tuple(float(value) for value in self.runner.decode_totals)
        steps = (generated - 1) * min(parallelism.pp, running)
        parts = _energy_parts(
            self.runner, prefill_totals, decode_totals, steps, turns * groups, energy_j, side_j * turns * groups
        )
        fits = placed.fits
        memory = need.total * devices
        cost = None if hourly is None else hourly * devices / 3600.0 / rate * 1e6
        return Prediction(
            scenario=asked,
            ttft_s=ttft,
            tpot_s=static.tpot_s,
            e2el_s=e2el,
            output_tokens_per_s=rate,
            total_tokens_per_s=values["total_tokens_per_s"],
            weight_bytes=need.weight * devices,
            kv_bytes=need.cache * devices,
            activation_bytes=need.activation * devices,
            memory_bytes=memory,
            capacity_bytes=placed.capacity_bytes * devices,
            fits=fits,
            prefill_energy_j=prefill_j,
            energy_j_per_output_token=values["energy_j_per_output_token"],
            power_w=energy_j / makespan,
            usd_per_million_output_tokens=cost,
            bound=dominant(self.runner, prefill_totals, decode_totals, steps, self._host, static, ttft_alone, decode_s),
            interval=self._interval(values),
            provenance=self._provenance(),
            energy_by_component_j=parts,
            memory_by_role_bytes={
                "weights": need.weight * devices, "kv cache and state": need.cache * devices, "activations": need.activation * devices,
            },
            advice=None if fits else self._advice(need, placed, per_replica, share_run),
            devices=devices,
            turns=turns,
            _explain=lambda: explain_ops(self, running, decoder_prompt, generated, source, placement.shares),
        )  # fmt: skip

    def need(self, batch: float, prompt: float, total_tokens: float, source: float) -> Need:
        """Bytes of one rank for `batch` sequences of `total_tokens` each."""
        tokens = min(batch * prompt, self._host.max_tokens)
        sequences = min(batch, max(1.0, tokens / max(prompt, 1.0)))
        activation = max(
            (
                row.const + row.tokens * max(tokens, batch) + (row.sequences + row.sampled) * max(sequences, 1.0)
                for row in self.workspace
            ),
            default=0.0,
        )
        return Need(self.weights, batch * self.cache.bytes_of(total_tokens, source), activation)

    def _turns(self, need: Need, batch: int) -> tuple[int, int]:
        """Turns a batch takes, and the sequences of one turn, when not all caches fit at once."""
        if self.resolved.engine.ideal:
            return 1, batch
        free = sum(max(0.0, space) for space in self._cache_space(need))
        if need.cache <= free or need.cache <= 0:
            return 1, batch
        at_once = max(1, math.floor(batch * free / need.cache))
        turns = math.ceil(batch / at_once)
        return turns, math.ceil(batch / turns)

    def _cache_space(self, need: Need) -> list[float]:
        empty = place(self.resolved.machine, Need(need.weight, 0.0, need.activation), self.policy, self._preferences[0])
        return [empty.capacity_bytes - need.weight - need.activation]

    def _fastest(
        self, need: Need, batch: int, prompt: float, output: int, source: float
    ) -> tuple[Placement, StaticBatch]:
        """The placement that fits and finishes first, and the batch timed with it."""
        options = self._pinned
        machine = self.resolved.machine
        if len(options) == 1:
            chosen = place(machine, need, self.policy, options[0])
            return chosen, self._static(batch, prompt, output, source, chosen.shares)
        best: tuple[tuple[bool, float], Placement] | None = None
        tried: set[Shares] = set()
        for preference in options:
            placement = place(machine, need, self.policy, preference)
            if placement.shares in tried:
                continue
            tried.add(placement.shares)
            static = self.runner.static_batch(batch, prompt, output, source, placement.shares)
            if static.failed_op >= 0:
                continue
            rank = (not placement.fits, static.ttft_s + (output - 1) * static.tpot_s)
            if best is None or rank < best[0]:
                best = (rank, placement)
        if best is None:
            check_runnable(self.runner.table, self.graph, machine)
            chosen = place(machine, need, self.policy, options[0])
        else:
            chosen = best[1]
        return chosen, self._static(batch, prompt, output, source, chosen.shares)

    def _static(self, batch: int, prompt: float, output: int, source: float, shares: Shares) -> StaticBatch:
        static = self.runner.static_batch(batch, prompt, output, source, shares)
        if static.failed_op >= 0:
            check_runnable(self.runner.table, self.graph, self.resolved.machine)
            op = self.runner.table.ops[static.failed_op]
            from simulator.errors import UnsupportedError

            raise UnsupportedError(
                f"'{op.name}' on {self.resolved.machine.name}: no unit that runs {op.kind} reaches its operands",
                ["another placement (--place)", "an engine that spills to further memories (--engine native)"],
            )
        return static

    def _sides(self, batch: int, source: float, images: int, shares: Shares) -> tuple[float, float]:
        """Seconds and joules of the encoder and of the vision tower for the batch."""
        seconds = joules = 0.0
        model = self.resolved.model
        runners = list(self.side_runners)
        if model.encoder is not None:
            encoder = runners.pop(0).static_batch(batch, source, 1, 0.0, shares)
            seconds, joules = seconds + encoder.ttft_s, joules + encoder.prefill_j
        if model.vision is not None and images:
            vision = runners.pop(0).static_batch(batch * images, 1, 1, 0.0, shares)
            seconds, joules = seconds + vision.ttft_s, joules + vision.prefill_j
        return seconds, joules

    def _runner(self, graph: Graph, stages: int) -> Runner:
        resolved = self.resolved
        table = build_table(graph, resolved.machine, resolved.engine, self._efficiency, resolved.calibration)
        check_runnable(table, graph, resolved.machine)
        return Runner(table, self._host, stages)

    def _hourly_usd(self, power_w: float) -> float | None:
        """Per device: the rent, or the purchase written off and the electricity."""
        if self.hourly is None:
            return None
        return self.hourly.usd_per_hour + self.hourly.usd_per_kwh * power_w / self.resolved.parallelism.devices / 1000.0

    def _interval(self, values: dict[str, float]) -> dict[str, tuple[float, float]]:
        calibration = self.resolved.calibration
        low, high = calibration.interval_low.value, calibration.interval_high.value
        if self.resolved.engine.ideal:
            low = 1.0
        times = {key: (values[key] * low, values[key] * high) for key in ("ttft_s", "tpot_s", "e2el_s")}
        rates = {key: (values[key] / high, values[key] / low) for key in ("output_tokens_per_s", "total_tokens_per_s")}
        energy = {
            "energy_j_per_output_token": (
                values["energy_j_per_output_token"] * low,
                values["energy_j_per_output_token"] * high,
            )
        }
        return {**times, **rates, **energy}

    def _provenance(self) -> dict[str, Any]:
        resolved = self.resolved
        own = resolved.machine.device in resolved.calibration.devices
        tag = resolved.calibration.tag
        return {
            "model": resolved.model.name,
            "hardware": resolved.machine.name,
            "engine": resolved.engine.name,
            "calibration": resolved.calibration.name,
            "tag": tag if own or tag == "datasheet" else "transferred",
            "devices": resolved.parallelism.devices,
            "tp": resolved.parallelism.tp,
            "pp": resolved.parallelism.pp,
            "ep": resolved.parallelism.ep,
            "dp": resolved.parallelism.dp,
            "price": None if self.hourly is None else self.hourly.source,
            "assumed": list(resolved.machine.assumed),
        }

    def _advice(self, need: Need, placed: Placement, batch: int, share: float) -> str:
        from simulator.advice import what_would_fit

        return what_would_fit(self, need, placed, batch)


def _pinned_preferences(resolved: Resolved, options: list[tuple[int, int]]) -> list[tuple[int, int]]:
    from simulator.errors import ScenarioError

    names = [memory.name for memory in resolved.machine.memories]
    kept = options
    for role, name in resolved.scenario.place:
        column = {"weight": 0, "weights": 0, "kv": 1, "cache": 1}.get(role)
        if column is None:
            raise ScenarioError(f"--place takes weight=MEMORY or kv=MEMORY, not '{role}'")
        wanted = [position for position, known in enumerate(names) if known == name.rsplit(".", 1)[-1]]
        kept = [option for option in kept if option[column] in wanted]
        if not kept:
            possible = sorted({names[option[column]] for option in options})
            raise ScenarioError(
                f"{role} cannot be placed in '{name}' on {resolved.machine.name}; it can be in {', '.join(possible)}"
            )
    return kept


def _energy_parts(
    runner: Runner,
    prefill: tuple[float, ...],
    decode: tuple[float, ...],
    steps: float,
    scale: float,
    total_j: float,
    side_j: float,
) -> dict[str, float]:
    """The run's joules by component; what the dynamic parts leave is static."""
    from simulator.cost.layout import R_CACHE_J, R_COMPUTE_J, R_ENERGY, R_LINK_J

    def run(column: int) -> float:
        return (prefill[column] + steps * decode[column]) * scale

    parts = {"compute": run(R_COMPUTE_J), "cache": run(R_CACHE_J), "links": run(R_LINK_J)}
    dynamic = run(R_ENERGY)
    parts["memory"] = max(0.0, dynamic - sum(parts.values()))
    if side_j:
        parts["encoder and vision"] = side_j
    parts["static"] = max(0.0, total_j - dynamic - side_j)
    return parts
