"""What a training step costs: seconds, memory by role, energy and money of one optimizer step on many devices.

Joins the training graph with the sharding, placement and cost arithmetic that inference uses (`simulator.trainer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from simulator.cost.layout import R_CACHE_J, R_COMPUTE_J, R_ENERGY, R_LINK_J
from simulator.cost.price import hourly_price
from simulator.errors import SimulatorError
from simulator.explain import terms
from simulator.graph.op import Role
from simulator.graph.optimizer import Recompute
from simulator.result import OpCost
from simulator.trainer import Trainer, TrainingScenario

__all__ = ["KEYS", "TrainingPrediction", "TrainingScenario", "predict_training", "what_would_fit"]

KEYS = (
    "step_s", "tokens_per_s", "samples_per_s", "model_flops", "mfu", "memory_by_role_bytes", "memory_bytes",
    "capacity_bytes", "fits", "energy_j", "power_w", "usd_per_step", "usd_per_billion_tokens", "bubble_share",
    "communication_share", "devices", "bound",
)  # fmt: skip
"""Keys of the JSON form, in order, before `interval`, `advice` and `provenance`."""


@dataclass(slots=True)
class TrainingPrediction:
    """The answer: one optimizer step. Bytes are of the fullest device; energy, power and money of all together."""

    scenario: TrainingScenario
    step_s: float
    tokens_per_s: float | None
    """None for networks whose samples are not made of tokens."""
    samples_per_s: float
    model_flops: float
    """Forward and backward FLOPs of all samples, 6 N per token and attention; without recomputation and update."""
    mfu: float
    """Model FLOPs per second over the dense peak of the format of the arithmetic, of all devices."""
    memory_by_role_bytes: Mapping[Role, float]
    """weight, gradient, optimizer, activation."""
    capacity_bytes: float
    fits: bool
    energy_j: float
    usd_per_step: float | None
    bubble_share: float
    """Of the pipelined passes: (p - 1) / (m + p - 1), with m micro-batches in p stages (arXiv 2104.04473, 2.2.1)."""
    communication_share: float
    """Of the step: exchanges that nothing hides."""
    devices: int
    bound: str
    """What most of the time goes to: compute, memory NAME, cache, link, launch, host or bubble."""
    energy_by_component_j: Mapping[str, float]
    trainer: Trainer = field(repr=False, compare=False)

    @property
    def memory_bytes(self) -> float:
        """All roles."""
        return sum(self.memory_by_role_bytes.values())

    @property
    def power_w(self) -> float:
        """Average."""
        return self.energy_j / self.step_s

    @property
    def usd_per_billion_tokens(self) -> float | None:
        """Money for a billion tokens; None without tokens or without a known price."""
        if self.usd_per_step is None or self.tokens_per_s is None:
            return None
        return self.usd_per_step / (self.tokens_per_s * self.step_s) * 1e9

    @property
    def interval(self) -> dict[str, tuple[float, float]]:
        """90% interval per key: the ratios of inference on a device that was not measured, as no training was."""
        from simulator.cost.interval import Founding, interval_table

        tag, ideal = self.trainer.provenance()["tag"], self.trainer.resolved.engine.ideal
        ratio = interval_table().ratio("e2el_s", Founding(tag, "ideal" if ideal else "assumed"))
        if ratio is None:
            return {}
        low, high = (max(1.0, bound) for bound in ratio) if ideal else ratio
        found = {key: (getattr(self, key) * low, getattr(self, key) * high) for key in ("step_s", "energy_j")}
        for key in ("tokens_per_s", "samples_per_s", "mfu"):
            value = getattr(self, key)
            if value is not None:
                most = value / low
                found[key] = (value / high, min(1.0, most) if key == "mfu" else most)
        return found

    @property
    def provenance(self) -> dict[str, Any]:
        """Names, degrees of parallelism, calibration and its tag, links, price, and every assumed number."""
        return self.trainer.provenance()

    @property
    def advice(self) -> str | None:
        """What would make it fit, where it does not."""
        return None if self.fits else what_would_fit(self.trainer)

    def ops(self) -> tuple[OpCost, ...]:
        """Every op of one rank's step with all terms: all micro-batches, the whole length of a pipeline."""
        return self.trainer.ops()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found: dict[str, Any] = {key: getattr(self, key) for key in KEYS}
        found["memory_by_role_bytes"] = dict(self.memory_by_role_bytes)
        found["interval"] = {key: list(bounds) for key, bounds in self.interval.items()}
        return {**found, "advice": self.advice, "provenance": self.provenance}


def predict_training(
    scenario: TrainingScenario | None = None, *, decided: bool = False, **named: Any
) -> TrainingPrediction:
    """The prediction of a training scenario, or of `TrainingScenario(**named)`.

    `decided`: the scenario says already what its techniques decide about training.
    Raises UnknownNameError, SpecError, ScenarioError or UnsupportedError.

    >>> answer = predict_training(model="llama-3.1-8b", hardware="dgx-h100", zero_stage=3, recompute="full")
    >>> answer.devices, answer.fits
    (8, True)
    """
    trainer = Trainer(scenario if scenario is not None else TrainingScenario(**named), decided)
    asked, p, runners = trainer.scenario, trainer.parallelism, trainer.runners
    totals = [float(sum(column)) for column in zip(*(runner.scratch.totals for runner in runners), strict=True)]
    step_s, spent = max((trainer.stage_s(end) for end in trainer.ends), key=lambda stage: stage[0])
    power = runners[0].table.power
    replicas = p.tp * p.dp
    dynamic_j = totals[R_ENERGY] * replicas
    if power.tdp_w > 0.0:
        step_s = max(step_s, dynamic_j / p.devices / (power.tdp_w - power.static_w))
    columns = {"compute": R_COMPUTE_J, "cache": R_CACHE_J, "links": R_LINK_J}
    parts = {name: totals[column] * replicas for name, column in columns.items()}
    parts["memory"] = max(0.0, dynamic_j - sum(parts.values()))
    parts["static"] = power.static_w * step_s * p.devices
    samples = asked.micro_batch * asked.gradient_accumulation * p.dp / asked.cp
    flops = sum(part.useful_flops for part in trainer.parts) * p.dp
    energy_j = dynamic_j + parts["static"]
    if asked.uncompressed_share > 0.0:
        early = predict_training(
            replace(asked, gradient_dtype=trainer.uncompressed_dtype, gradients_summed=True, uncompressed_share=0.0),
            decided=True,
        )
        step_s, energy_j = (
            asked.uncompressed_share * first + (1.0 - asked.uncompressed_share) * then
            for first, then in ((early.step_s, step_s), (early.energy_j, energy_j))
        )
    placement, hourly, usd = trainer.placement, hourly_price(trainer.resolved.machine), None
    if hourly is not None:
        watts = energy_j / step_s
        usd = (hourly.usd_per_hour * p.devices + hourly.usd_per_kwh * watts / 1000.0) / 3600.0 * step_s
    return TrainingPrediction(
        scenario=asked,
        step_s=step_s,
        tokens_per_s=None if trainer.per_sample else samples * trainer.tokens * asked.cp / step_s,
        samples_per_s=samples / step_s,
        model_flops=flops,
        mfu=flops / step_s / (trainer.peak_flop_per_s * p.devices),
        memory_by_role_bytes=trainer.memory_by_role_bytes,
        capacity_bytes=placement.capacity_bytes,
        fits=placement.fits,
        energy_j=energy_j,
        usd_per_step=usd,
        bubble_share=(p.pp - 1.0) / (asked.gradient_accumulation + p.pp - 1.0),
        communication_share=min(1.0, spent["link"] / step_s),
        devices=p.devices,
        bound=_bound(trainer, spent),
        energy_by_component_j=parts,
        trainer=trainer,
    )


def _bound(trainer: Trainer, spent: Mapping[str, float]) -> str:
    """The largest term of the mean stage, or of what stages wait for."""
    summed: dict[str, float] = {}
    for runner in trainer.runners:
        for name, seconds in terms(runner, runner.scratch.totals).items():
            summed[name] = summed.get(name, 0.0) + seconds / trainer.parallelism.pp
    summed.update(spent)
    return max(summed, key=lambda name: summed[name])


def what_would_fit(trainer: Trainer) -> str:
    """One sentence on the shortage and the changes that would end it, each checked."""
    need, placed, roles = trainer.need, trainer.placement, trainer.memory_by_role_bytes
    short = max(placed.overflow_bytes, need.total - placed.capacity_bytes)
    sizes = ", ".join(f"{role} {size / 1e9:.1f}" for role, size in roles.items())
    found = (
        f"needs {need.total / 1e9:.1f} GB per device and has {placed.capacity_bytes / 1e9:.1f} GB ({sizes}): "
        f"{short / 1e9:.1f} GB short"
    )
    options: dict[str, str] = {}
    for family, words, scenario in _changes(trainer):
        if family not in options and _fits(scenario):
            options[family] = words
    if options:
        return f"{found}; would fit with {' or '.join(options.values())}"
    scenario = replace(trainer.scenario, recompute="full", micro_batch=1, zero_stage=3)
    words = "full recomputation, ZeRO stage 3 and a micro-batch of 1 together"
    if _fits(scenario):
        return f"{found}; would fit with {words}"
    return f"{found}; no one change ends that, nor do {words}: use more devices or adapters (--lora-rank)"


def _changes(trainer: Trainer) -> Iterator[tuple[str, str, TrainingScenario]]:
    """Kinds of change, gentlest first: (kind, words, scenario)."""
    scenario = trainer.scenario
    levels: tuple[Recompute, ...] = ("none", "selective", "full")
    for level in levels[levels.index(scenario.recompute) + 1 :]:
        yield "recompute", f"{level} recomputation", replace(scenario, recompute=level)
    if trainer.parallelism.dp > 1:
        for stage in range(scenario.zero_stage + 1, 4):
            yield "zero", f"ZeRO stage {stage}", replace(scenario, zero_stage=stage)
    size, times = scenario.micro_batch, scenario.gradient_accumulation
    while size > 1:
        size, times = size // 2, times * 2
        words = f"a micro-batch of {size}"
        yield "micro", words, replace(scenario, micro_batch=size, gradient_accumulation=times)
    for degree in (2, 4, 8, 16):
        dp = trainer.parallelism.dp // degree if trainer.resolved.machine.is_system else trainer.parallelism.dp
        if dp >= 1:
            tp = scenario.tp * degree
            yield "tp", f"tp={tp}", replace(scenario, tp=tp, dp=dp)


def _fits(scenario: TrainingScenario) -> bool:
    try:
        return Trainer(scenario).placement.fits
    except SimulatorError:
        return False
