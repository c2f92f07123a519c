"""Vision towers and image tokenizers of multimodal models: what turns pixels into patches and patches into features.

An image has the tower's own size; where a tower takes any size, about a megapixel. Knows no language model.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.architecture import Attention, Block, FeedForward, VisionTower
from simulator.importers.hf_encoders import BERT
from simulator.importers.hf_parts import Style, attention, block, feed_forward, merge
from simulator.importers.hf_reader import Config

TOWER = replace(BERT, embedding_norm=False, activation="quick_gelu")


def tower(c: Config, images: int = 1) -> VisionTower:
    """A CLIP- or SigLIP-like ViT without its projector; `images` crops of an image are encoded one by one."""
    hidden, patch = c.integer("hidden_size"), c.integer("patch_size")
    clip = c.text("model_type", "clip_vision_model").startswith("clip")
    grid = (c.integer("image_size") // patch) ** 2
    patches = grid + (1 if clip else 0)
    part = attention(c, TOWER, causal=False)
    if images > 1:
        part = replace(part, window=patches)
    layer = block(TOWER, part, feed_forward(c, TOWER), repeat=c.integer("num_hidden_layers"))
    # A class token and a norm before the blocks are CLIP's; the norm behind them is common.
    extra = 2 * hidden + (3 * hidden if clip else 0)
    if not clip and c.flag("vision_use_head", False):
        extra += _pooling_head(hidden, c.integer("intermediate_size"))
    return VisionTower(
        hidden, (layer,), patch, c.integer("num_channels", 3), patches * images, grid * images, (),
        position_embeddings=patches, patch_bias=not clip, extra_parameters=extra,
    )  # fmt: skip


def _pooling_head(hidden: int, intermediate: int) -> int:
    """SigLIP's head: a probe, an attention, a norm and an MLP."""
    return hidden + 4 * (hidden * hidden + hidden) + 2 * hidden + 2 * hidden * intermediate + intermediate + hidden


def intern_tower(v: Config) -> VisionTower:
    """InternViT: a class token, layer scales, and in the 6B size norms on queries and keys."""
    hidden, patch = v.integer("hidden_size"), v.integer("patch_size", 14)
    grid = (v.integer("image_size", 448) // patch) ** 2
    normed = v.flag("qk_normalization", False) or v.flag("use_qk_norm", False)
    bias = v.flag("qkv_bias", True) if v.has("qkv_bias") else v.flag("attention_bias", True)
    style = replace(TOWER, norm_bias=v.text("norm_type", "layer_norm") != "rms_norm", qkv_bias=bias)
    part = attention(v, style, causal=False, qk_norm="full" if normed else "none")
    layer = block(
        style, part, feed_forward(v, style), repeat=v.integer("num_hidden_layers"), extra_parameters=2 * hidden
    )
    return VisionTower(
        hidden, (layer,), patch, v.integer("num_channels", 3), grid + 1, grid, (),
        position_embeddings=grid + 1, patch_bias=True, extra_parameters=hidden,
    )  # fmt: skip


def qwen_tower(v: Config, family: str, out: int) -> VisionTower:
    """The tower of the Qwen-VL generations: any image size, patches merged before the projector."""
    patch, merge_side = v.integer("patch_size", 14), v.integer("spatial_merge_size", 2)
    # Qwen2-VL calls the tower's width embed_dim and the language model's hidden_size.
    hidden = v.integer("embed_dim", 1280) if family == "qwen2_vl" else v.integer("hidden_size")
    heads, layers = v.integer("num_attention_heads", 16), v.integer("num_hidden_layers")
    part = Attention(heads, heads, max(1, hidden // heads), causal=False, qkv_bias=True, output_bias=True)
    second = family == "qwen2_5_vl"
    width = v.integer("mlp_ratio", 4) * hidden if family == "qwen2_vl" else v.integer("intermediate_size")
    layer = Block(part, FeedForward(width, gated=second, bias=True), norm_bias=not second)
    blocks = [layer] * layers
    if second:
        whole = v.items("fullatt_block_indexes") or [7, 15, 23, 31]
        window = (v.integer("window_size", 112) // patch) ** 2
        local = replace(layer, mixer=replace(part, window=window))
        blocks = [layer if i in whole else local for i in range(layers)]
    side = 1024 // (patch * merge_side) * merge_side
    wide = hidden * merge_side**2
    mergers = ((wide, wide), (wide, out))
    depth = len(v.items("deepstack_visual_indexes") or [])
    third = family.startswith("qwen3")
    return VisionTower(
        hidden, merge(blocks), patch, v.integer("num_channels", 3), side * side, (side // merge_side) ** 2,
        mergers * (1 + depth),
        position_embeddings=v.integer("num_position_embeddings", 2304) if third else 0,
        patch_bias=third,
        extra_parameters=hidden * (1 if second else 2) + 2 * wide * depth,
        temporal_patch=v.integer("temporal_patch_size", 2),
    )  # fmt: skip


def pixtral_tower(v: Config, merge_side: int = 1) -> VisionTower:
    """Pixtral's ViT: rotary, gated, no biases, any image size. A token ends each row of (merged) patches."""
    hidden, patch = v.integer("hidden_size", 1024), v.integer("patch_size", 16)
    style = Style(rotary=True, activation="gelu")
    layer = block(
        style, attention(v, style, causal=False), feed_forward(v, style), repeat=v.integer("num_hidden_layers", 24)
    )
    rows = min(1024, v.integer("image_size", 1024)) // (patch * merge_side)
    return VisionTower(
        hidden, (layer,), patch, v.integer("num_channels", 3), (rows * merge_side) ** 2, rows * (rows + 1), (),
        extra_parameters=hidden,
    )  # fmt: skip


def tiled_tower(v: Config) -> VisionTower:
    """Llama 3.2's ViT: all tiles of an image attend to each other, in plain and then in gated layers.

    Positions within a tile, and for each of the aspect ratios those of every tile and two vectors per tile.
    """
    hidden, patch, tiles = v.integer("hidden_size", 1280), v.integer("patch_size", 14), v.integer("max_num_tiles", 4)
    patches = (v.integer("image_size", 448) // patch) ** 2 + 1
    style = replace(TOWER, qkv_bias=False, output_bias=False, activation="gelu")
    heads = v.integer("attention_heads", 16)
    part = Attention(heads, heads, max(1, hidden // heads), causal=False, rotary=False)
    plain = block(style, part, feed_forward(v, style), repeat=v.integer("num_hidden_layers", 32))
    gated = replace(plain, repeat=v.integer("num_global_layers", 8), extra_parameters=2)
    # Arrangements of at most so many tiles into rows and columns, and one entry for none.
    ratios = len(v.items("supported_aspect_ratios") or []) or sum(tiles // rows for rows in range(1, tiles + 1))
    tables = (ratios + 1) * tiles * hidden * (patches + 2) + 3
    return VisionTower(
        hidden, (plain, gated), patch, v.integer("num_channels", 3), tiles * patches, tiles * patches, (),
        position_embeddings=patches, extra_parameters=tables + 5 * hidden,
    )  # fmt: skip


def glm_tower(v: Config) -> VisionTower:
    """GLM-4.1V's ViT with its merger: RMS norms, gated MLPs as wide as the output, no biases but in convolutions."""
    hidden, patch = v.integer("hidden_size", 1536), v.integer("patch_size", 14)
    merge_side = v.integer("spatial_merge_size", 2)
    out, width = v.integer("out_hidden_size", 4096), v.integer("intermediate_size", 13696)
    style = Style(qkv_bias="attention_bias")
    heads = v.integer("num_attention_heads", 12)
    part = attention(v, style, causal=False, kv_heads=heads)
    layer = block(style, part, feed_forward(v, style, out), repeat=v.integer("num_hidden_layers", 24))
    side = 1024 // (patch * merge_side) * merge_side
    return VisionTower(
        hidden, (layer,), patch, v.integer("num_channels", 3), side * side, (side // merge_side) ** 2,
        ((hidden * merge_side**2, out), (out, out), (out, width), (out, width), (width, out)), projector_bias=False,
        position_embeddings=(v.integer("image_size", 336) // patch) ** 2, patch_bias=True,
        extra_parameters=2 * hidden + out + 2 * out, temporal_patch=v.integer("temporal_patch_size", 2),
    )  # fmt: skip


def ovis_tower(v: Config, out: int) -> VisionTower:
    """Ovis2's ViT (AIMv2), the head that gives visual words, and the table of their embeddings."""
    hidden, patch, stride = v.integer("hidden_size", 1024), v.integer("patch_size", 14), v.integer("hidden_stride", 1)
    style = Style(qkv_bias="qkv_bias", output_bias="qkv_bias", mlp_bias="mlp_bias")
    layer = block(
        style, attention(v, style, causal=False, rotary=False), feed_forward(v, style),
        repeat=v.integer("num_hidden_layers", 24),
    )  # fmt: skip
    words, marks = v.integer("vocab_size", 16384), v.integer("num_visual_indicator_tokens", 5, least=0)
    side = v.integer("image_size", 224) // patch
    return VisionTower(
        hidden, (layer,), patch, v.integer("num_channels", 3), side * side, (side // stride) ** 2,
        ((hidden * stride**2, words - marks), (words, out)), projector_bias=False, position_embeddings=side * side,
        patch_bias=True, extra_parameters=2 * hidden + 2 * (words - marks),
    )  # fmt: skip


def sam_clip_tower(v: Config, out: int) -> VisionTower:
    """DeepSeek-OCR: SAM over 4096 patches, windows of 14 x 14 but in four layers, 16 times fewer tokens, then CLIP.

    CLIP runs over those 256 tokens, so that its matrices stand among the projector's; the convolutions between the two
    count as weights only. 16 line breaks and a separator join the 256 tokens.
    """
    widths = v.child("width")
    s, t = widths.child("sam_vit_b"), widths.child("clip-l-14-224")
    hidden, heads, layers, patch = s.integer("width", 768), s.integer("heads", 12), s.integer("layers", 12), 16
    wide, depth, down = t.integer("width", 1024), t.integer("layers", 24), s.items("downsample_channels") or [512, 1024]
    side, window, neck = v.integer("image_size", 1024) // patch, 14, 256
    head_dim = max(1, hidden // heads)
    part = Attention(heads, heads, head_dim, causal=False, qkv_bias=True, output_bias=True, rotary=False)
    mlp = FeedForward(4 * hidden, gated=False, bias=True, activation="gelu")
    whole = s.items("global_attn_indexes") or [2, 5, 8, 11]
    # Relative positions along height and width, in each layer.
    local = Block(
        replace(part, window=window**2), mlp, norm_bias=True, extra_parameters=2 * (2 * window - 1) * head_dim
    )
    full = Block(part, mlp, norm_bias=True, extra_parameters=2 * (2 * side - 1) * head_dim)
    convolutions = neck * (hidden + 9 * neck) + 4 * neck + 9 * neck * int(down[0]) + 9 * int(down[0]) * int(down[1])
    clip_patch = t.integer("patch_size", 14)
    clip_positions = (t.integer("image_size", 224) // clip_patch) ** 2 + 1
    clip_rest = wide * (1 + 3 * clip_patch**2 + clip_positions + 2 + 4 * depth)
    clip_layer = ((wide, 3 * wide), (wide, wide), (wide, 4 * wide), (4 * wide, wide))
    return VisionTower(
        hidden, merge(full if i in whole else local for i in range(layers)), patch, 3, side**2, side**2 // 16 + 17,
        (*clip_layer * depth, (2 * wide, out)), position_embeddings=side**2, patch_bias=True,
        extra_parameters=convolutions + clip_rest + 2 * out,
    )  # fmt: skip


def quantizer_parameters(v: Config) -> int:
    """Weights of the VQ-GAN encoder: two residual blocks per level, attention in the middle, a code book."""
    base, latent = v.integer("base_channels", 128), v.integer("latent_channels", 256)
    width, codes = v.integer("embed_dim", 256), v.integer("num_embeddings", 8192)

    def residual(a: int, b: int) -> int:
        return 2 * a + 9 * a * b + b + 2 * b + 9 * b * b + b + (a * b + b if a != b else 0)

    channels, total = base, 9 * v.integer("in_channels", 3) * base + base
    factors = v.items("channel_multiplier") or [1, 1, 2, 2, 4]
    for level, factor in enumerate(factors):
        for _ in range(v.integer("num_res_blocks", 2)):
            total += residual(channels, base * int(factor))
            channels = base * int(factor)
        if level < len(factors) - 1:
            total += 9 * channels * channels + channels
    total += 2 * residual(channels, channels) + 2 * channels + 4 * (channels * channels + channels)
    total += 2 * channels + 9 * channels * latent + latent
    return total + codes * width + (latent * width + width) + (width * latent + latent)
