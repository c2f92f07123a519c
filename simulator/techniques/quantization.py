"""Number formats of weights, cache and arithmetic: each primitive changes storage, none changes a FLOP count.

Expanding narrow weights before they are multiplied is work of its own; the cost model sees it from the difference
between an operand's format and the op's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from simulator.errors import UnknownNameError
from simulator.graph.op import BITS, Graph, Op, Tensor


def weights(graph: Graph, *, dtype: str, group: int | None = None, scale_bits: float = 16, zero_bits: float = 0,
            blocks: Sequence[str] = ("attention", "ffn", "mixer")) -> Graph:  # fmt: skip
    """Store the weights of linear layers in `dtype`, with a scale (and zero point) of so many bits per `group` elements.

    Conserves FLOPs, cache and activations; lowers weight bytes. The head and the embedding keep their format.

    >>> from simulator.graph.counts import TOKENS, linear
    >>> layer = Graph("example", (linear("up", TOKENS, 1024, 1024, dtype="bf16", block="ffn"),))
    >>> weights(layer, dtype="int4", group=128).resident_bytes(1, 1)["weight"] == 1024 * 1024 * (4 + 16 / 128) / 8
    True
    """
    _known(dtype)
    overhead = (scale_bits + zero_bits) / group if group else 0.0

    def change(op: Op, tensor: Tensor) -> Tensor:
        if op.kind == "gemm" and tensor.role == "weight" and tensor.name == "weight" and op.block in blocks:
            return replace(tensor, dtype=dtype, overhead_bits=overhead)
        return tensor

    return _each_tensor(graph, change)


def cache(graph: Graph, *, dtype: str, group: int | None = None, scale_bits: float = 16, zero_bits: float = 0) -> Graph:
    """Store keys and values in `dtype`. Conserves FLOPs and weights; lowers cache bytes."""
    _known(dtype)
    overhead = (scale_bits + zero_bits) / group if group else 0.0
    return _each_tensor(graph, lambda op, t: replace(t, dtype=dtype, overhead_bits=overhead) if t.role == "kv" else t)


def arithmetic(graph: Graph, *, dtype: str, blocks: Sequence[str] = ("attention", "ffn", "mixer")) -> Graph:
    """Multiply linear layers in `dtype`: their inputs are read in it, their outputs stay in the wider format."""
    _known(dtype)
    ops = []
    for op in graph.ops:
        if op.kind == "gemm" and op.block in blocks:
            tensors = tuple(
                replace(t, dtype=dtype) if t.role == "activation" and t.name == "input" else t for t in op.tensors
            )
            op = replace(op, dtype=dtype, tensors=tensors)
        ops.append(op)
    return graph.with_ops(ops)


def _each_tensor(graph: Graph, change: Callable[[Op, Tensor], Tensor]) -> Graph:
    return graph.with_ops(replace(op, tensors=tuple(change(op, tensor) for tensor in op.tensors)) for op in graph.ops)


def _known(dtype: str) -> None:
    if dtype not in BITS:
        raise UnknownNameError("dtype", dtype, BITS)
