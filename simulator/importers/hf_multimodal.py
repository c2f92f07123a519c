"""Further networks that see: cross-attention to the image, tiles, soft visual words, query transformers.

Towers come from `hf_towers`, language models from the tables of the decoders. A tower of a fixed size sees one image of
that size; one that takes any size sees about a megapixel. Knows no counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.graph.architecture import Architecture, VisionTower
from simulator.importers.hf_dense import LLAMA
from simulator.importers.hf_parts import attention, block, feed_forward, network
from simulator.importers.hf_reader import Config
from simulator.importers.hf_towers import glm_tower, ovis_tower, pixtral_tower, tiled_tower, tower
from simulator.importers.hf_vision import kimi_vision, language, llava_next, vision_config


def mllama(c: Config) -> Architecture:
    """Llama 3.2 Vision: gated layers at cross_attention_layers read the image through keys and values of their own.

    The image takes no room in the context. The embedding has eight rows more than the head. A step without an image
    still counts the other matrices of those layers, which the reference implementation skips.
    """
    t, v = c.child("text_config"), c.child("vision_config")
    style, layers = replace(LLAMA, kv_heads=8), t.integer("num_hidden_layers")
    full, mlp = attention(t, style), feed_forward(t, style)
    cross = replace(full, cross=True, causal=False, rotary=False, qk_norm="head")
    chosen = t.items("cross_attention_layers") or [3, 8, 13, 18, 23, 28, 33, 38]
    gated = block(style, cross, mlp, extra_parameters=2)
    made = network(t, style, [gated if i in chosen else block(style, full, mlp) for i in range(layers)])
    seen = tiled_tower(v)
    wide = v.integer("vision_output_dim", 7680)
    seen = replace(seen, projector=((wide, made.hidden),))
    return replace(made, family=c.family, extra_parameters=8 * made.hidden, vision=seen, dtype=c.dtype())


def mistral3(c: Config) -> Architecture:
    """Mistral Small 3.1: Pixtral's tower, a norm, 2x2 patches merged by one matrix, a two-layer MLP."""
    text, side = language(c, fallback="mistral"), c.integer("spatial_merge_size", 2)
    seen = pixtral_tower(vision_config(c), side)
    hidden = seen.hidden
    layers = ((hidden * side**2, hidden), (hidden, text.hidden), (text.hidden, text.hidden))
    bias = 2 * text.hidden if c.flag("multimodal_projector_bias", False) else 0
    return replace(
        text,
        vision=replace(
            seen, projector=layers, projector_bias=False, extra_parameters=seen.extra_parameters + hidden + bias
        ),
    )


def idefics3(c: Config) -> Architecture:
    """Idefics3 and SmolVLM: a square image is scaled to 4 x 4 crops, the whole one joins them; patches shuffled."""
    text, factor = language(c), c.integer("scale_factor", 2)
    seen = tower(_siglip(vision_config(c)), images=17)
    projector = ((seen.hidden * factor**2, text.hidden),)
    return replace(
        text, vision=replace(seen, tokens=seen.tokens // factor**2, projector=projector, projector_bias=False)
    )


def _siglip(v: Config) -> Config:
    """The config of a tower that is SigLIP's by another name."""
    return Config({**v.data, "model_type": "siglip_vision_model"}, v.family, v.path, v.problems)


def paligemma(c: Config) -> Architecture:
    """PaliGemma 1 and 2: every patch of SigLIP through one matrix. The prompt's attention is counted as causal."""
    text, seen = language(c, fallback="gemma"), tower(vision_config(c))
    return replace(text, vision=replace(seen, projector=((seen.hidden, text.hidden),)))


def aya_vision(c: Config) -> Architecture:
    """Aya Vision and Command A Vision: 2x2 patches shuffled, a gated MLP, in Aya behind a norm; one tile is an image."""
    text, seen = language(c, fallback="cohere2"), tower(_siglip(vision_config(c)))
    factor = c.integer("downsample_factor", 2)
    wide = seen.hidden * factor**2
    aligned = c.integer("alignment_intermediate_size", text.hidden if c.family == "aya_vision" else 36864)
    norm = 2 * wide if c.family == "aya_vision" else 0
    return replace(
        text,
        vision=replace(
            seen,
            tokens=seen.tokens // factor**2,
            projector=((wide, aligned), (aligned // 2, text.hidden)),
            extra_parameters=seen.extra_parameters + norm,
        ),
    )


def deepseek_vl(c: Config) -> Architecture:
    """DeepSeek-VL 1.3B: every patch of SigLIP through a two-layer MLP."""
    text, seen = language(c), tower(_siglip(vision_config(c)))
    return replace(text, vision=replace(seen, projector=((seen.hidden, text.hidden), (text.hidden, text.hidden))))


def glm4v(c: Config) -> Architecture:
    """GLM-4.1V and GLM-4.5V: 2x2 patches merged by a convolution, then a gated MLP with a norm."""
    text = language(c, fallback=f"{c.family}_text")
    v = c.child("vision_config")
    return replace(text, vision=glm_tower(v))


def ovis2(c: Config) -> Architecture:
    """Ovis2: patches merged into a distribution over visual words, whose embeddings are mixed by it."""
    text = language(c, fallback="qwen2")
    return replace(text, vision=ovis_tower(c.child("vision_config"), text.hidden))


def fuyu(c: Config) -> Architecture:
    """Fuyu: no tower; patches go through one matrix into the decoder, each row of them ends in a line break."""
    text, patch = language(c, fallback="persimmon"), c.integer("patch_size", 30)
    side = 1024 // patch
    seen = VisionTower(
        text.hidden, (), patch, c.integer("num_channels", 3), side * side, side * (side + 1), (), patch_bias=True
    )
    return replace(text, vision=seen)


def blip2(c: Config) -> Architecture:
    """BLIP-2: a ViT, and a transformer of 32 queries that reads it in every second layer.

    The query transformer's matrices stand among the projector's, at one row per query: so the keys and values of the
    image, an eightieth of the tower's work, are counted at 32 rows in place of 257.
    """
    text, v, q = language(c, fallback="opt"), c.child("vision_config"), c.child("qformer_config", {})
    seen = tower(
        Config({"image_size": 224, "patch_size": 14, **v.data, "model_type": "blip"}, c.family, v.path, c.problems)
    )
    hidden, patches = q.integer("hidden_size", 768), seen.patches + 1
    width, layers = q.integer("intermediate_size", 3072), q.integer("num_hidden_layers", 12)
    every, queries = q.integer("cross_attention_frequency", 2), c.integer("num_query_tokens", 32)
    read = q.integer("encoder_hidden_size", seen.hidden)
    matrices: list[tuple[int, int]] = []
    extra = 2 * hidden + queries * hidden + text.hidden
    for layer in range(layers):
        matrices += [(hidden, hidden)] * 4 + [(hidden, width), (width, hidden)]
        extra += 4 * hidden + width + hidden + 4 * hidden
        if layer % every == 0:
            matrices += [(hidden, hidden)] * 2 + [(read, hidden)] * 2
            extra += 4 * hidden + 2 * hidden
    matrices.append((hidden, text.hidden))
    seen = replace(
        seen, patches=patches, tokens=queries, projector=tuple(matrices), projector_bias=False,
        position_embeddings=patches, extra_parameters=seen.extra_parameters + seen.hidden + extra,
    )  # fmt: skip
    return replace(text, vision=seen)


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "mllama": mllama,
    "mistral3": mistral3,
    "idefics3": idefics3,
    "smolvlm": idefics3,
    "paligemma": paligemma,
    "aya_vision": aya_vision,
    "cohere2_vision": aya_vision,
    "deepseek_vl": deepseek_vl,
    "kimi_vl": kimi_vision,
    "glm4v": glm4v,
    "glm4v_moe": glm4v,
    "ovis2": ovis2,
    "fuyu": fuyu,
    "blip-2": blip2,
    "blip_2": blip2,
    "minimax_vl_01": llava_next,
}
