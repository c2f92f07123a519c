"""Rows of MLPerf Inference brought to the columns of the other tables: benchmark, lengths, formats and degrees.

The logs state a system, a scenario and a rate. What they leave open is assumed here, from the benchmark's rules; knows
nothing of predictions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.errors import SimulatorError
from simulator.mapping.machine import load_machine
from simulator.scenario import load_model

SOURCE = "mlperf_inference"
NOTE = re.compile(r"\b(offline|server|singlestream)\b.*?samples/s=([\d.]+)", re.IGNORECASE)
"""Scenario and samples per second of a row's notes."""
VERSIONS = re.compile(r"^(TensorRT|CUDA|Jetpack)\b")
"""Frameworks of NVIDIA's harness, which runs TensorRT-LLM and names the libraries below it."""
FORK = re.compile(r"^vLLM [\d.]+\+rocm\d*")
"""AMD's own builds for its submissions, whose products and attention are tuned ahead of the releases that they fork."""
FULL = 0.5
"""Share of a device's memory that weights may take: half is left to the cache, whatever the degree."""
BYTES = {"nvfp4": 0.5625, "fp8": 1.0, "fp16": 2.0}
"""Of one weight, with the scale of its group."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What the rules of a benchmark fix, and the means of its data set."""

    model: str
    input_tokens: int
    output_tokens: int
    beams: int = 1
    ttft_s: float = math.inf
    """Limits of the server scenario, which 99 of 100 requests have to meet."""
    tpot_s: float = math.inf
    e2el_s: float = math.inf


BENCHMARKS = {
    "llama2-70b": Benchmark("llama-2-70b", 294, 291, ttft_s=2.0, tpot_s=0.2),
    "mixtral-8x7b": Benchmark("mixtral-8x7b", 475, 146, ttft_s=2.0, tpot_s=0.2),
    "gptj": Benchmark("gpt-j-6b", 870, 69, beams=4, e2el_s=20.0),
}
"""Outputs as the rows' own tokens per sample; inputs as the reference states the means of OpenOrca, of the mixture of
OpenOrca, GSM8K and MBXP (350 to 600), and of CNN/DailyMail."""


def completed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with the cells that its benchmark implies; any other row as it is.

    `scenario` is offline or server, in place of a batch. Weights and cache are taken to be in the narrowest float that the
    device multiplies of 4 and 8 bits, the cache in 8; a replica takes the fewest devices, a power of two, of which weights
    fill at most `FULL`, and the other devices are replicas. A rate is of the tokens of all beams.

    >>> row = {"source": "mlperf_inference/x", "model": "llama2-70b-99", "hardware": "H100", "framework": "TensorRT 10.2.0",
    ...        "n_devices": 8, "notes": "MLPerf v4.1 closed Offline X; samples/s=80.0; valid=VALID"}
    >>> found = completed(row)
    >>> [found[name] for name in ("scenario", "framework", "weight_dtype", "tp", "dp", "throughput_tokens_per_s")]
    ['offline', 'TensorRT-LLM 2024', 'fp8', 2, 4, 23280.0]
    """
    note = NOTE.search(str(row.get("notes", "")))
    known = next((b for name, b in BENCHMARKS.items() if str(row.get("model", "")).startswith(name)), None)
    if note is None or known is None or not str(row.get("source", "")).startswith(SOURCE):
        return row
    load, samples = note[1].lower(), float(note[2])
    found = dict(row) | {
        "model": known.model,
        "framework": VERSIONS.sub("TensorRT-LLM 2024 ", FORK.sub("vLLM", str(row.get("framework", "")))).partition(
            "  "
        )[0],
        "input_len": known.input_tokens,
        "output_len": known.output_tokens,
        "throughput_tokens_per_s": samples * known.output_tokens * known.beams,
        "throughput_kind": "output",
        "beams": known.beams,
        "scenario": "" if load == "singlestream" else load,
        "batch": 1 if load == "singlestream" else None,
    }
    if load == "server":
        found |= {"limit_ttft_s": known.ttft_s, "limit_tpot_s": known.tpot_s, "limit_e2el_s": known.e2el_s}
    try:
        return found | _layout(known, str(row.get("hardware", "")), int(row.get("n_devices") or 0))
    except (SimulatorError, ValueError):  # a system that is not known, which the name alone will tell
        return found


def _layout(benchmark: Benchmark, hardware: str, devices: int) -> dict[str, Any]:
    """Format of the weights and degrees of parallelism on so many devices."""
    machine = load_machine(hardware)
    formats = {name for unit in machine.units for name in unit.peak_flop_per_s}
    weights = next((name for kind, name in (("fp4", "nvfp4"), ("fp8", "fp8")) if kind in formats), "fp16")
    memory = max(level.capacity_bytes for level in machine.memories if level.kind == "main")
    size = load_model(benchmark.model).parameters() * BYTES[weights]
    tp = 1
    while 2 * tp <= devices and size > FULL * memory * tp:
        tp *= 2
    cache = "fp16" if weights == "fp16" else "fp8"
    return {"weight_dtype": weights, "kv_dtype": cache, "tp": tp, "pp": 1, "dp": max(1, devices // tp)}
