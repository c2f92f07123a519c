"""An ONNX model as a graph: shapes by ONNX's own inference, counts by `simulator.importers.onnx_ops`.

Needs the package `onnx`, which is imported when the function is called. Weights' values are never read. A symbolic
first size of the inputs is the batch; with none, the model's own batch is divided out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from simulator.errors import ImportFormatError, UnsupportedError, shorten
from simulator.graph.op import Graph, verify
from simulator.importers.onnx_ops import VIEWS, count_node, is_known
from simulator.importers.tally import Count, Ledger, Value, main_dtype, ops_of

DTYPES: dict[str, tuple[str, float]] = {
    "FLOAT": ("fp32", 0), "FLOAT16": ("fp16", 0), "BFLOAT16": ("bf16", 0), "DOUBLE": ("fp64", 0),
    "INT8": ("int8", 0), "UINT8": ("int8", 0), "BOOL": ("int8", 0), "INT16": ("int16", 0), "UINT16": ("int16", 0),
    "INT32": ("int32", 0), "UINT32": ("int32", 0), "INT64": ("int32", 32), "UINT64": ("int32", 32),
    "INT4": ("int4", 0), "UINT4": ("int4", 0), "INT2": ("int2", 0), "UINT2": ("int2", 0),
    "FLOAT8E4M3FN": ("fp8", 0), "FLOAT8E4M3FNUZ": ("fp8", 0), "FLOAT8E5M2": ("fp8", 0), "FLOAT8E5M2FNUZ": ("fp8", 0),
    "FLOAT4E2M1": ("fp4", 0),
}  # fmt: skip
"""ONNX element type -> number format, and bits that it has beyond that format's."""

_FLOATS = ("fp64", "fp32", "bf16", "fp16", "fp8", "fp4")


def graph_from_onnx(
    path: Path | str, *, dims: Mapping[str, int] | None = None, batch: str | None = None, name: str | None = None
) -> Graph:
    """The graph of the model at `path`, with counts per sample.

    `dims` gives the symbolic sizes other than the batch (`{"sequence": 128}`); `batch` names the batch where it is not
    the first size of the first input. Initializers are weights, at the precision in which they are stored; work on
    constants alone is folded away. All operators that cannot be counted are named in one UnsupportedError.
    """
    try:
        import onnx
    except ImportError:
        raise UnsupportedError("reading ONNX without the package 'onnx'", ["pip install ridgeline[onnx]"]) from None
    path, where = Path(path), shorten(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ImportFormatError(f"{where} cannot be read: {error.strerror}") from None
    except Exception as error:  # protobuf's DecodeError has no public name that is stable
        raise ImportFormatError(f"{where} is not an ONNX model: {error}") from None
    if not model.graph.node or not model.graph.output:
        raise ImportFormatError(f"{where} is not an ONNX model: it has no nodes or no outputs")
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    _refuse_unknown(model.graph.node)
    symbol, sizes = _batch(model, where, dims or {}, batch)
    counts = {size: _count(model, where, {**(dims or {}), symbol: size}) for size in sizes}
    graph = Graph(name or path.stem, ops_of(counts), dtype=main_dtype(counts[sizes[0]]))
    return verify(graph, "graph_from_onnx")


def _refuse_unknown(nodes: Sequence[Any]) -> None:
    unknown: dict[str, list[str]] = {}
    for node in nodes:
        if node.domain not in ("", "ai.onnx") or not is_known(node.op_type):
            label = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            unknown.setdefault(label, []).append(node.name or node.output[0])
    if unknown:
        listed = ", ".join(f"{label} ({len(names)}x, first '{names[0]}')" for label, names in sorted(unknown.items()))
        raise UnsupportedError(f"the ONNX operator set of this model: {listed}", ["standard operators"])


def _batch(model: Any, where: str, dims: Mapping[str, int], batch: str | None) -> tuple[str, list[int]]:
    """The symbol of the batch and the sizes at which to count: two where it is symbolic, else the model's own."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    symbols: list[str] = []
    first: str | int | None = None
    for value in inputs:
        for position, (symbol, size) in enumerate(_sizes(value)):
            if first is None and position == 0:
                first = symbol or size
            if symbol:
                symbols.append(symbol)
    chosen = batch if batch is not None else (first if isinstance(first, str) and first not in dims else None)
    if batch is not None and batch not in symbols:
        raise ImportFormatError(f"{where} has no symbolic size '{batch}'; it has {sorted(set(symbols))}")
    missing = sorted(set(symbols) - set(dims) - {chosen})
    if missing:
        example = ", ".join(f'"{symbol}": 128' for symbol in missing)
        raise ImportFormatError(f"{where} leaves sizes open; give them: dims={{{example}}}")
    unused = sorted(set(dims) - set(symbols))
    if unused:
        raise ImportFormatError(f"{where} has no symbolic sizes {unused}; it has {sorted(set(symbols))}")
    if chosen is not None:
        return chosen, [1, 2]
    size = dims[first] if isinstance(first, str) else (first or 1)
    return "", [max(1, size)]


def _sizes(value: Any) -> Iterator[tuple[str, int]]:
    """(symbol, "") or ("", size) of each dimension; a size without a name gets one from its place."""
    for position, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            yield "", dim.dim_value
        else:
            yield dim.dim_param or f"{value.name}[{position}]", 0


def _count(original: Any, where: str, sizes: Mapping[str, int]) -> list[Count]:
    model = _with_sizes(original, where, sizes)
    elem_types = {number: text for text, number in _elem_types().items()}
    values: dict[str, Value | None] = {"": None}
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        tensor = info.type.tensor_type
        known = info.type.HasField("tensor_type") and tensor.HasField("shape") and tensor.elem_type
        if known and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shape = tuple(dim.dim_value for dim in tensor.shape.dim)
            values[info.name] = _value(info.name, shape, elem_types[tensor.elem_type], where)
    for initializer in model.graph.initializer:
        kind = elem_types[initializer.data_type]
        values[initializer.name] = _parameter(initializer.name, tuple(initializer.dims), kind, where)
    ledger = Ledger()
    used = {key for node in model.graph.node for key in node.input} | {info.name for info in model.graph.output}
    missing = [output for node in model.graph.node for output in node.output if output not in values]
    values.update(dict.fromkeys(missing))
    unresolved = [output for output in missing if output in used]
    if unresolved:
        more = f" and {len(unresolved) - 3} more" if len(unresolved) > 3 else ""
        raise ImportFormatError(f"{where}: the shapes of {unresolved[:3]}{more} do not follow from the inputs")
    for position, node in enumerate(model.graph.node):
        _walk(ledger, node, node.name or f"{node.op_type}_{position}", values)
    return ledger.counts


def _walk(ledger: Ledger, node: Any, name: str, values: dict[str, Value | None]) -> None:
    """Count one node, or note that its outputs are views of a parameter, or known before the network runs."""
    from onnx import helper

    inputs = [values[key] for key in node.input]
    given = [value for value in inputs if value is not None]
    outputs = [value for key in node.output if (value := values[key]) is not None]
    source = given[0] if given else None
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if not outputs:
        return
    if node.op_type in ("Shape", "Size", "Constant") or (given and all(value.static for value in given)):
        for value in outputs:
            values[value.name] = _folded(node.op_type, source, value, given)
    elif node.op_type in VIEWS:
        for value in outputs[:1]:
            if source is not None and source.stored is not None and value.elements == source.elements:
                values[value.name] = _alias(value, source)
    elif node.op_type == "DequantizeLinear" and source is not None:
        values[outputs[0].name] = _alias(outputs[0], source, stored=False)
        count_node(ledger, node.op_type, name, inputs, outputs, attributes)
    else:
        count_node(ledger, node.op_type, name, inputs, outputs, attributes)


def _folded(operator: str, source: Value | None, value: Value, given: Sequence[Value]) -> Value:
    """What an engine computes once, when it loads the model."""
    if operator == "DequantizeLinear" and source is not None and source.stored:
        scales = sum(item.elements * 32 for item in given[1:2])
        return replace(_alias(value, source), overhead_bits=scales / max(1.0, source.elements))
    alone = not any(item.stored and item.elements > 1 for item in given[1:])
    if source is not None and source.stored and value.elements == source.elements and alone:
        return _alias(value, source)
    from_weights = operator in ("Constant", "ConstantOfShape") or any(item.stored for item in given)
    weights = from_weights and value.dtype in _FLOATS and value.elements > 1
    return replace(value, static=True, stored=value.name if weights else None)


def _alias(value: Value, source: Value, *, stored: bool = True) -> Value:
    """`value` in the storage, and so in the format, of `source`."""
    return replace(
        value, dtype=source.dtype, overhead_bits=source.overhead_bits, stored=source.stored if stored else None,
        static=source.static,
    )  # fmt: skip


def _value(name: str, shape: tuple[int, ...], kind: str, where: str) -> Value:
    if kind not in DTYPES:
        raise ImportFormatError(f"{where}: '{name}' holds {kind}, which is no number")
    dtype, bits = DTYPES[kind]
    return Value(name, shape, dtype, overhead_bits=bits)


def _parameter(name: str, shape: tuple[int, ...], kind: str, where: str) -> Value:
    """An initializer. Integers of 32 bits and more are shapes and indices, no weights."""
    value = _value(name, shape, kind, where)
    weight = value.dtype != "int32" and prod(shape) >= 1
    return replace(value, stored=name if weight else None, static=True)


def _with_sizes(original: Any, where: str, sizes: Mapping[str, int]) -> Any:
    """A copy of the model in which every size is a number."""
    import onnx
    from onnx import shape_inference

    model = onnx.ModelProto()
    model.CopyFrom(original)
    del model.graph.value_info[:]
    for value in model.graph.input:
        for dim, (symbol, _) in zip(value.type.tensor_type.shape.dim, list(_sizes(value)), strict=True):
            if symbol and symbol in sizes:
                dim.dim_value = sizes[symbol]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        known = {symbol: size for symbol, size in sizes.items() if symbol}
        raise ImportFormatError(f"{where}: shapes do not fit together with {known}: {error}") from None


def _elem_types() -> Mapping[str, int]:
    import onnx

    return dict(onnx.TensorProto.DataType.items())
