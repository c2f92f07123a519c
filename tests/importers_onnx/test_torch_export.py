"""torch.export programs, against torch's own FLOP counter and against counts by hand."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from simulator.errors import ImportFormatError, UnsupportedError
from simulator.graph.op import Graph, Op
from simulator.importers.torch_export import graph_from_exported_program, graph_from_module

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own deprecations, which differ by version


class SmallCnn(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(24, 8, 4, stride=2, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.grouped(nn.functional.silu(self.depthwise(self.stem(x)))))
        return self.head(self.up(x).mean((2, 3)))


class SmallTransformer(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.embed = nn.Embedding(100, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32, bias=False)
        self.mlp = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))
        self.head = nn.Linear(32, 100, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return self.head(x + self.mlp(x))


IDS = torch.zeros(2, 12, dtype=torch.long)


def product_flops(graph: Graph, samples: int) -> float:
    """FLOPs of matrix products: GEMMs, and attention without its softmax."""
    total = 0.0
    for op in graph.ops:
        flops = op.repeat * (op.flops.const + op.flops.sequences * samples)
        if op.kind == "gemm":
            total += flops
        elif op.kind == "attention":
            products = 2 * (op.head_dim + op.value_dim)
            total += flops * products / (products + 5)
    return total


def counted(module: Any, *args: Any) -> int:
    """What torch's counter sees when the module runs."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), counter:
        module.eval()(*args)
    return int(counter.get_total_flops())


def ops(graph: Graph, kind: str) -> list[Op]:
    return [op for op in graph.ops if op.kind == kind]


def dynamic(module: Any, args: tuple[Any, ...]) -> Any:
    """The program with an open batch."""
    shapes = tuple({0: torch.export.Dim("batch")} for _ in args)
    return torch.export.export(module.eval(), args, dynamic_shapes=shapes)


def test_cnn_matches_the_flop_counter() -> None:
    module, images = SmallCnn(), torch.zeros(4, 3, 32, 32)
    graph = graph_from_module(module, (images,))
    assert module.training
    assert product_flops(graph, 4) == counted(module, images)
    depthwise = next(op for op in graph.ops if op.name.startswith("depthwise"))
    assert (depthwise.groups, depthwise.n, depthwise.k, depthwise.rows.sequences) == (16, 1, 9, 16 * 256)
    buffers = 2 * 16  # running mean and variance
    assert graph.parameters() == sum(p.numel() for p in module.parameters()) + buffers
    assert {op.block for op in graph.ops} >= {"stem", "depthwise", "grouped", "up", "head"}


def test_cnn_reads_feature_maps_once() -> None:
    graph = graph_from_module(SmallCnn(), (torch.zeros(4, 3, 32, 32),))
    stem = graph.ops[0]
    assert sum(t.read.sequences for t in stem.tensors) == 3 * 32 * 32
    assert sum(t.read.const for t in stem.tensors) == 16 * 3 * 49
    assert sum(t.write.sequences for t in stem.tensors) == 16 * 16 * 16


def test_transformer_matches_the_flop_counter() -> None:
    module = SmallTransformer()
    graph = graph_from_module(module, (IDS,))
    assert product_flops(graph, 2) == pytest.approx(counted(module, IDS), rel=1e-12)
    (attention,) = ops(graph, "attention")
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (4, 4, 8)
    assert not attention.span.causal
    assert graph.parameters() == sum(p.numel() for p in module.parameters())
    (embed,) = ops(graph, "gather")
    assert embed.tensors[0].read.sequences == 12 * 32


@pytest.mark.parametrize("samples", [1, 3, 8])
def test_an_open_batch_is_the_samples(samples: int) -> None:
    for module, args in ((SmallCnn(), (torch.zeros(4, 3, 32, 32),)), (SmallTransformer(), (IDS,))):
        graph = graph_from_exported_program(dynamic(module, args))
        wanted = counted(module, torch.zeros(samples, *args[0].shape[1:], dtype=args[0].dtype))
        assert product_flops(graph, samples) == pytest.approx(wanted, rel=1e-12)
        assert all(op.flops.const == 0 for op in graph.ops)


def test_open_and_fixed_batch_agree() -> None:
    fixed = graph_from_module(SmallCnn(), (torch.zeros(4, 3, 32, 32),))
    program = dynamic(SmallCnn(), (torch.zeros(4, 3, 32, 32),))
    for one, other in zip(fixed.ops, graph_from_exported_program(program).ops, strict=True):
        assert one == other


def test_decomposed_programs_have_the_same_products() -> None:
    for module, args in ((SmallCnn(), (torch.zeros(4, 3, 32, 32),)), (SmallTransformer(), (IDS,))):
        program = torch.export.export(module.eval(), args)
        whole = graph_from_exported_program(program)
        core = graph_from_exported_program(program.run_decompositions())
        samples = args[0].shape[0]
        assert product_flops(core, samples) == pytest.approx(product_flops(whole, samples), rel=1e-12)
        assert core.parameters() == whole.parameters()


def test_causal_attention_counts_half_the_square() -> None:
    (full,) = ops(graph_from_module(SmallTransformer(), (IDS,)), "attention")
    (causal,) = ops(graph_from_module(SmallTransformer(causal=True), (IDS,)), "attention")
    assert causal.flops.sequences / full.flops.sequences == pytest.approx((12 * 13 / 2) / 144)
    assert causal.span.causal


def test_half_precision_is_kept() -> None:
    graph = graph_from_module(SmallTransformer().to(torch.bfloat16), (IDS,))
    assert graph.dtype == "bf16"
    linear = ops(graph, "gemm")[0]
    assert {tensor.dtype for tensor in linear.tensors} == {"bf16"}


def test_recurrences_are_a_product_and_a_scan() -> None:
    module = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    graph = graph_from_module(module, (torch.zeros(2, 7, 5),))
    dense, scans = ops(graph, "gemm"), ops(graph, "scan")
    assert [op.flops.sequences for op in dense] == [2 * 7 * 24 * 5] * 2 + [2 * 7 * 24 * 12] * 2
    assert [op.flops.sequences for op in scans] == [7 * (2 * 24 * 6 + 6 * 24)] * 4
    assert graph.parameters() == sum(p.numel() for p in module.parameters())


def test_einsum_with_a_weight() -> None:
    class Heads(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8, 2, 4))

        def forward(self, x: Any) -> Any:
            return torch.einsum("bsd,dhk->bshk", x, self.weight)

    (op,) = graph_from_module(Heads(), (torch.zeros(2, 3, 8),)).ops
    assert (op.rows.sequences, op.n, op.k, op.groups) == (3, 8, 8, 1)
    assert op.name == "einsum"


def test_unknown_operators_are_listed_together() -> None:
    class Odd(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return torch.linalg.det(x) + torch.fft.fft(x).abs().sum()

    with pytest.raises(UnsupportedError) as caught:
        graph_from_module(Odd(), (torch.zeros(2, 4, 4),))
    assert "linalg_det" in str(caught.value)
    assert "fft" in str(caught.value)


def test_further_open_sizes_are_asked_for() -> None:
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=64)},)
    program = torch.export.export(SmallTransformer().eval(), (IDS,), dynamic_shapes=shapes)
    with pytest.raises(ImportFormatError, match=r"give them in dims: '(\w+)' \(size 1 of 'ids'\)") as caught:
        graph_from_exported_program(program)
    symbol = str(caught.value).split("'")[1]
    graph = graph_from_exported_program(program, dims={symbol: 16})
    module = SmallTransformer()
    wanted = counted(module, torch.zeros(3, 16, dtype=torch.long))
    assert product_flops(graph, 3) == pytest.approx(wanted, rel=1e-12)


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(ImportFormatError, match=r"an ExportedProgram of torch\.export is needed, not dict"):
        graph_from_exported_program({})


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError, match=r"pip install ridgeline\[torch\]"):
        graph_from_module(object(), ())
