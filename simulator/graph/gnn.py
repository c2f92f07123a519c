"""Graph neural networks over a whole graph: dense transforms of every node and sums over every edge.

One sample is one pass over the graph. Gathered rows are counted once per edge, as a kernel without a cache moves them.
Knows no data set by name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from simulator.graph.convolution import SAMPLES, Recorder
from simulator.graph.op import Graph, Op, Tensor
from simulator.graph.step import Amount
from simulator.spec.loader import Spec


class GraphNetwork(Spec):
    """Arguments of the builder `graph_network`."""

    nodes: PositiveInt
    edges: PositiveInt
    """Directed edges that carry a message (an undirected edge counts twice), without self loops."""
    widths: list[PositiveInt] = Field(min_length=2)
    """Width of the input features, of each hidden layer, and of the output."""
    layer: Literal["gcn", "sage"] = "gcn"
    """gcn: transform, then sum over neighbours and the node itself. sage: mean over neighbours, then a transform of it
    and another of the node itself."""
    norm: bool = False
    """Batch norm after every layer but the last."""
    index_dtype: str = "int32"
    """Of the compressed sparse rows."""
    dtype: str = "fp32"


def graph_network(shape: GraphNetwork, name: str) -> Graph:
    """The graph of one full pass, layer by layer from width a to width b over V nodes and E edges.

    gcn: dense 2 V a b FLOPs, then (E + V) b products and sums; sage: E a sums, then two dense transforms, 4 V a b.
    The sum over e edges of width w reads e w features, e indices (and, for gcn, e coefficients) and V + 1 row
    pointers, and writes V w.

    >>> tiny = GraphNetwork(nodes=10, edges=20, widths=[8, 4])
    >>> graph = graph_network(tiny, "tiny")
    >>> [(op.kind, op.flops.sequences) for op in graph.ops]
    [('gemm', 640.0), ('gather', 240.0)]
    """
    tape = Recorder(shape.dtype)
    pairs = list(zip(shape.widths, shape.widths[1:], strict=False))
    for index, (width, wider) in enumerate(pairs):
        with tape.stage(f"layer{index}"):
            if shape.layer == "gcn":
                tape.linear("transform", shape.nodes, width, wider)
                tape.record(_aggregate(shape, tape, wider, shape.edges + shape.nodes, first=index == 0))
            else:
                tape.record(_aggregate(shape, tape, width, shape.edges, first=index == 0))
                tape.linear("neighbours", shape.nodes, width, wider)
                tape.linear("self", shape.nodes, width, wider, bias=False)
                tape.add("sum", shape.nodes * wider)
            if index < len(pairs) - 1:
                if shape.norm:
                    tape.pointwise("norm", "batch_norm", shape.nodes * wider, weights=2 * wider)
                tape.pointwise("relu", "relu", shape.nodes * wider)
    return tape.graph(name, "graph_network")


def _aggregate(shape: GraphNetwork, tape: Recorder, width: int, edges: int, *, first: bool) -> Op:
    """The sparse sum; the sparse matrix stays allocated once, with the first layer."""
    indices = float(edges + shape.nodes + 1)
    scaled = shape.layer == "gcn"
    tensors = [
        Tensor("features", "activation", shape.dtype, read=SAMPLES * (edges * width)),
        Tensor("indices", "index", shape.index_dtype, read=SAMPLES * indices,
               resident=Amount(const=indices if first else 0.0)),
        Tensor("output", "activation", shape.dtype, write=SAMPLES * (shape.nodes * width)),
    ]  # fmt: skip
    if scaled:
        kept = Amount(const=float(edges) if first else 0.0)
        tensors.append(Tensor("coefficients", "index", shape.dtype, read=SAMPLES * edges, resident=kept))
    return Op(
        "aggregate", "gather", tuple(tensors), flops=SAMPLES * ((2.0 if scaled else 1.0) * edges * width),
        dtype=shape.dtype, rows=SAMPLES * edges, n=width,
    )  # fmt: skip
