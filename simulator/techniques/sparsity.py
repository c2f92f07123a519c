"""Zeros and smaller shapes: unstructured, N:M and structured weight sparsity, and weights that only some inputs touch.

Whether zeros are skipped or only not stored, and what the format costs, are parameters: kernels differ in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from simulator.graph.counts import linear
from simulator.graph.op import Graph, Op, Routing, Tensor
from simulator.graph.step import Amount
from simulator.techniques.registry import Amount0, Count, Fraction, Share, primitive
from simulator.techniques.select import LINEAR, each, in_layers, is_linear, layers_cut, present, stored

Format = Literal["none", "bitmap", "index", "nm"]

_INNER = {
    "up": (True, False), "conv1": (True, False), "down": (False, False), "conv2": (False, False),
    "qkv": (True, True), "q": (True, True), "kv": (True, True), "out": (False, True),
}  # fmt: skip
"""Last names of products that lead into the inner width of a block, or out of it, and whether it is made of heads."""


@primitive("sparsity.weights", keeps=("cache_bytes",), lowers=("flops",))
def weights(
    graph: Graph,
    *,
    sparsity: Fraction,
    format: Format = "bitmap",
    index_bits: Amount0 = 16,
    compute: Literal["dense", "sparse"] = "dense",
    efficiency: Share = 1.0,
    blocks: Sequence[str] = LINEAR,
    layers: Share = 1.0,
) -> Graph:
    """Weights without their zeros: 1 - sparsity of the elements, and what says where they stand.

    bitmap: one bit per element of the dense matrix; index: `index_bits` per stored element; nm: 2 bits per stored
    element (2:4); none: nothing (regular patterns). `dense` expands them and multiplies all (arXiv 2309.10285); `sparse`
    skips zeros too.

    >>> from simulator.graph.counts import TOKENS, linear
    >>> layer = Graph("example", (linear("up", TOKENS, 1024, 1024, dtype="fp16", block="ffn"),))
    >>> weights(layer, sparsity=0.5).resident_bytes(1, 1)["weight"] / (2 * 1024 * 1024)
    0.5625
    """
    density = 1.0 - sparsity

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        (dense,) = (tensor for tensor in chosen.tensors if stored(tensor))
        others = tuple(tensor for tensor in chosen.tensors if tensor is not dense)
        found = [dense.scaled(density)]
        if format == "bitmap":
            found.append(replace(dense, name="bitmap", dtype="int1", overhead_bits=0.0))
        elif format != "none":
            wide = 2.0 if format == "nm" else index_bits
            found.append(replace(dense.scaled(density), name="index", dtype="int1", overhead_bits=wide - 1.0))
        flops, k = chosen.flops, chosen.k
        if compute == "sparse":
            flops, k = flops * density, max(1, round(k * density))
        return present(
            replace(chosen, tensors=(*others, *found), flops=flops, k=k, efficiency=chosen.efficiency * efficiency),
            rest,
        )

    return each(graph, lambda op: is_linear(op, blocks), change, f"linear layers in {', '.join(blocks)}")


@primitive("sparsity.structured", lowers=("flops", "weight_bytes", "cache_bytes"))
def structured(
    graph: Graph,
    *,
    heads: Share = 1.0,
    ffn: Share = 1.0,
    hidden: Share = 1.0,
    layers: Share = 1.0,
    experts: Share = 1.0,
) -> Graph:
    """Smaller dense shapes: the shares of heads, of feed-forward width, of the residual stream and of layers that stay.

    Weights and FLOPs of a layer follow the product of the widths on its two sides. In networks of convolutions and in
    denoisers the inner width is that between a residual block's first and second product.

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> half = structured(whole, layers=0.5)
    >>> [round(g.parameters() / 1e9, 2) for g in (whole, half)]
    [6.74, 3.5]
    """

    def width(op: Op, side: str) -> float:
        last = op.name.rpartition(".")[2]
        if op.kind == "gemm" and op.block not in ("attention", "mixer", "ffn") and last in _INNER:
            inward, of_heads = _INNER[last]
            share = heads if of_heads else ffn
            return (share if inward else hidden) if side == "n" else (hidden if inward else share)
        inner = heads if op.block in ("attention", "mixer") else ffn if op.block == "ffn" else 1.0
        if op.kind != "gemm":
            return hidden if op.block in ("norm", "embedding", "head", "other") else inner
        if op.block in ("embedding", "head"):
            return hidden if side == "k" else 1.0
        outward = op.split == "row"
        return (inner if outward else hidden) if side == "k" else (hidden if outward else inner)

    def change(op: Op) -> list[Op]:
        repeat = op.repeat * layers if in_layers(op) else op.repeat
        if op.kind == "gemm":
            n, k = max(1, round(op.n * width(op, "n"))), max(1, round(op.k * width(op, "k")))
            share = {"input": k / op.k, "output": n / op.n, "bias": n / op.n}
            tensors = tuple(t.scaled(share.get(t.name, n * k / (op.n * op.k))) for t in op.tensors)
            op = replace(op, n=n, k=k, tensors=tensors, flops=op.flops * (n * k / (op.n * op.k)))
            if op.routing is not None and experts < 1.0:
                op = _fewer_experts(op, experts)
        elif op.kind == "attention":
            op = _scaled(op, heads, max(1, round(op.heads * heads)), max(1, round(op.kv_heads * heads)))
        else:
            share_of = width(op, "n")
            tensors = tuple(tensor.scaled(share_of) for tensor in op.tensors)
            op = replace(op, tensors=tensors, flops=op.flops * share_of, n=max(1, round(op.n * share_of)))
        return [replace(op, repeat=repeat)]

    changed = each(graph, lambda op: True, change, "ops")
    return replace(changed, hidden=max(1, round(graph.hidden * hidden)), layers=max(1, round(graph.layers * layers)))


@primitive("sparsity.activations", keeps=("weight_bytes", "cache_bytes"), lowers=("flops",))
def activations(
    graph: Graph,
    *,
    active: Share,
    groups: Count = 64,
    fixed: bool = False,
    deciding: Fraction = 0.0,
    efficiency: Share = 1.0,
    blocks: Sequence[str] = ("ffn",),
) -> Graph:
    """Only a share of the neurons of each layer is computed for a token; a step reads the union over its tokens.

    Neurons in `groups` groups are chosen as experts are: T tokens touch 1 - (1 - active)^T of them. `fixed`: one choice
    for all tokens (CoreInfer). Which neurons it is has to be known: from a `sparsity.predictor`, or from a share
    `deciding` of the widening matrices that is computed whole (the gate of a gated layer is half of them). Inside routed
    experts the same holds for the neurons of the chosen ones.

    >>> from simulator.scenario import load_model
    >>> from simulator.graph.step import Slice
    >>> step = (Slice.decode(1, 100),)
    >>> dense = load_model("opt-6.7b").graph
    >>> sparse = activations(dense, active=0.1)
    >>> ffn = [sum(op.bytes_at(step, "weight") for op in g if op.block == "ffn") for g in (dense, sparse)]
    >>> round(ffn[1] / ffn[0], 2)
    0.1
    """

    def change(op: Op) -> list[Op]:
        if deciding and op.split == "column":
            whole, op = _columns(op, deciding), _columns(op, 1.0 - deciding)
            return [replace(whole, name=f"{op.name}.deciding"), *sparse(op)]
        return sparse(op)

    def sparse(op: Op) -> list[Op]:
        efficient = op.efficiency * efficiency
        routing = op.routing or Routing(1, 1.0)
        if fixed:
            tensors = tuple(replace(t, read=t.read * active) if t.role == "weight" else t for t in op.tensors)
            return [replace(op, tensors=tensors, flops=op.flops * active, efficiency=efficient)]
        wide = op.split != "row"
        parts = min(groups, op.n if wide else op.k)
        n, k = (max(1, op.n // parts), op.k) if wide else (op.n, max(1, op.k // parts))
        chosen = active * parts
        return [
            replace(
                op, n=n, k=k, groups=op.groups * parts, rows=op.rows * chosen,
                routing=Routing(routing.experts * parts, routing.top_k * chosen),
                flops=op.flops * active, efficiency=efficient,
            )
        ]  # fmt: skip

    return each(graph, lambda op: is_linear(op, blocks), change, f"linear layers in {', '.join(blocks)}")


@primitive("sparsity.predictor", keeps=("cache_bytes",))
def predictor(graph: Graph, *, rank: Count = 1024, blocks: Sequence[str] = ("ffn",), share: Fraction = 1.0) -> Graph:
    """A two-layer predictor of the active neurons before each layer whose width it predicts: hidden -> rank -> width.

    Of routed experts it predicts the chosen ones; name it before `sparsity.activations` there.
    """

    def change(op: Op) -> list[Op]:
        routed = op.routing is not None and "expert" in op.name
        width = op.n if op.routing is None else round(op.n * (op.routing.top_k if routed else op.routing.experts))
        rows = Amount(tokens=share)
        return [
            linear(f"{op.name}.predict_in", rows, rank, op.k, dtype=graph.dtype, repeat=op.repeat, block="predictor"),
            linear(f"{op.name}.predict_out", rows, width, rank, dtype=graph.dtype, repeat=op.repeat, block="predictor"),
            op,
        ]

    return each(
        graph, lambda op: is_linear(op, blocks) and op.split == "column", change, f"layers in {', '.join(blocks)}"
    )


@primitive("sparsity.attention", keeps=("weight_bytes",), lowers=("flops", "cache_traffic"))
def attention(
    graph: Graph,
    *,
    density: Share,
    efficiency: Share = 1.0,
    phase: Literal["any", "prefill", "decode"] = "any",
    layers: Share = 1.0,
) -> Graph:
    """A share of the (query, key) pairs is computed: block-sparse patterns, thresholds. The cache stays whole.

    >>> from simulator.scenario import load_model
    >>> whole = load_model("vit-base-patch16-224").graph
    >>> pairs = next(op.flops.sequences for op in whole.ops if op.kind == "attention")
    >>> fewer = attention(whole, density=0.1)
    >>> round(next(op.flops.sequences for op in fewer.ops if op.kind == "attention") / pairs, 2)
    0.1
    """
    from simulator.techniques.select import phases_cut

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        parts = [chosen] if phase == "any" else present(*phases_cut(chosen))
        found = []
        for part in parts:
            if phase in ("any", part.phase):
                whole = not any(t.role == "kv" for t in part.tensors) and not part.flops.pairs
                flops = part.flops * density if whole else part.flops._replace(pairs=part.flops.pairs * density)
                tensors = tuple(
                    replace(t, read=t.read._replace(context=t.read.context * density)) if t.role == "kv" else t
                    for t in part.tensors
                )
                part = replace(
                    part, flops=flops, tensors=tensors, efficiency=part.efficiency * efficiency,
                    density=part.density * density,
                )  # fmt: skip
            found.append(part)
        return present(*found, rest)

    return each(graph, lambda op: op.kind == "attention", change, "attention")


def _columns(op: Op, share: float) -> Op:
    """The op with a share of its columns."""
    n = max(1, round(op.n * share))
    tensors = tuple(t if t.name == "input" else t.scaled(n / op.n) for t in op.tensors)
    return replace(op, n=n, tensors=tensors, flops=op.flops * (n / op.n))


def _scaled(op: Op, share: float, heads: int, kv_heads: int) -> Op:
    tensors = tuple(tensor.scaled(share) for tensor in op.tensors)
    return replace(op, tensors=tensors, flops=op.flops * share, heads=heads, kv_heads=kv_heads)


def _fewer_experts(op: Op, share: float) -> Op:
    assert op.routing is not None
    count = max(1, round(op.routing.experts * share))
    scale = count / op.routing.experts
    tensors: tuple[Tensor, ...] = tuple(t.scaled(scale) if t.role == "weight" else t for t in op.tensors)
    routing = replace(op.routing, experts=count, top_k=min(float(count), op.routing.top_k))
    return replace(op, tensors=tensors, groups=max(1, round(op.groups * scale)), routing=routing)
