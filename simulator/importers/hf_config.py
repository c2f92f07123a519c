"""From a HF `config.json` to an `Architecture`.

Finds the reader of the config's model_type in the tables of the `hf_*` modules. Needs no network and none of HF's
packages; knows nothing of weights files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator.errors import ImportFormatError, close_matches
from simulator.graph.architecture import Architecture
from simulator.importers import (
    hf_dense,
    hf_encoders,
    hf_experts,
    hf_hybrids,
    hf_multimodal,
    hf_recurrent,
    hf_speech,
    hf_translation,
    hf_vision,
)
from simulator.importers.hf_reader import Config

FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    **hf_dense.FAMILIES,
    **hf_experts.FAMILIES,
    **hf_recurrent.FAMILIES,
    **hf_hybrids.FAMILIES,
    **hf_encoders.FAMILIES,
    **hf_vision.FAMILIES,
    **hf_multimodal.FAMILIES,
    **hf_translation.FAMILIES,
    **hf_speech.FAMILIES,
}


def known_families() -> list[str]:
    """Every model_type that can be read.

    >>> "llama" in known_families()
    True
    """
    return sorted(FAMILIES)


def architecture_from_config(config: dict[str, Any], name: str) -> Architecture:
    """The shape of the network that a HF config describes. Raises ImportFormatError with all that is wrong.

    >>> config = {
    ...     "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    ...     "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    ... }
    >>> architecture_from_config(config, "example").blocks[0].mixer.kv_heads
    8
    """
    if not isinstance(config, dict):
        raise ImportFormatError(f"config of '{name}' must be a mapping, not {type(config).__name__}")
    family = _family(config, name)
    reader = Config(config, family)
    try:
        made = FAMILIES[family](reader)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # A value that no look-up checked, or a placeholder for one that was wrong: say so in the user's terms.
        reader.raise_problems()
        raise ImportFormatError(f"config of '{name}' (model_type '{family}') cannot be read: {error}") from error
    reader.raise_problems()
    return replace(made, name=name)


def _family(config: dict[str, Any], name: str) -> str:
    given = config.get("model_type")
    if given is None:
        raise ImportFormatError(
            f"config of '{name}' has no 'model_type'; add the one of its family (such as 'llama'), or take the whole "
            "config.json of the checkpoint"
        )
    if not isinstance(given, str):
        raise ImportFormatError(f"config of '{name}': 'model_type' must be text, not {given!r}")
    lowered = given.lower()
    for candidate in (given, lowered, lowered.replace("-", "_"), re.sub(r"[^a-z0-9]", "", lowered)):
        if candidate in FAMILIES:
            return candidate
    near = close_matches(given, FAMILIES)
    hint = f"; near known ones: {', '.join(near)}" if near else ""
    raise ImportFormatError(
        f"config of '{name}' has the unknown model_type '{given}'{hint}. If its layers are those of a known family, "
        "set model_type to that one's; otherwise describe it with `network:` and a graph builder. "
        f"{len(FAMILIES)} are known; simulator.importers.hf_config.known_families() lists them."
    )
