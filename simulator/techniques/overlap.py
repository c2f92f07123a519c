"""Communication: how much of it hides behind computation, and how many bytes it sends.

Work is conserved; what changes is whether devices wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from simulator.errors import ScenarioError
from simulator.graph.op import BITS, Graph, Op, Tensor
from simulator.graph.step import ZERO
from simulator.techniques.recipe import Schedule
from simulator.techniques.registry import Bits, Count, Fraction, Share, primitive
from simulator.techniques.select import each, with_tensors

_LEAST_ROWS = 16
"""Rows per rank below which an op is not worth dividing: embeddings of the time step and of the text."""


@primitive("overlap.collectives", once="how collectives overlap")
def collectives(
    schedule: Schedule, *, hidden: Fraction = 1.0, beside: Literal["tiles", "blocks", "halves"] | None = None
) -> Schedule:
    """A share of the collectives proceeds beside computation; no step is shorter than either alone.

    `beside`: what it proceeds beside, for the timeline: the last `tiles` of the op whose result it moves, the next of the
    `blocks`, or the other of two `halves` of the tokens. How much is hidden follows there, and `hidden` is not used.
    """
    return replace(schedule, hidden_link=hidden, link_beside=beside)


@primitive("overlap.compress", keeps=("flops", "weight_bytes", "cache_bytes"))
def compress(graph: Graph, *, bits: Bits, axes: Sequence[str] = ("tp", "ep", "pp", "dp")) -> Graph:
    """Messages of collectives in fewer bits."""

    def change(op: Op) -> list[Op]:
        return [with_tensors(op, lambda t: replace(t, overhead_bits=bits - BITS[t.dtype]))]

    return each(graph, lambda op: op.kind == "collective" and op.axis in axes, change, f"collectives over {axes}")


@primitive("overlap.fewer", keeps=("flops", "weight_bytes", "cache_bytes"))
def fewer(
    graph: Graph, *, share: Share, axes: Sequence[str] = ("tp", "ep", "pp", "dp"), messages: bool = False
) -> Graph:
    """A share of the bytes of collectives is sent; with `messages`, that share of the collectives is executed."""

    def change(op: Op) -> list[Op]:
        if messages:
            return [replace(op, repeat=op.repeat * share)]
        return [with_tensors(op, lambda t: t.scaled(share))]

    return each(graph, lambda op: op.kind == "collective" and op.axis in axes, change, f"collectives over {axes}")


@primitive("overlap.patches", keeps=("weight_bytes", "cache_bytes"), lowers=("flops",), once="how samples are divided")
def patches(graph: Graph, *, ranks: Count, share: Fraction = 1.0) -> Graph:
    """Each of `ranks` devices computes a patch of every sample's feature maps, with all weights; run it with dp = ranks.

    Self-attention sees the patch of the rank and a `share` of the others, whose keys and values are gathered (DistriFusion,
    arXiv 2402.19481: all; 2412.02962: some neighbours). Rows at the borders of convolutions and sums of group norms are a
    thousandth of that and not counted. Whether messages proceed beside computation is `overlap.collectives`.
    """
    if ranks == 1:
        return graph
    seen = 1.0 / ranks + share * (1.0 - 1.0 / ranks)

    def change(op: Op) -> list[Op]:
        if op.rows.sequences < _LEAST_ROWS * ranks:
            return [op]
        if op.kind != "attention":
            tensors = tuple(t if t.role == "weight" else t.scaled(1.0 / ranks) for t in op.tensors)
            return [replace(op, tensors=tensors, flops=op.flops * (1.0 / ranks), rows=op.rows * (1.0 / ranks))]
        own = op.n == op.k
        kept = seen if own else 1.0
        keys = [t for t in op.tensors if t.name == "key_value"]
        tensors = tuple(t.scaled(kept) if t in keys else t.scaled(1.0 / ranks) for t in op.tensors)
        part = replace(
            op, tensors=tensors, flops=op.flops * (kept / ranks), rows=op.rows * (1.0 / ranks),
            n=max(1, round(op.n / ranks)), k=max(1, round(op.k * kept)),
        )  # fmt: skip
        if not own or not share:
            return [part]
        message = Tensor("message", "activation", op.dtype, read=sum((t.read for t in keys), ZERO) * share)
        gather = Op(
            f"{op.name}.gather", "collective", (message,), repeat=op.repeat, dtype=op.dtype, rows=op.rows, n=op.n,
            groups=ranks, block=op.block, collective="all_gather", axis="dp",
        )  # fmt: skip
        return [gather, part]

    if any(op.rows.tokens or op.flops.tokens for op in graph.ops):
        raise ScenarioError(f"{graph.name} computes tokens, not samples of a fixed size; divide it by tp, pp or dp")
    return graph.with_ops(made for op in graph.ops for made in change(op))
