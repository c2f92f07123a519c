"""Networks with recurrences: Mamba and its hybrids, RWKV, linear attention beside full attention.

Each function says which layer is of which kind. Knows no counts; widths follow the families' HF config classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator.graph.architecture import (
    Architecture,
    Block,
    Channel,
    FeedForward,
    LinearAttention,
    SelectiveScan,
)
from simulator.importers.hf_dense import LLAMA, QWEN3
from simulator.importers.hf_experts import after_dense, experts, latent, shared_width
from simulator.importers.hf_parts import Style, attention, block, feed_forward, network
from simulator.importers.hf_reader import Config


def mamba1(c: Config, inner_norm: bool = False) -> SelectiveScan:
    """Mamba-1. HF defaults: state 16, convolution over 4, expansion 2, time-step rank hidden / 16 rounded up."""
    hidden = c.integer("hidden_size")
    inner = c.maybe("intermediate_size") if c.family in ("mamba", "falcon_mamba") else None
    rank = None if c.find("time_step_rank")[1] == "auto" else c.maybe("time_step_rank")
    return SelectiveScan(
        1,
        inner or c.integer("expand", 2) * hidden,
        c.integer("state_size", 16),
        c.integer("conv_kernel", 4),
        dt_rank=rank or -(-hidden // 16),
        conv_bias=c.flag("use_conv_bias", True),
        projection_bias=c.flag("use_bias", False),
        inner_norm=inner_norm,
    )


def mamba2(c: Config, heads_key: str, width_key: str, *, state: int, groups: int, norm: bool = True) -> SelectiveScan:
    """Mamba-2 with its heads under the key `heads_key` and their width under `width_key` ("auto": the rest)."""
    heads = c.integer(heads_key)
    given = c.find(width_key)[1]
    if given is None or given == "auto":
        width = max(1, c.integer("expand", 2) * c.integer("hidden_size") // heads)
    else:
        width = c.integer(width_key)
    return SelectiveScan(
        2,
        c.maybe("mamba_d_ssm") or heads * width,
        c.integer("state_size", state),
        c.integer("conv_kernel", 4),
        heads=heads,
        groups=c.integer("n_groups", groups),
        conv_bias=c.flag("use_conv_bias", True),
        projection_bias=c.flag("mamba_proj_bias" if c.has("mamba_proj_bias") else "use_bias", False),
        inner_norm=norm,
    )


def mamba(c: Config) -> Architecture:
    """Mamba-1 layers only; tied by default."""
    layer = Block(mamba1(c), None, norms=1, repeat=c.integer("num_hidden_layers"))
    return network(c, Style(tied=True), [layer], max_context=None)


def mamba_two(c: Config) -> Architecture:
    """Mamba-2 layers only. HF defaults: state 128, 8 groups."""
    scan = mamba2(c, "num_heads", "head_dim", state=128, groups=8)
    layer = Block(scan, None, norms=1, repeat=c.integer("num_hidden_layers"))
    return network(c, Style(), [layer], max_context=None)


def jamba(c: Config) -> Architecture:
    """One attention layer in attn_layer_period, experts in every expert_layer_period-th; HF defaults 8, 4, 2, 1."""
    style, layers = replace(LLAMA, kv_heads=8), c.integer("num_hidden_layers")
    period, offset = c.integer("attn_layer_period", 8), c.integer("attn_layer_offset", 4, least=0)
    expert_period, expert_offset = c.integer("expert_layer_period", 2), c.integer("expert_layer_offset", 1, least=0)
    full, scan = replace(attention(c, style), rotary=False), mamba1(c, inner_norm=True)
    dense = feed_forward(c, style)
    routed: Channel = dense
    if c.integer("n_routed_experts", 16) > 1:
        routed = experts(c, width="intermediate_size")
    blocks = [
        block(
            style,
            full if i % period == offset else scan,
            routed if i % expert_period == expert_offset else dense,
        )
        for i in range(layers)
    ]
    return network(c, style, blocks)


def bamba(c: Config) -> Architecture:
    """Attention in attn_layer_indices, Mamba-2 elsewhere. HF defaults: state 256, 1 group."""
    style = replace(LLAMA, kv_heads=8)
    scan, full = mamba2(c, "mamba_num_heads", "mamba_head_dim", state=256, groups=1), attention(c, style)
    chosen, mlp = c.items("attn_layer_indices") or [], feed_forward(c, style)
    return network(
        c, style, [block(style, full if i in chosen else scan, mlp) for i in range(c.integer("num_hidden_layers"))]
    )


def falcon_h1(c: Config) -> Architecture:
    """Attention and Mamba-2 side by side in every layer. HF defaults: state 256, 1 group, no gated norm."""
    style = replace(LLAMA, kv_heads=8)
    scan = mamba2(c, "mamba_num_heads", "mamba_head_dim", state=256, groups=1, norm=c.flag("mamba_rms_norm", False))
    layer = block(style, attention(c, style), feed_forward(c, style), parallel_mixer=scan)
    return network(c, style, [replace(layer, repeat=c.integer("num_hidden_layers"))])


def granite_hybrid(c: Config) -> Architecture:
    """Granite 4: layer_types says mamba or attention; experts with a shared one, or a shared MLP alone."""
    style, layers = LLAMA, c.integer("num_hidden_layers")
    width = c.integer("shared_intermediate_size", 1024)
    channel: Channel = FeedForward(width)
    if c.integer("n_routed_experts", 0, least=0):
        channel = experts(c, width="intermediate_size", shared=width)
    full = attention(c, style)
    given = c.items("layer_types", layers) or ["mamba"] * layers
    kinds = ["mamba" if kind in ("mamba", "linear_attention") else "attention" for kind in given]
    scan = mamba2(c, "mamba_num_heads", "mamba_head_dim", state=256, groups=1) if "mamba" in kinds else None
    return network(c, style, [block(style, scan if kind == "mamba" else full, channel) for kind in kinds])


def nemotron_h(c: Config) -> Architecture:
    """A letter per layer: M Mamba-2, * attention, - MLP, E experts; each layer is one of them behind one norm."""
    style = Style(gated=False, mlp_bias="mlp_bias", norms=1, kv_heads=8, head_dim=128, activation="relu2")
    words = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E", "linear_attention": "M", "full_attention": "*"}
    listed = c.items("layers_block_type")
    pattern = (
        [words.get(str(word), str(word)) for word in listed] if listed else list(c.text("hybrid_override_pattern", ""))
    )
    if not pattern:
        c.problem("needs 'hybrid_override_pattern' or 'layers_block_type'; add it to the config")
    blocks: list[Block] = []
    for letter in pattern:
        if letter == "M":
            scan = mamba2(c, "mamba_num_heads", "mamba_head_dim", state=128, groups=8)
            blocks.append(block(style, scan, None))
        elif letter == "*":
            blocks.append(block(style, replace(attention(c, style), rotary=False), None))
        elif letter == "-":
            blocks.append(block(style, None, feed_forward(c, style)))
        elif letter == "E":
            shared = c.integer("moe_shared_expert_intermediate_size", 0, least=0) * c.integer(
                "n_shared_experts", 1, least=0
            )
            routed = replace(experts(c, shared=shared, router_bias=True), gated=False)
            blocks.append(block(style, None, routed))
        else:
            c.problem(f"hybrid_override_pattern has the unknown letter '{letter}'; known: M * - E")
    return network(c, style, blocks)


def delta_hybrid(c: Config) -> Architecture:
    """Qwen3-Next and Qwen3.5: gated DeltaNet, and every fourth layer gated full attention.

    Dense where there is no num_experts; in the routed sizes the shared expert has a gate.
    """
    style = replace(QWEN3, windows="none", head_dim=256, kv_heads=2)
    layers = c.integer("num_hidden_layers")
    # HF defaults: 32 value heads, 16 key heads, 128 wide, convolution over 4.
    delta = LinearAttention(
        "gated_delta",
        c.integer("linear_num_key_heads", 16),
        c.integer("linear_num_value_heads", 32),
        c.integer("linear_key_head_dim", 128),
        c.integer("linear_value_head_dim", 128),
        conv=c.integer("linear_conv_kernel_dim", 4),
    )
    full = replace(attention(c, style), output_gate=True)
    channel: Channel
    if c.has("n_routed_experts"):
        shared = c.integer("shared_expert_intermediate_size", 0, least=0)
        channel = experts(c, shared=shared, shared_gate=shared > 0)
    else:
        channel = feed_forward(c, style)
    every = c.integer("full_attention_interval", 4)
    kinds = c.items("layer_types", layers) or [
        "full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(layers)
    ]
    return network(c, style, [block(style, delta if kind == "linear_attention" else full, channel) for kind in kinds])


def minimax(c: Config) -> Architecture:
    """Lightning attention, and every eighth layer full attention (attn_type_list: 0 and 1); experts in all."""
    style, layers = Style(kv_heads=8), c.integer("num_hidden_layers")
    full = attention(c, style)
    linear = LinearAttention("lightning", full.heads, full.heads, full.head_dim, full.head_dim)
    kinds: list[Any] = c.items("attn_type_list", layers) or c.items("layer_types", layers) or []
    if not kinds:
        # HF's default: every second layer is full.
        kinds = ["full_attention" if (i + 1) % 2 == 0 else "linear_attention" for i in range(layers)]
    routed = experts(c, width="intermediate_size")
    return network(
        c, style, [block(style, full if kind in (1, "full_attention") else linear, routed) for kind in kinds]
    )


def kimi_linear(c: Config) -> Architecture:
    """Kimi delta attention, and latent attention in full_attn_layers (counted from 1)."""
    layers, inner = c.integer("num_hidden_layers"), c.child("linear_attn_config", {})
    heads, width = inner.integer("num_heads", 32), inner.integer("head_dim", 128)
    delta = LinearAttention(
        "kda", heads, heads, width, width, conv=inner.integer("short_conv_kernel_size", 4), lora_ranks=(width, width)
    )
    full = latent(c)
    chosen = inner.items("full_attn_layers")
    kinds = c.items("layer_types", layers)
    if kinds is not None:
        chosen = [i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"]
    if chosen is None:
        chosen = [i + 1 for i in range(layers) if i and i % 4 == 0]
    style = Style()
    width_shared = shared_width(c)
    channel = after_dense(c, style, experts(c, shared=width_shared, router_bias=True))
    blocks = []
    for i in range(layers):
        if i + 1 in chosen:
            blocks.append(block(style, full, channel(i)))
        else:  # dt_bias: one weight per channel of the recurrence.
            blocks.append(block(style, delta, channel(i), extra_parameters=heads * width))
    return network(c, style, blocks)


def rwkv5(c: Config) -> Architecture:
    """RWKV-5 (Eagle): four vectors of token shift, a decay and a bonus per channel."""
    return _rwkv(c, "rwkv5", (), vectors=4 + 2)


def rwkv6(c: Config) -> Architecture:
    """RWKV-6 (Finch): decay and the five token shifts through low-rank projections (64 and 32, or twice)."""
    wide = 2 if c.integer("hidden_size") >= 4096 else 1
    return _rwkv(c, "rwkv6", (64 * wide, *([32 * wide] * 5)), vectors=6 + 2)


def rwkv7(c: Config) -> Architecture:
    """RWKV-7 (Goose): low-rank decay, in-context learning rate, value mix and gate; a plain channel mix four wide."""
    hidden = c.integer("hidden_size")
    # Ranks of the reference training code, rounded to 32, where the config does not give them.
    ranks = tuple(
        c.integer(key, max(32, round(factor * hidden**power / 32) * 32))
        for key, factor, power in (
            ("decay_low_rank_dim", 1.8, 0.5),
            ("a_low_rank_dim", 1.8, 0.5),
            ("v_low_rank_dim", 1.3, 0.5),
            ("gate_low_rank_dim", 0.6, 0.8),
        )
    )
    return _rwkv(c, "rwkv7", ranks, vectors=6 + 3 + 3)


def _rwkv(c: Config, flavour: Any, ranks: tuple[int, ...], vectors: int) -> Architecture:
    hidden, layers = c.integer("hidden_size"), c.integer("num_hidden_layers")
    width = c.integer("head_size", c.integer("head_dim", 64))
    heads = max(1, c.maybe("attention_hidden_size") or hidden) // width
    mixer = LinearAttention(flavour, heads, heads, width, width, lora_ranks=ranks)
    seventh = flavour == "rwkv7"
    default = 4 * hidden if seventh else int(hidden * 3.5) // 32 * 32
    mlp = FeedForward(c.integer("intermediate_size", default), gated=False, activation="relu2", receptance=not seventh)
    shift = hidden * (1 if seventh else 2)
    style = Style(norm_bias=True, rotary=False, embedding_norm=True)
    layer = block(style, mixer, mlp, repeat=layers, extra_parameters=vectors * hidden + shift)
    return network(c, style, [layer], max_context=None)


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "mamba": mamba,
    "falcon_mamba": mamba,
    "mamba2": mamba_two,
    "jamba": jamba,
    "bamba": bamba,
    "falcon_h1": falcon_h1,
    "granitemoehybrid": granite_hybrid,
    "nemotron_h": nemotron_h,
    "qwen3_next": delta_hybrid,
    "qwen3_5_text": delta_hybrid,
    "qwen3_5_moe_text": delta_hybrid,
    "minimax": minimax,
    "minimax_text_01": minimax,
    "minimax_m1": minimax,
    "kimi_linear": kimi_linear,
    "rwkv5": rwkv5,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
}
"""model_type -> reader. Granite's and Mamba's keys have several spellings; `SYNONYMS` holds them."""
