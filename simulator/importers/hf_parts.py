"""What HF decoder configs have in common, read once: attention, windows, feed-forward, the network around the blocks.

A `Style` says in which of these ways a family differs from a llama-like decoder. Knows no family by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from simulator.graph.architecture import Architecture, Attention, Block, Channel, FeedForward, Mixer
from simulator.importers.hf_reader import Config

Flag = bool | str
"""True, False, or the name of a key that says so and is false by default."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a family of decoders is made. The defaults are those of llama."""

    qkv_bias: Flag = False
    output_bias: Flag = False
    mlp_bias: Flag = False
    gated: bool = True
    activation: str = "silu"
    qk_norm: Literal["none", "head", "full"] = "none"
    norms: int = 2
    norm_bias: bool = False
    norm_weight: bool = True
    parallel: bool = False
    rotary: bool = True
    learned_positions: int | None = None
    """Learned positions: so many beyond max_position_embeddings. None: no such table."""
    tied: bool = False
    """What the family's config class says of tie_word_embeddings when the config does not."""
    embedding_norm: bool = False
    head_bias: Flag = False
    mlp_ratio: int | None = None
    """The config class's default of intermediate_size, as a multiple of hidden_size; None: it must be given."""
    kv_heads: int | None = None
    """The config class's default of num_key_value_heads; None: num_attention_heads."""
    head_dim: int | None = None
    """The config class's default of head_dim; None: hidden_size / num_attention_heads."""
    window: int | None = None
    """The config class's default of sliding_window."""
    windows: Literal["none", "all", "even", "pattern", "upper"] = "none"
    """Layers with the window: all; those of even index; all but every `period`th; those from max_window_layers up."""
    period: int = 1
    sinks: bool = False


def switched(c: Config, flag: Flag) -> bool:
    """The value of a `Flag`."""
    return flag if isinstance(flag, bool) else c.flag(flag, False)


def attention(c: Config, style: Style, **changes: Any) -> Attention:
    """Heads and head widths; `changes` replaces fields of the result."""
    hidden, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    kv_heads = changes.pop("kv_heads", None) or c.integer("num_key_value_heads", style.kv_heads or heads)
    head_dim = changes.pop("head_dim", None) or c.maybe("head_dim") or style.head_dim
    if head_dim is None:
        if hidden % heads:
            c.problem(
                f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
            )
        head_dim = max(1, hidden // heads)
    if heads % kv_heads:
        c.problem(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    part = Attention(
        heads,
        kv_heads,
        head_dim,
        qkv_bias=switched(c, style.qkv_bias),
        output_bias=switched(c, style.output_bias),
        qk_norm=style.qk_norm,
        rotary=style.rotary,
        sinks=style.sinks,
    )
    return replace(part, **changes)


def feed_forward(c: Config, style: Style, intermediate: int | None = None) -> FeedForward:
    """The dense MLP."""
    default = c.integer("hidden_size") * style.mlp_ratio if style.mlp_ratio else None
    return FeedForward(
        intermediate or c.integer("intermediate_size", default),
        gated=style.gated,
        bias=switched(c, style.mlp_bias),
        activation=c.text("hidden_act", style.activation),
    )


def layer_kinds(c: Config, style: Style, layers: int) -> list[str]:
    """Kind of each layer: `layer_types` where given, otherwise the family's rule."""
    given = c.items("layer_types", layers)
    if given is not None:
        return [str(kind) for kind in given]
    if style.windows == "even":
        return ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
    if style.windows == "pattern":
        period = c.integer("sliding_window_pattern", style.period)
        return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(layers)]
    if style.windows == "upper":
        # Off unless use_sliding_window; max_window_layers lower layers stay full (28 in the config class).
        first = c.integer("max_window_layers", 28, least=0) if c.flag("use_sliding_window", False) else layers
        return ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
    return ["sliding_attention" if style.windows == "all" else "full_attention"] * layers


def window(c: Config, style: Style) -> int | None:
    """Width of the sliding window; null, or one that never binds, is none."""
    width = None if c.data.get("sliding_window", 0) is None else c.integer("sliding_window", style.window or 0, least=0)
    longest = c.maybe("max_position_embeddings")
    return width if width and (longest is None or width < longest) else None


def windowed(c: Config, style: Style, part: Attention, kind: str) -> Attention:
    """The attention of one layer of that kind."""
    if kind == "sliding_attention":
        return replace(part, window=window(c, style))
    if kind == "chunked_attention":
        return replace(part, chunk=c.integer("attention_chunk_size", 8192))
    if kind != "full_attention":
        c.problem(f"layer_types has the unknown kind '{kind}'")
    return part


def block(style: Style, mixer: Mixer | None, channel: Channel | None, **changes: Any) -> Block:
    """One layer in the family's style."""
    made = Block(
        mixer,
        channel,
        norms=style.norms,
        norm_bias=style.norm_bias,
        norm_weight=style.norm_weight,
        parallel=style.parallel,
    )
    return replace(made, **changes)


def merge(layers: Iterable[Block]) -> tuple[Block, ...]:
    """Alike layers as one block with a repeat, in the order in which each kind first appears."""
    found: dict[Block, int] = {}
    for layer in layers:
        found[layer] = found.get(layer, 0) + layer.repeat
    return tuple(replace(layer, repeat=count) for layer, count in found.items())


def network(c: Config, style: Style, layers: Iterable[Block], **changes: Any) -> Architecture:
    """The network of these layers; `changes` replaces fields of the result."""
    hidden = c.integer("hidden_size")
    positions = 0
    if style.learned_positions is not None:
        positions = c.integer("max_position_embeddings") + style.learned_positions
    made = Architecture(
        name="",
        family=c.family,
        vocab=c.integer("vocab_size"),
        hidden=hidden,
        blocks=merge(layers),
        max_context=c.maybe("max_position_embeddings"),
        tied=c.flag("tie_word_embeddings", style.tied),
        final_norm_bias=style.norm_bias,
        embedding_norm=style.embedding_norm,
        position_embeddings=positions,
        head_bias=switched(c, style.head_bias),
        dtype=c.dtype(),
    )
    if not style.norm_weight:  # The builder gives every final norm its weights.
        made = replace(made, final_norm=False)
    return replace(made, **changes)


def decoder(
    c: Config,
    style: Style,
    channel: Callable[[int], Channel] | None = None,
    changes: dict[str, Any] | None = None,
    **network_changes: Any,
) -> Architecture:
    """A decoder whose layers are attention and `channel(layer index)`, by default the dense MLP."""
    layers = c.integer("num_hidden_layers")
    part = attention(c, style, **(changes or {}))
    dense = feed_forward(c, style) if channel is None else None
    blocks = []
    for index, kind in enumerate(layer_kinds(c, style, layers)):
        mlp = channel(index) if channel else dense
        blocks.append(block(style, windowed(c, style, part, kind), mlp))
    return network(c, style, blocks, **network_changes)
