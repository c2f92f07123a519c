"""What each ONNX operator costs: which are views, which copy, and the FLOPs of the others per element.

Tables only, and the functions that count the operators with a matrix product. The walk over a model is in
`simulator.importers.onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from simulator.errors import ImportFormatError
from simulator.importers.tally import Ledger, Value


def _words(text: str) -> list[str]:
    return text.split()


VIEWS = frozenset(
    _words("Reshape Flatten Squeeze Unsqueeze Identity Dropout Constant ConstantOfShape Shape Size Range")
)
"""No work of their own."""

COPIES = frozenset(
    _words(
        "Transpose Concat Split Slice Pad Expand Tile DepthToSpace SpaceToDepth Where Cast CastLike Trilu "
        "GatherElements GatherND ScatterElements ScatterND ReverseSequence Compress EyeLike"
    )
)
"""Move elements without arithmetic; compilers fuse most of them into a neighbour."""

ELEMENTWISE: dict[str, float] = {
    **dict.fromkeys(
        _words("Add Sub Mul Div Neg Abs Relu Sqrt Reciprocal Floor Ceil Round Sign Equal Less Greater LessOrEqual "
        "GreaterOrEqual And Or Not Xor Min Max Sum Mean BitShift IsNaN IsInf ThresholdedRelu Mod BitwiseAnd "
        "BitwiseOr BitwiseNot BitwiseXor"),
        1.0,
    ),
    **dict.fromkeys(
        _words("LeakyRelu PRelu Clip Exp Log Pow QuantizeLinear DequantizeLinear Sin Cos Tan Shrink Softsign"), 2.0
    ),
    "Sigmoid": 4, "HardSigmoid": 4, "HardSwish": 4, "Elu": 4, "Selu": 4, "Celu": 4, "DynamicQuantizeLinear": 4,
    "Swish": 5, "Tanh": 5, "Softplus": 5, "Sinh": 5, "Cosh": 5, "Atan": 5, "Erf": 8, "Gelu": 8, "Mish": 10,
}  # fmt: skip
"""FLOPs per element of the result; an exponential counts as 2. Engines fuse these into their neighbours."""

REDUCTIONS: dict[str, float] = {
    **dict.fromkeys(_words("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ArgMax ArgMin TopK CumSum"), 1.0),
    **dict.fromkeys(_words("ReduceL1 ReduceL2 ReduceSumSquare"), 2.0),
    "GlobalAveragePool": 1, "GlobalMaxPool": 1, "ReduceLogSumExp": 4, "ReduceLogSum": 2, "BatchNormalization": 2,
    "RMSNormalization": 4, "InstanceNormalization": 7, "LayerNormalization": 7, "GroupNormalization": 7,
    "MeanVarianceNormalization": 7, "LpNormalization": 3, "LRN": 6, "Softmax": 5, "LogSoftmax": 6, "Hardmax": 1,
}  # fmt: skip
"""FLOPs per element of the input of reductions and norms, which are kernels of their own."""

POOLS = frozenset(("MaxPool", "AveragePool", "LpPool"))

Inputs = list[Value | None]
Counter = Callable[[Ledger, str, Inputs, list[Value], Mapping[str, Any]], None]


def _given(inputs: Inputs) -> list[Value]:
    return [value for value in inputs if value is not None]


def _required(name: str, inputs: Inputs, index: int) -> Value:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise ImportFormatError(f"node '{name}' lacks its input {index}")
    return value


def _optional(inputs: Inputs, index: int) -> Value | None:
    return inputs[index] if index < len(inputs) else None


def _matmul(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
    ledger.matmul(name, _required(name, inputs, 0), _required(name, inputs, 1), outputs[0])


def _quantized_matmul(
    ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]
) -> None:
    ledger.matmul(name, _required(name, inputs, 0), _required(name, inputs, 3), outputs[0])


def _gemm(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
    a, b = _required(name, inputs, 0), _required(name, inputs, 1)
    k, m = a.shape if attributes.get("transA") else a.shape[::-1]
    n = b.shape[0] if attributes.get("transB") else b.shape[1]
    ledger.product(name, (a, b), outputs[0], m, n, k, 1, _optional(inputs, 2))


def _convolution(weight: int, bias: int, transposed: bool) -> Counter:
    def count(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
        ledger.convolution(
            name, _required(name, inputs, 0), _required(name, inputs, weight), outputs[0], attributes.get("group", 1),
            _optional(inputs, bias), transposed=transposed,
        )  # fmt: skip

    return count


def _einsum(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
    if len(_given(inputs)) != 2:
        raise ImportFormatError(f"node '{name}': a contraction of {len(_given(inputs))} operands, 2 are counted")
    equation = attributes["equation"].decode()
    ledger.einsum(name, equation, _required(name, inputs, 0), _required(name, inputs, 1), outputs[0])


def _attention(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
    query, key, value = (_required(name, inputs, index) for index in range(3))
    heads = query.shape[1] if len(query.shape) == 4 else attributes.get("q_num_heads", 0)
    kv_heads = key.shape[1] if len(key.shape) == 4 else attributes.get("kv_num_heads", 0)
    if not heads or not kv_heads:
        raise ImportFormatError(f"node '{name}' lacks q_num_heads and kv_num_heads")
    causal = bool(attributes.get("is_causal", 0))
    ledger.attention(name, query, key, value, outputs[0], heads, kv_heads, causal=causal)


def _recurrent(gates: int) -> Counter:
    def count(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
        source, matrix, recurrent = (_required(name, inputs, index) for index in range(3))
        bias = _optional(inputs, 3)
        weights = [matrix, recurrent, *([bias] if bias is not None else [])]
        ledger.recurrence(
            name, source, weights, outputs[0], positions=source.shape[0] * source.shape[1], inputs=matrix.shape[2],
            hidden=recurrent.shape[2], gates=gates, directions=matrix.shape[0],
        )  # fmt: skip

    return count


def _gather(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
    ledger.gather(name, _required(name, inputs, 0), _required(name, inputs, 1), outputs[0])


def _resize(ledger: Ledger, name: str, inputs: Inputs, outputs: list[Value], attributes: Mapping[str, Any]) -> None:
    """Nearest neighbour copies; linear blends 4 neighbours (3 blends of 2 FLOPs); cubic 16."""
    mode = attributes.get("mode", b"nearest").decode()
    per_element = {"nearest": 0.0, "linear": 6.0, "cubic": 30.0}[mode]
    ledger.elementwise(name, [_required(name, inputs, 0)], outputs, per_element * outputs[0].elements, fused=False)


COUNTERS: dict[str, Counter] = {
    "MatMul": _matmul, "MatMulInteger": _matmul, "QLinearMatMul": _quantized_matmul, "Gemm": _gemm,
    "Conv": _convolution(1, 2, False), "ConvInteger": _convolution(1, 99, False),
    "ConvTranspose": _convolution(1, 2, True), "QLinearConv": _convolution(3, 8, False), "Einsum": _einsum,
    "Attention": _attention, "LSTM": _recurrent(4), "GRU": _recurrent(3), "RNN": _recurrent(1), "Gather": _gather,
    "Resize": _resize, "Upsample": _resize,
}  # fmt: skip


def is_known(operator: str) -> bool:
    """Whether nodes of that operator can be counted."""
    return any(operator in table for table in (VIEWS, COPIES, ELEMENTWISE, REDUCTIONS, POOLS, COUNTERS))


def count_node(
    ledger: Ledger,
    operator: str,
    name: str,
    inputs: Inputs,
    outputs: list[Value],
    attributes: Mapping[str, Any],
) -> None:
    """Add what one node costs. `operator` is known and no view."""
    given = _given(inputs)
    if operator in COUNTERS:
        COUNTERS[operator](ledger, name, inputs, outputs, attributes)
    elif operator in COPIES:
        ledger.elementwise(name, given, outputs, 0.0, fused=True)
    elif operator in ELEMENTWISE:
        extra = max(1, len(given) - 1) if operator in ("Min", "Max", "Sum", "Mean") else 1
        ledger.elementwise(name, given, outputs, ELEMENTWISE[operator] * extra * outputs[0].elements, fused=True)
    elif operator in REDUCTIONS:
        flops = REDUCTIONS[operator] * given[0].elements
        ledger.elementwise(name, given, outputs, flops, fused=operator == "BatchNormalization")
    else:
        window = prod(attributes.get("kernel_shape", ()))
        ledger.elementwise(name, given[:1], outputs[:1], float(window) * outputs[0].elements, fused=False)
