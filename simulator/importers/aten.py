"""What each ATen operator costs: which are views, which copy, and the FLOPs of the others per element.

Tables only, and the functions that count the operators with a matrix product, both as exported and as decomposed to
core ATen. Arguments come by the names of the operator's schema. Imports no torch.
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
    _words(
        "view reshape _unsafe_view t transpose permute expand expand_as unsqueeze squeeze flatten unflatten detach "
        "alias dropout feature_dropout alpha_dropout lift_fresh_copy lift_fresh view_as movedim swapaxes swapdims "
        "numpy_T mT getitem split split_with_sizes chunk unbind select slice narrow diagonal tensor_split unfold "
        "as_strided"
    )
)
"""No work of their own."""

IGNORED = frozenset(
    _words(
        "sym_size sym_numel sym_stride sym_storage_offset _assert_tensor_metadata _assert_scalar _assert_async "
        "sym_constrain_range sym_constrain_range_for_size arange zeros ones full zeros_like ones_like full_like "
        "new_zeros new_ones new_full new_empty empty empty_like scalar_tensor eye linspace is_nonzero item "
        "_local_scalar_dense"
    )
)
"""Shape arithmetic, checks, and tensors made without any input."""

COPIES = frozenset(
    _words(
        "clone contiguous cat concat stack copy _to_copy to type_as pad constant_pad_nd reflection_pad1d "
        "reflection_pad2d replication_pad2d roll flip repeat repeat_interleave gather upsample_nearest1d "
        "upsample_nearest2d pixel_shuffle pixel_unshuffle where masked_fill tril triu index_put slice_scatter "
        "select_scatter scatter hstack vstack channel_shuffle fill"
    )
)
"""Move elements without arithmetic; compilers fuse most of them into a neighbour."""

ELEMENTWISE: dict[str, float] = {
    **dict.fromkeys(
        _words(
            "add sub rsub mul div neg abs relu sqrt rsqrt reciprocal floor ceil round sign eq ne lt le gt ge __and__ "
            "__or__ logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not maximum minimum "
            "square isnan isinf remainder floor_divide trunc"
        ),
        1.0,
    ),
    **dict.fromkeys(
        _words(
            "leaky_relu prelu clamp clamp_min clamp_max relu6 hardtanh exp log log2 pow sin cos addcmul addcdiv lerp"
        ),
        2.0,
    ),
    "sigmoid": 4, "hardsigmoid": 4, "hardswish": 4, "elu": 4, "selu": 4, "celu": 4, "silu": 5, "tanh": 5, "softplus": 5,
    "log1p": 3, "expm1": 3, "erf": 8, "gelu": 8, "mish": 10, "glu": 5, "softsign": 3, "log_sigmoid": 6,
}  # fmt: skip
"""FLOPs per element of the result; an exponential counts as 2. Engines fuse these into their neighbours."""

REDUCTIONS: dict[str, float] = {
    **dict.fromkeys(
        _words("mean sum amax amin max min prod argmax argmin any all cumsum topk sort adaptive_max_pool2d"), 1.0
    ),
    **dict.fromkeys(_words("adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d"), 1.0),
    "batch_norm": 2, "_native_batch_norm_legit_no_training": 2, "rms_norm": 4, "_fused_rms_norm": 4, "var": 4,
    "var_mean": 4, "std": 5, "norm": 2, "linalg_vector_norm": 2, "logsumexp": 4, "layer_norm": 7,
    "native_layer_norm": 7, "group_norm": 7, "native_group_norm": 7, "instance_norm": 7, "softmax": 5, "_softmax": 5,
    "_safe_softmax": 5, "log_softmax": 6, "_log_softmax": 6, "upsample_bilinear2d": 6, "upsample_bicubic2d": 30,
}  # fmt: skip
"""FLOPs per element (of the input, or of the result where that is larger) of work that is a kernel of its own."""

POOLS = frozenset(_words("max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d"))

Arguments = Mapping[str, Any]
Counter = Callable[[Ledger, str, Arguments, Value], None]


def _linear(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    source, matrix = given["input"], given["weight"]
    n, k = matrix.shape[0], matrix.shape[-1]
    ledger.product(name, (source, matrix), output, prod(source.shape[:-1]), n, k, 1, given.get("bias"))


def _matmul(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    a = given.get("self", given.get("input"))
    b = next(given[key] for key in ("mat2", "other", "vec", "tensor") if key in given)
    ledger.matmul(name, a, b, output)


def _addmm(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    left, right = ("batch1", "batch2") if "batch1" in given else ("mat1", "mat2")
    ledger.matmul(name, given[left], given[right], output, given["self"])


def _convolution(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    transposed = bool(given.get("transposed", False))
    groups, bias = given.get("groups", 1), given.get("bias")
    ledger.convolution(name, given["input"], given["weight"], output, groups, bias, transposed=transposed)


def _transposed(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    _convolution(ledger, name, {**given, "transposed": True}, output)


def _attention(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    query, key, value = given["query"], given["key"], given["value"]
    heads, kv_heads = query.shape[-3], key.shape[-3]
    causal = bool(given.get("is_causal", False))
    ledger.attention(name, query, key, value, output, heads, kv_heads, causal=causal)


def _einsum(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    operands = given["tensors"]
    if len(operands) != 2:
        raise ImportFormatError(f"node '{name}': a contraction of {len(operands)} operands, 2 are counted")
    ledger.einsum(name, given["equation"], operands[0], operands[1], output)


def _embedding(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    ledger.gather(name, given["weight"], given["indices"], output)


def _index(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
    index = given.get("index", given.get("indices"))
    chosen = next((item for item in index if item is not None), None) if isinstance(index, list) else index
    if chosen is None:
        raise ImportFormatError(f"node '{name}' has no index")
    ledger.gather(name, given["self"], chosen, output)


def _recurrent(gates: int) -> Counter:
    """Layers one after another; each direction of a layer is a group of its products."""

    def count(ledger: Ledger, name: str, given: Arguments, output: Value) -> None:
        source, params = given["input"], list(given["params"])
        directions = 2 if given.get("bidirectional") else 1
        per_direction = 4 if given["has_biases"] else 2
        hidden = params[1].shape[-1]
        for layer in range(given["num_layers"]):
            for direction in range(directions):
                first = (layer * directions + direction) * per_direction
                weights = params[first : first + per_direction]
                label = f"{name}.{layer}" + (".reverse" if direction else "")
                target = Value(f"{label}.output", (*source.shape[:-1], hidden), source.dtype)
                ledger.recurrence(
                    label, source, weights, target, positions=prod(source.shape[:-1]), inputs=weights[0].shape[-1],
                    hidden=hidden, gates=gates, directions=1,
                )  # fmt: skip
            source = Value(f"{name}.{layer}", (*source.shape[:-1], hidden * directions), source.dtype)

    return count


COUNTERS: dict[str, Counter] = {
    "linear": _linear, **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot", "_int_mm"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm", "_addmm_activation"), _addmm),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(
        (
            "scaled_dot_product_attention", "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
    "einsum": _einsum, "embedding": _embedding, "index": _index, "index_select": _index,
    "lstm": _recurrent(4), "gru": _recurrent(3), "rnn_tanh": _recurrent(1), "rnn_relu": _recurrent(1),
}  # fmt: skip


def is_known(operator: str) -> bool:
    """Whether nodes of that operator can be counted."""
    return any(operator in table for table in (VIEWS, IGNORED, COPIES, ELEMENTWISE, REDUCTIONS, POOLS, COUNTERS))


def count_node(
    ledger: Ledger,
    operator: str,
    name: str,
    given: Arguments,
    inputs: list[Value],
    outputs: list[Value],
) -> None:
    """Add what one node costs; `given` holds its arguments by name. `operator` is known and no view."""
    if operator in COUNTERS:
        COUNTERS[operator](ledger, name, given, outputs[0])
    elif operator in COPIES:
        ledger.elementwise(name, inputs, outputs, 0.0, fused=True)
    elif operator in ELEMENTWISE:
        ledger.elementwise(name, inputs, outputs, ELEMENTWISE[operator] * outputs[0].elements, fused=True)
    elif operator in REDUCTIONS:
        size = max(inputs[0].elements, outputs[0].elements)
        # statistics that a norm returns beside its result stay inside the kernel
        ledger.elementwise(name, inputs, outputs[:1], REDUCTIONS[operator] * size, fused="batch_norm" in operator)
    else:
        kernel = given["kernel_size"]
        dimensions = 1 if "1d" in operator else 3 if "3d" in operator else 2
        window = prod(kernel) if len(kernel) == dimensions else kernel[0] ** dimensions
        ledger.elementwise(name, inputs[:1], outputs[:1], float(window) * outputs[0].elements, fused=False)
