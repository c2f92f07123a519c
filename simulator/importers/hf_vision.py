"""Networks that see: a vision tower and a projector in front of a language model, and CLIP-like pairs.

An image's size is the tower's own; where towers take any size, one of about a megapixel is meant. Knows no counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from simulator.errors import close_matches
from simulator.graph.architecture import Architecture, VisionTower
from simulator.importers import hf_dense, hf_experts, hf_hybrids, hf_recurrent
from simulator.importers.hf_parts import Style, attention, block, decoder, feed_forward, network
from simulator.importers.hf_reader import Config
from simulator.importers.hf_towers import (
    TOWER,
    intern_tower,
    pixtral_tower,
    quantizer_parameters,
    qwen_tower,
    sam_clip_tower,
    tower,
)

LANGUAGES: dict[str, Callable[[Config], Architecture]] = {
    **hf_dense.FAMILIES,
    **hf_experts.FAMILIES,
    **hf_recurrent.FAMILIES,
    **hf_hybrids.FAMILIES,
}

CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32000, "max_position_embeddings": 2048,
    },
    "mistral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 131072,
    },
    "qwen2": {
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 151936, "max_position_embeddings": 32768,
    },
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "max_position_embeddings": 131072,
    },
    "clip_vision_model": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32,
    },
    "siglip_vision_model": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 16,
    },
}  # fmt: skip
"""What the HF config classes assume for keys that a nested config leaves out (published configs rely on it)."""

CLIP_LARGE_336 = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
"""The tower that LLaVA's config class assumes, and the only one of Phi-3-vision."""


def language(c: Config, key: str = "text_config", fallback: str = "llama") -> Architecture:
    """The language model described under `key`, or beside the vision config where there is no such key."""
    inner = c.data.get(key)
    data: Mapping[str, Any] = inner if isinstance(inner, Mapping) else c.data
    family = str(data.get("model_type", fallback)) if data is not c.data else fallback
    if family not in LANGUAGES:
        near = close_matches(family, LANGUAGES)
        hint = f"; near: {', '.join(near)}" if near else ""
        c.problem(f"'{key}' has the unknown model_type '{family}'{hint}")
        family = fallback
    given = {name: value for name, value in data.items() if value is not None or name == "sliding_window"}
    outer = {
        name: c.data[name] for name in ("torch_dtype", "dtype", "tie_word_embeddings") if c.data.get(name) is not None
    }
    defaults = CLASS_DEFAULTS.get(family, {}) if data is not c.data else {}
    path = f"{c.path}{key}." if data is not c.data else c.path
    made = LANGUAGES[family](Config({**defaults, **outer, **given}, family, path, c.problems))
    return replace(made, family=c.family)


def vision_config(c: Config, key: str = "vision_config") -> Config:
    """The nested config of a tower with what its config class assumes."""
    inner = c.data.get(key)
    family = str(inner.get("model_type", "")) if isinstance(inner, Mapping) else ""
    return c.child(key, CLASS_DEFAULTS.get(family, CLIP_LARGE_336 if not inner else {}))


def llava(c: Config, images: int = 1) -> Architecture:
    """Every patch but the class token becomes a token through a two-layer MLP; Pixtral's tower is one of the towers."""
    text, v = language(c), vision_config(c)
    seen = pixtral_tower(v) if v.text("model_type", "") == "pixtral" else tower(v, images)
    projector = ((seen.hidden, text.hidden), (text.hidden, text.hidden))
    newline = text.hidden if images > 1 else 0
    seen = replace(seen, projector=projector, projector_bias=c.flag("multimodal_projector_bias", True))
    return replace(text, vision=replace(seen, extra_parameters=seen.extra_parameters + newline))


def llava_next(c: Config) -> Architecture:
    """LLaVA on the whole image and its four quarters: five crops."""
    return llava(c, images=5)


def vila(c: Config) -> Architecture:
    """VILA and NVILA: the projector merges 2x2 or 3x3 neighbouring patches."""
    text, seen = language(c, "llm_cfg"), _vila_tower(c)
    kind = c.child("mm_projector_cfg", {}).text("mm_projector_type", "mlp_downsample")
    side = round(seen.tokens**0.5)
    wide, extra = seen.hidden, 0
    layers: tuple[tuple[int, int], ...]
    if kind.startswith("mlp_downsample_3x3"):
        tokens, wide = (-(-side // 3)) ** 2, 9 * seen.hidden
        layers = ((wide, 3 * seen.hidden), (3 * seen.hidden, text.hidden), (text.hidden, text.hidden))
        extra = 2 * wide + 6 * seen.hidden
    elif kind.startswith("mlp_downsample"):
        tokens, wide = (-(-side // 2)) ** 2, 4 * seen.hidden
        layers, extra = ((wide, text.hidden), (text.hidden, text.hidden)), 2 * wide
    else:
        tokens, layers = seen.tokens, ((seen.hidden, text.hidden), (text.hidden, text.hidden))
    seen = replace(seen, tokens=tokens, projector=layers, extra_parameters=seen.extra_parameters + extra)
    return replace(text, vision=seen)


def _vila_tower(c: Config) -> VisionTower:
    inner = vision_config(c, "vision_tower_cfg")
    return intern_tower(inner) if inner.text("model_type", "").startswith("intern") else tower(inner)


def gemma3(c: Config) -> Architecture:
    """A SigLIP tower averaged to 256 tokens, one matrix and a norm; 3n and 4 import their language model only."""
    text = language(c, fallback=f"{c.family}_text")
    if c.family != "gemma3" or not c.data.get("vision_config"):
        return text
    seen = tower(vision_config(c))
    seen = replace(seen, tokens=c.integer("mm_tokens_per_image", 256), projector=((seen.hidden, text.hidden),))
    return replace(
        text, vision=replace(seen, projector_bias=False, extra_parameters=seen.extra_parameters + seen.hidden)
    )


def qwen_vl(c: Config) -> Architecture:
    """Qwen2-VL to Qwen3.5: images of any size, 2x2 patches merged; 2.5 attends in windows but in four layers."""
    fallback = {
        "qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3", "qwen3_vl_moe": "qwen3_moe",
        "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text",
    }[c.family]  # fmt: skip
    inner = c.data.get("text_config")
    renamed = dict(c.data)
    if isinstance(inner, Mapping):
        renamed["text_config"] = {**inner, "model_type": fallback}
    text = language(Config(renamed, c.family, c.path, c.problems), fallback=fallback)
    if not c.data.get("vision_config"):
        return text
    return replace(text, vision=qwen_tower(c.child("vision_config"), c.family, text.hidden))


def internvl(c: Config) -> Architecture:
    """Pixels unshuffled 2x2 after the tower, a norm and a two-layer MLP; one tile of 448 pixels is an image."""
    text = language(c, "llm_config" if "llm_config" in c.data else "text_config", fallback="qwen2")
    seen = intern_tower(c.child("vision_config"))
    factor = round(1 / c.number("downsample_ratio", 0.5))
    wide = seen.hidden * factor**2
    seen = replace(
        seen,
        tokens=seen.tokens // factor**2,
        projector=((wide, text.hidden), (text.hidden, text.hidden)),
        extra_parameters=seen.extra_parameters + 2 * wide,
    )
    return replace(text, vision=seen)


def kimi_vision(c: Config) -> Architecture:
    """Kimi-VL and K2.5: a SigLIP-like tower with rotary positions and merged 2x2 patches; its text config may be flat."""
    text = language(c, fallback="deepseek_v3" if c.family == "kimi_vl" else "kimi_k2")
    v = c.child("vision_config")
    hidden, patch = v.integer("hidden_size"), v.integer("patch_size", 14)
    layer = block(TOWER, attention(v, TOWER, causal=False, rotary=True), feed_forward(v, TOWER))
    side = 1024 // (2 * patch) * 2
    positions = v.integer("init_pos_emb_height", 64) * v.integer("init_pos_emb_width", 64)
    seen = VisionTower(
        hidden, (replace(layer, repeat=v.integer("num_hidden_layers")),), patch, 3, side * side, side * side // 4,
        ((4 * hidden, 4 * hidden), (4 * hidden, text.hidden)), position_embeddings=positions, patch_bias=True,
        extra_parameters=4 * hidden,
    )  # fmt: skip
    return replace(text, vision=seen)


def llama4(c: Config) -> Architecture:
    """Llama 4: patches shuffled 2x2 through a two-layer adapter and one more matrix."""
    text = language(c, fallback="llama4_text")
    if not c.data.get("vision_config"):
        return text
    v = c.child("vision_config")
    seen = tower(v)
    middle, out = v.integer("projector_input_dim", 4096), v.integer("projector_output_dim", 4096)
    first = v.integer("intermediate_size")
    seen = replace(
        seen, patch_bias=False, tokens=seen.tokens // 4, projector_bias=False,
        projector=((first, middle), (middle, out), (v.integer("vision_output_dim", out), text.hidden)),
    )  # fmt: skip
    return replace(text, vision=seen)


def phi3_vision(c: Config) -> Architecture:
    """Phi-3-vision: the whole image and twelve crops of 336 pixels, 2x2 patches merged, a two-layer MLP."""
    text = decoder(c, hf_dense.STYLES["phi3"])
    crops = 13
    seen = tower(Config(CLIP_LARGE_336, c.family, "", c.problems), images=crops)
    wide = 4 * seen.hidden
    return replace(
        text,
        vision=replace(
            seen,
            tokens=seen.tokens // 4,
            projector=((wide, text.hidden), (text.hidden, text.hidden)),
            extra_parameters=seen.extra_parameters + 2 * wide,
        ),
    )


def chameleon(c: Config) -> Architecture:
    """Images are tokens of the vocabulary, made by a convolutional tokenizer whose weights the checkpoint holds."""
    style = Style(qk_norm="full")
    part, mlp = attention(c, style), feed_forward(c, style)
    # The norms of queries and keys have biases too.
    bias = (part.heads + part.kv_heads) * part.head_dim
    layer = block(style, part, mlp, repeat=c.integer("num_hidden_layers"), extra_parameters=bias)
    return network(c, style, [layer], extra_parameters=quantizer_parameters(c.child("vq_config", {})))


def clip(c: Config) -> Architecture:
    """CLIP and SigLIP: a text encoder with a vision tower; each ends in a projection of one vector."""
    siglip = c.family == "siglip"
    t = c.child("text_config")
    style = replace(TOWER, head_bias=False)
    layer = block(style, attention(t, style, causal=not siglip), feed_forward(t, style))
    made = network(t, style, [replace(layer, repeat=t.integer("num_hidden_layers"))])
    v = c.child("vision_config")
    kind = "siglip_vision_model" if siglip else "clip_vision_model"
    seen = tower(Config({"vision_use_head": siglip, **v.data, "model_type": kind}, c.family, v.path, c.problems))
    width = c.integer("projection_dim", 512)
    projector = () if siglip else ((seen.hidden, width),)
    head = made.hidden * made.hidden + made.hidden + 2 if siglip else made.hidden * width + 1
    return replace(
        made, family=c.family, head="none", head_bias=False, decode=False, extra_parameters=head, dtype=c.dtype(),
        vision=replace(seen, tokens=1, projector=projector, projector_bias=False),
    )  # fmt: skip


def deepseek_ocr(c: Config) -> Architecture:
    """DeepSeek-OCR (its config calls itself deepseek_vl_v2): two towers in a row before a small DeepSeekMoE."""
    text, v = language(c, "language_config", fallback="deepseek_v2"), c.child("vision_config")
    if "sam_vit_b" not in v.child("width", {}).data:
        c.problem("'vision_config.width' names no 'sam_vit_b'; of this model_type only the OCR model can be read")
        return text
    return replace(text, vision=sam_clip_tower(v, text.hidden))


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_llama": vila,
    "vila": vila,
    "gemma3": gemma3,
    "gemma3n": gemma3,
    "gemma4": gemma3,
    "qwen2_vl": qwen_vl,
    "qwen2_5_vl": qwen_vl,
    "qwen3_vl": qwen_vl,
    "qwen3_vl_moe": qwen_vl,
    "qwen3_5": qwen_vl,
    "qwen3_5_moe": qwen_vl,
    "internvl": internvl,
    "internvl_chat": internvl,
    "kimi_k25": kimi_vision,
    "llama4": llama4,
    "phi3_v": phi3_vision,
    "chameleon": chameleon,
    "deepseek_vl_v2": deepseek_ocr,
    "clip": clip,
    "siglip": clip,
}
