"""The single operators of PyTorch that the fp32 tables measure, as ops: products, element by element, norms.

Columns of `validation.ship`'s tables: rows, width, groups, and for products n and k. Knows no times.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from simulator.graph.counts import TOKENS, elementwise, linear
from simulator.graph.op import Op
from validation.shapes import Family, Numbers, Shape

BINARY = frozenset({"add", "mul", "div", "pow"})
"""Operators of two tensors; the same names with a final `u` take a tensor and a number."""
UNARY = frozenset({"addu", "mulu", "divu", "powu", "relu", "gelu", "tanh"})
FLOPS = {"gelu": 8.0, "tanh": 8.0, "pow": 8.0, "powu": 8.0}
"""Operations per element, of order; 1 where nothing is said: all of these wait for memory."""


def _linear(shape: Shape) -> list[Op]:
    return [linear("linear", TOKENS, int(shape["n"]), int(shape["k"]), dtype="fp32")]


def _batched(shape: Shape) -> list[Op]:
    groups = int(shape["groups"])
    return [linear("bmm", TOKENS, int(shape["n"]), int(shape["k"]), dtype="fp32", groups=groups, resident=False)]


def _elements(shape: Shape) -> list[Op]:
    name, width = str(shape["op_name"]), float(shape["width"])
    reads = 2.0 * width if name in BINARY else width
    flops = FLOPS.get(name, 1.0) * width
    return [elementwise(name, TOKENS, reads=reads, writes=width, flops=flops, dtype="fp32")]


def _softmax(shape: Shape) -> list[Op]:
    width = float(shape["width"])
    return [elementwise("softmax", TOKENS, reads=width, writes=width, flops=5.0 * width, dtype="fp32")]


def _layernorm(shape: Shape) -> list[Op]:
    width = float(shape["width"])
    flops = 7.0 * width
    return [elementwise("ln", TOKENS, reads=width, writes=width, flops=flops, dtype="fp32", weights=2.0 * width)]


def _rows(table: pd.DataFrame) -> tuple[Numbers, Numbers, Numbers]:
    tokens = table["rows"].to_numpy(np.float64)
    return np.ones_like(tokens), tokens, np.zeros_like(tokens)


def _size(table: pd.DataFrame) -> Numbers:
    return table["rows"].to_numpy(np.float64)


LINEAR = Family("linear", "dtype", ("n", "k"), _linear, _rows, _size, "rows")
BATCHED = Family("bmm", "dtype", ("groups", "n", "k"), _batched, _rows, _size, "rows")
ELEMENTS = Family("elementwise", "dtype", ("op_name", "width"), _elements, _rows, _size, "rows")
SOFTMAX = Family("softmax", "dtype", ("width",), _softmax, _rows, _size, "rows")
LAYERNORM = Family("layernorm", "dtype", ("width",), _layernorm, _rows, _size, "rows")
FAMILIES = {"linear": LINEAR, "bmm": BATCHED, "softmax": SOFTMAX, "ln": LAYERNORM}
FAMILIES |= dict.fromkeys(BINARY | UNARY, ELEMENTS)


def torch_family(table: pd.DataFrame) -> Family | None:
    """The family of a table of single operators; None for another table."""
    if not len(table) or not {"op_name", "latency", "rows", "dtype"} <= set(table.columns):
        return None
    return FAMILIES.get(str(table["op_name"].iloc[0]))
