"""Which model file a name in a measured table means, and the number format that a checkpoint's name states.

Publishers, training stages that keep the shape, and number formats are dropped from a name; sizes, versions and modes are
not. A name that then means two files means none.
"""

from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from pathlib import Path

from simulator import catalog
from simulator.errors import UnknownNameError

STAGES = frozenset(
    re.findall(
        r"\S+",
        "instruct it chat pt hf sft dpo rlhf gguf ggml mlx onnx safetensors model meta uncased cased english en latest text "
        "tuned preview dynamic quantized quant group g128 128g 4bit 8bit channelwise community unsloth bnb openvino ov",
    )
)
"""Words that change neither a network's shape nor its number format. (`uncased` checkpoints differ by some 7,000 rows.)"""
FORMATS: tuple[tuple[str, str], ...] = (
    (r"(?:iq|q)\d(?:_[k01](?:_(?:xxs|xs|s|m|l|xl))?|_(?:xxs|xs|s|m|nl))?", ""),
    (r"w4a16(?:_g\d+)?", "w4a16"),
    (r"w8a16", "w8a16"),
    (r"w8a8(?:_int8)?|smoothquant", "w8a8"),
    (r"w8a8_fp8|fp8(?:_(?:e4m3|dynamic|block|kv))*", "fp8"),
    (r"awq(?:_int4|_4bit)?", "int4-awq"),
    (r"gptq(?:_int4|_4bit|_marlin)?", "int4-gptq"),
    (r"gptq_int8", "int8"),
    (r"(?:bnb_)?4bit|nf4|int4(?:_wo)?", "int4"),
    (r"8bit|int8(?:_wo)?", "int8"),
    (r"nvfp4|fp4", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"fp16|f16|bf16", "fp16"),
    (r"fp32|f32", "fp32"),
)
"""Words of number formats, and the format that they state; empty: the word itself."""
_WORD = [(re.compile(pattern), stated) for pattern, stated in FORMATS]


def find_model(name: str) -> str:
    """The name of the model file that a name means, or the path that it is. Raises UnknownNameError.

    >>> find_model("TheBloke/Llama-2-7B-Chat-AWQ"), find_model("Qwen2.5-72B-Instruct-GPTQ-Int4")
    ('llama-2-7b', 'qwen2.5-72b')
    """
    with contextlib.suppress(UnknownNameError):
        path = catalog.find("model", name)
        return path.stem if path.suffix in (".yaml", ".yml") else str(path)
    found = _keys().get(_key(name)[0], frozenset())
    if len(found) != 1:
        raise UnknownNameError("model", name, set(catalog.index("model")))
    return next(iter(found))


def stated_format(name: str) -> str:
    """The number format that a checkpoint's name states; empty where it states none.

    >>> stated_format("Meta-Llama-3-8B-Instruct.Q4_K_M.gguf"), stated_format("Qwen/Qwen2.5-7B-Instruct-AWQ")
    ('q4_k_m', 'int4-awq')
    """
    return _key(name)[1]


def _key(name: str) -> tuple[str, str]:
    """A name in one piece without what leaves the shape as it is, and the format that it states."""
    text = re.sub(r"\.(?:gguf|bin|safetensors|onnx)$", "", name.strip().lower())
    text = re.sub(r"\((?:.*?)\)", " ", text.rsplit("/", 1)[-1])
    text = re.sub(r"\bq4_?k_?m\b", "q4_k_m", text)
    text = re.sub(r"[-.](?=i?q\d_|w\d+a\d+|(?:fp?16|bf16|fp8)$)", " ", text)
    words, rest, form = [word for word in re.split(r"[\s:/_-]+", text) if word], [], ""
    position, sized = 0, any(re.search(r"\d(?:x\d+)?b\d?$", word) for word in words)
    while position < len(words):
        for length in (3, 2, 1):
            part = "_".join(words[position : position + length])
            found = next((stated or part for word, stated in _WORD if word.fullmatch(part)), None)
            if found is not None and len(words[position : position + length]) == length:
                form, position = form or found, position + length
                break
        else:
            if words[position] not in STAGES and not (words[position] == "base" and sized):
                rest.append(words[position])
            position += 1
    return "".join(rest), form


@lru_cache(maxsize=4)
def _read(entries: tuple[tuple[str, str], ...]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, path in entries:
        found.setdefault(_key(name)[0], set()).add(Path(path).stem)
    return {key: frozenset(names) for key, names in found.items() if re.search("[a-z]", key)}


def _keys() -> dict[str, frozenset[str]]:
    return _read(tuple(sorted(catalog.index("model").items())))
