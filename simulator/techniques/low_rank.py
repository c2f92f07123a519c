"""Factorised weights and caches: two thin products for one, or a cache of fewer features.

Conserves nothing but the shapes outside: rank decides FLOPs and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from simulator.graph.counts import ONCE, linear
from simulator.graph.op import Graph, Op, Tensor
from simulator.graph.step import Amount
from simulator.techniques.registry import Count, Fraction, Share, primitive
from simulator.techniques.select import LINEAR, attends, each, is_linear, layers_cut, present, with_tensors


@primitive("low_rank.weights", keeps=("cache_bytes",))
def weights(
    graph: Graph, *, keep: Share | None = None, rank: Count | None = None, blocks: Sequence[str] = LINEAR,
    layers: Share = 1.0,
) -> Graph:  # fmt: skip
    """W[n, k] becomes A[n, r] B[r, k]. `keep`: share of the parameters, which sets r = keep n k / (n + k).

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> thin = weights(whole, keep=0.5)
    >>> inner = [sum(op.repeat * op.n * op.k for op in g if op.block in LINEAR) for g in (whole, thin)]
    >>> round(inner[1] / inner[0], 3)
    0.5
    """

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        narrow = rank or max(1, round((keep or 1.0) * op.n * op.k / (op.n + op.k)))
        weight = next(tensor for tensor in chosen.tensors if tensor.role == "weight")
        pair = {}
        for name, n, k, split in (
            ("down", narrow, op.k, "row" if op.split == "row" else "none"),
            ("up", op.n, narrow, "column" if op.split == "column" else "none"),
        ):
            pair[name] = linear(
                f"{op.name}.{name}", op.rows, n, k, dtype=op.dtype, repeat=chosen.repeat, block=op.block,
                split=split, groups=op.groups, routing=op.routing, phase=op.phase,  # type: ignore[arg-type]
            )  # fmt: skip

        def same(tensor: Tensor) -> Tensor:
            if tensor.role != "weight":
                return tensor
            return replace(tensor, dtype=weight.dtype, overhead_bits=weight.overhead_bits)

        return [*(with_tensors(thin, same) for thin in pair.values()), *present(rest)]

    return each(graph, lambda op: is_linear(op, blocks), change, f"linear layers in {', '.join(blocks)}")


@primitive("low_rank.cache", keeps=("weight_bytes",), lowers=("cache_bytes",))
def cache(graph: Graph, *, keep: Share, rebuild: bool = True, layers: Share = 1.0) -> Graph:
    """Keys and values as a share of their features; `rebuild` multiplies them out again for every position read.

    Rebuilding costs 2 width x keep width FLOPs per cached position, fused with attention: nothing is written out.

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> cache(whole, keep=0.2).resident_bytes(1, 1000)["kv"] / whole.resident_bytes(1, 1000)["kv"]
    0.2
    """

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        (kv,) = (tensor for tensor in chosen.tensors if tensor.role == "kv")
        small = with_tensors(chosen, lambda t: t.scaled(keep) if t.role == "kv" else t)
        width = round(kv.read.context)
        return present(_rebuilt(small, width, max(1, round(width * keep))) if rebuild else None, small, rest)

    return each(graph, attends, change, "cache of keys and values")


@primitive("low_rank.adapters")
def adapters(
    graph: Graph, *, rank: Count, count: Count = 1, blocks: Sequence[str] = LINEAR, resident: Fraction = 1.0
) -> Graph:
    """Low-rank adapters beside each linear layer (arXiv 2106.09685): hidden -> rank -> width, `count` of them resident."""

    def change(op: Op) -> list[Op]:
        found = [op]
        for name, n, k in (("lora_down", rank, op.k), ("lora_up", op.n, rank)):
            extra = linear(f"{op.name}.{name}", op.rows, n, k, dtype=graph.dtype, repeat=op.repeat, block=op.block,
                           groups=op.groups, routing=op.routing)  # fmt: skip
            found.append(with_tensors(extra, _stored(count * resident)))
        return found

    return each(graph, lambda op: is_linear(op, blocks), change, f"linear layers in {', '.join(blocks)}")


@primitive("low_rank.rematerialize", keeps=("weight_bytes",), lowers=("cache_bytes",), once="what the cache holds")
def rematerialize(graph: Graph, *, layers: Share = 1.0) -> Graph:
    """Cache the input of each layer instead of its keys and values, and project it again for every position read.

    One vector of the residual stream's width replaces keys and values (XQuant, arXiv 2508.10395): half the cache of
    multi-head attention. With grouped queries, where keys and values are narrower, the projected features stay.
    Adds 2 x width x (keys + values) FLOPs per cached position.
    """

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        (kv,) = (tensor for tensor in chosen.tensors if tensor.role == "kv")
        width = round(kv.read.context)
        cached = min(graph.hidden or width, width)
        small = with_tensors(chosen, lambda t: t.scaled(cached / width) if t.role == "kv" else t)
        return present(_rebuilt(small, width, cached), small, rest)

    return each(graph, attends, change, "cache of keys and values")


def _rebuilt(op: Op, width: int, cached: int) -> Op:
    """The product that makes `width` features of keys and values from the `cached` ones of every position read."""
    once = Tensor("weight", "weight", "bf16", read=ONCE * float(width * cached), split=True)
    return Op(
        f"{op.name}.rebuild", "gemm", (once,), flops=Amount(context=2.0 * width * cached), repeat=op.repeat,
        dtype="bf16", rows=Amount(context=1.0), n=width, k=cached, split="column", span=op.span, block=op.block,
        phase="decode",
    )  # fmt: skip


def _stored(count: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        return replace(tensor, resident=tensor.resident * count) if tensor.role == "weight" else tensor

    return change
