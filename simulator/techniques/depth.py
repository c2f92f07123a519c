"""How much of the depth is executed: early exits, skipped and reused layers, layers that prompts leave out.

Probabilities are parameters: what a network decides for its inputs cannot be derived from its shape.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.counts import SAMPLED, linear
from simulator.graph.op import Graph, Op
from simulator.techniques.registry import Count0, Fraction, Share, primitive
from simulator.techniques.select import each, in_layers, phases_cut, present, with_tensors


@primitive("depth.execute", keeps=("weight_bytes", "cache_bytes"), lowers=("flops", "weight_traffic"))
def execute(graph: Graph, *, share: Share, exits: Count0 = 0, keep_cache: bool = True) -> Graph:
    """On average a share of the layers is executed; all stay in memory. `exits` heads of the vocabulary decide.

    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-2-7b").graph
    >>> early = execute(whole, share=0.6)
    >>> early.resident_bytes(1, 10) == whole.resident_bytes(1, 10)
    True
    """

    def change(op: Op) -> list[Op]:
        same = with_tensors(op, lambda t: replace(t, resident=t.resident * (1.0 / share)))
        return [replace(same, repeat=op.repeat * share)]

    changed = each(graph, in_layers, change, "layers")
    if not exits:
        return changed
    width = next((op.n for op in graph.ops if op.block == "head" and op.kind == "gemm"), graph.hidden)
    head = linear("exit", SAMPLED, width, graph.hidden, dtype=graph.dtype, repeat=exits, block="other", resident=False)
    return changed.with_ops([*changed.ops, head])


@primitive("depth.drop", lowers=("flops", "weight_bytes", "cache_bytes"))
def drop(graph: Graph, *, share: Fraction, shared: Share = 1.0) -> Graph:
    """A share of the layers is removed; of the weights that stay, a share `shared` is stored (layers that share them)."""

    def change(op: Op) -> list[Op]:
        kept = with_tensors(op, lambda t: replace(t, resident=t.resident * shared) if t.role == "weight" else t)
        return [replace(kept, repeat=op.repeat * (1.0 - share))]

    changed = each(graph, in_layers, change, "layers")
    return replace(changed, layers=max(1, round(graph.layers * (1.0 - share))))


@primitive("depth.prompt", keeps=("weight_bytes", "cache_bytes"), lowers=("flops",))
def prompt(graph: Graph, *, share: Share, project: bool = True) -> Graph:
    """Prompts run through a share of the layers; the others only project their keys and values (SwiftKV, 2410.03960).

    >>> from simulator.graph.step import Slice
    >>> from simulator.scenario import load_model
    >>> whole = load_model("llama-3.1-8b").graph
    >>> step = (Slice.prefill(1, 2048),)
    >>> round(prompt(whole, share=0.5).flops_at(step) / whole.flops_at(step), 2)
    0.52
    """
    names = {op.name.rpartition(".")[0]: op for op in graph.ops if op.kind == "attention"}

    def change(op: Op) -> list[Op]:
        passing, decoding = phases_cut(op)
        assert passing is not None
        found: list[Op | None] = [replace(passing, repeat=op.repeat * share)]
        near = names.get(op.name.rpartition(".")[0])
        if project and op.name.endswith("qkv_proj") and near is not None:
            columns = near.kv_heads * (near.head_dim + near.value_dim)
            found.append(_narrow(passing, columns, op.repeat * (1.0 - share)))
        if op.kind == "attention" and near is not None:
            found.append(_append_only(passing, op.repeat * (1.0 - share)))
        return present(*found, decoding)

    return each(graph, lambda op: in_layers(op) and op.phase != "decode", change, "layers")


def _narrow(op: Op, n: int, repeat: float) -> Op:
    share = n / op.n
    tensors = tuple(t if t.name == "input" else t.scaled(share) for t in op.tensors)
    return replace(op, name=f"{op.name}.kv", n=n, repeat=repeat, tensors=tensors, flops=op.flops * share)


def _append_only(op: Op, repeat: float) -> Op | None:
    """What is left of attention in a layer that only fills its cache: the write."""
    written = tuple(replace(t, read=t.read * 0.0) for t in op.tensors if t.role == "kv")
    if not written or repeat <= 0.0:
        return None
    return replace(
        op, name=f"{op.name}.append", kind="elementwise", tensors=written, flops=op.flops * 0.0, repeat=repeat, n=1,
        heads=0, kv_heads=0, fused=True,
    )  # fmt: skip


@primitive("depth.reuse", keeps=("weight_bytes", "cache_bytes"), lowers=("flops",))
def reuse(graph: Graph, *, computed: Share, stored: Fraction = 0.0) -> Graph:
    """Of the passes through the layers only a share is computed; the others take what an earlier one left.

    `stored`: share of the layers whose output is read back from memory in a pass that is not computed.
    """

    def change(op: Op) -> list[Op]:
        same = with_tensors(op, lambda t: replace(t, resident=t.resident * (1.0 / computed)))
        return [replace(same, repeat=op.repeat * computed)]

    return each(graph, lambda op: in_layers(op) or op.block == "other", change, "layers")
