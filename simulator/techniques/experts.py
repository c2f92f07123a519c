"""Mixtures of experts: padded capacity, fewer and shared choices, tokens that stay on their device.

Where experts lie is `placement.experts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from simulator.graph.op import Graph, Op
from simulator.techniques.registry import Factor, Fraction, Share, primitive
from simulator.techniques.select import each


def _routed(op: Op) -> bool:
    return op.routing is not None and op.kind == "gemm"


@primitive("experts.capacity", keeps=("weight_bytes", "cache_bytes"))
def capacity(graph: Graph, *, factor: Factor) -> Graph:
    """Static gating: every expert computes a padded buffer, `factor` times its even share of the tokens, full or not."""

    def change(op: Op) -> list[Op]:
        tensors = tuple(t.scaled(factor) if t.role == "activation" else t for t in op.tensors)
        return [replace(op, rows=op.rows * factor, flops=op.flops * factor, tensors=tensors)]

    def wide(op: Op) -> bool:
        return _routed(op) or (op.kind == "collective" and op.axis == "ep") or op.name.endswith(("permute", "combine"))

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
