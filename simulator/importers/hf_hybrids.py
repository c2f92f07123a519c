"""Decoders that mix attention with short convolutions, gated recurrences or a shared block: LFM2, Griffin, Zamba2, xLSTM.

Each function says which layer is of which kind. Knows no counts; defaults are those of the families' HF config classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.graph.architecture import (
    Architecture,
    Attention,
    Block,
    Channel,
    FeedForward,
    GatedRecurrence,
    LinearAttention,
    ShortConvolution,
)
from simulator.importers.hf_experts import experts
from simulator.importers.hf_parts import Style, attention, block, feed_forward, network
from simulator.importers.hf_reader import Config
from simulator.importers.hf_recurrent import mamba2


def lfm2(c: Config) -> Architecture:
    """Grouped attention in full_attn_idxs (or where layer_types says so), a gated convolution over 3 tokens elsewhere.

    The first num_dense_layers of the routed sizes are dense.
    """
    style, layers = Style(qk_norm="head", kv_heads=8, tied=True), c.integer("num_hidden_layers")
    kinds = c.items("layer_types", layers)
    if kinds is None:
        chosen = c.items("full_attn_idxs")
        kinds = ["full_attention" if chosen is None or i in chosen else "conv" for i in range(layers)]
    full, short = attention(c, style), ShortConvolution(c.integer("conv_L_cache", 3), c.flag("conv_bias", False))
    dense = feed_forward(c, style, _adjusted(c) if c.family == "lfm2" else None)
    routed: Channel = dense
    first = layers
    if c.has("n_routed_experts"):
        first = c.integer("num_dense_layers", 2, least=0)
        routed = experts(c, router_bias=c.flag("use_expert_bias", True))
    return network(
        c,
        style,
        [
            block(style, full if kind == "full_attention" else short, dense if i < first else routed)
            for i, kind in enumerate(kinds)
        ],
    )


def _adjusted(c: Config) -> int:
    """Two thirds of the given width, times a factor, rounded up to a multiple: unless block_auto_adjust_ff_dim is off."""
    width = c.integer("block_ff_dim", c.integer("intermediate_size", 12288))
    if not c.flag("block_auto_adjust_ff_dim", True):
        return width
    multiple = c.integer("block_multiple_of", 256)
    width = int(c.number("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
    return -(-width // multiple) * multiple


def recurrent_gemma(c: Config) -> Architecture:
    """Griffin: two gated recurrences for each layer of local attention; a biased, gated MLP of half intermediate_size."""
    style = Style(tied=True, kv_heads=1, output_bias=True, mlp_bias=True, activation="gelu_pytorch_tanh")
    layers, hidden = c.integer("num_hidden_layers"), c.integer("hidden_size")
    pattern = c.items("block_types") or ["recurrent", "recurrent", "attention"]
    part = attention(
        c, style, window=c.integer("attention_window_size", 2048), qkv_bias=c.flag("attention_bias", False)
    )
    scan = GatedRecurrence(c.integer("lru_width", hidden), c.integer("conv1d_width", 4), part.heads)
    mlp = feed_forward(c, style, max(1, c.integer("intermediate_size") // 2))
    kinds = [pattern[i % len(pattern)] for i in range(layers)]
    return network(
        c, style, [block(style, part if kind == "attention" else scan, mlp) for kind in kinds], max_context=None
    )


def xlstm(c: Config) -> Architecture:
    """xLSTM with matrix memories: queries and keys half as wide as values, an output gate, a gated MLP."""
    layers = c.integer("num_blocks") if c.has("num_blocks") else c.integer("num_hidden_layers")
    hidden, heads = c.integer("hidden_size"), c.integer("num_heads", 8)
    multiple = c.integer("mlstm_round_up_to_multiple_of", 64)

    def rounded(factor: float, to: int) -> int:
        return -(-int(hidden * factor) // to) * to

    keys, values = rounded(c.number("qk_dim_factor", 0.5), multiple), rounded(c.number("v_dim_factor", 1.0), multiple)
    mixer = LinearAttention("mlstm", heads, heads, max(1, keys // heads), max(1, values // heads))
    width = rounded(c.number("ffn_proj_factor", 2.667), c.integer("ffn_round_up_to_multiple_of", 64))
    style = Style()
    return network(c, style, [block(style, mixer, FeedForward(width), repeat=layers)], max_context=None)


def zamba2(c: Config) -> Architecture:
    """Mamba-2 layers; before some of them a block of attention and MLP whose weights num_mem_blocks copies share in turn.

    The block reads the layer's input joined with the embedding. Each use has low-rank adapters and a projection of its
    own. HF defaults: state 64, 1 group, adapters of rank 128 on the MLP.
    """
    layers, hidden = c.integer("num_hidden_layers"), c.integer("hidden_size")
    heads, copies = c.integer("num_attention_heads"), c.integer("num_mem_blocks", 1)
    kinds = c.items("layers_block_type", layers)
    chosen = c.items("hybrid_layer_ids")
    if kinds is not None:
        uses = sum(1 for kind in kinds if kind == "hybrid")
    elif chosen is not None:
        uses = len(chosen)
    else:
        c.problem("needs 'layers_block_type' or 'hybrid_layer_ids'; add it to the config")
        uses = 0
    scan = mamba2(c, "n_mamba_heads", "mamba_headdim", state=64, groups=c.integer("mamba_ngroups", 1))
    wide, rank = 2 * hidden, c.integer("adapter_rank", 128)
    width = c.integer("intermediate_size", 4 * hidden)
    kv_heads = c.integer("num_key_value_heads", heads)
    part = Attention(heads, kv_heads, max(1, wide // heads), rotary=c.flag("use_mem_rope", False), input_dim=wide)
    adapters = [(hidden, rank), (rank, 2 * width), (hidden, hidden)]
    if c.flag("use_shared_attention_adapter", False):
        adapters += [(wide, rank), (rank, wide)] * 3
    # The first norm of the shared block is as wide as its joined input.
    shared = Block(
        part, FeedForward(width, activation="gelu"), shared_weights=True, extra_parameters=hidden,
        adapters=tuple(adapters),
    )  # fmt: skip
    # Equal blocks stay apart: each copy has weights of its own.
    turns = [replace(shared, repeat=len(range(copy, uses, copies))) for copy in range(min(copies, uses))]
    made = network(c, Style(tied=True), [])
    return replace(made, blocks=(Block(scan, None, norms=1, repeat=layers), *turns))


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "lfm2": lfm2,
    "lfm2_moe": lfm2,
    "recurrent_gemma": recurrent_gemma,
    "xlstm": xlstm,
    "zamba2": zamba2,
}
