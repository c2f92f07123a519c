"""ONNX models built here, and the counts that follow from their shapes by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ImportFormatError, UnsupportedError
from simulator.graph.op import Graph, Op
from simulator.importers.onnx import graph_from_onnx

onnx = pytest.importorskip("onnx")
helper = onnx.helper if hasattr(onnx, "helper") else pytest.importorskip("onnx.helper")
np = pytest.importorskip("numpy")

FLOAT, FLOAT16, INT8, INT32, INT64 = 1, 10, 3, 6, 7


def saved(
    folder: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[list[Any], int]],
    outputs: dict[str, int],
    weights: dict[str, tuple[list[int], int]],
    constants: dict[str, Any] | None = None,
    opset: int = 20,
) -> Path:
    """The file of a model whose weights are zeros."""
    kinds = {FLOAT: np.float32, FLOAT16: np.float16, INT8: np.int8}
    stored = [
        onnx.numpy_helper.from_array(np.zeros(shape, kinds[kind]), key) for key, (shape, kind) in weights.items()
    ]  # fmt: skip
    stored += [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(key, kind, shape) for key, (shape, kind) in inputs.items()],
        [helper.make_tensor_value_info(key, kind, None) for key, kind in outputs.items()],
        initializer=stored,
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


def ops(graph: Graph, kind: str) -> list[Op]:
    return [op for op in graph.ops if op.kind == kind]


def tensor(op: Op, name: str) -> Any:
    return next(tensor for tensor in op.tensors if tensor.name == name)


def conv_net(folder: Path, batch: Any = "batch") -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n1"], name="norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="depthwise", group=16, pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["c2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    weights = {
        "w1": ([16, 3, 3, 3], FLOAT), "b1": ([16], FLOAT), "w2": ([16, 1, 3, 3], FLOAT), "w3": ([10, 16], FLOAT),
        "b3": ([10], FLOAT), **{key: ([16], FLOAT) for key in "sbmv"},
    }  # fmt: skip
    return saved(folder, nodes, {"x": ([batch, 3, 32, 32], FLOAT)}, {"y": FLOAT}, weights)


def test_convolutions_and_dense_layers(tmp_path: Path) -> None:
    graph = graph_from_onnx(conv_net(tmp_path))
    first, depthwise, head = ops(graph, "gemm")
    assert (first.n, first.k, first.groups, first.rows.sequences) == (16, 27, 1, 256)
    assert first.flops.sequences == 2 * 256 * 16 * 27
    assert tensor(first, "x").read.sequences == 3 * 1024
    assert tensor(first, "w1").read.const == tensor(first, "w1").resident.const == 16 * 27
    assert tensor(first, "c1").write.sequences == 16 * 256
    assert (depthwise.n, depthwise.k, depthwise.groups) == (1, 9, 16)
    assert depthwise.flops.sequences == 2 * 256 * 16 * 9
    assert (head.n, head.k, head.rows.sequences) == (10, 16, 1)
    assert graph.parameters() == 16 * 27 + 16 + 4 * 16 + 16 * 9 + 160 + 10
    assert [op.name for op in ops(graph, "elementwise")] == ["norm1", "relu1", "pool", "mean"]
    assert [op.fused for op in ops(graph, "elementwise")] == [True, True, False, False]


def test_a_fixed_batch_is_divided_out(tmp_path: Path) -> None:
    symbolic = graph_from_onnx(conv_net(tmp_path))
    fixed = graph_from_onnx(conv_net(tmp_path, batch=8))
    for one, other in zip(symbolic.ops, fixed.ops, strict=True):
        assert one.flops == other.flops
        assert one.tensors == other.tensors
        assert (one.rows, one.groups) == (other.rows, other.groups)


def test_mlp_in_half_precision_with_transposed_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["w1"], ["w1t"], name="fold", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w1t"], ["h"], name="up"),
        helper.make_node("Gelu", ["h"], ["a"], name="gelu"),
        helper.make_node("MatMul", ["a", "w2"], ["y"], name="down"),
    ]
    weights = {"w1": ([64, 32], FLOAT16), "w2": ([64, 32], FLOAT16)}
    path = saved(tmp_path, nodes, {"x": (["n", 5, 32], FLOAT16)}, {"y": FLOAT16}, weights)
    graph = graph_from_onnx(path)
    up, down = ops(graph, "gemm")
    assert [op.name for op in graph.ops] == ["up", "gelu", "down"]
    assert (up.rows.sequences, up.n, up.k, up.dtype) == (5, 64, 32, "fp16")
    assert down.flops.sequences == 2 * 5 * 64 * 32
    assert graph.parameters() == 2 * 64 * 32
    assert graph.dtype == "fp16"


def transformer_block(folder: Path) -> Path:
    """One pre-norm attention with 4 heads of 8, over an open number of tokens, from an embedding table."""
    head_shape = [0, -1, 4, 8]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"], name="embed"),
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], name="norm"),
        *(helper.make_node("MatMul", ["n", f"w{c}"], [c], name=f"project_{c}") for c in "qkv"),
        *(helper.make_node("Reshape", [c, "heads"], [f"{c}4"], name=f"split_{c}") for c in "qkv"),
        helper.make_node("Transpose", ["q4"], ["qt"], name="tq", perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["k4"], ["kt"], name="tk", perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["v4"], ["vt"], name="tv", perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["qt", "kt"], ["s"], name="scores"),
        helper.make_node("Mul", ["s", "scale"], ["s1"], name="scale_scores"),
        helper.make_node("Softmax", ["s1"], ["p"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["p", "vt"], ["o"], name="values"),
        helper.make_node("Transpose", ["o"], ["ot"], name="to", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ot", "flat"], ["o2"], name="join"),
        helper.make_node("MatMul", ["o2", "wo"], ["y0"], name="project_o"),
        helper.make_node("Add", ["x", "y0"], ["y"], name="residual"),
    ]
    weights = {
        "table": ([100, 32], FLOAT), "g": ([32], FLOAT), "b": ([32], FLOAT),
        **{f"w{c}": ([32, 32], FLOAT) for c in "qkvo"},
    }  # fmt: skip
    constants = {
        "heads": np.array(head_shape, np.int64),
        "flat": np.array([0, -1, 32], np.int64),
        "scale": np.float32(0.35),
    }
    return saved(folder, nodes, {"ids": (["batch", "sequence"], INT64)}, {"y": FLOAT}, weights, constants)


def test_transformer_block(tmp_path: Path) -> None:
    graph = graph_from_onnx(transformer_block(tmp_path), dims={"sequence": 16})
    gemms = {op.name: op for op in ops(graph, "gemm")}
    assert gemms["project_q"].flops.sequences == 2 * 16 * 32 * 32
    scores, values = gemms["scores"], gemms["values"]
    assert (scores.groups, scores.rows.sequences, scores.n, scores.k) == (4, 4 * 16, 16, 8)
    assert scores.flops.sequences == values.flops.sequences == 2 * 4 * 16 * 16 * 8
    assert {tensor.role for tensor in scores.tensors} == {"activation"}
    (embed,) = ops(graph, "gather")
    assert tensor(embed, "table").read.sequences == 16 * 32
    assert tensor(embed, "table").resident.const == 3200
    assert tensor(embed, "ids").bytes_per_element == 8
    # the scalar of the scaling is an initializer but no operand
    assert graph.parameters() == 3200 + 64 + 4 * 1024
    softmax = next(op for op in graph.ops if op.name == "softmax")
    assert softmax.flops.sequences == 5 * 4 * 16 * 16


def test_open_sizes_are_asked_for(tmp_path: Path) -> None:
    path = transformer_block(tmp_path)
    with pytest.raises(ImportFormatError, match=r'leaves sizes open; give them: dims=\{"sequence": 128\}'):
        graph_from_onnx(path)
    with pytest.raises(ImportFormatError, match=r"no symbolic sizes \['tokens'\]"):
        graph_from_onnx(path, dims={"sequence": 16, "tokens": 3})
    with pytest.raises(ImportFormatError, match="no symbolic size 'n'"):
        graph_from_onnx(path, dims={"sequence": 16}, batch="n")


def test_quantized_operators_have_their_formats(tmp_path: Path) -> None:
    """Weights stored as int8 with a scale per channel, behind DequantizeLinear; activations quantized too."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="quantize"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], name="dequantize_weight", axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="product"),
        helper.make_node("MatMulInteger", ["xq", "w2"], ["z"], name="integer"),
    ]
    weights = {"w": ([64, 32], INT8), "w2": ([64, 16], INT8), "ws": ([32], FLOAT)}
    constants = {"xs": np.float32(0.1), "xz": np.int8(0)}
    path = saved(tmp_path, nodes, {"x": (["n", 64], FLOAT)}, {"y": FLOAT, "z": INT32}, weights, constants)
    graph = graph_from_onnx(path)
    product, integer = ops(graph, "gemm")
    assert product.dtype == integer.dtype == "int8"
    stored = tensor(product, "wd")
    assert (stored.role, stored.dtype) == ("weight", "int8")
    assert stored.resident.const * stored.bytes_per_element == 64 * 32 + 32 * 4
    assert tensor(integer, "z").dtype == "int32"


def test_quantized_convolution(tmp_path: Path) -> None:
    names = ["x", "s", "z", "w", "s", "z", "s", "z", "b"]
    nodes = [helper.make_node("QLinearConv", names, ["y"], name="conv", pads=[1, 1, 1, 1])]
    weights = {"w": ([8, 3, 3, 3], INT8)}
    constants = {"s": np.float32(0.1), "z": np.int8(0), "b": np.zeros(8, np.int32)}
    path = saved(tmp_path, nodes, {"x": (["n", 3, 10, 10], INT8)}, {"y": INT8}, weights, constants)
    (conv,) = graph_from_onnx(path).ops
    assert (conv.dtype, conv.n, conv.k, conv.rows.sequences) == ("int8", 8, 27, 100)


def test_transposed_convolution_recurrence_and_contraction(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])]
    path = saved(tmp_path, nodes, {"x": (["n", 8, 5, 5], FLOAT)}, {"y": FLOAT}, {"w": ([8, 4, 2, 2], FLOAT)})
    (up,) = graph_from_onnx(path).ops
    assert up.flops.sequences == 2 * 25 * 8 * 4 * 4
    assert tensor(up, "y").write.sequences == 4 * 100

    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y", "", ""], name="lstm", hidden_size=6)]
    weights = {"w": ([1, 24, 5], FLOAT), "r": ([1, 24, 6], FLOAT)}
    path = saved(tmp_path, nodes, {"x": ([7, "n", 5], FLOAT)}, {"y": FLOAT}, weights)
    dense, scan = graph_from_onnx(path, batch="n").ops
    assert dense.flops.sequences == 2 * 7 * 24 * 5
    assert scan.kind == "scan"
    assert scan.flops.sequences == 7 * (2 * 24 * 6 + 6 * 24)

    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], name="contract", equation="bsd,dhk->bshk")]
    path = saved(tmp_path, nodes, {"x": (["n", 3, 8], FLOAT)}, {"y": FLOAT}, {"w": ([8, 2, 4], FLOAT)})
    (contract,) = graph_from_onnx(path).ops
    assert (contract.rows.sequences, contract.n, contract.k, contract.groups) == (3, 8, 8, 1)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_operator(tmp_path: Path, causal: int) -> None:
    """Grouped-query attention of opset 23: 8 query heads, 2 of keys and values, width 16, over 10 tokens."""
    node = helper.make_node(
        "Attention", ["q", "k", "v"], ["y"], name="attend", q_num_heads=8, kv_num_heads=2, is_causal=causal
    )
    inputs = {"q": (["n", 10, 128], FLOAT), "k": (["n", 10, 32], FLOAT), "v": (["n", 10, 32], FLOAT)}
    (op,) = graph_from_onnx(saved(tmp_path, [node], inputs, {"y": FLOAT}, {}, opset=23)).ops
    pairs = 55 if causal else 100
    assert (op.kind, op.heads, op.kv_heads, op.head_dim, op.value_dim) == ("attention", 8, 2, 16, 16)
    assert op.flops.sequences == pairs * 8 * (4 * 16 + 5)
    assert op.span.causal is bool(causal)


def test_constants_in_nodes_are_weights_and_pools_count_windows(tmp_path: Path) -> None:
    matrix = onnx.numpy_helper.from_array(np.zeros((16, 4), np.float32), "matrix")
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], name="pool", kernel_shape=[3, 3], strides=[3, 3]),
        helper.make_node("Resize", ["p", "", "scales"], ["r"], name="resize", mode="linear"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Constant", [], ["w"], name="constant", value=matrix),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="product"),
    ]
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
    path = saved(tmp_path, nodes, {"x": (["n", 1, 6, 6], FLOAT)}, {"y": FLOAT}, {}, constants)
    pool, resize, product = graph_from_onnx(path).ops
    assert pool.flops.sequences == 4 * 9
    assert resize.flops.sequences == 16 * 6
    assert tensor(product, "w").resident.const == 64


def test_shape_arithmetic_costs_nothing(tmp_path: Path) -> None:
    """Reshape to sizes computed from the input's own shape, as exporters write it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "zero"], ["first"], name="first"),
        helper.make_node("Concat", ["first", "rest"], ["target"], name="target", axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"], name="reshape"),
        helper.make_node("MatMul", ["flat", "w"], ["y"], name="product"),
    ]
    constants = {"zero": np.array([0], np.int64), "rest": np.array([24], np.int64)}
    path = saved(tmp_path, nodes, {"x": (["n", 4, 6], FLOAT)}, {"y": FLOAT}, {"w": ([24, 2], FLOAT)}, constants)
    graph = graph_from_onnx(path)
    assert [op.name for op in graph.ops] == ["product"]


@pytest.mark.parametrize(
    ("name", "parameters", "norm_channels", "gmacs"),
    [
        # torchvision's documentation: parameters and multiply-adds; the files hold the norms' statistics too
        ("resnet50", 25_557_032, 26_560, 4.089),
        ("vgg19", 143_667_240, 0, 19.63),
        ("densenet121", 7_978_856, 83_648, 2.834),
    ],
)
def test_models_that_come_with_the_package(name: str, parameters: int, norm_channels: int, gmacs: float) -> None:
    path = Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    graph = graph_from_onnx(path)
    assert graph.parameters() == parameters + 2 * norm_channels
    assert sum(op.flops.sequences for op in ops(graph, "gemm")) / 2e9 == pytest.approx(gmacs, rel=0.001)


def test_unknown_operators_are_listed_together(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"], name="find"),
        helper.make_node("Det", ["x"], ["d"], name="determinant"),
        helper.make_node("Gadget", ["x"], ["g"], name="gadget", domain="com.example"),
    ]
    path = saved(tmp_path, nodes, {"x": (["n", 4, 4], FLOAT)}, {"d": FLOAT}, {})
    with pytest.raises(UnsupportedError) as caught:
        graph_from_onnx(path)
    text = str(caught.value)
    assert "NonZero (1x, first 'find')" in text
    assert "Det (1x, first 'determinant')" in text
    assert "com.example.Gadget" in text


def test_broken_files_say_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all")
    with pytest.raises(ImportFormatError, match="is not an ONNX model"):
        graph_from_onnx(broken)
    with pytest.raises(ImportFormatError, match="cannot be read: No such file"):
        graph_from_onnx(tmp_path / "missing.onnx")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    path = saved(tmp_path, nodes, {"x": (["n", 8], FLOAT)}, {"y": FLOAT}, {"w": ([9, 2], FLOAT)})
    with pytest.raises(ImportFormatError, match="shapes do not fit together"):
        graph_from_onnx(path)


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnsupportedError, match=r"pip install ridgeline\[onnx\]"):
        graph_from_onnx(tmp_path / "net.onnx")
