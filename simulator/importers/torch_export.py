"""A program of torch.export as a graph: shapes from its fake tensors, counts by `simulator.importers.aten`.

Walks the exported nodes without running them; parameters and buffers are weights. Only `graph_from_module` imports
torch, and only when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from simulator.errors import ImportFormatError, UnsupportedError
from simulator.graph.op import Graph, verify
from simulator.importers.aten import IGNORED, VIEWS, count_node, is_known
from simulator.importers.tally import Count, Ledger, Value, main_dtype, ops_of

DTYPES: dict[str, tuple[str, float]] = {
    "float32": ("fp32", 0), "float16": ("fp16", 0), "bfloat16": ("bf16", 0), "float64": ("fp64", 0),
    "int8": ("int8", 0), "uint8": ("int8", 0), "bool": ("int8", 0), "int16": ("int16", 0), "uint16": ("int16", 0),
    "int32": ("int32", 0), "uint32": ("int32", 0), "int64": ("int32", 32), "uint64": ("int32", 32),
    "float8_e4m3fn": ("fp8", 0), "float8_e4m3fnuz": ("fp8", 0), "float8_e5m2": ("fp8", 0),
    "float8_e5m2fnuz": ("fp8", 0), "float4_e2m1fn_x2": ("fp4", 4),
}  # fmt: skip
"""torch dtype -> number format, and bits that it has beyond that format's."""


def graph_from_module(module: Any, args: tuple[Any, ...], *, name: str | None = None, **export: Any) -> Graph:
    """The graph of a torch module in evaluation mode, exported with the example inputs `args`.

    `export` goes to torch.export.export (`kwargs`, `dynamic_shapes`). The module's training flags are put back.
    """
    try:
        import torch
    except ImportError:
        raise UnsupportedError("exporting a module without 'torch'", ["pip install ridgeline[torch]"]) from None
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            program = torch.export.export(module, args, **export)
    finally:
        for part, training in flags:
            part.training = training
    return graph_from_exported_program(program, name=name or type(module).__name__)


def graph_from_exported_program(
    program: Any, *, name: str = "exported", dims: Mapping[str, int] | None = None
) -> Graph:
    """The graph of an ExportedProgram, with counts per sample.

    The first size of the first input is the batch: where it is symbolic, what does not grow with it is counted once;
    otherwise it is divided out. `dims` gives further symbolic sizes by symbol (`{"s77": 128}`). All operators that
    cannot be counted are named in one UnsupportedError.
    """
    if not hasattr(program, "graph_signature") or not hasattr(program, "graph"):
        raise ImportFormatError(f"an ExportedProgram of torch.export is needed, not {type(program).__name__}")
    nodes = list(program.graph.nodes)
    _refuse_unknown(nodes)
    stored = _stored(program)
    size, symbol = _batch(nodes, stored, dims or {})
    points = [1, 2] if symbol else [0]
    counts: dict[int, list[Count]] = {}
    for point in points:
        sizes = {**(dims or {}), symbol: point}
        counts[max(1, _integer(size, sizes))] = _count(nodes, stored, sizes)
    graph = Graph(name, ops_of(counts), dtype=main_dtype(next(iter(counts.values()))))
    return verify(graph, "graph_from_exported_program")


def _stored(program: Any) -> dict[str, str]:
    """Placeholder -> the parameter or buffer it is; tied ones have one name."""
    first: dict[int, str] = {}
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind.name in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            tensor = program.state_dict.get(spec.target)
            found[spec.arg.name] = spec.target if tensor is None else first.setdefault(id(tensor), spec.target)
    return found


def _refuse_unknown(nodes: Sequence[Any]) -> None:
    unknown: dict[str, list[str]] = {}
    for node in nodes:
        if node.op == "call_function" and _holds_tensors(node) and not is_known(_operator(node)):
            unknown.setdefault(str(node.target), []).append(node.name)
    if unknown:
        listed = ", ".join(f"{label} ({len(names)}x, first '{names[0]}')" for label, names in sorted(unknown.items()))
        raise UnsupportedError(f"the ATen operator set of this program: {listed}", ["program.run_decompositions()"])


def _operator(node: Any) -> str:
    """`relu` of aten.relu_.default; in-place operators cost what the others do."""
    label = str(getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.target))
    return label if label.startswith("__") else label.rstrip("_")


def _holds_tensors(node: Any) -> bool:
    value = node.meta.get("val")
    return any(hasattr(item, "shape") for item in (value if isinstance(value, (tuple, list)) else [value]))


def _batch(nodes: Sequence[Any], stored: Mapping[str, str], dims: Mapping[str, int]) -> tuple[Any, str]:
    """The first size of the first input, and its symbol ("" if it is a number). Refuses other open sizes."""
    inputs = [node for node in nodes if node.op == "placeholder" and node.name not in stored and _holds_tensors(node)]
    shapes = {node.name: node.meta["val"].shape for node in inputs if hasattr(node.meta["val"], "shape")}
    first: Any = next((shape[0] for shape in shapes.values() if len(shape)), 1)
    symbols = [symbol for symbol in _symbols(first) if symbol not in dims]
    chosen = symbols[0] if symbols else ""
    missing = {
        symbol: f"size {position} of '{name}'"
        for name, shape in shapes.items()
        for position, size in enumerate(shape)
        for symbol in _symbols(size)
        if symbol != chosen and symbol not in dims
    }
    if missing:
        listed = ", ".join(f"'{symbol}' ({place})" for symbol, place in missing.items())
        raise ImportFormatError(f"the program leaves sizes open; give them in dims: {listed}")
    return first, chosen


def _symbols(size: Any) -> list[str]:
    return [] if isinstance(size, int) else sorted(str(symbol) for symbol in size.node.expr.free_symbols)


def _integer(size: Any, sizes: Mapping[str, int]) -> int:
    """A size with its symbols replaced."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    unknown = [str(symbol) for symbol in expression.free_symbols if str(symbol) not in sizes]
    if unknown:
        raise ImportFormatError(f"the size {expression} depends on the data ({', '.join(unknown)})")
    return int(expression.subs({symbol: sizes[str(symbol)] for symbol in expression.free_symbols}))


def _count(nodes: Sequence[Any], stored: Mapping[str, str], sizes: Mapping[str, int]) -> list[Count]:
    ledger = Ledger()
    values: dict[Any, Any] = {}
    for node in nodes:
        if node.op == "placeholder":
            value = _values(node.name, node.meta.get("val"), sizes)
            if isinstance(value, Value) and node.name in stored:
                is_index = value.dtype == "int32"
                value = replace(value, stored=None if is_index else stored[node.name], static=True)
            values[node] = value
        elif node.op == "call_function":
            values[node] = _walk(ledger, node, values, sizes)
        elif node.op == "get_attr":
            values[node] = None
    return ledger.counts


def _walk(ledger: Ledger, node: Any, values: Mapping[Any, Any], sizes: Mapping[str, int]) -> Any:
    """Count one node; its result, with views of parameters marked as such."""
    operator = _operator(node)
    given = _arguments(node, values)
    inputs = _leaves(list(given.values()))
    result = _values(node.name, node.meta.get("val"), sizes)
    outputs = _leaves([result])
    if operator == "getitem" and isinstance(given["0"], (list, tuple)):
        return given["0"][given["1"]]
    if not outputs or operator in IGNORED:
        return result
    if inputs and all(value.static for value in inputs):
        return _each(result, lambda value: _view(value, inputs[0]))
    if operator in VIEWS:
        return result
    path = _module_path(node)
    count_node(ledger, operator, f"{path}.{node.name}" if path else node.name, given, inputs, outputs)
    return result


def _view(value: Value, source: Value) -> Value:
    """A view, a piece or a folded product of parameters. Sizes by which it is merely repeated are dropped."""
    if source.stored is None:
        return replace(value, static=True)
    shape = value.shape
    while shape and prod(shape) > source.elements:
        shape = shape[1:]
    whole = float(prod(shape)) == source.elements
    kept = replace(value, dtype=source.dtype, overhead_bits=source.overhead_bits, static=True)
    return replace(kept, shape=shape, stored=source.stored) if whole else replace(kept, stored=value.name)


def _arguments(node: Any, values: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments by name, nodes replaced by what they hold."""

    def resolve(item: Any) -> Any:
        if isinstance(item, (list, tuple)):
            return [resolve(part) for part in item]
        return values.get(item) if hasattr(item, "all_input_nodes") else item

    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
    given = {key: resolve(item) for key, item in zip(names, node.args, strict=False)}
    return {**given, **{key: resolve(item) for key, item in node.kwargs.items()}}


def _values(name: str, meta: Any, sizes: Mapping[str, int]) -> Any:
    """A Value, or a list of them, or None for what is no tensor."""
    if isinstance(meta, (list, tuple)):
        return [_values(f"{name}.{index}", item, sizes) for index, item in enumerate(meta)]
    if not hasattr(meta, "shape"):
        return None
    label = str(meta.dtype).removeprefix("torch.")
    if label not in DTYPES:
        raise ImportFormatError(f"'{name}' holds {label}, which is not modelled")
    dtype, bits = DTYPES[label]
    return Value(name, tuple(_integer(size, sizes) for size in meta.shape), dtype, overhead_bits=bits)


def _leaves(items: Sequence[Any]) -> list[Value]:
    found: list[Value] = []
    for item in items:
        if isinstance(item, Value):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found.extend(_leaves(item))
    return found


def _each(item: Any, change: Any) -> Any:
    if isinstance(item, list):
        return [_each(part, change) for part in item]
    return change(item) if isinstance(item, Value) else item


def _module_path(node: Any) -> str:
    """Where in the module the node comes from, as torch names submodules."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return "" if path.startswith("_") or path == "L['self']" else path.removeprefix("L['self'].")
