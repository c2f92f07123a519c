"""A network's shape in the field's standard terms: what an importer produces and a builder counts.

One `Block` is a mixer (attention of some kind, or a recurrence) and a feed-forward part; blocks that are alike are one
`Block` with a repeat. Holds no counts and no hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head attention: MHA (kv_heads = heads), GQA, MQA (kv_heads = 1)."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """Sliding window, in tokens, the query itself included."""
    chunk: int | None = None
    """Attends only within aligned chunks of so many tokens."""
    causal: bool = True
    cross: bool = False
    """Keys and values come from the encoder's output."""
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"
    """head: one weight per head_dim; full: one per projected width."""
    rotary: bool = True
    output_gate: bool = False
    """A sigmoid gate as wide as the query projection (Qwen3-Next)."""
    sinks: bool = False
    """One learned logit per head (gpt-oss)."""
    value_dim: int | None = None
    """Width of a value head where it differs from head_dim."""
    shares_kv: bool = False
    """Reads the cache of an earlier layer: no key and value projections, no cache of its own (Gemma 3n)."""
    input_dim: int | None = None
    """Width of what queries, keys and values are projected from, where it differs from hidden (Zamba's joined input)."""
    query_rank: int | None = None
    """Queries pass through so narrow a normed vector (multi-matrix factorisation attention, Step-3)."""
    relative_positions: int = 0
    """Relative positions whose embeddings are scored against queries and against keys (DeBERTa); 0 without them."""


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): a cache of kv_lora_rank + rope_dim per token for all heads."""

    heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    index_heads: int = 0
    """Heads of the lightning indexer (DeepSeek sparse attention); 0 without it."""
    index_dim: int = 0
    index_top_k: int | None = None
    """Cached positions each query attends to, chosen by the indexer."""


@dataclass(frozen=True, slots=True)
class SelectiveScan:
    """Mamba: `version` 1 has a scan per channel and a low-rank time step; 2 has heads and groups."""

    version: Literal[1, 2]
    inner: int
    state: int
    conv: int
    dt_rank: int = 0
    heads: int = 0
    groups: int = 1
    conv_bias: bool = True
    projection_bias: bool = False
    inner_norm: bool = False
    """Gated RMS norm before the output projection (Mamba-2), or norms on dt, B, C (Jamba, Falcon-Mamba)."""


@dataclass(frozen=True, slots=True)
class LinearAttention:
    """A recurrence with a matrix state per head: DeltaNet, gated DeltaNet, lightning attention, RWKV time mixing."""

    flavour: Literal["gated_delta", "lightning", "rwkv5", "rwkv6", "rwkv7", "retention", "kda", "mlstm"]
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int = 0
    lora_ranks: tuple[int, ...] = ()
    """Ranks of the low-rank gates (RWKV-6/7, KDA), in the order of the paper."""


@dataclass(frozen=True, slots=True)
class ShortConvolution:
    """A gated depthwise convolution over the last `conv` tokens (LFM2): in (3 d), gate, convolve, gate, out."""

    conv: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class GatedRecurrence:
    """A recurrence with one number of state per channel (Griffin's RG-LRU): two branches, a convolution, two gates."""

    inner: int
    conv: int
    gate_blocks: int
    """The gates' matrices are block-diagonal: so many blocks of inner / gate_blocks squared."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Dense MLP: gated (three matrices) or plain (two)."""

    intermediate: int
    gated: bool = True
    bias: bool = False
    activation: str = "silu"
    receptance: bool = False
    """RWKV channel mixing: a further hidden x hidden gate."""


@dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """Routed experts with optional shared ones."""

    experts: int
    top_k: int
    intermediate: int
    """Of one routed expert."""
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    shared_intermediate: int = 0
    """Summed width of the experts that every token uses; 0 without them."""
    shared_gate: bool = False
    """A hidden -> 1 gate on the shared expert (Qwen2-MoE)."""
    dense_intermediate: int = 0
    """A dense MLP beside the routed ones (Arctic)."""
    zero_experts: int = 0
    """Further choices of the router that return their input: `top_k` counts them, and so on average only
    top_k experts / (experts + zero_experts) experts of a token compute (LongCat-Flash)."""


Recurrence = SelectiveScan | LinearAttention | ShortConvolution | GatedRecurrence
Mixer = Attention | LatentAttention | Recurrence
Channel = FeedForward | MixtureOfExperts


@dataclass(frozen=True, slots=True)
class Block:
    """`repeat` identical layers. Either part may be absent (Mamba has no feed-forward, some hybrids split them)."""

    mixer: Mixer | None
    channel: Channel | None
    repeat: int = 1
    cross: Attention | None = None
    """Cross-attention between the mixer and the feed-forward (decoders of encoder-decoder models)."""
    parallel_mixer: Mixer | None = None
    """A second mixer that reads the same input (Falcon-H1, Hymba)."""
    norms: int = 2
    """Norms over the hidden width: 1 for parallel residual, 2 as usual, 4 with post-norms (Gemma 2)."""
    norm_bias: bool = False
    """LayerNorm with bias, instead of RMSNorm (weight only)."""
    norm_weight: bool = True
    """False: norms without any weights (OLMo)."""
    parallel: bool = False
    """Attention and MLP read the same input and are summed together (GPT-J, Falcon, Command R): one all-reduce."""
    shared_weights: bool = False
    """All repeats use the weights of one (ALBERT, Zamba's shared block)."""
    extra_parameters: int = 0
    """Further weights per layer too small to have an op of their own (layer scales, per-layer projections)."""
    adapters: tuple[tuple[int, int], ...] = ()
    """(in, out) of further matrices on every token. Each layer has its own, also where `shared_weights` (Zamba2's
    low-rank adapters and the projection behind its shared block)."""


@dataclass(frozen=True, slots=True)
class VisionTower:
    """What turns an image into tokens of the language model: a ViT and a projector."""

    hidden: int
    blocks: tuple[Block, ...]
    patch: int
    channels: int
    patches: int
    """Patches (with class token) of one image at its usual size."""
    tokens: int
    """Tokens an image takes in the language model's context."""
    projector: tuple[tuple[int, int], ...]
    """(in, out) of each linear layer of the projector."""
    projector_bias: bool = True
    position_embeddings: int = 0
    """Learned positions."""
    patch_bias: bool = False
    extra_parameters: int = 0
    """Class token, pre- and post-norms and the like."""
    temporal_patch: int = 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole network of blocks between an embedding and a head."""

    name: str
    family: str
    """The HF model_type, or the builder's name."""
    vocab: int
    hidden: int
    blocks: tuple[Block, ...]
    max_context: int | None
    """Longest sequence it was made for, in tokens; None for recurrent networks without a limit."""
    tied: bool = False
    """The head uses the embedding's weights."""
    final_norm: bool = True
    final_norm_bias: bool = False
    embedding_norm: bool = False
    position_embeddings: int = 0
    """Learned positions (GPT-2, OPT, BERT)."""
    embedding_dim: int | None = None
    """Width of the token embedding where it differs from hidden (OPT-350m, ALBERT)."""
    head: Literal["lm", "none", "mlm", "class"] = "lm"
    head_bias: bool = False
    classes: int = 0
    encoder: Architecture | None = None
    """Runs once over the prompt; the blocks' cross-attention reads its output."""
    vision: VisionTower | None = None
    dtype: str = "bf16"
    """Number format of the published weights."""
    extra_parameters: int = 0
    """Weights outside the blocks that no op above accounts for."""
    stem: tuple[tuple[float, int, int], ...] = ()
    """(rows per token, in, out) of the layers that make tokens from samples, as matrices: in = channels times kernel."""
    fixed_tokens: int | None = None
    """Tokens of every sample where the input size is fixed (patches of a ViT, frames of a Whisper encoder)."""
    decode: bool = True
    """Generates token by token; False for encoders and vision networks."""

    @property
    def layers(self) -> int:
        """Number of layers that pipeline parallelism can divide."""
        return sum(block.repeat for block in self.blocks)
