"""Which pass of a training step an op belongs to, which end of a pipeline, and what of it stays in memory.

Reads graphs that `graph.training` made; knows no hardware.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.backward import SCORES
from simulator.graph.op import Graph, Op, Role, Tensor
from simulator.graph.optimizer import Recompute
from simulator.graph.step import Amount, Slice


def cast(graph: Graph, dtype: str | None) -> Graph:
    """The graph with arithmetic, weights and activations of its own format in another."""
    if dtype is None or dtype == graph.dtype:
        return graph
    own = graph.dtype
    ops = [
        replace(
            op,
            dtype=dtype if op.dtype == own else op.dtype,
            tensors=tuple(replace(t, dtype=dtype) if t.dtype == own else t for t in op.tensors),
        )
        for op in graph.ops
    ]
    return replace(graph, ops=tuple(ops), dtype=dtype)


def end_of(op: Op) -> str:
    """The end of a pipeline that an op belongs to, with its update and its exchanges; empty for layers."""
    for end in ("embedding", "head"):
        own = op.block in ("optimizer", "communication") and op.name.startswith(end)
        if own or op.block == end or op.name.startswith(f"{end}."):
            return end
    return ""


def pass_of(op: Op) -> str:
    """What of the step an op belongs to: a pass, an exchange beside one, the update, or sends between stages."""
    if op.axis == "pp":
        return "send"
    if op.axis == "cp":
        return "ring"
    if op.axis == "dp":
        last = op.name.rpartition(".")[2]
        when = {"forward": "gather", "backward": "regather", "update": "assemble"}
        return "gradients" if ".gradient." in op.name else when.get(last, "gradients")
    if op.block == "optimizer":
        return "update"
    backward = (".backward", ".backward_sums", ".dgrad", ".wgrad", ".recompute")
    return "backward" if op.name.endswith(backward) else "forward"


def kept_bytes(op: Op, part: Slice, recompute: Recompute) -> tuple[dict[Role, float], float]:
    """Bytes by role that stay until their use, and bytes that only one recomputed block keeps, while it is at work."""
    inside = op.block != "optimizer" and not end_of(op)
    held: list[Tensor] = []
    passing: list[Tensor] = []
    for tensor in op.tensors:
        dropped = tensor.name in SCORES if recompute == "selective" else recompute == "full" and inside
        working = dropped and tensor.role == "activation" and tensor.name != "checkpoint"
        (passing if working else held).append(tensor)
    sizes = (part.sequences, part.query_tokens, part.source_tokens)
    kept = replace(op, tensors=tuple(held)).resident_bytes(*sizes)
    return kept, replace(op, tensors=tuple(passing)).resident_bytes(*sizes).get("activation", 0.0)


def operand_bytes(op: Op, part: Slice, ring: bool = False) -> float:
    """Bytes of activations that an op reads and writes, and that are not kept anyway.

    `ring`: keys and values go around, so that a rank holds its own and those that pass it, never all.
    """
    seen = op.seen((part,))
    if ring and op.kind == "attention":
        seen = seen._replace(context=min(seen.context, 2.0 * seen.tokens))
    loose = (t for t in op.tensors if t.role == "activation" and not any(t.resident))
    return sum((t.read + t.write).at(seen) * t.bytes_per_element for t in loose)


def ring_ops(graph: Graph, ranks: int, tp: int, micro_batches: int) -> list[Op]:
    """Keys and values of all ranks on their way around: forward, and with their gradients backward."""
    found = []
    for op in graph.ops:
        if op.kind == "attention" and op.phase != "decode":
            width = op.kv_heads * (op.head_dim + op.value_dim) / tp
            message = Tensor("message", "activation", graph.dtype, read=Amount(tokens=width * ranks))
            found.append(
                Op(
                    f"{op.name}.ring", "collective", (message,), repeat=3.0 * op.repeat * micro_batches, dtype=graph.dtype,
                    rows=Amount(tokens=1.0), n=max(1, round(width)), groups=ranks, collective="all_gather", axis="cp",
                )
            )  # fmt: skip
    return found


def is_tied(graph: Graph) -> bool:
    """Whether the head multiplies by the table of the embedding, so that the last stage of a pipeline has a copy."""
    heads = [op for op in graph.ops if op.block == "head" and op.kind == "gemm" and pass_of(op) == "forward"]
    return any(t.role == "weight" and any(t.read) and not any(t.resident) for op in heads for t in op.tensors)
