"""Counting the nodes of a foreign graph at fixed shapes, and turning counts at given batch sizes into ops.

An importer walks its nodes once per batch size with a `Ledger`; `ops_of` then reads off what grows with the batch
(`sequences`) and what does not (`const`). Knows neither ONNX nor PyTorch. One MAC is 2 FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from simulator.errors import ImportFormatError
from simulator.graph.op import Kind, Op, Role, Tensor
from simulator.graph.step import Amount, Span

SOFTMAX_FLOPS = 5.0


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the foreign graph, with all its sizes known."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str | None = None
    """The parameter that it is, or is a view of."""
    static: bool = False
    """Known before the network runs: a parameter, a constant, or something made of them alone."""
    overhead_bits: float = 0.0

    @property
    def elements(self) -> float:
        """How many numbers it holds."""
        return float(prod(self.shape))

    @property
    def role(self) -> Role:
        """Parameters are weights, everything else is an activation."""
        return "weight" if self.stored is not None else "activation"


@dataclass(frozen=True, slots=True)
class Operand:
    """What one node reads, writes or keeps of one value, at one batch size."""

    name: str
    role: Role
    dtype: str
    read: float = 0.0
    write: float = 0.0
    resident: float = 0.0
    overhead_bits: float = 0.0
    looked_up: bool = False
    """Rows of a table, as many as the batch asks for."""


@dataclass(frozen=True, slots=True)
class Count:
    """One node at one batch size; the fields are those of Op."""

    name: str
    kind: Kind
    operands: tuple[Operand, ...]
    flops: float = 0.0
    dtype: str = "fp32"
    rows: float = 0.0
    n: int = 0
    k: int = 0
    groups: int = 1
    batched: bool = False
    """Every sample has groups of its own (a product of two activations)."""
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0
    causal: bool = True
    fused: bool = False


@dataclass(slots=True)
class Ledger:
    """Counts of the nodes of one graph at one batch size. A parameter is kept by the first node that reads it."""

    counts: list[Count] = field(default_factory=list)
    _kept: set[str] = field(default_factory=set)

    def read(self, value: Value, elements: float | None = None, *, looked_up: bool = False) -> Operand:
        """`value` as an input, of which `elements` (default: all) are read."""
        resident = 0.0
        if value.stored is not None and value.stored not in self._kept:
            self._kept.add(value.stored)
            resident = value.elements
        return Operand(
            value.name, value.role, value.dtype, read=value.elements if elements is None else elements,
            resident=resident, overhead_bits=value.overhead_bits, looked_up=looked_up,
        )  # fmt: skip

    def write(self, value: Value) -> Operand:
        """`value` as an output."""
        return Operand(value.name, "activation", value.dtype, write=value.elements, overhead_bits=value.overhead_bits)

    def elementwise(
        self,
        name: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        flops: float,
        *,
        fused: bool,
    ) -> None:
        """Work without a matrix product; one-element constants are part of the instruction."""
        read = [
            self.read(value) for value in inputs if not (value.static and (value.elements <= 1 or not value.stored))
        ]
        operands = (*read, *(self.write(value) for value in outputs))
        rows = prod(outputs[0].shape[:-1]) if outputs and outputs[0].shape else 1
        width = outputs[0].shape[-1] if outputs and outputs[0].shape else 1
        dtype = outputs[0].dtype if outputs else "fp32"
        self.counts.append(Count(name, "elementwise", operands, flops, dtype, float(rows), width, fused=fused))

    def gather(self, name: str, table: Value, indices: Value, output: Value) -> None:
        """Rows of `table` looked up by `indices`."""
        operands = [self.read(table, output.elements, looked_up=True), self.write(output)]
        if not indices.static:
            bits = indices.overhead_bits
            operands.insert(1, Operand(indices.name, "index", indices.dtype, indices.elements, overhead_bits=bits))
        width = output.shape[-1] if output.shape else 1
        rows = output.elements / max(1, width)
        self.counts.append(Count(name, "gather", tuple(operands), 0.0, output.dtype, rows, width))

    def matmul(self, name: str, a: Value, b: Value, output: Value, bias: Value | None = None) -> None:
        """The product of [.., m, k] and [.., k, n], of which the leading sizes are broadcast.

        With a matrix on one side it is one GEMM over all rows of the other; otherwise one per leading index. The side
        that is no weight moves.

        >>> ledger = Ledger()
        >>> x, w = Value("x", (2, 5, 8), "fp16"), Value("w", (8, 4), "fp16", stored="w", static=True)
        >>> ledger.matmul("dense", x, w, Value("y", (2, 5, 4), "fp16"))
        >>> op = ops_of({2: ledger.counts})[0]
        >>> op.rows.sequences, op.n, op.k, op.flops.sequences
        (5.0, 4, 8, 320.0)
        """
        left = a.shape if len(a.shape) > 1 else (1, *a.shape)
        right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
        m, k, n = left[-2], left[-1], right[-1]
        if prod(right[:-2]) == 1:
            rows, columns, groups = prod(left[:-1]), n, 1
        elif prod(left[:-2]) == 1 and a.role == "weight":
            rows, columns, groups = prod(right[:-2]) * n, m, 1
        else:
            groups = int(output.elements) // max(1, m * n)
            rows, columns = groups * m, n
        self.product(name, (a, b), output, rows, columns, k, groups, bias)

    def einsum(self, name: str, equation: str, a: Value, b: Value, output: Value) -> None:
        """A contraction of two operands: k is what the result lacks, groups what all three share."""
        left, right, result = _subscripts(name, equation, a, b)
        sizes = {**dict(zip(left, a.shape, strict=True)), **dict(zip(right, b.shape, strict=True))}

        def size(labels: set[str]) -> int:
            return prod(sizes[label] for label in labels)

        shared = set(left) & set(right)
        groups, k = size(shared & set(result)), size(shared - set(result))
        m, n = size(set(left) - shared), size(set(right) - shared)
        if a.role == "weight" and b.role != "weight":
            m, n = n, m
        self.product(name, (a, b), output, groups * m, n, k, groups)

    def product(
        self,
        name: str,
        inputs: tuple[Value, Value],
        output: Value,
        rows: int,
        n: int,
        k: int,
        groups: int,
        bias: Value | None = None,
    ) -> None:
        """A GEMM of `rows` over all groups: 2 rows n k FLOPs. Arithmetic is in the format of the moving operand."""
        moving = next((value for value in inputs if value.role != "weight"), inputs[0])
        operands = [self.read(value) for value in inputs]
        if bias is not None:
            operands.append(self.read(bias))
        operands.append(self.write(output))
        batched = groups > 1 and all(value.role != "weight" for value in inputs)
        self.counts.append(
            Count(name, "gemm", tuple(operands), 2.0 * rows * n * k, moving.dtype, float(rows), n, k, groups, batched)
        )

    def convolution(
        self,
        name: str,
        source: Value,
        weight: Value,
        output: Value,
        groups: int,
        bias: Value | None = None,
        *,
        transposed: bool = False,
    ) -> None:
        """A convolution of [batch, channels, ...]: k = in / groups x window, n = out / groups.

        Transposed: every input position is spread over its window, so k = in / groups and n = out / groups x window.
        """
        window = prod(weight.shape[2:])
        batch = source.shape[0]
        if transposed:
            rows = batch * prod(source.shape[2:]) * groups
            n, k = weight.shape[1] * window, weight.shape[0] // groups
        else:
            rows = batch * prod(output.shape[2:]) * groups
            n, k = weight.shape[0] // groups, weight.shape[1] * window
        self.product(name, (source, weight), output, rows, n, k, groups, bias)

    def attention(
        self,
        name: str,
        query: Value,
        key: Value,
        value: Value,
        output: Value,
        heads: int,
        kv_heads: int,
        *,
        causal: bool,
    ) -> None:
        """Scores, softmax and values of [batch, heads, tokens, dim] (or [batch, tokens, heads x dim]).

        2 h (d_qk + d_v) + 5 h FLOPs per pair; a causal square of t tokens has t (t + 1) / 2 pairs.
        """
        split = len(query.shape) == 4
        batch = query.shape[0]
        queries, keys = query.shape[-2], key.shape[-2]
        head_dim = query.shape[-1] if split else query.shape[-1] // heads
        value_dim = value.shape[-1] if split else value.shape[-1] // kv_heads
        pairs = queries * keys
        if causal:
            reach = min(queries, keys)
            pairs = reach * (reach + 1) // 2 + max(0, queries - keys) * keys
        operands = (self.read(query), self.read(key), self.read(value), self.write(output))
        flops = batch * pairs * heads * (2.0 * (head_dim + value_dim) + SOFTMAX_FLOPS)
        count = Count(
            name, "attention", operands, flops, query.dtype, float(batch * queries), heads=heads, kv_heads=kv_heads,
            head_dim=head_dim, value_dim=value_dim, causal=causal,
        )  # fmt: skip
        self.counts.append(count)

    def recurrence(
        self,
        name: str,
        source: Value,
        weights: Sequence[Value],
        output: Value,
        *,
        positions: int,
        inputs: int,
        hidden: int,
        gates: int,
        directions: int,
    ) -> None:
        """An LSTM, GRU or plain RNN over `positions` (time steps x batch): the input products as a GEMM, then the scan.

        `weights`: input matrix, recurrent matrix, then biases. The scan has 2 g h^2 + 6 g h FLOPs per position and
        reads the recurrent matrix once.
        """
        matrix, recurrent, *biases = weights
        rows, n = positions * directions, gates * hidden
        gate = Value(f"{name}.gates", (rows, n), source.dtype)
        self.product(f"{name}.input", (source, matrix), gate, rows, n, inputs, directions)
        operands = (self.read(gate), self.read(recurrent), *(self.read(bias) for bias in biases), self.write(output))
        flops = rows * (2.0 * n * hidden + 6.0 * n)
        self.counts.append(Count(f"{name}.scan", "scan", operands, flops, source.dtype, float(rows), n, hidden))


def ops_of(counts: Mapping[int, Sequence[Count]]) -> tuple[Op, ...]:
    """Ops from the counts at one or two batch sizes.

    Two sizes give the straight line through both counts. One size b gives count / b per sample, and weights once.
    Raises ImportFormatError where a count grows faster than the batch.
    """
    sizes = sorted(counts)
    lists = [counts[size] for size in sizes]
    if len({len(one) for one in lists}) != 1:
        raise ImportFormatError(f"the graph has other nodes with batch {sizes[0]} than with batch {sizes[-1]}")
    return tuple(_op(sizes, column) for column in zip(*lists, strict=True))


def main_dtype(counts: Sequence[Count]) -> str:
    """The number format of most of the arithmetic.

    >>> main_dtype([Count("a", "gemm", (), 10.0, "int8"), Count("b", "elementwise", (), 1.0, "fp32")])
    'int8'
    """
    work: dict[str, float] = {}
    for count in counts:
        work[count.dtype] = work.get(count.dtype, 0.0) + count.flops
    return max(work, key=lambda dtype: work[dtype], default="fp32")


def _op(sizes: list[int], column: Sequence[Count]) -> Op:
    first = column[0]
    tensors = []
    for operands in zip(*(count.operands for count in column), strict=True):
        one = operands[0]
        once = one.role == "weight" and not one.looked_up
        read = _amount(first.name, sizes, [operand.read for operand in operands], once=once)
        write = _amount(first.name, sizes, [operand.write for operand in operands], once=False)
        kept = Amount(const=one.resident)
        tensors.append(Tensor(one.name, one.role, one.dtype, read, write, kept, overhead_bits=one.overhead_bits))
    if any((count.n, count.k) != (first.n, first.k) for count in column):
        raise ImportFormatError(f"node '{first.name}': the batch is not a row dimension of its product")
    groups = max(1, first.groups // sizes[0]) if first.batched else first.groups
    return Op(
        first.name, first.kind, tuple(tensors), dtype=first.dtype, n=first.n, k=first.k, groups=groups,
        flops=_amount(first.name, sizes, [count.flops for count in column], once=False),
        rows=_amount(first.name, sizes, [count.rows for count in column], once=False),
        heads=first.heads, kv_heads=first.kv_heads, head_dim=first.head_dim, value_dim=first.value_dim,
        span=Span(causal=first.causal), split="heads" if first.kind == "attention" else "none",
        block=_block(first), fused=first.fused,
    )  # fmt: skip


def _block(count: Count) -> str:
    """The outermost module in a name such as `layer1.0.conv` or `/layer1/0/Conv`; the kind where there is none."""
    parts = count.name.strip("/").replace("/", ".").split(".")
    return parts[0] if len(parts) > 1 else count.kind


def _amount(name: str, sizes: list[int], values: list[float], *, once: bool) -> Amount:
    if len(sizes) == 1:
        return Amount(const=values[0]) if once else Amount(sequences=values[0] / sizes[0])
    slope = (values[1] - values[0]) / (sizes[1] - sizes[0])
    const = values[0] - slope * sizes[0]
    if const < 0 or slope < 0:
        raise ImportFormatError(f"node '{name}': {values[0]:g} with batch {sizes[0]} and {values[1]:g} with {sizes[1]}")
    return Amount(const=const, sequences=slope)


def _subscripts(name: str, equation: str, a: Value, b: Value) -> tuple[str, str, str]:
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    left, comma, right = inputs.partition(",")
    if not arrow or not comma or "." in equation or len(left) != len(a.shape) or len(right) != len(b.shape):
        raise ImportFormatError(f"node '{name}': cannot read the contraction '{equation}' of two operands")
    return left, right, result
