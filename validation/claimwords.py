"""Words of a claim: how well they fit a scenario, and which quantity they ask for.

Knows texts and names only, and no numbers of outcomes.
"""

from __future__ import annotations

import re

from validation.claimspec import ScenarioSpec
from validation.metricnames import meaning

IN_NAME = 3
"""A scenario's name says what sets it apart from its paper's others: a word of it counts as three of its reason."""
OF_METRIC = 2
"""A word of the metric in a scenario's name: less than one that the claim states."""
_COMMON = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "into", "is", "it", "its", "no", "not", "of",
        "on", "or", "over", "per", "same", "than", "that", "the", "to", "up", "vs", "when", "where", "which", "with",
    )
)  # fmt: skip
"""Words that say nothing of what is compared."""
_NUMBERS = {
    name: str(number)
    for number, name in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=1
    )
}
_KERNELS = {"kernel", "operator", "gemm", "spmm", "multiplication"}
"""Words of claims on single ops: of attention where they name it, otherwise of products."""
_PHASES = {"decod": "decode", "decode": "decode", "decoder": "decode", "prefill": "prefill", "prompt": "prefill"}
_RATES = {"decode": "decode_tokens_per_s", "prefill": "prefill_tokens_per_s"}
_TIMES = {"decode": "tpot_s", "prefill": "ttft_s"}


def words(text: str) -> set[str]:
    """Words that tell claims apart, without endings; a number after a name is a word of its own, and a number.

    >>> sorted(words("ResNet50 on the 8-GPU node") & words("resnet-50, eight GPUs"))
    ['50', '8', 'gpu', 'resnet']
    >>> words("llama.cpp") & words("against-llamacpp")
    {'llamacpp'}
    """
    lower = text.lower()
    joined = {re.sub(r"[.:+_-]", "", found) for found in re.findall(r"[a-z0-9]+(?:[.:+_-][a-z0-9]+)+", lower)}
    parts = set(re.findall(r"[0-9][a-z0-9.]*[a-z0-9]|[0-9]|[a-z]+", lower))
    plain = {_NUMBERS.get(word, word) for word in parts | {word for word in joined if re.match(r"[a-z0-9]{2}", word)}}
    return {re.sub(r"(?<=[a-z]{3})(ing|ed|s)$", "", word) for word in plain - _COMMON}


def likeness(scenario: ScenarioSpec, stated: str, against: str, metric: str) -> int:
    """How many of a claim's words a scenario has; what it compares with is looked for in all but the machine's name."""
    name = words(scenario.name)
    text = words(f"{scenario.reason} {scenario.baseline} {scenario.technique}")
    software = {key: value for key, value in scenario.baseline.items() if key != "hardware"}
    beside = words(f"{scenario.reason} {software}")
    found = 0
    for wanted, elsewhere in (
        (words(stated), text),
        (words(against), beside),
        (words(metric.replace("_", " ")), set()),
    ):
        found += IN_NAME * len(wanted & name) + len((wanted & elsewhere) - name)
    return found


def quantity_in(metric: str, unit: str, stated: str) -> str | None:
    """The quantity that a claim's unit or conditions name, where its metric alone does not: rates of one phase, FLOP/s.

    Ops of a kind have no phase yet: it is that of the scenario.

    >>> quantity_in("throughput_abs", "TFLOPS", ""), quantity_in("throughput_gain", "x", "decoding throughput")
    ('flop_per_s_per_device', 'decode_tokens_per_s')
    >>> quantity_in("flops_reduction", "%", "prefill stage"), quantity_in("latency_speedup", "x", "prefill and decode")
    ('prefill_flops', None)
    """
    if (
        metric in ("other", "throughput_abs")
        and (named := meaning(unit))
        and named.quantity in ("mfu", "slo_scale", "traffic_bytes")
    ):
        return named.quantity
    if metric == "throughput_abs" and "flop" in unit.lower():
        return "flop_per_s_per_device"
    found = words(stated)
    if metric == "latency_speedup" and found & _KERNELS and not found & {"end", "e2e"}:
        return "kind:attention" if "attention" in found else "kind:gemm"
    phases = {_PHASES[word] for word in found if word in _PHASES}
    if metric == "throughput_abs" and not phases and "generation" in found:
        phases = {"decode"}
    if len(phases) != 1 or found & {"end", "e2e"}:
        return None
    phase = phases.pop()
    if metric in ("throughput_gain", "throughput_abs"):
        return _RATES[phase]
    if metric == "flops_reduction":
        return f"{phase}_flops"
    return _TIMES[phase] if metric == "latency_speedup" else None
