"""Recommendation networks: embedding tables for categories, an MLP for numbers, their interaction, an MLP on top.

One sample is one scored pair of a user and an item. Rows of the tables are gathered, so traffic and footprint differ
by orders of magnitude. Knows no data set by name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from simulator.errors import GraphError
from simulator.graph.convolution import SAMPLES, Recorder
from simulator.graph.op import Graph, Op, Tensor
from simulator.graph.step import Amount
from simulator.spec.loader import Spec


class Recommender(Spec):
    """Arguments of the builder `recommender`."""

    tables: PositiveInt
    """Embedding tables, one per category."""
    rows: PositiveInt
    """Rows of all tables together."""
    width: PositiveInt
    """Of one embedding."""
    lookups: PositiveInt = 1
    """Rows of each table that a sample sums up."""
    dense: PositiveInt
    """Numeric features of a sample."""
    bottom: list[PositiveInt] = Field(min_length=1)
    """Layer widths of the MLP over the numeric features; the last is the embedding's for the interaction `dot`."""
    top: list[PositiveInt] = Field(min_length=1)
    """Layer widths of the MLP over the interactions."""
    interaction: Literal["dot", "concat"] = "dot"
    """dot: the products of all pairs of vectors, beside the bottom's result. concat: all vectors."""
    index_dtype: str = "int32"
    dtype: str = "fp32"


def recommender(shape: Recommender, name: str) -> Graph:
    """The graph of one scoring.

    Look-ups read t l w elements of tables with r w (t tables, l look-ups, width w, r rows in all). The interaction
    `dot` of v = t + 1 vectors takes 2 v^2 w FLOPs and gives v (v - 1) / 2 numbers.

    >>> tiny = Recommender(tables=2, rows=100, width=4, dense=3, bottom=[4], top=[1])
    >>> graph = recommender(tiny, "tiny")
    >>> graph.parameters() == 100 * 4 + (3 * 4 + 4) + ((4 + 3) * 1 + 1)
    True
    """
    tape, width, vectors = Recorder(shape.dtype), shape.width, shape.tables + 1
    _mlp(tape, "bottom", shape.dense, shape.bottom, last_activation="relu")
    gathered, looked_up = shape.tables * width, shape.tables * shape.lookups
    kept = Amount(const=float(shape.rows * width))
    tensors = (
        Tensor("tables", "weight", shape.dtype, read=SAMPLES * (looked_up * width), resident=kept),
        Tensor("indices", "index", shape.index_dtype, read=SAMPLES * looked_up),
        Tensor("output", "activation", shape.dtype, write=SAMPLES * gathered),
    )
    sums = SAMPLES * ((shape.lookups - 1.0) * gathered)
    tape.record(Op("embedding", "gather", tensors, sums, dtype=shape.dtype, rows=SAMPLES * looked_up, n=width))
    if shape.interaction == "concat":
        interactions = gathered + shape.bottom[-1]
    else:
        if shape.bottom[-1] != width:
            message = f"bottom ends with {shape.bottom[-1]}, embeddings have {width}"
            raise GraphError("interaction", "recommender", message)
        tape.record(_pairwise(shape, vectors))
        interactions = vectors * (vectors - 1) // 2 + width
    tape.pointwise("concat", "copy", interactions)
    _mlp(tape, "top", interactions, shape.top, last_activation="sigmoid")
    return tape.graph(name, "recommender")


def _pairwise(shape: Recommender, vectors: int) -> Op:
    """Products of all vectors of a sample with one another; no weights."""
    values = SAMPLES * (vectors * shape.width)
    tensors = (
        Tensor("vectors", "activation", shape.dtype, read=values),
        Tensor("output", "activation", shape.dtype, write=SAMPLES * vectors**2),
    )
    flops = SAMPLES * (2.0 * vectors**2 * shape.width)
    return Op(
        "interaction", "gemm", tensors, flops=flops, dtype=shape.dtype, rows=SAMPLES * vectors, n=vectors, k=shape.width
    )


def _mlp(tape: Recorder, name: str, inputs: int, widths: list[int], *, last_activation: str) -> None:
    with tape.stage(name):
        for index, width in enumerate(widths):
            tape.linear(f"linear{index}", 1, inputs, width)
            last = index == len(widths) - 1
            tape.pointwise(f"activation{index}", last_activation if last else "relu", width)
            inputs = width
