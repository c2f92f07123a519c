"""The kernels that are timed: matrix products, attention, passes over activations, copies, with their sizes.

A case is a row of the table of measurements and a way to make its operands. Which kernels run is torch's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from validation.microbench.device import BYTES, TorchDevice, to_numpy
from validation.microbench.processor import check

TABLE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "w8a8", "fp8": "fp8"}
"""Names of number formats in the tables that `ridgeline validate kernels` reads."""
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 4e-3, "int8": 0.0, "fp8": 0.1}
"""Largest difference from float64 over the largest value."""
CHECKED_QUERIES = 64
"""Last positions whose attention is compared: the scores of all of a long prompt would fill memory as float64."""
Run = Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel at one size."""

    row: dict[str, Any]
    """Its columns in the table, without what is measured."""
    flops: float
    bytes: float
    make: Callable[[TorchDevice], tuple[Run, Callable[[], None]]]
    """Operands -> the run, and a check of its result against NumPy."""
    held_out: bool = False

    @property
    def label(self) -> str:
        """For messages and progress."""
        keys = (
            "op_name",
            "kernel_source",
            "gemm_dtype",
            "attn_dtype",
            "dtype",
            "m",
            "n",
            "k",
            "batch_size",
            "isl",
            "step",
        )
        return " ".join(str(self.row[key]) for key in keys if key in self.row)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Which sizes to run."""

    weights: tuple[tuple[int, int], ...]
    """(n, k) of products that are fitted to."""
    held_out: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    heads: tuple[tuple[int, int, int], ...]
    """(query heads, KV heads, width)."""
    prompts: tuple[tuple[int, int], ...]
    """(batch, tokens)."""
    contexts: tuple[tuple[int, int], ...]
    """(batch, cached positions)."""
    widths: tuple[int, ...]
    pass_rows: tuple[int, ...]


SMALL = Sizes(
    weights=((64, 96), (128, 64)), held_out=((80, 72),), rows=(1, 2, 16), heads=((4, 2, 16),), prompts=((1, 16),),
    contexts=((1, 32), (2, 16)), widths=(64,), pass_rows=(1, 16),
)  # fmt: skip
PROCESSOR = Sizes(
    weights=((1536, 1536), (4096, 1024), (1024, 4096), (512, 3072), (1000, 777), (256, 256), (8192, 1024)),
    held_out=((2560, 1280), (768, 2304), (1111, 2222)),
    rows=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 33, 48, 64, 100, 128, 256, 512, 1024, 2048, 4096),
    heads=((16, 16, 64), (16, 4, 128), (12, 2, 64), (8, 8, 128)),
    prompts=((1, 16), (1, 64), (4, 64), (1, 128), (1, 256), (4, 128), (1, 512), (2, 512), (1, 1024)),
    contexts=((1, 64), (1, 256), (1, 1024), (1, 4096), (4, 256), (4, 1024), (16, 128), (16, 1024), (8, 2048)),
    widths=(1024, 3072), pass_rows=(1, 4, 16, 64, 256, 1024, 2048),
)  # fmt: skip
ACCELERATOR = Sizes(
    weights=((4096, 4096), (6144, 4096), (4096, 11008), (1024, 8192), (22016, 4096), (3000, 5000), (512, 7168)),
    held_out=((8192, 3072), (5120, 5120), (1536, 8960)),
    rows=(1, 2, 4, 8, 16, 24, 32, 64, 100, 128, 256, 512, 777, 1024, 2048, 4096, 8192),
    heads=((32, 8, 128), (32, 32, 128), (16, 4, 64), (64, 8, 128)),
    prompts=((1, 128), (1, 512), (4, 512), (1, 2048), (2, 4096), (8, 1024), (1, 8192)),
    contexts=((1, 128), (1, 1024), (1, 8192), (8, 512), (8, 4096), (32, 1024), (64, 2048), (128, 512)),
    widths=(2048, 8192), pass_rows=(1, 16, 256, 2048, 8192),
)  # fmt: skip


def cases(device: TorchDevice, sizes: Sizes, only: frozenset[str], gqa: bool) -> Iterator[Case]:
    """All cases of the groups named in `only` (gemm, attention, elementwise), cheap formats first."""
    floats = [name for name in device.formats if name not in ("int8", "fp8")]
    if "gemm" in only:
        for dtype in device.formats:
            for held_out, shapes in ((False, sizes.weights), (True, sizes.held_out)):
                for n, k in shapes:
                    for m in sizes.rows:
                        if admitted(device, dtype, m, n, k):
                            yield gemm(m, n, k, dtype, held_out)
    if "attention" in only:
        for dtype in floats:
            if device.is_gpu and dtype == "fp32":
                continue  # no fused kernel: scores would be written out
            for position, (heads, kv_heads, width) in enumerate(sizes.heads):
                if gqa or heads == kv_heads:
                    held_out = position == len(sizes.heads) - 1 and position > 0
                    for batch, tokens in sizes.prompts:
                        yield attention(batch, tokens, 0, heads, kv_heads, width, dtype, held_out)
                    for batch, past in sizes.contexts:
                        yield attention(batch, 1, past, heads, kv_heads, width, dtype, held_out)
    if "elementwise" in only:
        for dtype in floats:
            for name in PASSES:
                for width in sizes.widths:
                    for rows in sizes.pass_rows:
                        yield one_pass(name, rows, width, dtype)


def admitted(device: TorchDevice, dtype: str, m: int, n: int, k: int) -> bool:
    """Whether torch's product in that format takes the shape: 8-bit ones on GPUs want weights of whole tiles, and int8
    ones more than 16 rows."""
    if not device.is_gpu or dtype not in ("int8", "fp8"):
        return True
    return n % 16 == 0 and k % 16 == 0 and (dtype != "int8" or m > 16)


def gemm(m: int, n: int, k: int, dtype: str, held_out: bool = False) -> Case:
    """Y[m, n] = X[m, k] W[n, k]^T with cold weights and warm activations, as a layer sees them."""

    def make(device: TorchDevice) -> tuple[Run, Callable[[], None]]:
        torch = device.torch
        x = device.random((m, k), dtype)
        weights = [device.random((n, k), dtype, copy) for copy in range(device.copies(n * k, dtype))]
        product = _product(device, dtype)

        def run(i: int) -> Any:
            return product(x, weights[i % len(weights)])

        def verify() -> None:
            rows, columns = min(m, 8), min(n, 32)
            found = to_numpy(run(0)[:rows, :columns])
            wanted = to_numpy(x[:rows]) @ to_numpy(weights[0][:columns]).T
            check(f"{dtype} product {m} x {n} x {k}", found, wanted, TOLERANCE[dtype])

        torch.set_grad_enabled(False)
        return run, verify

    width = BYTES[dtype]
    row = {"op_name": "gemm", "kernel_source": "torch.nn.functional.linear", "gemm_dtype": TABLE_NAMES[dtype]}
    out = {"int8": 4.0, "fp8": 2.0}.get(dtype, width)
    moved = n * k * width + m * k * width + m * n * out
    return Case(row | {"m": m, "n": n, "k": k}, 2.0 * m * n * k, moved, make, held_out)


def _product(device: TorchDevice, dtype: str) -> Callable[[Any, Any], Any]:
    """The kernel that engines for inference use; fp8 with fast accumulation, as theirs."""
    torch = device.torch
    if dtype == "int8":
        return lambda x, w: torch._int_mm(x, w.t())
    if dtype == "fp8":
        one = torch.ones((), dtype=torch.float32, device=device.name)
        options = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16, "use_fast_accum": True}
        return lambda x, w: torch._scaled_mm(x, w.t(), **options)
    return torch.nn.functional.linear  # type: ignore[no-any-return]


def attention(
    batch: int, query: int, past: int, heads: int, kv_heads: int, width: int, dtype: str, held_out: bool = False
) -> Case:
    """Scaled dot-product attention: causal over `query` new tokens, or one token over `past` cached ones and itself."""
    total = query + past

    def make(device: TorchDevice) -> tuple[Run, Callable[[], None]]:
        torch = device.torch
        torch.set_grad_enabled(False)
        attend = torch.nn.functional.scaled_dot_product_attention
        q = device.random((batch, heads, query, width), dtype)
        shape = (batch, kv_heads, total, width)
        copies = device.copies(2 * math.prod(shape), dtype) if query == 1 else 1
        caches = [
            (device.random(shape, dtype, 2 * copy + 1), device.random(shape, dtype, 2 * copy + 2))
            for copy in range(copies)
        ]
        options = {"is_causal": query > 1} | ({"enable_gqa": True} if kv_heads != heads else {})

        def run(i: int) -> Any:
            keys, values = caches[i % copies]
            return attend(q, keys, values, **options)

        def verify() -> None:
            last = slice(-CHECKED_QUERIES, None)
            wanted = reference_attention(
                to_numpy(q[-1, -1, last]), to_numpy(caches[0][0][-1, -1]), to_numpy(caches[0][1][-1, -1])
            )
            found = to_numpy(run(0)[-1, -1, last])
            check(f"{dtype} attention {batch} x {query} over {total}", found, wanted, TOLERANCE[dtype])

        return run, verify

    prefill = query > 1
    row = {
        "op_name": "context_attention" if prefill else "generation_attention",
        "kernel_source": "torch.nn.functional.scaled_dot_product_attention",
        "batch_size": batch, "isl": query, "num_heads": heads, "num_key_value_heads": kv_heads, "head_dim": width,
        "beam_width": 1, "attn_dtype": TABLE_NAMES[dtype], "kv_cache_dtype": TABLE_NAMES[dtype], "step": past,
        "window_size": 0,
    }  # fmt: skip
    pairs = batch * query * (past + (query + 1) / 2)
    moved = BYTES[dtype] * batch * width * (2 * query * heads + 2 * total * kv_heads)
    return Case(row, 4.0 * pairs * heads * width, moved, make, held_out)


def reference_attention(q: Any, k: Any, v: Any) -> Any:
    """Attention of one head in float64: the last len(q) positions of len(k) are the queries', each sees those before."""
    scores = q @ k.T / math.sqrt(q.shape[-1])
    position = np.arange(len(q))[:, None] + len(k) - len(q)
    scores = np.where(np.arange(len(k))[None, :] <= position, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)) @ v


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over rows of activations: elements read and written and FLOPs per element of the width, and what it does."""

    reads: float
    writes: float
    flops: float
    run: Callable[[Any, Any, Any], Any]
    reference: Callable[[Any, Any], Any]


PASSES: dict[str, Pass] = {
    "add": Pass(2, 1, 1, lambda torch, x, y: x + y, lambda x, y: x + y),
    "multiply": Pass(2, 1, 1, lambda torch, x, y: x * y, lambda x, y: x * y),
    "silu": Pass(1, 1, 4, lambda torch, x, y: torch.nn.functional.silu(x), lambda x, y: x / (1.0 + np.exp(-x))),
    "softmax": Pass(
        1, 1, 5, lambda torch, x, y: torch.softmax(x, -1),
        lambda x, y: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    ),
    "copy": Pass(1, 1, 0, lambda torch, x, y: x.clone(), lambda x, y: x),
}  # fmt: skip


def one_pass(name: str, rows: int, width: int, dtype: str) -> Case:
    """One elementwise kernel over `rows` x `width`, warm, as what comes from the kernel before it is."""
    what = PASSES[name]

    def make(device: TorchDevice) -> tuple[Run, Callable[[], None]]:
        torch = device.torch
        torch.set_grad_enabled(False)
        x, y = device.random((rows, width), dtype), device.random((rows, width), dtype, 1)

        def run(_: int) -> Any:
            return what.run(torch, x, y)

        def verify() -> None:
            wanted = what.reference(to_numpy(x[:4]), to_numpy(y[:4]))
            check(f"{dtype} {name} {rows} x {width}", to_numpy(run(0)[:4]), wanted, TOLERANCE[dtype])

        return run, verify

    row = {
        "op_name": "elementwise", "kernel_source": name, "dtype": TABLE_NAMES[dtype], "m": rows, "n": width,
        "reads": what.reads, "writes": what.writes, "flops": what.flops,
    }  # fmt: skip
    moved = BYTES[dtype] * rows * width * (what.reads + what.writes)
    return Case(row, what.flops * rows * width, moved, make)
