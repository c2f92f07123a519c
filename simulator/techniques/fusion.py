"""Fewer and larger kernels: ops removed, fused into their neighbours, or streamed on chip from one to the next.

FLOPs of what stays are conserved; traffic of activations and launches shrink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.graph.op import Graph, Op, Tensor
from simulator.graph.step import ZERO
from simulator.techniques.registry import Count, Factor, Share, primitive
from simulator.techniques.select import each, fewer_rows, in_blocks, named, with_tensors


@primitive("fusion.remove", keeps=("cache_bytes",), lowers=("flops", "weight_bytes"))
def remove(graph: Graph, *, names: Sequence[str]) -> Graph:
    """Ops that match a pattern vanish: folded into the weights of their neighbours (norms, scales, embeddings)."""
    return each(graph, lambda op: named(op, names) and op.kind != "attention", lambda op: [], f"ops named {names}")


@primitive("fusion.fuse", keeps=("flops", "weight_bytes", "cache_bytes"))
def fuse(graph: Graph, *, names: Sequence[str]) -> Graph:
    """Small ops that match a pattern become part of a neighbour's kernel: no launch, no activations of their own."""

    def change(op: Op) -> list[Op]:
        return [replace(op, fused=True)]

    return each(graph, lambda op: op.kind == "elementwise" and named(op, names), change, f"small ops named {names}")


@primitive("fusion.split", keeps=("flops", "weight_bytes", "cache_bytes"))
def split(graph: Graph, *, names: Sequence[str], kernels: Count = 1, dtype: str | None = None) -> Graph:
    """Small ops that match a pattern are kernels of their own: `kernels` in a row, each of which reads and writes.

    As frameworks run a formula that is written out operator by operator. `dtype`: what stands between them in memory.

    >>> from simulator.graph.step import Slice
    >>> from simulator.scenario import load_model
    >>> step, plain = (Slice.prefill(1, 1024),), load_model("gpt2").graph
    >>> chain = split(plain, names=["activation"], kernels=8)
    >>> moved = [sum(op.bytes_at(step) for op in graph.ops if op.name.endswith("activation")) for graph in (plain, chain)]
    >>> moved[1] / moved[0]
    8.0
    """

    def change(op: Op) -> list[Op]:
        share = 1.0 / kernels

        def one(tensor: Tensor) -> Tensor:
            if tensor.role != "activation":
                return tensor.scaled(share)
            return replace(tensor, dtype=dtype or tensor.dtype)

        apart = with_tensors(op, one)
        return [replace(apart, fused=False, flops=op.flops * share, repeat=op.repeat * kernels)]

    return each(graph, lambda op: op.kind == "elementwise" and named(op, names), change, f"small ops named {names}")


@primitive("fusion.stream", keeps=("flops", "weight_bytes", "cache_bytes"))
def stream(graph: Graph, *, on_chip: Share = 1.0) -> Graph:
    """Activations pass from op to op on chip: a share of them never reaches memory (streaming dataflow)."""

    def change(op: Op) -> list[Op]:
        left = 1.0 - on_chip
        return [
            with_tensors(
                op,
                lambda t: (
                    replace(t, read=t.read * left if left else ZERO._replace(), write=t.write * left if left else ZERO)
                    if t.role == "activation"
                    else t
                ),
            )
        ]

    return each(graph, lambda op: op.kind != "collective", change, "ops")


@primitive("fusion.patches", keeps=("weight_bytes", "cache_bytes"))
def patches(graph: Graph, *, count: Count, blocks: Sequence[str], halo: Factor = 1.1) -> Graph:
    """The first stages of a convolutional network run one spatial patch at a time, so that only a patch is alive.

    Neighbouring patches overlap: `halo` times the work, and the weights are read for every patch (MCUNetV2, arXiv
    2110.15352).

    >>> from simulator.scenario import load_model
    >>> whole = load_model("mobilenet-v2").graph
    >>> parts = patches(whole, count=4, blocks=["stem"], halo=1.0)
    >>> parts.resident_bytes(1, 1) == whole.resident_bytes(1, 1)
    True
    """

    def change(op: Op) -> list[Op]:
        share = halo / count
        small = fewer_rows(op, share)
        tensors = tuple(
            replace(t, resident=t.resident * (1.0 / count)) if t.role == "weight" else t for t in small.tensors
        )
        return [replace(small, tensors=tensors, repeat=op.repeat * count)]

    return each(graph, lambda op: op.block in blocks, change, f"blocks named {', '.join(blocks)}")


@primitive("fusion.kernel", keeps=("flops", "weight_bytes", "cache_bytes"))
def kernel(graph: Graph, *, efficiency: Share, blocks: Sequence[str] = ("attention", "ffn", "mixer", "head")) -> Graph:
    """Linear layers run at a share of the calibrated speed: a runtime without tuned kernels."""

    def change(op: Op) -> list[Op]:
        return [replace(op, efficiency=op.efficiency * efficiency)]

    return each(graph, lambda op: op.kind == "gemm" and in_blocks(op, blocks), change, f"linear layers in {blocks}")
