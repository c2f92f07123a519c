"""Networks that hear raw sound: wav2vec 2.0 and HuBERT, and the encoder-decoder Moonshine.

A token is one frame behind the convolutions, whose work is counted per frame. Knows no counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.graph.architecture import Architecture, Attention, Block, FeedForward
from simulator.importers.hf_encoders import BERT
from simulator.importers.hf_parts import attention, block, feed_forward
from simulator.importers.hf_reader import Config


def wav2vec2(c: Config) -> Architecture:
    """Seven convolutions (50 frames a second), a grouped one for positions, a transformer, a classifier of frames.

    Layer i makes prod(strides after i) rows per frame. The head stands for CTC's, whose matrix is small.
    """
    style, hidden = replace(BERT, embedding_norm=False, learned_positions=None), c.integer("hidden_size")
    widths = [int(width) for width in c.items("conv_dim") or [512] * 7]
    kernels = [int(kernel) for kernel in c.items("conv_kernel", len(widths)) or [10, 3, 3, 3, 3, 2, 2]]
    strides = [int(stride) for stride in c.items("conv_stride", len(widths)) or [5, 2, 2, 2, 2, 2, 2]]
    bias = c.flag("conv_bias", False)
    stem: list[tuple[float, int, int]] = []
    extra, inputs, rows = 0, 1, 1
    for stride in strides[1:]:
        rows *= stride
    for index, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        stem.append((float(rows), inputs * kernel, width))
        rows //= strides[index + 1] if index + 1 < len(strides) else 1
        normed = index == 0 or c.text("feat_extract_norm", "group") == "layer"
        extra += width * (bias + 2 * normed)
        inputs = width
    kernel, groups = c.integer("num_conv_pos_embeddings", 128), c.integer("num_conv_pos_embedding_groups", 16)
    stem += [(1.0, inputs, hidden), (1.0, hidden // groups * kernel, hidden)]
    # Norm and bias of the projection; scale and bias of the positions; the vector for masked frames; the norm before
    # the layers stands for the one behind them.
    extra += (2 * inputs if c.flag("feat_proj_layer_norm", True) else 0) + hidden + kernel + hidden + hidden
    layer = block(
        style, attention(c, style, causal=False), feed_forward(c, style), repeat=c.integer("num_hidden_layers")
    )
    recognises = "CTC" in " ".join(str(name) for name in c.items("architectures") or [])
    return Architecture(
        "", c.family, 0, hidden, (layer,), None, final_norm_bias=True, head="class" if recognises else "none",
        head_bias=recognises, classes=c.integer("vocab_size", 32), dtype=c.dtype(), decode=False, stem=tuple(stem),
        extra_parameters=extra,
    )  # fmt: skip


def moonshine(c: Config) -> Architecture:
    """Three convolutions over the waveform (about 42 frames a second), rotary positions, a gated MLP in the decoder."""
    hidden, width = c.integer("hidden_size"), c.integer("intermediate_size")

    def part(side: str) -> Attention:
        heads = c.integer(f"{side}_num_attention_heads", 8)
        kv_heads = c.integer(f"{side}_num_key_value_heads", heads)
        bias = c.flag("attention_bias", False)
        return Attention(heads, kv_heads, max(1, hidden // heads), qkv_bias=bias, causal=side == "decoder")

    plain = FeedForward(width, gated=False, bias=True, activation=c.text("encoder_hidden_act", "gelu"))
    gated = FeedForward(width, bias=True, activation=c.text("decoder_hidden_act", "silu"))
    up = Block(part("encoder"), plain, repeat=c.integer("encoder_num_hidden_layers"))
    own = part("decoder")
    down = Block(
        own, gated, repeat=c.integer("decoder_num_hidden_layers"), norms=3,
        cross=replace(own, cross=True, causal=False, rotary=False),
    )  # fmt: skip
    # Kernels 127, 7 and 3 at strides 64, 3 and 2.
    stem = ((6.0, 127, hidden), (2.0, 7 * hidden, 2 * hidden), (1.0, 6 * hidden, hidden))
    encoder = Architecture(
        "encoder", c.family, 0, hidden, (up,), None, head="none", dtype=c.dtype(), decode=False, stem=stem,
        extra_parameters=2 * hidden + 2 * hidden + hidden,
    )  # fmt: skip
    return Architecture(
        "", c.family, c.integer("vocab_size", 32768), hidden, (down,), c.integer("max_position_embeddings", 512),
        tied=c.flag("tie_word_embeddings", True), encoder=encoder, dtype=c.dtype(),
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "wav2vec2": wav2vec2,
    "hubert": wav2vec2,
    "moonshine": moonshine,
}
