"""The numbers of a prediction as they are shown: label, unit, interval, and the change against the pinned baseline.

Text comes from `simulator.views.text`, so that page and terminal agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dashboards.answer import Change, Direction, Value
from simulator.result import Prediction
from simulator.scenario import load_model
from simulator.units import in_engineering
from simulator.views.text import bounds_text, duration, money, plain

LABELS: dict[str, tuple[str, str]] = {
    "ttft_s": ("Time to first token", "s"),
    "tpot_s": ("Time per further token", "s"),
    "e2el_s": ("Whole batch", "s"),
    "output_tokens_per_s": ("Output tokens/s", ""),
    "total_tokens_per_s": ("Tokens/s with input", ""),
    "weight_bytes": ("Weights", "B"),
    "kv_bytes": ("KV cache and state", "B"),
    "activation_bytes": ("Activations", "B"),
    "memory_bytes": ("Memory needed", "B"),
    "capacity_bytes": ("Memory usable", "B"),
    "prefill_energy_j": ("Energy of the prefill", "J"),
    "energy_j_per_output_token": ("Energy per token", "J"),
    "power_w": ("Average power", "W"),
    "usd_per_million_output_tokens": ("USD per million tokens", "$"),
}
"""Key -> what it is called, and its unit ($ is money)."""
CARDS = (
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "memory_bytes", "energy_j_per_output_token", "power_w",
    "usd_per_million_output_tokens",
)  # fmt: skip
MORE_IS_BETTER = frozenset({"output_tokens_per_s", "total_tokens_per_s", "capacity_bytes"})
NEUTRAL = frozenset({"power_w", "memory_bytes", "capacity_bytes"})
"""Keys of which less or more is neither good nor bad by itself."""


def shown(key: str, value: float | None) -> str:
    """A number with its unit."""
    unit = LABELS[key][1]
    if unit == "$":
        return money(value)
    if value is None:
        return "unknown"
    if unit == "s":
        return duration(value)
    return in_engineering(value, unit) if unit else plain(value)


def label_of(key: str, decodes: bool = True) -> str:
    """What a key is called; for networks that generate nothing, in samples and passes."""
    other = {
        "ttft_s": "One pass", "output_tokens_per_s": "Samples/s", "energy_j_per_output_token": "Energy per sample",
        "usd_per_million_output_tokens": "USD per million samples",
    }  # fmt: skip
    return LABELS[key][0] if decodes else other.get(key, LABELS[key][0])


def values(prediction: Prediction, baseline: Prediction | None = None) -> tuple[Value, ...]:
    """The cards of a prediction."""
    decodes = load_model(prediction.scenario.model).decode
    keys: Iterable[str] = (
        CARDS if decodes and prediction.tpot_s else [k for k in CARDS if k not in ("tpot_s", "e2el_s")]
    )
    between = prediction.interval
    return tuple(_value(key, prediction, baseline, between, decodes) for key in keys)


def _value(key: str, prediction: Prediction, baseline: Prediction | None, between: Any, decodes: bool) -> Value:
    number = getattr(prediction, key)
    bounds = between.get(key)
    note = ""
    if key == "memory_bytes":
        share = prediction.memory_bytes / prediction.capacity_bytes if prediction.capacity_bytes else float("inf")
        verdict = "fits" if prediction.fits else "does not fit"
        note = f"{share:.0%} of {in_engineering(prediction.capacity_bytes, 'B')} usable: {verdict}"
    elif key == "usd_per_million_output_tokens":
        note = str(prediction.provenance.get("price") or "no price of this hardware is known")
    elif key == "power_w" and prediction.devices > 1:
        note = f"of {prediction.devices} devices"
    return Value(
        key=key,
        label=label_of(key, decodes),
        text=shown(key, number),
        value=number,
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        between=between_text(key, bounds),
        note=note,
        change=None if baseline is None else change(key, number, getattr(baseline, key)),
        baseline=None if baseline is None else getattr(baseline, key),
    )


def between_text(key: str, bounds: tuple[float, float] | None) -> str:
    """Both ends of an interval with their unit."""
    unit = LABELS[key][1]
    if unit == "$" and bounds is not None:
        return f"{money(bounds[0])} to {money(bounds[1])}"
    return bounds_text(bounds, unit)


def change(key: str, now: float | None, before: float | None) -> Change | None:
    """How a number moved.

    >>> change("tpot_s", 0.010, 0.020)
    Change(text='▼ −50%', direction='better', before='20.0 ms')
    """
    if now is None or before is None or not before:
        return None
    ratio = now / before
    if abs(ratio - 1.0) < 5e-4:
        return Change("no change", "same", shown(key, before))
    text = f"{ratio - 1.0:+.0%}" if 0.1 < ratio < 3.0 else f"{ratio:.3g} times"
    if 0.98 < ratio < 1.02:
        text = f"{ratio - 1.0:+.1%}"
    text = ("▲ " if ratio > 1.0 else "▼ ") + text.replace("-", "−")
    direction: Direction = "better" if (ratio > 1.0) == (key in MORE_IS_BETTER) else "worse"
    return Change(text, "other" if key in NEUTRAL else direction, shown(key, before))
