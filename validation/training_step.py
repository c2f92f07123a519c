"""A training step of a scenario, and the quantities that claims compare in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from simulator.errors import ScenarioError
from simulator.train import TrainingPrediction, TrainingScenario, predict_training

TRAINING = (
    "e2el_s", "tokens_per_s", "mfu", "device_bytes", "weight_bytes", "state_bytes", "activation_bytes", "flops",
    "energy_j_per_token", "power_w", "bubble_share", "flop_per_s_per_device", "fits", "link_bytes",
)  # fmt: skip
"""Quantities of a training step."""


class Training:
    """A training step and what can be read off it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = {"max_context": 1 << 30, **values}

    @cached_property
    def prediction(self) -> TrainingPrediction:
        """Of the scenario."""
        return predict_training(TrainingScenario(**self.values))

    def value(self, quantity: str) -> float:
        """See `validation.comparison.Side.value`."""
        answer = self.prediction
        if quantity == "max_batch":
            return largest(lambda size: self._fits(micro_batch=size), 4096)
        if quantity == "link_bytes":
            return self._link_bytes()
        if quantity == "max_context_tokens":
            return largest(lambda size: self._fits(sequence_tokens=size), 1 << 22)
        found: dict[str, float | None] = {
            "e2el_s": answer.step_s, "ttft_s": answer.step_s, "step_s": answer.step_s,
            "tokens_per_s": answer.tokens_per_s or answer.samples_per_s, "mfu": answer.mfu,
            "device_bytes": answer.memory_bytes, "weight_bytes": answer.memory_by_role_bytes["weight"],
            "state_bytes": answer.memory_by_role_bytes["optimizer"] + answer.memory_by_role_bytes["gradient"],
            "activation_bytes": answer.memory_by_role_bytes["activation"], "flops": answer.model_flops,
            "energy_j_per_token": answer.energy_j / max(1.0, (answer.tokens_per_s or 1.0) * answer.step_s),
            "power_w": answer.power_w, "usd_per_token": answer.usd_per_step, "fits": float(answer.fits),
            "devices": float(answer.devices), "bubble_share": answer.bubble_share,
            "flop_per_s_per_device": answer.model_flops / answer.step_s / answer.devices,
        }  # fmt: skip
        if found.get(quantity) is None:
            raise ScenarioError(f"a training step has no quantity '{quantity}'; it has {', '.join(found)}")
        return float(found[quantity] or 0.0)

    def _link_bytes(self) -> float:
        """Bytes that one rank sends in a step, a sum around a ring twice its message; warm-up steps at their share."""
        from simulator.trainer import Trainer

        def sent(trainer: Trainer) -> float:
            return sum(
                (2.0 if op.collective == "all_reduce" else 1.0) * op.bytes_at((part.slice,))
                for part in trainer.parts
                for op in part.graph.ops
                if op.kind == "collective"
            )

        trainer = Trainer(TrainingScenario(**self.values))
        early = trainer.scenario.uncompressed_share
        if not early:
            return sent(trainer)
        whole = replace(trainer.scenario, gradient_dtype=trainer.uncompressed_dtype, gradients_summed=True)
        return early * sent(Trainer(whole, decided=True)) + (1.0 - early) * sent(trainer)

    def _fits(self, **changes: int) -> bool:
        from simulator.trainer import Trainer

        trainer = Trainer(TrainingScenario(**{**self.values, **changes}))
        return trainer.placement.fits


def largest(fits: Callable[[int], bool], most: int) -> float:
    low, high = 0, 1
    while high < most and fits(high):
        low, high = high, high * 2
    while high - low > max(1, low // 256):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return float(low)
