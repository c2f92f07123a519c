"""What people call a metric: the name that claims files use, and the quantity behind it.

Knows words only. Names are compared without case, punctuation and units; the first rule whose words all occur decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from validation.outcomes import ABSOLUTE, HIGHER, LOWER, QUANTITIES

CANONICAL = (*LOWER, *HIGHER, *ABSOLUTE)
"""Names of metrics in claims files; `other` needs a quantity."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A metric, and the quantity it compares where that is not the metric's usual one."""

    metric: str
    quantity: str | None = None
    absolute: bool = False
    """The quantity's name itself was asked for: its number, not a ratio."""


RULES: tuple[tuple[str, str, str | None], ...] = (
    # words (| between alternatives), metric, quantity
    ("goodput", "throughput_gain", "goodput_per_device"),
    ("slo", "other", "slo_scale"),
    ("mfu|utilization|utilisation", "other", "mfu"),
    ("max|maximum|largest|longest|supported context|sequence|length|window", "max_context", None),
    ("context|sequence length|window", "max_context", None),
    ("max|maximum|largest|bigger|larger batch", "max_batch_gain", None),
    ("batch gain|size|capacity", "max_batch_gain", None),
    ("capacity|concurrency|concurrent", "capacity_gain", None),
    ("kv|cache per token", "kv_memory_reduction", None),
    ("kv|cache|context memory|footprint|size|compression|bytes|reduction|saving|savings|smaller|storage",
     "kv_memory_reduction", None),
    ("weight|weights|model|parameter|parameters memory|footprint|size|compression|bytes|reduction|smaller|storage",
     "weight_memory_reduction", None),
    ("optimizer|gradient state|states|memory", "peak_memory_reduction", "state_bytes"),
    ("activation|activations memory|footprint|bytes|reduction", "peak_memory_reduction", "activation_bytes"),
    ("memory|dram|hbm|data access|accesses|movement|traffic|reads|moved|bandwidth", "communication_reduction",
     "traffic_bytes"),
    ("communication|traffic|bandwidth|network|transfer reduction|volume|bytes|saving|savings|usage",
     "communication_reduction", None),
    ("bandwidth|communication", "communication_reduction", None),
    ("prefill|prompt energy", "energy_reduction", "prefill_energy_j"),
    ("energy efficiency|efficient|gain|per", "energy_efficiency_gain", None),
    ("energy|joule|joules", "energy_reduction", None),
    ("tps|tokens|throughput|performance w|watt|watts", "energy_efficiency_gain", None),
    ("power|watt|watts", "power_reduction", None),
    ("prefill|prompt flops|flop|compute|computation", "flops_reduction", "prefill_flops"),
    ("decode|decoding flops|flop|compute|computation", "flops_reduction", "decode_flops"),
    ("flops|flop|macs|computation|compute|computational|operations reduction|saving|savings|cost|fewer", "flops_reduction",
     None),
    ("flops|flop|macs|operations", "flops_reduction", None),
    ("cost|price|dollar|dollars|usd|money|economy", "cost_reduction", None),
    ("image|images|picture|pictures|video latency|time|speed|speedup|faster", "latency_speedup", None),
    ("prefill|prompt throughput|tokens|rate", "prefill_speedup", None),
    ("ttft|first token", "ttft_reduction", None),
    ("ttft", "ttft_reduction", None),
    ("prefill|prefilling|prompt", "prefill_speedup", None),
    ("decode|decoding|generation throughput", "throughput_gain", "decode_tokens_per_s"),
    ("tbt|tpot|itl|inter|per token", "tbt_reduction", None),
    ("between tokens", "tbt_reduction", None),
    ("tbt|tpot|itl", "tbt_reduction", None),
    ("decode|decoding|generation|generating", "decode_speedup", None),
    ("total throughput", "throughput_gain", "total_tokens_per_s"),
    ("training throughput|speedup|speed|time", "throughput_gain", "tokens_per_s"),
    ("throughput|tokens|requests|samples|images|frames|qps|fps", "throughput_gain", None),
    ("memory|vram|dram|ram|footprint|gpu reduction|saving|savings|usage|footprint|memory|peak|overhead|consumption",
     "peak_memory_reduction", None),
    ("memory|vram|dram|ram|footprint|sram", "peak_memory_reduction", None),
    ("parameters|storage", "weight_memory_reduction", None),
    ("latency|speedup|speed|faster|acceleration|time|runtime|e2e|end", "latency_speedup", None),
)  # fmt: skip
"""Every group of alternatives has to be met; the more particular rules come first."""
_ABSOLUTE = {
    "throughput_gain": "tokens_per_s", "latency_speedup": "e2el_s", "peak_memory_reduction": "device_bytes",
    "tbt_reduction": "tpot_s", "decode_speedup": "tpot_s", "ttft_reduction": "ttft_s", "prefill_speedup": "ttft_s",
    "kv_memory_reduction": "kv_bytes", "weight_memory_reduction": "weight_bytes",
    "energy_reduction": "energy_j_per_token", "power_reduction": "power_w", "cost_reduction": "usd_per_token",
    "max_context": "max_context_tokens", "max_batch_gain": "max_batch", "capacity_gain": "max_batch",
    "flops_reduction": "flops", "communication_reduction": "link_bytes",
}  # fmt: skip


def meaning(name: str) -> Meaning | None:
    """The metric that a name means; None if no rule knows it.

    >>> meaning("TTFT speed-up").metric, meaning("GPU memory saving").metric, meaning("tokens/s").metric
    ('ttft_reduction', 'peak_memory_reduction', 'throughput_gain')
    >>> meaning("KV cache size"), meaning("perplexity") is None
    (Meaning(metric='kv_memory_reduction', quantity=None, absolute=False), True)
    >>> meaning("kv_bytes")
    Meaning(metric='other', quantity='kv_bytes', absolute=True)
    """
    if name in CANONICAL or name == "other":
        return Meaning(name)
    if name in QUANTITIES or name in ("mfu", "state_bytes", "bubble_share"):
        return Meaning("other", name, absolute=True)
    words = set(re.findall(r"[a-z0-9]+", re.sub(r"speed[\s_-]*ups?", "speedup", name.lower())))
    if words & {"accuracy", "perplexity", "quality", "bleu", "score", "loss", "trainable"}:
        return None
    absolute = bool(words & {"abs", "absolute"})
    for required, metric, quantity in RULES:
        if all(words & set(group.split("|")) for group in required.split(" ")):
            return Meaning(metric, quantity or (_ABSOLUTE.get(metric) if absolute else None), absolute)
    return None


def known_metrics() -> str:
    """What a claim can name, in a sentence."""
    return f"metrics are {', '.join(CANONICAL)}; quantities, with metric other, are {', '.join(QUANTITIES)}"
