"""The predictions of the fixed set, as rows of plain values, and the laws that they break.

A scenario that cannot be has its reason in the column `problem`; when that changes, the prediction has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from simulator.errors import SimulatorError, SpecError, UnknownNameError
from simulator.predict import predict
from simulator.train import predict_training
from simulator.trainer import TrainingScenario
from validation.gate.laws import Broken, check, check_training
from validation.gate.scenarios import Item

INFERENCE = (
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "weight_bytes", "kv_bytes", "activation_bytes", "capacity_bytes",
    "prefill_energy_j", "energy_j_per_output_token", "power_w", "usd_per_million_output_tokens", "fits", "tag", "problem",
)  # fmt: skip
"""Columns of an inference. What follows from them (other rates, sums) and what a near tie can turn (`bound`) is left out."""
TRAINING = (
    "step_s", "samples_per_s", "mfu", "memory_bytes", "capacity_bytes", "energy_j", "usd_per_step", "bubble_share",
    "communication_share", "fits", "tag", "problem",
)  # fmt: skip
Value = float | str
Row = dict[str, Value]
"""Column -> number, `true`, `false` or a name; absent where there is nothing."""


@dataclass(slots=True)
class Answers:
    """Group -> scenario -> row, and every law that was broken."""

    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    @property
    def scenarios(self) -> int:
        """How many were asked."""
        return sum(len(group) for group in self.rows.values())


def answer(items: Iterable[Item], laws: bool = True, progress: Callable[[], None] = lambda: None) -> Answers:
    """Predict every item. Raises UnknownNameError and SpecError: the set names what there is."""
    found = Answers()
    for item in items:
        row, broken = _answered(item, laws)
        found.rows.setdefault(item.group, {})[item.name] = row
        found.broken += broken
        progress()
    return found


def _answered(item: Item, laws: bool) -> tuple[Row, list[Broken]]:
    try:
        if isinstance(item.scenario, TrainingScenario):
            step = predict_training(item.scenario)
            return _row(step, TRAINING), list(check_training(item.name, step)) if laws else []
        whole = predict(item.scenario)
        return _row(whole, INFERENCE), list(check(item.name, whole)) if laws else []
    except (UnknownNameError, SpecError):
        raise
    except SimulatorError as error:
        return {"problem": str(error).splitlines()[0]}, []


def _row(prediction: Any, columns: Iterable[str]) -> Row:
    found: Row = {}
    for column in columns:
        if column == "problem":
            continue
        value = prediction.provenance["tag"] if column == "tag" else getattr(prediction, column)
        if isinstance(value, bool):
            value = "true" if value else "false"
        if value is not None:
            found[column] = value
    return found
