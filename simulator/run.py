"""What one prediction was computed from, kept so that intervals, provenance and details cost nothing until asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.advice import what_would_fit
from simulator.cost.layout import R_CACHE_J, R_COMPUTE_J, R_ENERGY, R_LINK_J
from simulator.cost.runner import StaticBatch
from simulator.explain import dominant, explain_ops
from simulator.mapping.place import Need, Placement
from simulator.result import OpCost, Prediction

if TYPE_CHECKING:
    from simulator.predict import Predictor


@dataclass(slots=True)
class BatchRun:
    """A static batch on one predictor. Totals are of one rank, as the cost arithmetic leaves them."""

    predictor: Predictor
    batch: int
    """Sequences of one turn on one replica."""
    prompt: float
    generated: int
    source: float
    turns: int
    need: Need
    """Of the whole batch on one rank."""
    placement: Placement
    static: StaticBatch
    prefill_totals: tuple[float, ...]
    """All prefill steps of one turn."""
    decode_totals: tuple[float, ...]
    """The mean decode step of one micro-batch."""
    side_j: float
    """Energy of encoder and vision tower."""

    @property
    def _decode_steps(self) -> float:
        return (self.generated - 1.0) * min(self.predictor.resolved.parallelism.pp, self.batch)

    def interval(self, prediction: Prediction) -> dict[str, tuple[float, float]]:
        """Times, rates and energy between the ratios that the calibration states."""
        resolved = self.predictor.resolved
        low, high = resolved.calibration.interval_low.value, resolved.calibration.interval_high.value
        if resolved.engine.ideal:
            low = 1.0
        found = {}
        for key in ("ttft_s", "tpot_s", "e2el_s", "energy_j_per_output_token"):
            value = getattr(prediction, key)
            found[key] = (value * low, value * high)
        for key in ("output_tokens_per_s", "total_tokens_per_s"):
            value = getattr(prediction, key)
            found[key] = (value / high, value / low)
        return found

    def provenance(self) -> dict[str, Any]:
        """The names behind the prediction and how well founded it is."""
        resolved = self.predictor.resolved
        calibration, parallelism = resolved.calibration, resolved.parallelism
        own = resolved.machine.device in calibration.devices
        return {
            "model": resolved.model.name,
            "hardware": resolved.machine.name,
            "engine": resolved.engine.name,
            "calibration": calibration.name,
            "tag": "transferred" if calibration.tag == "in-grid" and not own else calibration.tag,
            "devices": parallelism.devices,
            "tp": parallelism.tp,
            "pp": parallelism.pp,
            "ep": parallelism.ep,
            "dp": parallelism.dp,
            "price": None if self.predictor.hourly is None else self.predictor.hourly.source,
            "placement": self._placed(),
            "assumed": list(resolved.machine.assumed),
        }

    def bound(self) -> str:
        """The term that takes most of the run."""
        return dominant(
            self.predictor.runner,
            self.prefill_totals,
            self.decode_totals,
            self._decode_steps,
            self.generated - 1,
            self.static,
        )

    def energy_by_component_j(self, prediction: Prediction) -> dict[str, float]:
        """Joules of the run; what the dynamic parts leave is static."""
        parallelism = self.predictor.resolved.parallelism
        scale = parallelism.tp * parallelism.dp * self.turns

        def run(column: int) -> float:
            return (self.prefill_totals[column] + self._decode_steps * self.decode_totals[column]) * scale

        parts = {"compute": run(R_COMPUTE_J), "cache": run(R_CACHE_J), "links": run(R_LINK_J)}
        dynamic = run(R_ENERGY)
        parts["memory"] = max(0.0, dynamic - sum(parts.values()))
        if self.side_j:
            parts["encoder and vision"] = self.side_j
        parts["static"] = max(0.0, prediction.energy_j - dynamic - self.side_j)
        return parts

    def advice(self) -> str | None:
        """What would make it fit, where it does not."""
        if self.placement.fits and self.turns == 1:
            return None
        return what_would_fit(self.predictor, self.need, self.placement, self.batch * self.turns)

    def ops(self) -> tuple[OpCost, ...]:
        """Every op of the prefill step and of the middle decode step."""
        return explain_ops(self.predictor, self.batch, self.prompt, self.generated, self.source, self.placement.shares)

    def _placed(self) -> dict[str, dict[str, float]]:
        """Share of each role in each memory that holds any of it."""
        names = self.predictor.runner.table.memory_names
        return {
            role: {name: share for name, share in zip(names, shares, strict=True) if share > 0}
            for role, shares in zip(("weights", "cache", "activations"), self.placement.shares, strict=True)
        }
