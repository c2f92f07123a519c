"""Decoders with routed experts, with latent attention, or with both.

Each function says which layers are routed and how; the rest comes from the common reading. Knows no counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.graph.architecture import (
    Architecture,
    Attention,
    Block,
    Channel,
    LatentAttention,
    MixtureOfExperts,
)
from simulator.importers.hf_dense import GEMMA, LLAMA, QWEN3
from simulator.importers.hf_parts import (
    Style,
    attention,
    block,
    decoder,
    feed_forward,
    layer_kinds,
    network,
    windowed,
)
from simulator.importers.hf_reader import Config

QWEN3_MOE = replace(QWEN3, head_dim=None)


def experts(c: Config, *, width: str = "moe_intermediate_size", shared: int = 0, **changes: bool) -> MixtureOfExperts:
    """Routed experts of the width under the key `width`, with `shared` wide shared ones."""
    made = MixtureOfExperts(
        c.integer("n_routed_experts"),
        c.integer("num_experts_per_tok"),
        c.integer(width),
        shared_intermediate=shared,
    )
    if made.top_k > made.experts:
        c.problem(f"num_experts_per_tok {made.top_k} is more than the {made.experts} experts")
    return replace(made, **changes)


def shared_width(c: Config) -> int:
    """Summed width of n_shared_experts shared experts, each as wide as a routed one."""
    return c.integer("n_shared_experts", 0, least=0) * c.integer("moe_intermediate_size")


def after_dense(c: Config, style: Style, routed: MixtureOfExperts) -> Callable[[int], Channel]:
    """Dense MLPs in the first `first_k_dense_replace` layers (HF default 0), then routed in every moe_layer_freq-th."""
    given = c.items("mlp_layer_types", c.integer("num_hidden_layers"))
    first = c.integer("first_k_dense_replace", 0, least=0)
    frequency = c.integer("moe_layer_freq", 1)
    dense = feed_forward(c, style) if first or frequency > 1 or given else None

    def channel(index: int) -> Channel:
        is_routed = given[index] != "dense" if given else index >= first and index % frequency == 0
        return routed if is_routed or dense is None else dense

    return channel


def uniform(style: Style, width: str = "intermediate_size", **changes: bool) -> Callable[[Config], Architecture]:
    """A family whose every layer has the same routed experts and no shared ones."""
    return lambda c: decoder(c, style, lambda index: experts(c, width=width, **changes))


def latent(c: Config, *, sparse: bool = False) -> LatentAttention:
    """Multi-head latent attention. The indexer's defaults are those of DeepSeek-V3.2's and GLM-5's config classes."""
    heads = c.integer("num_attention_heads")
    return LatentAttention(
        heads,
        c.maybe("q_lora_rank"),
        c.integer("kv_lora_rank"),
        c.integer("qk_nope_head_dim"),
        c.integer("qk_rope_head_dim"),
        c.integer("v_head_dim", max(1, c.integer("hidden_size") // heads) if c.family == "minicpm3" else None),
        index_heads=c.integer("index_n_heads", 32 if c.family == "glm_moe_dsa" else 64) if sparse else 0,
        index_dim=c.integer("index_head_dim", 128) if sparse else 0,
        index_top_k=c.integer("index_topk", 2048) if sparse else None,
    )


def latent_decoder(c: Config, *, sparse: bool = False) -> Architecture:
    """DeepSeek-V2 and its successors: latent attention, a few dense layers, then routed and shared experts."""
    if not c.flag("use_mla", True):
        return deepseek(c)
    style, layers, part = Style(), c.integer("num_hidden_layers"), latent(c, sparse=sparse)
    if c.has("n_routed_experts"):
        # Selection by bias (noaux_tc) is what came after V2.
        biased = c.family != "deepseek_v2" and c.text("topk_method", "noaux_tc") == "noaux_tc"
        channel = after_dense(c, style, experts(c, shared=shared_width(c), router_bias=biased))
    else:
        dense = feed_forward(c, style)

        def channel(index: int) -> Channel:
            return dense

    return network(c, style, [block(style, part, channel(i)) for i in range(layers)])


def deepseek(c: Config) -> Architecture:
    """The first DeepSeekMoE: plain attention."""
    return decoder(c, Style(), after_dense(c, Style(), experts(c, shared=shared_width(c))))


def qwen_moe(c: Config, style: Style = QWEN3_MOE, shared: bool = False) -> Architecture:
    """Routed every decoder_sparse_step layers (HF default 1) but in mlp_only_layers (HF default none)."""
    step, only = c.integer("decoder_sparse_step", 1), c.items("mlp_only_layers") or []
    width = c.integer("shared_expert_intermediate_size", 0, least=0) if shared else 0
    routed = experts(c, shared=width, shared_gate=width > 0)
    dense = feed_forward(c, style) if only or step > 1 else None

    def channel(index: int) -> Channel:
        return dense if dense and (index in only or (index + 1) % step) else routed

    return decoder(c, style, channel)


def glm4_moe(c: Config) -> Architecture:
    """Routed and shared experts after the first dense layers; biases on q, k and v if attention_bias."""
    style = Style(qkv_bias="attention_bias", qk_norm="head" if c.flag("use_qk_norm", False) else "none")
    return decoder(c, style, after_dense(c, style, experts(c, shared=shared_width(c), router_bias=True)))


def gpt_oss(c: Config) -> Architecture:
    """Sinks, alternating windows of 128, biases everywhere."""
    style = Style(qkv_bias=True, output_bias=True, windows="even", window=128, sinks=True, kv_heads=8, head_dim=64)
    return decoder(c, style, lambda index: experts(c, width="intermediate_size", bias=True, router_bias=True))


def llama4(c: Config) -> Architecture:
    """Chunked attention but in every fourth layer; experts in every interleave_moe_layer_step-th, with a shared one."""
    layers = c.integer("num_hidden_layers")
    routed = experts(c, width="intermediate_size", shared=c.integer("intermediate_size"))
    step, given = c.integer("interleave_moe_layer_step", 1), c.items("moe_layers")
    chosen = given if given is not None else list(range(step - 1, layers, step))
    style = replace(LLAMA, kv_heads=8, head_dim=128)
    dense = feed_forward(c, style, c.integer("intermediate_size_mlp")) if len(chosen) < layers else None
    part = attention(c, style)
    kinds = layer_kinds(c, style, layers)
    if not c.has("layer_types"):
        turns = c.items("no_rope_layers", layers) or [int((i + 1) % 4 != 0) for i in range(layers)]
        kinds = ["chunked_attention" if turn else "full_attention" for turn in turns]
    blocks = []
    for i, kind in enumerate(kinds):
        mixer = replace(windowed(c, style, part, kind), rotary=kind == "chunked_attention")
        blocks.append(block(style, mixer, routed if i in chosen or dense is None else dense))
    return network(c, style, blocks)


def dbrx(c: Config) -> Architecture:
    """LayerNorm without bias; experts described under ffn_config, heads under attn_config."""
    inner, heads = c.child("ffn_config"), c.child("attn_config")
    routed = MixtureOfExperts(
        inner.integer("moe_num_experts"), inner.integer("moe_top_k"), inner.integer("ffn_hidden_size")
    )
    return decoder(c, Style(), lambda index: routed, {"kv_heads": heads.integer("kv_n_heads")})


def phimoe(c: Config) -> Architecture:
    """Mixtral's layout with LayerNorms that have biases, and a head that may."""
    style = Style(
        qkv_bias="attention_bias", output_bias="attention_bias", norm_bias=True, head_bias="lm_head_bias", kv_heads=8,
        windows="all",
    )  # fmt: skip
    return decoder(c, style, lambda index: experts(c, width="intermediate_size"))


def minimax_m2(c: Config) -> Architecture:
    """Queries and keys normed over their full width; a bias for the choice of experts."""
    style = Style(qk_norm="full" if c.flag("use_qk_norm", True) else "none", kv_heads=8, head_dim=128)
    return decoder(c, style, lambda index: experts(c, width="intermediate_size", router_bias=True))


def arctic(c: Config) -> Architecture:
    """A dense MLP as wide as the model beside the routed experts, with a norm of its own."""
    style = replace(LLAMA, norms=3)
    residual = c.integer("hidden_size") if c.flag("parallel_attn_mlp_res", False) else 0
    routed = replace(experts(c, width="intermediate_size"), dense_intermediate=residual)
    frequency, dense = c.integer("moe_layer_frequency", 2), feed_forward(c, style)
    return decoder(c, style, lambda index: routed if (index + 1) % frequency == 0 else dense)


def granite_moe(c: Config) -> Architecture:
    """Experts in every layer; shared_intermediate_size where there is a shared one."""
    width = c.integer("shared_intermediate_size", 0, least=0)
    return decoder(c, LLAMA, lambda index: experts(c, width="intermediate_size", shared=width))


def hunyuan(c: Config) -> Architecture:
    """Experts and queries as in Mixtral with a norm per head; some keys may be lists, one entry per layer."""
    flat = {key: value[0] if isinstance(value, list) and value else value for key, value in c.data.items()}
    one = Config(flat, c.family, c.path, c.problems)
    width = "moe_intermediate_size" if one.has("moe_intermediate_size") else "intermediate_size"
    shared = one.integer("n_shared_experts", 1, least=0) * one.integer(width)
    style = replace(LLAMA, qk_norm="head" if one.flag("use_qk_norm", True) else "none")
    return decoder(one, style, lambda index: experts(one, width=width, shared=shared))


def ernie_moe(c: Config) -> Architecture:
    """Experts from layer moe_layer_start_index on (HF default 1), two shared ones."""
    style = Style(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", tied=True)
    first, dense = c.integer("moe_layer_start_index", 1, least=0), feed_forward(c, style)
    shared = c.integer("n_shared_experts", 2, least=0) * c.integer("moe_intermediate_size")
    routed = experts(c, shared=shared, router_bias=True)
    return decoder(c, style, lambda index: routed if index >= first else dense)


def gemma_small(c: Config) -> Architecture:
    """Gemma 3n and 4: embeddings per layer, layers that reuse the KV cache of earlier ones, a wider head where global.

    3n adds to each layer a low-rank branch (laurel) and the mixing of altup_num_inputs residual streams.
    """
    fourth = c.family.startswith("gemma4")
    style = replace(
        GEMMA, norms=4, qk_norm="head", windows="pattern", period=6 if fourth else 5, window=512, kv_heads=2
    )
    layers, hidden = c.integer("num_hidden_layers"), c.integer("hidden_size")
    shared = c.integer("num_kv_shared_layers", 0 if fourth else 15, least=0)
    narrow = c.integer("hidden_size_per_layer_input", 256, least=0)
    streams = 1 if fourth else c.integer("altup_num_inputs", 4)
    blocks: list[Block] = []
    for i, kind in enumerate(layer_kinds(c, style, layers)):
        own = i < layers - shared
        part = _gemma_attention(c, style, kind, fourth)
        mlp = _gemma_channel(c, style, i, own)
        extra = narrow * hidden * 2 + hidden if narrow else 0
        if fourth:
            extra += 1
        else:
            rank = c.integer("laurel_rank", 64)
            extra += 2 * hidden * rank + hidden + streams * streams + streams**3 + hidden * streams + 2 * hidden
        extra -= 0 if own else part.head_dim
        if isinstance(mlp, MixtureOfExperts):
            extra += 3 * hidden + hidden + mlp.experts
        blocks.append(block(style, replace(part, shares_kv=not own), mlp, extra_parameters=extra))
    table = c.integer("vocab_size_per_layer_input", 262144) * layers * narrow
    projection = hidden * layers * narrow + narrow if narrow else 0
    return network(
        c, style, blocks, extra_parameters=table + projection + 2 * (streams - 1) * hidden * hidden
    )  # fmt: skip


def _gemma_attention(c: Config, style: Style, kind: str, fourth: bool) -> Attention:
    part = windowed(c, style, attention(c, style), kind)
    if fourth and kind == "full_attention":
        kv_heads = c.maybe("num_global_key_value_heads") or part.kv_heads
        part = replace(part, head_dim=c.integer("global_head_dim", 512), kv_heads=kv_heads)
    return part


def _gemma_channel(c: Config, style: Style, index: int, own: bool) -> Channel:
    widths = c.items("intermediate_size") if isinstance(c.data.get("intermediate_size"), list) else None
    width = int(widths[index]) if widths else c.integer("intermediate_size")
    if c.flag("use_double_wide_mlp", False) and not own:
        width *= 2
    if not c.flag("enable_moe_block", False):
        return feed_forward(c, style, width)
    return replace(experts(c), dense_intermediate=width)


def longcat(c: Config) -> Architecture:
    """Each layer is two of latent attention and dense MLP; the first also feeds routed experts, joined after the second.

    256 of the router's 768 choices return their input. The widths of both MLPs are `ffn_hidden_size`.
    """
    style, layers, part = Style(), c.integer("num_layers"), latent(c)
    dense = feed_forward(c, style, c.integer("ffn_hidden_size"))
    routed = replace(
        experts(c, width="expert_ffn_hidden_size", router_bias=True),
        dense_intermediate=dense.intermediate,
        zero_experts=c.integer("zero_expert_num", 256, least=0),
    )
    return network(c, style, [block(style, part, channel, repeat=layers) for channel in (routed, dense)])


def bailing(c: Config) -> Architecture:
    """Ling and Ring: after the first dense layers routed and shared experts; the second generation norms queries and keys.

    Prediction layers for the next token (num_nextn_predict_layers) are not run and not counted.
    """
    style = Style(
        qkv_bias="use_qkv_bias", output_bias="use_bias", mlp_bias="use_bias", kv_heads=c.maybe("num_key_value_heads"),
        qk_norm="head" if c.flag("use_qk_norm", c.family.endswith("v2")) else "none",
    )  # fmt: skip
    biased = c.flag("moe_router_enable_expert_bias", c.family.endswith("v2"))
    width = c.integer("moe_shared_expert_intermediate_size", c.integer("moe_intermediate_size"))
    shared = c.integer("n_shared_experts", 0, least=0) * width
    return decoder(c, style, after_dense(c, style, experts(c, shared=shared, router_bias=biased)))


def step3(c: Config) -> Architecture:
    """Queries through a narrow vector, one wide KV head for all; routed and shared experts in moe_layers_enum."""
    style = Style(kv_heads=c.integer("num_attention_groups", 1), head_dim=256)
    layers, listed = c.integer("num_hidden_layers"), c.find("moe_layers_enum")[1]
    if isinstance(listed, str):
        listed = listed.split(",")
    chosen = set(range(1, layers)) if listed is None else {int(index) for index in listed}
    routed, dense = experts(c, shared=c.integer("share_expert_dim")), feed_forward(c, style)
    changes = {"query_rank": c.integer("share_q_dim")}
    return decoder(c, style, lambda index: routed if index in chosen else dense, changes)


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "mixtral": uniform(Style(kv_heads=8, windows="all")),
    "grok-1": uniform(Style(norms=4, tied=True)),
    "grok1": uniform(Style(norms=4, tied=True)),
    "flex_olmo": uniform(replace(LLAMA, qk_norm="full")),
    "olmoe": uniform(replace(LLAMA, qk_norm="full")),
    "granitemoe": granite_moe,
    "granitemoeshared": granite_moe,
    "qwen2_moe": lambda c: qwen_moe(
        c, replace(QWEN3, qk_norm="none", qkv_bias=True, output_bias=False, head_dim=None), True
    ),
    "qwen3_moe": qwen_moe,
    "deepseek": deepseek,
    "deepseek_v2": latent_decoder,
    "deepseek_v3": latent_decoder,
    "deepseek_v32": lambda c: latent_decoder(c, sparse=True),
    "kimi_k2": latent_decoder,
    "glm4_moe_lite": latent_decoder,
    "glm_moe_dsa": lambda c: latent_decoder(c, sparse=True),
    "minicpm3": latent_decoder,
    "glm4_moe": glm4_moe,
    "dots1": lambda c: decoder(
        c, replace(LLAMA, qk_norm="head"), after_dense(c, LLAMA, experts(c, shared=shared_width(c), router_bias=True))
    ),
    "longcat_flash": longcat,
    "bailing_moe": bailing,
    "bailing_moe_v2": bailing,
    "glm4v_moe_text": lambda c: glm4_moe(Config({"attention_bias": True, **c.data}, c.family, c.path, c.problems)),
    "step3_text": step3,
    "gpt_oss": gpt_oss,
    "llama4_text": llama4,
    "dbrx": dbrx,
    "phimoe": phimoe,
    "minimax_m2": minimax_m2,
    "arctic": arctic,
    "hunyuan_v1_moe": hunyuan,
    "hunyuan": hunyuan,
    "ernie4_5_moe": ernie_moe,
    "gemma3n_text": gemma_small,
    "gemma4_text": gemma_small,
}
