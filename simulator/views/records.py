"""Predictions and ops as plain records: what JSON, frames and charts are made of. Needs no pandas."""

from __future__ import annotations

import json
from typing import Any

from simulator.result import KEYS, OpCost, Prediction


def op_record(op: OpCost) -> dict[str, Any]:
    """An op as one flat record: times in seconds, a column per memory, intensity at all memories together."""
    found: dict[str, Any] = {
        "phase": op.phase,
        "op": op.op,
        "block": op.block,
        "kind": op.kind,
        "unit": op.unit,
        "bound": op.bound,
        "share": op.share,
        "time_s": op.time_s,
        "compute_s": op.compute_s,
        "cache_s": op.cache_s,
        "link_s": op.link_s,
        "launch_s": op.launch_s,
        "flops": op.flops,
        "bytes": op.bytes,
        "flop_per_byte": op.flops / op.bytes if op.bytes else None,
        "energy_j": op.energy_j,
    }
    for name, seconds in op.memory_s.items():
        found[f"{name}_s"] = seconds
        found[f"{name}_bytes"] = op.memory_bytes.get(name, 0.0)
    return found


def prediction_record(prediction: Prediction) -> dict[str, Any]:
    """A prediction as one flat record: the scenario's names, the keys of the JSON form, and the intervals' ends."""
    scenario, provenance = prediction.scenario, prediction.provenance
    found: dict[str, Any] = {
        "model": provenance["model"],
        "hardware": provenance["hardware"],
        "engine": provenance["engine"],
        "techniques": "+".join(scenario.techniques),
        "devices": prediction.devices,
        "tp": provenance["tp"],
        "pp": provenance["pp"],
        "ep": provenance["ep"],
        "dp": provenance["dp"],
        "batch": scenario.batch,
        "input_tokens": scenario.input_tokens,
        "output_tokens": scenario.output_tokens,
        "weight_dtype": scenario.weight_dtype,
        "kv_dtype": scenario.kv_dtype,
        "activation_dtype": scenario.activation_dtype,
    }
    for key in KEYS:
        found[key] = getattr(prediction, key)
    for key, (low, high) in prediction.interval.items():
        found[f"{key}_low"], found[f"{key}_high"] = low, high
    found["tag"] = provenance["tag"]
    found["problem"] = None
    return found


def to_json(value: Any) -> str:
    """JSON for a person or a program; numbers that JSON cannot hold become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
