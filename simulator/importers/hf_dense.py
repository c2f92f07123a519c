"""Decoders with one dense MLP per layer: most of what is called a language model.

A table from model_type to the family's `Style`, and a function where a table is not enough. Knows no counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator.graph.architecture import Architecture, Attention, Block, FeedForward
from simulator.importers.hf_parts import Style, attention, block, decoder, feed_forward, network
from simulator.importers.hf_reader import Config

LLAMA = Style(qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias")
MISTRAL = Style(kv_heads=8, window=4096, windows="all")
QWEN2 = Style(qkv_bias=True, kv_heads=32, windows="upper", window=4096)
QWEN3 = replace(QWEN2, qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head", head_dim=128)
GEMMA = Style(tied=True, activation="gelu_pytorch_tanh", kv_heads=16, head_dim=256)
GPT = Style(
    qkv_bias=True, output_bias=True, mlp_bias=True, gated=False, activation="gelu_new", norm_bias=True, rotary=False,
    learned_positions=0, tied=True, mlp_ratio=4,
)  # fmt: skip

STYLES: dict[str, Style] = {
    "llama": LLAMA,
    "aquila": LLAMA,
    "aquila3": LLAMA,
    "baichuan": Style(),
    "yi": LLAMA,
    "code_llama": LLAMA,
    "granite": LLAMA,
    "minicpm": LLAMA,
    "smollm3": replace(LLAMA, tied=True),
    "seed_oss": Style(qkv_bias="attention_bias", output_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "internlm": Style(qkv_bias="bias", output_bias="bias"),
    "internlm2": Style(qkv_bias="bias", output_bias="bias"),
    "internlm3": Style(qkv_bias="qkv_bias", output_bias="bias", mlp_bias="bias"),
    "exaone": Style(),
    "exaone4": Style(qk_norm="head", windows="pattern", period=4, window=4096),
    "ernie4_5": Style(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", tied=True),
    "hunyuan_v1_dense": replace(LLAMA, qk_norm="head"),
    "apertus": Style(gated=False, activation="xielu", qk_norm="head", kv_heads=8),
    "arcee": replace(LLAMA, gated=False, activation="relu2"),
    "mistral": MISTRAL,
    "ministral": MISTRAL,
    "ministral3": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "gemma2": replace(GEMMA, norms=4, kv_heads=4, windows="even", window=4096),
    "gemma3_text": replace(GEMMA, norms=4, kv_heads=4, windows="pattern", period=6, window=4096, qk_norm="head"),
    "phi": Style(
        qkv_bias=True, output_bias=True, mlp_bias=True, gated=False, activation="gelu_new", norms=1, norm_bias=True,
        parallel=True, head_bias=True,
    ),
    "phi3": Style(windows="all"),
    "phi3small": Style(
        qkv_bias=True, output_bias=True, mlp_bias=True, norm_bias=True, tied=True, activation="gegelu", kv_heads=8
    ),
    "gpt2": GPT,
    "biogpt": replace(GPT, learned_positions=2),
    "gptj": Style(
        gated=False, mlp_bias=True, norm_bias=True, norms=1, parallel=True, head_bias=True, mlp_ratio=4,
        activation="gelu_new",
    ),
    "codegen": Style(
        gated=False, mlp_bias=True, norm_bias=True, norms=1, parallel=True, head_bias=True, mlp_ratio=4,
        activation="gelu_new",
    ),
    "starcoder2": Style(
        gated=False, qkv_bias=True, output_bias=True, mlp_bias=True, norm_bias=True, tied=True, windows="all",
        kv_heads=2, activation="gelu_pytorch_tanh",
    ),
    "bloom": replace(GPT, learned_positions=None, embedding_norm=True, activation="gelu"),
    "nemotron": Style(
        qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias", gated=False, norm_bias=True,
        activation="relu2",
    ),
    "olmo": Style(qkv_bias="attention_bias", output_bias="attention_bias", norm_weight=False),
    "olmo2": replace(LLAMA, qk_norm="full"),
    "olmo3": replace(LLAMA, qk_norm="full", windows="pattern", period=4, window=4096),
    "cohere2": Style(
        qkv_bias="attention_bias", output_bias="attention_bias", norms=1, parallel=True, tied=True, windows="pattern",
        period=4, window=4096,
    ),
    "glm": Style(qkv_bias=True, kv_heads=2, head_dim=128),
    "glm4": Style(qkv_bias="attention_bias", norms=4, kv_heads=2, head_dim=128),
    "glm4v_text": Style(qkv_bias=True, norms=4, kv_heads=2),
    "orion": Style(norm_bias=True),
    "helium": LLAMA,
}  # fmt: skip
"""model_type -> how it differs from llama. Defaults of absent keys are those of the family's HF config class."""


def gpt_neox(c: Config) -> Architecture:
    """Parallel residual with two norms unless use_parallel_residual is false."""
    bias = c.flag("attention_bias", True)
    style = replace(GPT, learned_positions=None, rotary=True, tied=False, qkv_bias=bias, output_bias=bias)
    return decoder(c, replace(style, mlp_ratio=None, parallel=c.flag("use_parallel_residual", True)))


def gpt_neo(c: Config) -> Architecture:
    """Alternating full and local attention; projections of q, k and v without bias."""
    style = replace(GPT, qkv_bias=False)
    layers = c.integer("num_hidden_layers")
    kinds = c.items("attention_layers")
    if kinds is None:
        # HF's default of attention_types is [[["global", "local"], 12]].
        groups: list[Any] = c.items("attention_types") or [[["global", "local"], 12]]
        kinds = [kind for group in groups for kind in list(group[0]) * int(group[1])]
    if len(kinds) != layers:
        c.problem(f"attention_types describes {len(kinds)} layers, not {layers}")
    full, mlp = attention(c, style), feed_forward(c, style)
    local = replace(full, window=c.integer("window_size", 256))
    return network(c, style, [block(style, local if kind == "local" else full, mlp) for kind in kinds])


def gpt_bigcode(c: Config) -> Architecture:
    """GPT-2 with one KV head unless multi_query is false."""
    heads = 1 if c.flag("multi_query", True) else c.integer("num_attention_heads")
    return decoder(c, GPT, changes={"kv_heads": heads})


def opt(c: Config) -> Architecture:
    """Learned positions two longer than the context; the 350m size norms after its layers and narrows its embedding."""
    bias = c.flag("enable_bias", True)
    style = replace(GPT, qkv_bias=bias, output_bias=bias, mlp_bias=bias, learned_positions=2, mlp_ratio=None)
    width = c.integer("word_embed_proj_dim", c.integer("hidden_size"))
    final = c.flag("do_layer_norm_before", True) and not c.flag("_remove_final_layer_norm", False)
    return decoder(c, style, final_norm=final, embedding_dim=width if width != c.integer("hidden_size") else None)


def falcon(c: Config) -> Architecture:
    """Three generations: RW (alibi, sequential), 7B (multi-query, one norm), 40B and up (grouped, two norms)."""
    heads, new = c.integer("num_attention_heads"), c.flag("new_decoder_architecture", False)
    parallel = new or c.flag("parallel_attn", True)
    norms = c.integer("num_ln_in_parallel_attn", 2) if new else 1
    kv_heads = c.integer("num_key_value_heads", heads) if new else (1 if c.flag("multi_query", True) else heads)
    style = replace(
        GPT,
        learned_positions=None,
        rotary=not c.flag("alibi", False),
        qkv_bias="bias",
        output_bias="bias",
        mlp_bias="bias",
        parallel=parallel,
        norms=norms if parallel else 2,
        activation="gelu",
    )
    # max_position_embeddings is 2048 in the config class.
    return decoder(c, style, changes={"kv_heads": kv_heads}, max_context=c.integer("max_position_embeddings", 2048))


def mpt(c: Config) -> Architecture:
    """Alibi; no biases by default, not even in its LayerNorms."""
    bias = not c.flag("no_bias", True)
    style = replace(
        GPT, learned_positions=None, qkv_bias=bias, output_bias=bias, mlp_bias=bias, norm_bias=bias, mlp_ratio=None
    )
    inner = c.child("attn_config", {})
    heads = inner.integer("kv_n_heads", 1 if inner.text("attn_type", "") == "multiquery_attention" else 0, least=0)
    mlp = feed_forward(c, style, c.integer("expansion_ratio", 4) * c.integer("hidden_size"))
    part = attention(c, style, kv_heads=heads or c.integer("num_attention_heads"))
    return network(c, style, [block(style, part, mlp, repeat=c.integer("num_hidden_layers"))])


def stablelm(c: Config) -> Architecture:
    """LayerNorm with bias; parallel residual has one norm."""
    parallel = c.flag("use_parallel_residual", False)
    norm = "full" if c.flag("qk_layernorm", False) else "none"
    style = Style(qkv_bias="use_qkv_bias", norm_bias=True, parallel=parallel, norms=1 if parallel else 2)
    return decoder(c, style, changes={"qk_norm": norm})


def starcoder2(c: Config) -> Architecture:
    """Biases everywhere unless use_bias is false."""
    bias = c.flag("use_bias", True)
    return decoder(c, replace(STYLES["starcoder2"], qkv_bias=bias, output_bias=bias, mlp_bias=bias))


def cohere(c: Config) -> Architecture:
    """One LayerNorm without bias feeds attention and MLP; the large size norms queries and keys per head."""
    style = replace(STYLES["cohere2"], windows="none")
    return decoder(c, style, changes={"qk_norm": "full" if c.flag("use_qk_norm", False) else "none"})


def chatglm(c: Config) -> Architecture:
    """ChatGLM2 and later; ChatGLM2's defaults: add_qkv_bias and multi_query_attention are false."""
    groups = c.integer("multi_query_group_num", 1) if c.flag("multi_query_attention", False) else None
    style = Style(
        qkv_bias=c.flag("add_qkv_bias", False) or c.flag("add_bias_linear", False),
        output_bias="add_bias_linear",
        mlp_bias="add_bias_linear",
        norm_bias=not c.flag("rmsnorm", True),
    )
    return decoder(c, style, changes={"kv_heads": groups})


def qwen(c: Config) -> Architecture:
    """The first Qwen: its intermediate_size counts both halves of the gated MLP."""
    style = Style(qkv_bias=True)
    mlp = feed_forward(c, style, max(1, c.integer("intermediate_size") // 2))
    return decoder(c, style, lambda index: mlp)


def telechat(c: Config) -> Architecture:
    """Biases only on the two output projections; an optional norm after the embedding."""
    style = Style(output_bias=True)
    mlp, hidden = feed_forward(c, style), c.integer("hidden_size")
    layer = block(style, attention(c, style), mlp, repeat=c.integer("num_hidden_layers"), extra_parameters=hidden)
    return network(c, style, [layer], embedding_norm=c.flag("embed_layernorm", False))


def mimo(c: Config) -> Architecture:
    """Qwen2's layers; the checkpoint also holds layers that predict further tokens, which plain decoding never runs.

    Such a layer has three more norms than a usual one and a matrix that joins two vectors into one.
    """
    made = decoder(c, replace(QWEN2, qkv_bias=c.flag("attention_bias", True)))
    hidden, part, mlp = made.hidden, attention(c, Style()), feed_forward(c, Style())
    queries, keys = part.heads * part.head_dim, 2 * part.kv_heads * part.head_dim
    bias = queries + keys if c.flag("attention_bias", True) else 0
    layer = hidden * (2 * queries + keys + 3 * mlp.intermediate) + bias + 5 * hidden + 2 * hidden * hidden
    return replace(made, extra_parameters=c.integer("num_nextn_predict_layers", 0, least=0) * layer)


def persimmon(c: Config) -> Architecture:
    """LayerNorm and biases everywhere, a squared ReLU; queries and keys normed per head, with biases too."""
    normed = c.flag("qk_layernorm", True)
    style = replace(GPT, learned_positions=None, rotary=True, tied=False, mlp_ratio=None, activation="relu2")
    part = attention(c, style, qk_norm="head" if normed else "none")
    extra = 2 * part.head_dim if normed else 0
    layer = block(style, part, feed_forward(c, style), repeat=c.integer("num_hidden_layers"), extra_parameters=extra)
    return network(c, style, [layer])


def deci(c: Config) -> Architecture:
    """KV heads per layer, or a description of each layer (`block_configs`) with absent or narrower parts."""
    style, layers = LLAMA, c.integer("num_hidden_layers")
    described = c.items("block_configs", layers)
    if described is None:
        counts = c.items("num_key_value_heads_per_layer", layers)
        if counts is None:
            return decoder(c, style)
        mlp = feed_forward(c, style)
        return network(c, style, [block(style, attention(c, style, kv_heads=int(n)), mlp) for n in counts])
    return network(c, style, [_described_layer(c, style, entry) for entry in described])


def _described_layer(c: Config, style: Style, entry: dict[str, Any]) -> Block:
    heads, hidden = c.integer("num_attention_heads"), c.integer("hidden_size")
    how, what = entry.get("attention") or {}, entry.get("ffn") or {}
    part: Attention | None = None
    if how.get("n_heads_in_group"):
        part = attention(c, style, kv_heads=heads // int(how["n_heads_in_group"]))
    mlp: FeedForward | None = None
    if what.get("ffn_mult") or what.get("intermediate_size"):
        # Llama's rule: two thirds of twice the width, rounded up to a multiple of 256.
        width = what.get("intermediate_size") or -(-int(2 * what["ffn_mult"] * hidden / 3) // 256) * 256
        mlp = feed_forward(c, style, int(width))
    extra = hidden * hidden if how.get("replace_with_linear") else 0
    return block(style, part, mlp, norms=(part is not None) + (mlp is not None), extra_parameters=extra)


def _styled(style: Style) -> Callable[[Config], Architecture]:
    return lambda c: decoder(c, style)


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    **{family: _styled(style) for family, style in STYLES.items()},
    "gpt_neox": gpt_neox,
    "gpt_neo": gpt_neo,
    "gpt_bigcode": gpt_bigcode,
    "opt": opt,
    "falcon": falcon,
    "refinedweb": falcon,
    "refinedwebmodel": falcon,
    "mpt": mpt,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "cohere": cohere,
    "chatglm": chatglm,
    "qwen": qwen,
    "mimo": mimo,
    "persimmon": persimmon,
    "telechat": telechat,
    "telechat2": telechat,
    "deci": deci,
    "nemotron-nas": deci,
}
