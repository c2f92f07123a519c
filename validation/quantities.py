"""Which measured quantities a row of an end-to-end table states, and what the same row's prediction says of them.

SI units and the names of a prediction's keys. A throughput is compared with the kind that was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.result import Prediction
from simulator.spec.interval import Regime
from validation.rows import number, text

METRICS = (
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "total_tokens_per_s", "decode_tokens_per_s", "power_w",
    "energy_j_per_output_token",
)  # fmt: skip
RATES = frozenset({"output_tokens_per_s", "total_tokens_per_s", "decode_tokens_per_s"})
"""Metrics of which more is faster."""
KINDS = {
    "total": "total_tokens_per_s",
    "output": "output_tokens_per_s",
    "generated/(prefill+decode time)": "output_tokens_per_s",
    "decode": "decode_tokens_per_s",
}
"""What a row's `throughput_kind` counts -> metric."""
DECODE_ONLY = frozenset(
    {"tpot_s", "decode_tokens_per_s", "output_tokens_per_s", "power_w", "energy_j_per_output_token"}
)
"""Metrics that say something where the lengths are assumed."""

TOLERANCE = 0.2
"""By how much a row's latency may fall short of what its TTFT and TPOT add up to."""


@dataclass(frozen=True, slots=True)
class Value:
    """A predicted quantity with its 90% interval, where it has one."""

    predicted: float
    low: float
    high: float


def measured(row: Mapping[str, Any], assumed_lengths: bool = False) -> tuple[dict[str, float], list[str]]:
    """Metric -> measured value in SI units, and why values that the row states are left out.

    Energy per token of a row whose throughput counts all tokens is brought to a token of output. Power at the wall is of
    more than the devices, and is left out with the energy derived from it.

    >>> measured({"ttft_ms": 20.0, "throughput_tokens_per_s": 8.0, "throughput_kind": "total"})
    ({'ttft_s': 0.02, 'total_tokens_per_s': 8.0}, [])
    """
    found: dict[str, float] = {}
    left: list[str] = []
    for column, metric, factor in (
        ("ttft_ms", "ttft_s", 1e-3),
        ("tpot_ms", "tpot_s", 1e-3),
        ("latency_s", "e2el_s", 1.0),
    ):
        value = number(row, column)
        if value is not None:
            found[metric] = value * factor
    early = ended_early(row)
    if early:
        found.pop("e2el_s", None)
        left.append("latency far below TTFT and TPOT of the same row: sequences ended early")
    kind = text(row, "throughput_kind")
    rate = number(row, "throughput_tokens_per_s")
    if rate is not None and early:
        left.append("throughput of sequences that ended early")
    elif rate is not None and kind in KINDS:
        found[KINDS[kind]] = rate
    elif rate is not None:
        left.append(f"throughput of kind '{kind}'" if kind else "throughput of no stated kind")
    power, energy = number(row, "power_w"), number(row, "energy_j_per_token")
    if early:
        left += ["power of sequences that ended early"] * (power is not None)
        power = energy = None
    if "wall" in text(row, "notes"):
        left += ["power at the wall"] * (power is not None) + ["energy at the wall"] * (energy is not None)
        power = energy = None
    if power is not None:
        found["power_w"] = power
    if energy is not None:
        prompt, output = number(row, "input_len") or 0.0, number(row, "output_len")
        if kind == "total" and output is None:
            left.append("energy per token without lengths")
        else:
            found["energy_j_per_output_token"] = energy * (
                (prompt + output) / output if kind == "total" and output else 1.0
            )
    if assumed_lengths:
        left += [f"{metric} without lengths" for metric in found if metric not in DECODE_ONLY]
        found = {metric: value for metric, value in found.items() if metric in DECODE_ONLY}
    if number(row, "output_len") == 1.0 and "tpot_s" in found:
        del found["tpot_s"]
        left.append("tpot_s of a single token")
    return found, left


def ended_early(row: Mapping[str, Any]) -> bool:
    """Whether a row states a latency that its own TTFT, TPOT and output length contradict: fewer tokens were generated.

    >>> ended_early({"ttft_ms": 80, "tpot_ms": 37, "output_len": 8192, "latency_s": 6.3})
    True
    """
    first, further = number(row, "ttft_ms"), number(row, "tpot_ms")
    output, latency = number(row, "output_len"), number(row, "latency_s")
    if first is None or further is None or output is None or latency is None:
        return False
    return latency < (1.0 - TOLERANCE) * (first + further * (output - 1.0)) * 1e-3


def predicted(prediction: Prediction, regime: Regime = "static") -> dict[str, Value]:
    """Metric -> prediction with its interval.

    The latency of a batch is until its last token: with several turns, longer than the mean of its sequences.
    """
    bounds = prediction.run.interval(prediction, regime)
    unknown = (float("nan"), float("nan"))
    asked = prediction.scenario
    found = {
        key: Value(getattr(prediction, key), *bounds.get(key, unknown))
        for key in ("ttft_s", "output_tokens_per_s", "total_tokens_per_s", "power_w", "energy_j_per_output_token")
    }
    whole = prediction.e2el_s
    if prediction.turns > 1:
        whole = asked.batch * asked.output_tokens / prediction.output_tokens_per_s
    low, high = (bound / prediction.e2el_s * whole for bound in bounds.get("e2el_s", unknown))
    found["e2el_s"] = Value(whole, low, high)
    if asked.output_tokens > 1 and prediction.tpot_s > 0.0:
        low, high = bounds.get("tpot_s", unknown)
        batch = asked.batch
        found["tpot_s"] = Value(prediction.tpot_s, low, high)
        found["decode_tokens_per_s"] = Value(batch / prediction.tpot_s, batch / high, batch / low)
    return found
