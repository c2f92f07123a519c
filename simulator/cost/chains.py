"""Ops that an engine runs as a chain of kernels: small ones, and attention that is not fused.

Knows what an engine's file says of them; the bytes of small ops are the op's.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.cost.efficiency import Engine
from simulator.graph.op import Graph, Op
from simulator.techniques.attention import unfused


def own_name(op: Op) -> str:
    """The op's own name, without its block before it and its number behind it.

    >>> own_name(Op("b1.norm.0", "elementwise", ()))
    'norm'
    """
    parts = [part for part in op.name.split(".") if not part.isdigit()]
    return parts[-1] if parts else op.name


def is_kernel(op: Op, engine: Engine) -> bool:
    """Whether an engine launches a kernel for an op, rather than fusing it into its neighbour."""
    if not op.fused:
        return True
    if engine.ideal:
        return False
    return "all" in engine.unfused or any(own_name(op).endswith(name) for name in engine.unfused)


def as_chain(op: Op, engine: Engine) -> Op:
    """The op, or, where an engine runs it as a chain of kernels, one of them: repeated, with its share of the work."""
    chain = engine.chains.get(chain_of(op, engine))
    if chain is None:
        return op
    kernels, passes = chain
    return replace(
        op,
        tensors=tuple(
            replace(t, read=t.read * (passes / kernels), write=t.write * (passes / kernels)) for t in op.tensors
        ),
        flops=op.flops * (1.0 / kernels),
        repeat=op.repeat * kernels,
    )


def chain_of(op: Op, engine: Engine) -> str:
    """The name in the engine's chains that an elementwise op ends with; empty if there is none."""
    if op.kind != "elementwise" or not engine.chains:
        return ""
    return next((name for name in engine.chains if own_name(op).endswith(name)), "")


def with_scores(graph: Graph, engine: Engine) -> Graph:
    """The graph with attention whose scores go through memory, where the engine's is not fused and no technique's is."""
    attends = [op for op in graph.ops if op.kind == "attention"]
    names = {op.name for op in graph.ops}
    if not engine.score_passes or not attends or any(f"{op.name}.softmax" in names for op in attends):
        return graph
    found: Graph = unfused(graph, passes=engine.score_passes, dtype=attends[0].dtype)
    return found
