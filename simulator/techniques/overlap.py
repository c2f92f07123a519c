"""Communication: how much of it hides behind computation, and how many bytes it sends.

Work is conserved; what changes is whether devices wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from simulator.graph.op import BITS, Graph, Op
from simulator.techniques.recipe import Schedule
from simulator.techniques.registry import Bits, Fraction, Share, primitive
from simulator.techniques.select import each, with_tensors


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
