"""What stands before and behind the blocks of a network: embeddings, final norm, head. Counts only."""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.architecture import Architecture
from simulator.graph.counts import SAMPLED, TOKENS, all_reduce, elementwise, linear, norm, weight
from simulator.graph.op import Op, Tensor
from simulator.graph.step import Amount


def embedding_ops(architecture: Architecture) -> list[Op]:
    """The look-up of tokens (and what depends on their positions), up to the residual stream."""
    if architecture.vocab == 0:
        return _extra_only(architecture)
    width = architecture.embedding_dim or architecture.hidden
    table = float(architecture.vocab) * width + float(architecture.position_embeddings) * architecture.hidden
    dtype = architecture.dtype
    resident = Amount(const=table + architecture.extra_parameters)
    tensors = (
        Tensor("ids", "index", "int32", read=TOKENS),
        Tensor("table", "weight", dtype, read=TOKENS * width, resident=resident, split=True),
        Tensor("output", "activation", dtype, write=TOKENS * width),
    )
    ops = [Op("embedding", "gather", tensors, rows=TOKENS, n=width, dtype=dtype, split="column", block="embedding")]
    ops.append(all_reduce("embedding.all_reduce", width, dtype=dtype, block="embedding"))
    if width != architecture.hidden:
        ops.append(linear("embedding.project", TOKENS, architecture.hidden, width, dtype=dtype, block="embedding"))
    if architecture.embedding_norm:
        ops.append(
            norm(
                "embedding.norm",
                architecture.hidden,
                dtype=dtype,
                weights=architecture.hidden * (1 + architecture.final_norm_bias),
            )
        )
    return ops


def _extra_only(architecture: Architecture) -> list[Op]:
    stem = [
        linear(f"stem.{position}", TOKENS * rows, outputs, inputs, dtype=architecture.dtype, block="embedding")
        for position, (rows, inputs, outputs) in enumerate(architecture.stem)
    ]
    extra = architecture.extra_parameters + architecture.position_embeddings * architecture.hidden
    if not extra:
        return stem
    return [
        *stem,
        elementwise(
            "positions",
            TOKENS,
            reads=architecture.hidden,
            writes=architecture.hidden,
            flops=architecture.hidden,
            dtype=architecture.dtype,
            weights=extra,
            block="embedding",
            fused=True,
        ),
    ]


def head_ops(architecture: Architecture) -> list[Op]:
    """The final norm and the projection to the vocabulary or to classes."""
    hidden, dtype = architecture.hidden, architecture.dtype
    ops: list[Op] = []
    if architecture.final_norm:
        ops.append(
            norm("final_norm", hidden, dtype=dtype, weights=hidden * (1 + architecture.final_norm_bias), block="head")
        )
    if architecture.head == "none":
        return ops
    outputs = architecture.classes if architecture.head == "class" else architecture.vocab
    width = architecture.embedding_dim or hidden
    rows = TOKENS if architecture.head == "mlm" else SAMPLED
    if architecture.head == "mlm":
        ops.append(linear("head.transform", rows, width, hidden, dtype=dtype, bias=True, block="head"))
        ops.append(norm("head.norm", width, dtype=dtype, weights=2 * width, block="head"))
    elif width != hidden:
        ops.append(linear("head.project", rows, width, hidden, dtype=dtype, block="head"))
    head = linear(
        "lm_head", rows, outputs, width, dtype=dtype, split="column", block="head", resident=not architecture.tied
    )
    if architecture.head_bias:
        head = replace(head, tensors=(*head.tensors, weight(outputs, dtype, split=True, name="bias")))
    gather = Tensor("logits", "activation", dtype, read=rows * outputs)
    ops += [
        head,
        Op(
            "head.all_gather",
            "collective",
            (gather,),
            rows=rows,
            n=outputs,
            dtype=dtype,
            block="head",
            collective="all_gather",
            axis="tp",
        ),
    ]
    return ops
