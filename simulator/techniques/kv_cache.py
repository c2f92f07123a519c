"""Which cached positions, heads and channels are kept and read: windows, budgets, retrieval, sharing among layers.

Sinks count as positions of a window. A share of the heads is costed as that share of the layers. Formats of the cache are
`quantization.cache`; where it lies is `placement.cache`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from simulator.errors import ScenarioError
from simulator.graph.op import Graph, Op, Tensor
from simulator.graph.step import Amount, Span
from simulator.techniques.registry import Amount0, Budget, Count, Count0, Factor, Fraction, Share, primitive
from simulator.techniques.select import attends, each, layers_cut, per_position, phases_cut, present


@primitive("kv_cache.window", keeps=("weight_bytes",), lowers=("flops", "cache_bytes", "cache_traffic"))
def window(graph: Graph, *, recent: Budget, sink: Count0 = 0, heads: Share = 1.0, layers: Share = 1.0) -> Graph:
    """A share of the heads attends to the first `sink` and the last `recent` positions only, and keeps no others.

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> short = window(whole, recent=256, sink=64, heads=0.5)
    >>> round(short.resident_bytes(1, 32000)["kv"] / whole.resident_bytes(1, 32000)["kv"], 3)
    0.505
    """
    return _spanned(graph, sink + recent, heads * layers, "any")


@primitive("kv_cache.budget", keeps=("weight_bytes",), lowers=("cache_bytes", "cache_traffic"))
def budget(
    graph: Graph,
    *,
    tokens: Budget | None = None,
    share: Share | None = None,
    heads: Share = 1.0,
    layers: Share = 1.0,
    generated: Count0 = 0,
    scoring: Amount0 = 0.0,
) -> Graph:
    """Prompts attend to everything; then only `tokens` positions, or a share of the context, stay and are read.

    Where only the prompt is evicted from, and not the answer, `generated` positions stay beside `tokens`.

    `scoring`: FLOPs per kept position, head and token that decide what stays (accumulated scores, matching, merging).

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> whole.resident_bytes(1, 10240)["kv"] / budget(whole, tokens=2048).resident_bytes(1, 10240)["kv"]
    5.0
    """
    if (tokens is None) == (share is None):
        raise ScenarioError("give either tokens or share")
    if tokens is not None:
        changed = _spanned(graph, tokens + generated, heads * layers, "decode")
    else:
        assert share is not None
        part = share

        def fewer(op: Op) -> list[Op]:
            chosen, rest = layers_cut(op, heads * layers)
            assert chosen is not None
            passing, decoding = phases_cut(chosen)
            return present(passing, per_position(decoding, part) if decoding else None, rest)

        changed = each(graph, attends, fewer, "cache of keys and values")
    if not scoring:
        return changed
    return changed.with_ops(_scored(op, scoring) for op in changed.ops)


@primitive("kv_cache.retrieve", keeps=("weight_bytes",))
def retrieve(
    graph: Graph,
    *,
    tokens: Budget,
    page: Count = 16,
    vectors: Amount0 = 2.0,
    scanned: Fraction = 1.0,
    heads: Share = 1.0,
    layers: Share = 1.0,
) -> Graph:
    """Everything is kept; each decode step reads the `tokens` positions that an index finds for it.

    The index holds `vectors` keys per page of positions (a minimum and a maximum in Quest, arXiv 2406.10774), of which a
    share `scanned` is read in each step. It stays with the network where the cache itself is placed elsewhere.

    >>> from simulator.scenario import load_model
    >>> from simulator.graph.step import Slice
    >>> whole = load_model("llama-2-7b").graph
    >>> step = (Slice.decode(1, 65535),)
    >>> found = retrieve(whole, tokens=4096, page=16, vectors=2)
    >>> round(found.bytes_at(step, "kv") / whole.bytes_at(step, "kv"), 3)  # 4096 / 65536 + 2 / 16 / 2
    0.125
    """

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, heads * layers)
        assert chosen is not None
        passing, decoding = phases_cut(chosen)
        if decoding is None:
            return present(passing, rest)
        (kv,) = (tensor for tensor in decoding.tensors if tensor.role == "kv")
        keys = kv.read.context * op.head_dim / max(1, op.head_dim + op.value_dim) * vectors / page
        index = replace(
            kv,
            name="index",
            read=Amount(context=keys * scanned),
            write=Amount(),
            resident=Amount(context=keys),
            dtype="bf16",
            overhead_bits=0.0,
        )
        flops = Amount(context=2.0 * op.heads * op.head_dim * vectors / page * scanned)
        select = replace(decoding, name=f"{op.name}.select", tensors=(index,), flops=flops, part="")
        limited = replace(decoding, span=_limited(decoding.span, tokens))
        return present(passing, select if keys else None, limited, rest)

    return each(graph, attends, change, "cache of keys and values")


@primitive("kv_cache.channels", keeps=("weight_bytes",), lowers=("flops", "cache_bytes", "cache_traffic"))
def channels(graph: Graph, *, keys: Share = 1.0, values: Share = 1.0, layers: Share = 1.0) -> Graph:
    """The shares of the channels of keys and of values that are kept (ThinK, arXiv 2407.21018).

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> round(channels(whole, keys=0.6).resident_bytes(1, 1000)["kv"] / whole.resident_bytes(1, 1000)["kv"], 3)
    0.8
    """

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        wide = op.head_dim + op.value_dim
        kept = (op.head_dim * keys + op.value_dim * values) / wide
        pairs = chosen.flops.pairs - 2.0 * op.heads * wide * (1.0 - kept)
        tensors = tuple(t.scaled(kept) if t.role == "kv" else t for t in chosen.tensors)
        return present(replace(chosen, tensors=tensors, flops=chosen.flops._replace(pairs=max(0.0, pairs))), rest)

    return each(graph, attends, change, "cache of keys and values")


@primitive("kv_cache.heads", lowers=("flops", "weight_bytes", "cache_bytes", "cache_traffic"))
def heads(graph: Graph, *, keep: Share) -> Graph:
    """Fewer KV heads for the same query heads: multi-head attention becomes grouped (arXiv 2305.13245).

    The projections of keys and values shrink with them.
    """
    columns = {
        op.name.rpartition(".")[0]: op.kv_heads * (op.head_dim + op.value_dim) for op in graph.ops if attends(op)
    }

    def change(op: Op) -> list[Op]:
        if attends(op):
            left = max(1, round(op.kv_heads * keep))
            tensors = tuple(t.scaled(left / op.kv_heads) if t.role == "kv" else t for t in op.tensors)
            return [replace(op, tensors=tensors, kv_heads=left)]
        dropped = round(columns.get(op.name.rpartition(".")[0], 0) * (1.0 - keep))
        return [_narrower(op, op.n - dropped)]

    return each(
        graph, lambda op: attends(op) or (op.kind == "gemm" and op.name.endswith("qkv_proj")), change, "attention"
    )


@primitive("kv_cache.share_layers", keeps=("weight_bytes", "flops"), lowers=("cache_bytes",))
def share_layers(graph: Graph, *, group: Factor, layers: Share = 1.0, own: Fraction = 0.0) -> Graph:
    """`group` neighbouring layers keep one cache among them; a share `own` of the positions is kept by each layer.

    Every layer still reads what it attends to. For merged (MiniCache, arXiv 2405.14366) and shared caches.

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> half = share_layers(whole, group=2, layers=0.5, own=0.1)
    >>> round(half.resident_bytes(1, 1000)["kv"] / whole.resident_bytes(1, 1000)["kv"], 3)
    0.775
    """
    share = own + (1.0 - own) / group

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None

        def smaller(tensor: Tensor) -> Tensor:
            if tensor.role != "kv":
                return tensor
            return replace(tensor, resident=tensor.resident * share, write=tensor.write * share)

        return present(replace(chosen, tensors=tuple(map(smaller, chosen.tensors))), rest)

    return each(graph, attends, change, "cache of keys and values")


@primitive("kv_cache.recurrent", lowers=("cache_bytes", "cache_traffic"))
def recurrent(graph: Graph, *, layers: Share = 1.0, window: Count0 = 0, state_width: Count | None = None) -> Graph:
    """Attention becomes linear in a share of the layers: a state of head_dim x value_dim per head instead of a cache.

    4 d d_v FLOPs per head and token for the update and the output. `window`: softmax attention to the last positions
    stays beside it (hybrids). `state_width`: features of a key, if not head_dim.
    """

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, layers)
        assert chosen is not None
        features = state_width or op.head_dim
        size = float(op.heads * features * op.value_dim)
        kv = next(tensor for tensor in op.tensors if tensor.role == "kv")
        state = Tensor(
            "state", "state", kv.dtype, Amount(sequences=size), Amount(sequences=size), Amount(sequences=size), True
        )
        others = tuple(tensor for tensor in chosen.tensors if tensor.role != "kv")
        scan = replace(
            chosen, name=f"{op.name}.scan", kind="scan", tensors=(*others, state),
            flops=Amount(tokens=4.0 * size + 2.0 * size), heads=0, kv_heads=0, n=op.heads * op.value_dim, span=Span(),
        )  # fmt: skip
        short = replace(chosen, span=_shorter(chosen.span, window)) if window else None
        return present(scan, short, rest)

    return each(graph, attends, change, "cache of keys and values")


@primitive("kv_cache.spread", keeps=("weight_bytes",), lowers=("cache_bytes", "cache_traffic"))
def spread(graph: Graph, *, instances: Count) -> Graph:
    """Each sequence's cache is divided among so many instances with all weights, which attend to their part in each step.

    Counts of decode are those of one instance; partial results (a value and two statistics per head and instance) cross
    to where the query is, and are summed. For distributed attention (arXiv 2401.02669).
    """

    def change(op: Op) -> list[Op]:
        passing, decoding = phases_cut(op)
        if decoding is None:
            return present(passing)
        mine = per_position(decoding, 1.0 / instances)
        width = op.heads * (op.value_dim + 2.0)
        partial = Tensor("partial", "activation", "fp32", read=Amount(tokens=instances * width), split=True)
        summed = replace(
            decoding, name=f"{op.name}.combine", kind="elementwise", tensors=(partial,), split="heads", part="",
            flops=Amount(tokens=2.0 * instances * width), rows=Amount(tokens=1.0), n=max(1, round(width)),
            heads=0, kv_heads=0,
        )  # fmt: skip
        return present(passing, mine, summed)

    return each(graph, lambda op: attends(op) and not op.span.source, change, "cache of keys and values")


@primitive("kv_cache.grown", keeps=("weight_bytes", "cache_bytes"))
def grown(graph: Graph, *, copies: Amount0 = 1.0, expanded: bool = True) -> Graph:
    """The cache is a tensor that grows: each decode step reads it whole and writes it anew, `copies` times over.

    What frameworks do that join the new keys and values to the old ones; a beam search that reorders its hypotheses
    copies once more. `expanded`: keys and values of grouped heads are repeated for every query head before they are
    multiplied. Name it after what shortens or narrows the cache, which it follows.

    >>> from simulator.scenario import load_model
    >>> from simulator.graph.step import Slice
    >>> step = (Slice.decode(1, 1023),)
    >>> cache = load_model("llama-2-7b").graph.bytes_at(step, "kv")
    >>> copied = grown(load_model("llama-2-7b").graph)
    >>> extra = copied.bytes_at(step, "activation") - load_model("llama-2-7b").graph.bytes_at(step, "activation")
    >>> round(extra / cache, 2)  # read once, written once
    2.0
    """

    def change(op: Op) -> list[Op]:
        (kv,) = (tensor for tensor in op.tensors if tensor.role == "kv")
        whole = Amount(context=kv.read.context)
        times = op.heads / op.kv_heads if expanded and op.kv_heads else 1.0

        def crossing(name: str, reads: float, writes: float, dtype: str, overhead: float) -> Op:
            moved = Tensor("cache", "activation", dtype, whole * reads, whole * writes, split=kv.split,
                           overhead_bits=overhead)  # fmt: skip
            return replace(
                op, name=f"{op.name}.{name}", kind="elementwise", tensors=(moved,), flops=Amount(), split="heads",
                n=max(1, round(whole.context)), rows=Amount(context=1.0), heads=0, kv_heads=0, part="",
            )  # fmt: skip

        found = [op]
        if copies and op.phase != "prefill":
            found.append(replace(crossing("join", copies, copies, kv.dtype, kv.overhead_bits), phase="decode"))
        if times > 1.0:
            found.append(crossing("expand", times, times, op.dtype, 0.0))
        return found

    return each(graph, lambda op: attends(op) and not op.span.source, change, "cache of keys and values")


def _spanned(graph: Graph, reach: int, share: float, phase: Literal["any", "decode"]) -> Graph:
    """Attention with at most `reach` positions in a share of its layers."""

    def change(op: Op) -> list[Op]:
        chosen, rest = layers_cut(op, share)
        assert chosen is not None
        if phase == "any":
            return present(replace(chosen, span=_shorter(chosen.span, reach)), rest)
        passing, decoding = phases_cut(chosen)
        short = replace(decoding, span=_shorter(decoding.span, reach)) if decoding else None
        return present(passing, short, rest)

    return each(graph, lambda op: attends(op) and not op.span.source, change, "cache of keys and values")


def _shorter(span: Span, reach: int) -> Span:
    return replace(span, window=min(reach, span.window or reach))


def _limited(span: Span, tokens: int) -> Span:
    return replace(span, limit=min(tokens, span.limit or tokens))


def _scored(op: Op, scoring: float) -> Op:
    if not attends(op) or op.phase != "decode":
        return op
    return replace(op, flops=op.flops._replace(pairs=op.flops.pairs + scoring * op.heads))


def _narrower(op: Op, n: int) -> Op:
    share = max(1, n) / op.n
    tensors = tuple(t if t.name == "input" else t.scaled(share) for t in op.tensors)
    return replace(op, n=max(1, n), tensors=tensors, flops=op.flops * share)
