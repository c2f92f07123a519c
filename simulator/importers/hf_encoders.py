"""Encoders and encoder-decoders: BERT and its kin, T5, BART, Whisper, and vision transformers on their own.

Knows no counts; widths and defaults follow the families' HF config classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from simulator.graph.architecture import Architecture, Attention, Block, Channel, FeedForward, MixtureOfExperts
from simulator.importers.hf_parts import Style, attention, block, feed_forward, merge, network
from simulator.importers.hf_reader import Config

BERT = Style(
    qkv_bias=True, output_bias=True, mlp_bias=True, gated=False, activation="gelu", norm_bias=True, rotary=False,
    learned_positions=0, tied=True, embedding_norm=True, head_bias=True,
)  # fmt: skip


def bert(c: Config) -> Architecture:
    """Token types and positions in the embedding; a pooler, and the masked-language head unless it is a bare model."""
    hidden, layers = c.integer("hidden_size"), c.integer("num_hidden_layers")
    layer = block(BERT, attention(c, BERT, causal=False), feed_forward(c, BERT), repeat=layers)
    types = c.integer("type_vocab_size", 2, least=0) * hidden
    named = " ".join(str(name) for name in c.items("architectures") or [])
    masked = "MaskedLM" in named or "PreTraining" in named
    pooler = 0 if "MaskedLM" in named or c.family == "distilbert" else hidden * hidden + hidden
    pairs = 2 * hidden + 2 if "PreTraining" in named else 0
    return network(
        c,
        BERT,
        [layer],
        final_norm=False,
        final_norm_bias=True,
        head="mlm" if masked else "none",
        head_bias=masked,
        decode=False,
        extra_parameters=types + pooler + pairs,
    )


def distilbert(c: Config) -> Architecture:
    """BERT without token types and pooler."""
    return bert(
        Config({"type_vocab_size": 0, "intermediate_size": c.integer("hidden_dim"), **c.data}, c.family, "", c.problems)
    )


def albert(c: Config) -> Architecture:
    """One layer's weights used by all, and a narrow embedding."""
    width, made = c.integer("embedding_size", 128), bert(c)
    hidden = made.hidden
    # Positions, token types and their norm are as wide as the embedding, the projection to hidden has a bias.
    narrow = (made.position_embeddings + c.integer("type_vocab_size", 2)) * width + 2 * width + hidden
    pooler = 0 if made.head == "mlm" else hidden * hidden + hidden
    return replace(
        made,
        blocks=tuple(replace(part, shared_weights=True) for part in made.blocks),
        embedding_dim=width,
        embedding_norm=False,
        position_embeddings=0,
        extra_parameters=narrow + pooler,
    )


def electra(c: Config) -> Architecture:
    """BERT with an embedding that may be narrower, a discriminator's head in place of the pooler."""
    hidden, width = c.integer("hidden_size"), c.integer("embedding_size", 128)
    layer = block(BERT, attention(c, BERT, causal=False), feed_forward(c, BERT), repeat=c.integer("num_hidden_layers"))
    narrow = (c.integer("max_position_embeddings") + c.integer("type_vocab_size", 2, least=0) + 2) * width
    extra = narrow + (hidden if width != hidden else 0) + hidden * hidden + 2 * hidden + 1
    made = network(c, BERT, [layer], head="none", decode=False, final_norm=False, embedding_norm=False)
    return replace(
        made, head_bias=False, position_embeddings=0, extra_parameters=extra,
        embedding_dim=width if width != hidden else None,
    )  # fmt: skip


def deberta(c: Config) -> Architecture:
    """DeBERTa v2 and v3: twice position_buckets relative positions, normed, scored in every layer."""
    hidden, layers = c.integer("hidden_size"), c.integer("num_hidden_layers")
    style = replace(BERT, learned_positions=0 if c.flag("position_biased_input", True) else None)
    longest = c.maybe("max_relative_positions") or c.integer("max_position_embeddings")
    positions = 2 * (c.maybe("position_buckets") or longest) if c.flag("relative_attention", False) else 0
    part = attention(c, style, causal=False, relative_positions=positions)
    own = 0 if c.flag("share_att_key", False) or not positions else 2 * hidden * hidden + hidden
    kernel = c.integer("conv_kernel_size", 0, least=0)
    extra = positions * hidden + c.integer("type_vocab_size", 0, least=0) * hidden
    extra += 2 * hidden if "layer_norm" in c.text("norm_rel_ebd", "none") else 0
    extra += kernel * hidden * hidden + 3 * hidden if kernel else 0
    masked = "MaskedLM" in " ".join(str(name) for name in c.items("architectures") or [])
    layer = block(style, part, feed_forward(c, style), repeat=layers, extra_parameters=own)
    return network(
        c, style, [layer], final_norm=False, final_norm_bias=True, head="mlm" if masked else "none", head_bias=masked,
        decode=False, extra_parameters=extra,
    )  # fmt: skip


def longformer(c: Config) -> Architecture:
    """RoBERTa with a sliding window, and further projections for the few tokens that see all, which count as weights."""
    made = bert(c)
    widths = c.items("attention_window") if isinstance(c.data.get("attention_window"), list) else None
    width = int(widths[0]) if widths else c.integer("attention_window", 512)
    whole = made.hidden * made.hidden + made.hidden
    blocks = [
        replace(part, mixer=replace(part.mixer, window=width), extra_parameters=3 * whole)
        for part in made.blocks
        if isinstance(part.mixer, Attention)
    ]
    return replace(made, blocks=tuple(blocks))


def modernbert(c: Config) -> Architecture:
    """Gated MLP, no biases, rotary; local attention of 128 but in every third layer; the first layer lacks a norm."""
    style = replace(BERT, qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias", gated=True,
                    norm_bias=c.flag("norm_bias", False), rotary=True, learned_positions=None)  # fmt: skip
    layers = c.integer("num_hidden_layers")
    every, width = c.integer("global_attn_every_n_layers", 3), c.integer("local_attention", 128)
    full, mlp = attention(c, style, causal=False), feed_forward(c, style)
    given = c.items("layer_types", layers)
    kinds = given or ["full_attention" if i % every == 0 else "sliding_attention" for i in range(layers)]
    blocks = [block(style, full if kind == "full_attention" else replace(full, window=width), mlp) for kind in kinds]
    # The norm after the embedding stands for the one that the first layer lacks.
    return network(c, style, blocks, decode=False, head="mlm", embedding_norm=False, final_norm_bias=style.norm_bias)


def t5(c: Config, sparse: bool = False) -> Architecture:
    """T5 and Switch: relative positions instead of embeddings of them, no biases; tied unless told (HF default)."""
    style = Style(rotary=False, gated="gated" in c.text("feed_forward_proj", "relu"), tied=True, activation="relu")
    hidden, layers = c.integer("hidden_size"), c.integer("num_hidden_layers")
    below = c.integer("num_decoder_layers", layers)
    # d_kv is 64 in the config class. The table of relative positions is in the first layer of each side.
    own = attention(c, style, kv_heads=c.integer("num_attention_heads"), head_dim=c.integer("d_kv", 64))
    table = c.integer("relative_attention_num_buckets", 32) * own.heads
    mlp = feed_forward(c, style)
    up = _channels(c, mlp, layers, "encoder") if sparse else [mlp] * layers
    down = _channels(c, mlp, below, "decoder") if sparse else [mlp] * below
    encoder = Architecture(
        "encoder", c.family, 0, hidden, merge(block(style, replace(own, causal=False), part) for part in up), None,
        head="none", dtype=c.dtype(), extra_parameters=table, decode=False,
    )  # fmt: skip
    cross = replace(own, cross=True, causal=False)
    blocks = [block(style, own, part, cross=cross, norms=3) for part in down]
    # The embedding is shared by both sides; relative positions set no limit to the length.
    return network(c, style, blocks, encoder=encoder, max_context=None, extra_parameters=table)


def _channels(c: Config, dense: FeedForward, layers: int, side: str) -> list[Channel]:
    count = c.integer(f"num_sparse_{side}_layers", 3, least=0)
    step = c.integer(f"{side}_sparse_step", max(1, layers // count) if count else layers + 1)
    routed = MixtureOfExperts(
        c.integer("num_experts", 8), 1, dense.intermediate, gated=dense.gated, router_bias=c.flag("router_bias", False)
    )
    return [routed if step == 1 or i % step == 1 else dense for i in range(layers)]


def sides(c: Config, positions: int, source: int, fixed: bool) -> Architecture:
    """The encoder and decoder that BART and Whisper have in common."""
    hidden = c.integer("hidden_size")

    def layer(side: str, **changes: object) -> Block:
        heads, width = c.integer(f"{side}_attention_heads"), c.integer(f"{side}_ffn_dim")
        own = Attention(
            heads,
            heads,
            max(1, hidden // heads),
            qkv_bias=True,
            output_bias=True,
            rotary=False,
            causal=side == "decoder",
        )
        mlp = FeedForward(width, gated=False, bias=True, activation=c.text("activation_function", "gelu"))
        made = Block(own, mlp, repeat=c.integer(f"{side}_layers"), norm_bias=True)
        return replace(made, cross=replace(own, cross=True, causal=False), norms=3) if side == "decoder" else made

    encoder = Architecture(
        "encoder", c.family, 0, hidden, (layer("encoder"),), source, final_norm_bias=True, position_embeddings=source,
        head="none", dtype=c.dtype(), decode=False, fixed_tokens=source if fixed else None,
    )  # fmt: skip
    return Architecture(
        "", c.family, c.integer("vocab_size"), hidden, (layer("decoder"),), positions, tied=True, final_norm_bias=True,
        position_embeddings=positions, encoder=encoder, dtype=c.dtype(),
    )  # fmt: skip


def bart(c: Config) -> Architecture:
    """Positions two longer than the context, a norm after each embedding and none at the end."""
    longest, hidden = c.integer("max_position_embeddings"), c.integer("hidden_size")
    made = sides(c, longest + 2, longest + 2, fixed=False)
    encoder = made.encoder
    if encoder is not None:
        encoder = replace(encoder, final_norm=False, max_context=longest, extra_parameters=2 * hidden)
    return replace(made, encoder=encoder, final_norm=False, embedding_norm=True, max_context=longest)


def whisper(c: Config) -> Architecture:
    """Two convolutions over the spectrogram; 1500 source positions; keys without bias."""
    hidden, source = c.integer("hidden_size"), c.integer("max_source_positions", 1500)
    made = sides(c, c.integer("max_target_positions", 448), source, fixed=True)
    stem = 3 * c.integer("num_mel_bins", 80) * hidden + hidden + 3 * hidden * hidden + hidden
    encoder = replace(made.encoder, extra_parameters=stem) if made.encoder else None
    return replace(made, encoder=encoder)


def vit(c: Config) -> Architecture:
    """A vision transformer and its classifier: 1000 classes unless id2label or num_labels says otherwise."""
    hidden, layers, patch = c.integer("hidden_size"), c.integer("num_hidden_layers"), c.integer("patch_size", 16)
    style = replace(BERT, embedding_norm=False)
    tokens = (c.integer("image_size", 224) // patch) ** 2 + 1
    labels = c.data.get("id2label")
    classes = len(labels) if isinstance(labels, dict) and labels else c.integer("num_labels", 1000)
    layer = block(style, attention(c, style, causal=False), feed_forward(c, style), repeat=layers)
    stem = c.integer("num_channels", 3) * patch * patch * hidden + hidden + hidden
    return Architecture(
        "", c.family, 0, hidden, (layer,), tokens, position_embeddings=tokens, head="class", head_bias=True,
        classes=classes, final_norm_bias=True, extra_parameters=stem, dtype=c.dtype(), decode=False,
        fixed_tokens=tokens,
    )  # fmt: skip


def dinov2(c: Config) -> Architecture:
    """A ViT without a classifier: layer scales, a token for masked patches, in the giant size a gated MLP."""
    hidden, patch = c.integer("hidden_size"), c.integer("patch_size", 14)
    style = replace(BERT, embedding_norm=False, qkv_bias=c.flag("qkv_bias", True))
    wide = int(hidden * c.number("mlp_ratio", 4.0))
    mlp = FeedForward(wide, gated=False, bias=True, activation="gelu")
    if c.flag("use_swiglu_ffn", False):
        mlp = FeedForward((int(wide * 2 / 3) + 7) // 8 * 8, bias=True)
    layers = c.integer("num_hidden_layers")
    layer = block(style, attention(c, style, causal=False), mlp, repeat=layers, extra_parameters=2 * hidden)
    masked = c.flag("use_mask_token", True)
    return _image_encoder(c, layer, patch, own=1, positions=True, extra=hidden if masked else 0, head="none")


def deit(c: Config) -> Architecture:
    """A ViT with a second token and a second classifier, for distillation."""
    hidden, style = c.integer("hidden_size"), replace(BERT, embedding_norm=False)
    layer = block(style, attention(c, style, causal=False), feed_forward(c, style))
    layer = replace(layer, repeat=c.integer("num_hidden_layers"))
    made = _image_encoder(c, layer, c.integer("patch_size", 16), own=2, positions=True, extra=0, head="class")
    return replace(made, extra_parameters=made.extra_parameters + (hidden + 1) * made.classes)


def beit(c: Config) -> Architecture:
    """A ViT with relative positions in every layer, layer scales and keys without bias."""
    hidden, patch = c.integer("hidden_size"), c.integer("patch_size", 16)
    style = replace(BERT, embedding_norm=False)
    part, side = attention(c, style, causal=False), c.integer("image_size", 224) // patch
    table = ((2 * side - 1) ** 2 + 3) * part.heads if c.flag("use_relative_position_bias", False) else 0
    scales = 2 * hidden if c.number("layer_scale_init_value", 0.1) > 0 else 0
    layer = block(style, part, feed_forward(c, style), extra_parameters=table + scales - hidden)
    layer = replace(layer, repeat=c.integer("num_hidden_layers"))
    extra = hidden if c.flag("use_mask_token", False) else 0
    positions = c.flag("use_absolute_position_embeddings", False)
    return _image_encoder(c, layer, patch, own=1, positions=positions, extra=extra, head="class")


def _image_encoder(
    c: Config, layer: Block, patch: int, *, own: int, positions: bool, extra: int, head: Literal["class", "none"]
) -> Architecture:
    """A ViT of these layers with `own` tokens beside the patches."""
    hidden = c.integer("hidden_size")
    tokens = (c.integer("image_size", 224) // patch) ** 2 + own
    labels = c.data.get("id2label")
    classes = len(labels) if isinstance(labels, dict) and labels else c.integer("num_labels", 1000)
    stem = ((1.0, c.integer("num_channels", 3) * patch * patch, hidden),)
    return Architecture(
        "", c.family, 0, hidden, (layer,), tokens, position_embeddings=tokens if positions else 0, head=head,
        head_bias=head == "class", classes=classes, final_norm_bias=True, dtype=c.dtype(), decode=False, stem=stem,
        extra_parameters=hidden + own * hidden + extra, fixed_tokens=tokens,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "bert": bert,
    "roberta": bert,
    "xlm-roberta": bert,
    "camembert": bert,
    "distilbert": distilbert,
    "albert": albert,
    "electra": electra,
    "deberta-v2": deberta,
    "deberta_v2": deberta,
    "longformer": longformer,
    "modernbert": modernbert,
    "t5": t5,
    "mt5": t5,
    "switch_transformers": lambda c: t5(c, sparse=True),
    "bart": bart,
    "whisper": whisper,
    "vit": vit,
    "dinov2": dinov2,
    "deit": deit,
    "beit": beit,
}
