"""Recurrent mixers as ops: Mamba-1 and -2, DeltaNet and its gated form, lightning attention, RWKV, RG-LRU, LFM2.

A recurrence reads and writes a state of fixed size per sequence and costs the same for every token, however long the
past. Prefill runs the chunked form, whose FLOPs are of the same order; both are counted as the plain recurrence.
"""

from __future__ import annotations

from simulator.graph.architecture import (
    GatedRecurrence,
    LinearAttention,
    Recurrence,
    SelectiveScan,
    ShortConvolution,
)
from simulator.graph.counts import TOKENS, elementwise, linear, weight
from simulator.graph.op import Op, Tensor
from simulator.graph.step import Amount

STATE_DTYPE = "fp32"
"""Recurrent states are kept in fp32 by the reference implementations."""


def recurrent_ops(part: Recurrence, hidden: int, dtype: str, name: str = "") -> list[Op]:
    """The ops of one recurrent mixer, from the normed input to its output projection."""
    if isinstance(part, LinearAttention):
        return _linear_attention_ops(part, hidden, dtype, name)
    if isinstance(part, ShortConvolution):
        return _short_convolution_ops(part, hidden, dtype, name)
    if isinstance(part, GatedRecurrence):
        return _gated_recurrence_ops(part, hidden, dtype, name)
    if part.version == 1:
        return _mamba1_ops(part, hidden, dtype, name)
    return _mamba2_ops(part, hidden, dtype, name)


def _mamba1_ops(part: SelectiveScan, hidden: int, dtype: str, name: str) -> list[Op]:
    """Gu and Dao, arXiv 2312.00752: in (2 d), conv, x -> (dt, B, C), dt, scan of d x n states, out.

    Scan: 9 FLOPs per channel, state and token (discretise, decay, input, output).
    """
    inner, state = part.inner, part.state
    projected = part.dt_rank + 2 * state
    norms = projected if part.inner_norm else 0
    return [
        linear(
            f"{name}in_proj",
            TOKENS,
            2 * inner,
            hidden,
            dtype=dtype,
            split="column",
            bias=part.projection_bias,
            block="mixer",
        ),
        _convolution(f"{name}conv", inner, part.conv, part.conv_bias, dtype),
        linear(f"{name}x_proj", TOKENS, projected, inner, dtype=dtype, split="row", block="mixer"),
        linear(f"{name}dt_proj", TOKENS, inner, part.dt_rank, dtype=dtype, split="column", bias=True, block="mixer"),
        _scan(
            f"{name}scan",
            inner * state,
            9.0 * inner * state,
            reads=3 * inner + 2 * state,
            writes=inner,
            weights=inner * state + inner + norms,
            dtype=dtype,
        ),
        linear(
            f"{name}out_proj", TOKENS, hidden, inner, dtype=dtype, split="row", bias=part.projection_bias, block="mixer"
        ),
    ]


def _mamba2_ops(part: SelectiveScan, hidden: int, dtype: str, name: str) -> list[Op]:
    """Dao and Gu, arXiv 2405.21060: in (2 d + 2 g n + h), conv over d + 2 g n, scan, gated norm, out.

    Scan: 6 FLOPs per channel, state and token; weights A, D and dt bias per head.
    """
    inner, mixed = part.inner, part.inner + 2 * part.groups * part.state
    ops = [
        linear(
            f"{name}in_proj",
            TOKENS,
            inner + mixed + part.heads,
            hidden,
            dtype=dtype,
            split="column",
            bias=part.projection_bias,
            block="mixer",
        ),
        _convolution(f"{name}conv", mixed, part.conv, part.conv_bias, dtype),
        _scan(
            f"{name}scan",
            inner * part.state,
            6.0 * inner * part.state,
            reads=mixed + inner,
            writes=inner,
            weights=3 * part.heads,
            dtype=dtype,
        ),
    ]
    if part.inner_norm:
        ops.append(
            elementwise(
                f"{name}gated_norm",
                TOKENS,
                reads=2 * inner,
                writes=inner,
                flops=8.0 * inner,
                dtype=dtype,
                weights=inner,
                split=True,
                block="mixer",
                fused=True,
            )
        )
    ops.append(
        linear(
            f"{name}out_proj", TOKENS, hidden, inner, dtype=dtype, split="row", bias=part.projection_bias, block="mixer"
        )
    )
    return ops


def _short_convolution_ops(part: ShortConvolution, hidden: int, dtype: str, name: str) -> list[Op]:
    """in: d -> (b, c, x), each d wide; c * conv(b * x); out: d -> d. The two products are counted in the gate."""
    return [
        linear(
            f"{name}in_proj", TOKENS, 3 * hidden, hidden, dtype=dtype, split="column", bias=part.bias, block="mixer"
        ),
        elementwise(
            f"{name}gates",
            TOKENS,
            reads=4 * hidden,
            writes=2 * hidden,
            flops=2.0 * hidden,
            dtype=dtype,
            split=True,
            block="mixer",
            fused=True,
        ),
        _convolution(f"{name}conv", hidden, part.conv, part.bias, dtype),
        linear(f"{name}out_proj", TOKENS, hidden, hidden, dtype=dtype, split="row", bias=part.bias, block="mixer"),
    ]


def _gated_recurrence_ops(part: GatedRecurrence, hidden: int, dtype: str, name: str) -> list[Op]:
    """De et al., arXiv 2402.19427: in (2 w, biased), conv, two block-diagonal gates, scan of w states, gate, out.

    Scan: h = a h + sqrt(1 - a^2) (i x) with a = exp(-8 softplus(L) r): about 12 FLOPs per channel and token.
    """
    inner, blocks = part.inner, part.gate_blocks
    side = inner // blocks
    return [
        linear(f"{name}in_proj", TOKENS, 2 * inner, hidden, dtype=dtype, split="column", bias=True, block="mixer"),
        _convolution(f"{name}conv", inner, part.conv, True, dtype),
        linear(
            f"{name}gate_proj",
            TOKENS * (2.0 * blocks),
            side,
            side,
            dtype=dtype,
            split="heads",
            bias=True,
            groups=2 * blocks,
            block="mixer",
        ),
        _scan(f"{name}scan", inner, 12.0 * inner, reads=4 * inner, writes=inner, weights=inner, dtype=dtype),
        linear(f"{name}out_proj", TOKENS, hidden, inner, dtype=dtype, split="row", bias=True, block="mixer"),
    ]


def _linear_attention_ops(part: LinearAttention, hidden: int, dtype: str, name: str) -> list[Op]:
    """q, k (h_k d_k), v and an output gate (h_v d_v), optional convolution and low-rank gates, scan, norm, out.

    Scan: per value head a d_k x d_v state; decay, update and read are 2 FLOPs each per element, the delta rule 2 more.
    """
    keys, values = part.key_heads * part.key_dim, part.value_heads * part.value_dim
    projected, gates, per_element = _PROJECTED[part.flavour]
    ops = [
        linear(
            f"{name}qkvz_proj",
            TOKENS,
            projected[0] * keys + projected[1] * values,
            hidden,
            dtype=dtype,
            split="column",
            block="mixer",
        )
    ]
    if gates:
        ops.append(
            linear(
                f"{name}gate_proj", TOKENS, gates * part.value_heads, hidden, dtype=dtype, split="column", block="mixer"
            )
        )
    for position, rank in enumerate(part.lora_ranks):
        ops.append(linear(f"{name}lora_down.{position}", TOKENS, rank, hidden, dtype=dtype, block="mixer"))
        ops.append(
            linear(f"{name}lora_up.{position}", TOKENS, values, rank, dtype=dtype, split="column", block="mixer")
        )
    if part.conv:
        ops.append(_convolution(f"{name}conv", 2 * keys + values, part.conv, False, dtype))
    state = part.value_heads * part.key_dim * part.value_dim
    ops += [
        _scan(
            f"{name}scan",
            state,
            per_element * state,
            reads=2 * keys + 2 * values,
            writes=values,
            weights=gates * part.value_heads,
            dtype=dtype,
        ),
        elementwise(
            f"{name}gated_norm",
            TOKENS,
            reads=2 * values,
            writes=values,
            flops=8.0 * values,
            dtype=dtype,
            weights=_norm_weights(part, values),
            split=True,
            block="mixer",
            fused=True,
        ),
        linear(f"{name}out_proj", TOKENS, hidden, values, dtype=dtype, split="row", block="mixer"),
    ]
    return ops


# flavour: ((keys, values) projected from hidden, gates per value head, FLOPs per state element and token)
_PROJECTED: dict[str, tuple[tuple[int, int], int, float]] = {
    "gated_delta": ((2, 2), 2, 8.0),
    "kda": ((2, 1), 1, 9.0),
    "lightning": ((2, 2), 0, 6.0),
    "retention": ((2, 2), 0, 6.0),
    "mlstm": ((2, 2), 2, 6.0),
    "rwkv5": ((2, 2), 0, 6.0),
    "rwkv6": ((2, 2), 0, 7.0),
    "rwkv7": ((2, 1), 0, 9.0),
}


def _norm_weights(part: LinearAttention, values: int) -> int:
    if part.flavour.startswith("rwkv"):
        return 2 * values
    return part.value_dim if part.flavour in ("gated_delta", "kda") else values


def _convolution(name: str, channels: int, width: int, bias: bool, dtype: str) -> Op:
    """A causal depthwise convolution over the last `width` tokens; keeps width - 1 inputs per sequence."""
    op = elementwise(
        name,
        TOKENS,
        reads=channels,
        writes=channels,
        flops=2.0 * width * channels,
        dtype=dtype,
        split=True,
        weights=channels * (width + bias),
        block="mixer",
    )
    kept = Amount(sequences=float(channels * (width - 1)))
    state = Tensor("conv_state", "state", dtype, read=kept, write=kept, resident=kept, split=True)
    return Op(
        op.name,
        "elementwise",
        (*op.tensors, state),
        flops=op.flops,
        dtype=dtype,
        rows=TOKENS,
        n=channels,
        split="heads",
        block="mixer",
    )


def _scan(name: str, state: float, flops: float, *, reads: float, writes: float, weights: float, dtype: str) -> Op:
    kept = Amount(sequences=float(state))
    tensors = (
        Tensor("input", "activation", dtype, read=TOKENS * reads, split=True),
        Tensor("state", "state", STATE_DTYPE, read=kept, write=kept, resident=kept, split=True),
        Tensor("output", "activation", dtype, write=TOKENS * writes, split=True),
        weight(weights, dtype, split=True),
    )
    return Op(
        name,
        "scan",
        tensors,
        flops=TOKENS * flops,
        dtype="fp32",
        rows=TOKENS,
        n=int(writes),
        split="heads",
        block="mixer",
    )
