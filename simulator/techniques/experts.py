"""Mixtures of experts: padded capacity, fewer and shared choices, tokens that stay on their device.

Where experts lie is `placement.experts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from simulator.graph.op import Graph, Op, Tensor
from simulator.graph.step import Amount
from simulator.techniques.registry import Count0, Factor, Fraction, Share, primitive
from simulator.techniques.select import each


def _routed(op: Op) -> bool:
    return op.routing is not None and op.kind == "gemm"


@primitive("experts.capacity", keeps=("weight_bytes", "cache_bytes"))
def capacity(graph: Graph, *, factor: Factor, masked: Count0 = 0) -> Graph:
    """Static gating: every expert computes a padded buffer, `factor` times its even share of the tokens, full or not.

    `masked` tokens of a device are sorted into the buffers, and back, by products with one-hot masks of every token and
    place (GShard, arXiv 2006.16668, algorithm 1), which are written and read in 16 bits, and their weights in 32.
    """

    def change(op: Op) -> list[Op]:
        tensors = tuple(t.scaled(factor) if t.role == "activation" else t for t in op.tensors)
        wider = replace(op, rows=op.rows * factor, flops=op.flops * factor, tensors=tensors)
        if not (masked and op.name.endswith(("permute", "combine"))):
            return [wider]
        return [wider, _masked(op, graph, factor, masked)]

    def wide(op: Op) -> bool:
        return (
            _routed(op)
            or (op.kind == "collective" and op.axis == "ep")
            or op.name.endswith(("permute", "combine", "experts_activation"))
        )

    _check(graph)
    return each(graph, wide, change, "routed experts")


@primitive("experts.local", keeps=("flops", "weight_bytes", "cache_bytes"))
def local(graph: Graph, *, share: Fraction) -> Graph:
    """A share of the tokens is on the device of its experts already: it takes no part in the exchange."""
    _check(graph)

    def change(op: Op) -> list[Op]:
        return [replace(op, tensors=tuple(t.scaled(1.0 - share) for t in op.tensors))]

    return each(graph, lambda op: op.kind == "collective" and op.axis == "ep", change, "exchange among experts")


@primitive("experts.distinct", keeps=("flops", "weight_bytes", "cache_bytes"), lowers=("weight_traffic",))
def distinct(graph: Graph, *, share: Share) -> Graph:
    """A step touches a share of the experts that independent tokens would: tokens are grouped by their choices."""

    def change(op: Op) -> list[Op]:
        tensors = tuple(replace(t, read=t.read * share) if t.role == "weight" else t for t in op.tensors)
        return [replace(op, tensors=tensors)]

    return each(graph, _routed, change, "routed experts")


@primitive("experts.choose", keeps=("weight_bytes", "cache_bytes"), lowers=("flops",))
def choose(graph: Graph, *, share: Share) -> Graph:
    """Each token goes to a share of its usual number of experts."""

    def change(op: Op) -> Iterable[Op]:
        assert op.routing is not None
        routing = replace(op.routing, top_k=op.routing.top_k * share)
        tensors = tuple(t.scaled(share) if t.role == "activation" else t for t in op.tensors)
        return [replace(op, routing=routing, rows=op.rows * share, flops=op.flops * share, tensors=tensors)]

    return each(graph, _routed, change, "routed experts")


def _check(graph: Graph) -> None:
    each(graph, _routed, lambda op: [op], "routed experts")


def _masked(op: Op, graph: Graph, factor: float, tokens: int) -> Op:
    """The product that sorts tokens into buffers (permute), or their results back (combine)."""
    choices = max(other.routing.top_k for other in graph.ops if other.routing is not None)
    places = max(1, round(factor * choices * tokens))
    kept = 2.0 if op.name.endswith("permute") else 4.0
    mask = Tensor("mask", "activation", "int8", read=Amount(tokens=kept * places), write=Amount(tokens=kept * places))
    moved = Tensor("output", "activation", graph.dtype, write=Amount(tokens=float(graph.hidden)))
    return Op(
        f"{op.name}.mask", "gemm", (mask, moved), flops=Amount(tokens=2.0 * places * graph.hidden), repeat=op.repeat,
        dtype=graph.dtype, rows=Amount(tokens=1.0), n=graph.hidden, k=places, block=op.block,
    )  # fmt: skip
