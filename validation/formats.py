"""What the names of number formats in measured tables stand for: the changes they make to a scenario.

The formats that no technique file of the product covers (GGUF, FP4) are technique files in `number_formats/`. Knows
nothing of devices; a name that is not here is not guessed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "number_formats"


class Format(NamedTuple):
    """How the weights of a scenario are stored and multiplied."""

    techniques: tuple[str, ...] = ()
    """Names or paths of technique files."""
    refusal: str = ""
    """Why it cannot be predicted; empty where it can."""


def _own(name: str) -> Format:
    return Format((str(FOLDER / f"{name}.yaml"),))


SIXTEEN = Format()
EIGHT = Format(("fp8",))
FOUR = Format(("weight-int4",))
WEIGHTS: dict[str, Format] = {
    "": SIXTEEN,
    "fp16": SIXTEEN,
    "f16": SIXTEEN,
    "bf16": SIXTEEN,
    "bf16/fp16": SIXTEEN,
    "bfloat16": SIXTEEN,
    "float16": SIXTEEN,
    "fp8": EIGHT,
    "fp8_block": _own("fp8-block"),
    "w8a8-fp8": EIGHT,
    "int8": Format(("weight-int8",)),
    "int8_wo": Format(("weight-int8",)),
    "w8a16": Format(("weight-int8",)),
    "w8a8": Format(("w8a8-int8",)),
    "sq": Format(("w8a8-int8",)),
    "int4": FOUR,
    "int4_wo": FOUR,
    "int4-awq": FOUR,
    "int4-gptq": FOUR,
    "w4": FOUR,
    "w4a16": FOUR,
    "w4a16_g128": FOUR,
    "gptq g128": FOUR,
    "q3_k_s": _own("q3-k-s"),
    "q4_0": _own("q4-0"),
    "q4_1": _own("q4-1"),
    "q4_k_s": _own("q4-k-s"),
    "q4_k_m": _own("q4-k-m"),
    "q5_0": _own("q5-0"),
    "q5_k_m": _own("q5-k-m"),
    "q6_k": _own("q6-k"),
    "q8_0": _own("q8-0"),
    "mxfp4": _own("fp4-experts"),
    "w4a16_mxfp4": _own("fp4-experts"),
    "nvfp4": _own("fp4"),
    "fp32": Format(refusal="number format 'fp32': activations are counted in 16 bits"),
}
"""Name in lower case, without a remark in brackets -> format."""

CACHES: dict[str, str | None] = {
    "": None,
    "fp16": None,
    "bf16": None,
    "bfloat16": None,
    "float16": None,
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "int8": "int8",
    "int4": "int4",
}
"""Name of a cache's format -> `kv_dtype` of a scenario; None is the model's own."""


def weight_format(name: str, routed: bool = False, gguf: bool = False) -> Format:
    """The format of that name. FP4 checkpoints of models with routed experts keep all but the experts in 16 bits; in
    GGUF files, in 8.

    >>> weight_format("int4_wo").techniques
    ('weight-int4',)
    >>> weight_format("EXL2 4.0 bpw").refusal
    "number format 'EXL2 4.0 bpw'"
    """
    known = WEIGHTS.get(_plain(name))
    if known is None:
        return Format(refusal=f"number format '{name}'")
    if routed and known in (WEIGHTS["nvfp4"], WEIGHTS["mxfp4"]):
        return _own("mxfp4-gguf") if gguf else WEIGHTS["mxfp4"]
    return known


def cache_format(name: str) -> str | None:
    """`kv_dtype` of a scenario for a cache in that format. Raises KeyError for one that is not known."""
    return CACHES[_plain(name)]


def _plain(name: str) -> str:
    return re.sub(r"\s*\(.*?\)", "", name).strip().lower()
