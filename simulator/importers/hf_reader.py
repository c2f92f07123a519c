"""Typed access to a HF config: looks keys up by any of their names, checks types, gathers every problem.

Knows nothing of architectures. A failed look-up records the problem and returns a placeholder, so that one reading
finds all that is wrong; whoever starts the reading calls `raise_problems`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.errors import ImportFormatError, close_matches

DTYPES = {
    "float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float64": "fp64",
    "float8_e4m3fn": "fp8", "float8_e5m2": "fp8",
}  # fmt: skip

SYNONYMS: dict[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model", "n_embed", "model_dim", "dim", "vt_hidden_size"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "num_decoder_layers", "depth", "vt_num_hidden_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads", "vt_num_attention_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "multi_query_group_num", "kv_n_heads"),
    "intermediate_size": (
        "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff", "ff_intermediate_size", "vt_intermediate_size",
    ),
    "max_position_embeddings": (
        "n_positions", "seq_length", "max_seq_len", "max_sequence_length", "model_max_length", "n_ctx",
    ),
    "vocab_size": ("padded_vocab_size",),
    "head_dim": ("kv_channels", "d_kv", "attention_head_dim", "v_channels"),
    "tie_word_embeddings": ("tie_embeddings",),
    "hidden_act": ("hidden_activation", "activation_function", "activation", "ffn_act_fn", "mlp_hidden_act"),
    "n_routed_experts": ("num_experts", "num_local_experts", "moe_num_experts", "num_routed_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts"),
    "n_shared_experts": ("num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "moe_intermediate_size": ("expert_ffn_hidden_size",),
    "state_size": ("mamba_d_state", "ssm_state_size", "d_state"),
    "conv_kernel": ("mamba_d_conv", "d_conv"),
    "expand": ("mamba_expand",),
    "time_step_rank": ("mamba_dt_rank",),
    "use_conv_bias": ("mamba_conv_bias",),
    "use_bias": ("mamba_proj_bias",),
    "mamba_num_heads": ("mamba_n_heads",),
    "mamba_head_dim": ("mamba_d_head",),
    "n_groups": ("mamba_n_groups",),
    "num_channels": ("in_channels", "in_chans"),
}  # fmt: skip
"""The usual name of a key -> what other families call the same thing."""

SQUARE = ("patch_size", "image_size", "spatial_merge_size")
"""Keys that some configs give as a list of two or three equal numbers."""


class Config:
    """A config, or a part of one, of a family."""

    def __init__(self, data: Mapping[str, Any], family: str, path: str = "", problems: list[str] | None = None) -> None:
        self.data, self.family, self.path = data, family, path
        self.problems: list[str] = [] if problems is None else problems

    def problem(self, message: str) -> None:
        """Note something that is wrong; reading goes on."""
        if message not in self.problems:
            self.problems.append(message)

    def raise_problems(self) -> None:
        """Raise ImportFormatError with all that was noted."""
        if self.problems:
            raise ImportFormatError(f"config of model_type '{self.family}': " + "; ".join(self.problems))

    def find(self, key: str) -> tuple[str, Any]:
        """The name under which `key` is present and its value; null counts as absent."""
        for name in (key, *SYNONYMS.get(key, ())):
            if self.data.get(name) is not None:
                return name, self.data[name]
        return key, None

    def has(self, key: str) -> bool:
        """Present and not null."""
        return self.find(key)[1] is not None

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`; without a default it must be there."""
        name, value = self.find(key)
        if value is None:
            if default is None:
                self._missing(key)
                return max(1, least)
            return default
        if key in SQUARE and isinstance(value, list) and value and value.count(value[0]) == len(value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < least:
            kind = "a positive whole number" if least == 1 else f"a whole number of at least {least}"
            self.problem(f"'{self.path}{name}' must be {kind}, not {value!r} ({type(value).__name__})")
            return max(1, least)
        return int(value)

    def maybe(self, key: str) -> int | None:
        """A positive whole number, or None where it is null or absent; 0 and -1 count as absent."""
        _, value = self.find(key)
        return None if value is None or value in (0, -1) else self.integer(key)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        name, value = self.find(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(f"'{self.path}{name}' must be true or false, not {value!r} ({type(value).__name__})")
            return default
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Any number."""
        name, value = self.find(key)
        if value is None:
            if default is None:
                self._missing(key)
            return 1.0 if default is None else default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(f"'{self.path}{name}' must be a number, not {value!r} ({type(value).__name__})")
            return 1.0 if default is None else default
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A string."""
        name, value = self.find(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problem(f"'{self.path}{name}' must be text, not {value!r} ({type(value).__name__})")
            return default
        return value

    def items(self, key: str, length: int | None = None) -> list[Any] | None:
        """A list, of `length` items if that is given, or None where it is absent."""
        name, value = self.find(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.problem(f"'{self.path}{name}' must be a list, not {value!r} ({type(value).__name__})")
            return None
        if length is not None and len(value) != length:
            self.problem(f"'{self.path}{name}' has {len(value)} items for {length} layers")
            return None
        return value

    def child(self, key: str, defaults: Mapping[str, Any] | None = None) -> Config:
        """A nested config, on top of `defaults` where the family has some; without them it must be there."""
        value = self.data.get(key)
        if value is None and defaults is None:
            self._missing(key)
        if value is not None and not isinstance(value, Mapping):
            self.problem(f"'{self.path}{key}' must be a mapping, not {value!r} ({type(value).__name__})")
            value = None
        merged = {**(defaults or {}), **{k: v for k, v in (value or {}).items() if v is not None}}
        return Config(merged, self.family, f"{self.path}{key}.", self.problems)

    def dtype(self) -> str:
        """Format of the published weights; a config that names none was saved as float32, the HF default."""
        _, value = self.find("torch_dtype")
        if value is None:
            value = self.data.get("dtype")
        if value is None:
            return "fp32"
        name = str(value).removeprefix("torch.")
        if name not in DTYPES:
            near = close_matches(name, DTYPES)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(DTYPES)}"
            self.problem(f"'torch_dtype' is the unknown '{name}'{hint}")
        return DTYPES.get(name, "bf16")

    def _missing(self, key: str) -> None:
        others = SYNONYMS.get(key, ())[:2]
        named = f" (or {', '.join(others)})" if others else ""
        self.problem(f"needs '{self.path}{key}'{named}; add it to the config")
