"""Feature maps, and the ops that images and grids are made of, counted per sample.

A `Recorder` appends ops in order and returns the map each leaves behind; builders of convolutional and diffusion
networks write with it. Knows shapes and counts; knows no network and no hardware. One MAC is 2 FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from simulator.errors import GraphError
from simulator.graph.counts import weight
from simulator.graph.op import Graph, Op, Tensor, verify
from simulator.graph.step import Amount, Span

SAMPLES = Amount(sequences=1.0)

FLOPS_PER_ELEMENT: dict[str, float] = {
    "copy": 0, "add": 1, "multiply": 1, "relu": 1, "relu6": 2, "sigmoid": 4, "silu": 5, "hardswish": 4, "tanh": 5,
    "gelu": 8, "geglu": 9, "batch_norm": 2, "group_norm": 7, "layer_norm": 7, "rms_norm": 4, "modulate": 2,
}  # fmt: skip
"""Arithmetic per element of work that is no matrix product; an exponential counts as 2, a mean and variance as 5."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """What flows between layers: `channels` of height x width, for one sample."""

    channels: int
    height: int = 1
    width: int = 1

    @property
    def positions(self) -> int:
        """Pixels."""
        return self.height * self.width

    @property
    def elements(self) -> int:
        """Values of one sample."""
        return self.channels * self.positions

    def with_channels(self, channels: int) -> FeatureMap:
        """The same grid with other channels."""
        return replace(self, channels=channels)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """A size along height and width: one number means both."""
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


def window_output(size: int, kernel: int, stride: int, padding: int | None) -> int:
    """Positions at which a window of `kernel` stands on a line of `size`: floor((size + 2 p - kernel) / stride) + 1.

    `padding` None is the padding that gives ceil(size / stride).

    >>> window_output(224, 7, 2, 3), window_output(224, 7, 2, None), window_output(49, 10, 2, None)
    (112, 112, 25)
    """
    if padding is None:
        return math.ceil(size / stride)
    return (size + 2 * padding - kernel) // stride + 1


def convolution(
    name: str,
    source: FeatureMap,
    target: FeatureMap,
    kernel: tuple[int, int],
    *,
    groups: int = 1,
    bias: bool = True,
    dtype: str,
) -> Op:
    """A convolution as the GEMM it is: per group, m = out_h out_w, n = out / groups, k = in / groups x kh x kw.

    FLOPs 2 x groups x m n k. Reads the source map once (not once per window position) and all weights; writes the
    target.

    >>> op = convolution("c", FeatureMap(3, 224, 224), FeatureMap(64, 112, 112), (7, 7), bias=False, dtype="fp16")
    >>> op.flops.sequences == 2 * 112 * 112 * 64 * 3 * 49
    True
    """
    if source.channels % groups or target.channels % groups:
        channels = f"{source.channels} -> {target.channels} channels"
        raise GraphError(name, "convolution", f"{groups} groups do not divide {channels}")
    n, k = target.channels // groups, source.channels // groups * kernel[0] * kernel[1]
    rows = SAMPLES * (groups * target.positions)
    tensors = [
        Tensor("input", "activation", dtype, read=SAMPLES * source.elements),
        weight(float(groups) * n * k, dtype),
        Tensor("output", "activation", dtype, write=SAMPLES * target.elements),
    ]
    if bias:
        tensors.append(weight(float(target.channels), dtype, name="bias"))
    return Op(
        name, "gemm", tuple(tensors), flops=rows * (2.0 * n * k), dtype=dtype, rows=rows, n=n, k=k, groups=groups,
    )  # fmt: skip


def full_attention(name: str, queries: int, keys: int, heads: int, head_dim: int, *, dtype: str) -> Op:
    """Every query sees every key: 4 h d + 5 h FLOPs per pair (scores, values, softmax).

    Reads q, k and v once, writes one value per query; the scores stay inside. `n` and `k` are the queries and keys of a
    sample, which do not follow from the tokens of a step.
    """
    width, pairs = heads * head_dim, float(queries * keys)
    tensors = (
        Tensor("query", "activation", dtype, read=SAMPLES * (queries * width)),
        Tensor("key_value", "activation", dtype, read=SAMPLES * (2 * keys * width)),
        Tensor("output", "activation", dtype, write=SAMPLES * (queries * width)),
    )
    flops = SAMPLES * (pairs * heads * (4.0 * head_dim + 5.0))
    return Op(
        name, "attention", tensors, flops=flops, dtype=dtype, rows=SAMPLES * queries, n=queries, k=keys, heads=heads,
        kv_heads=heads, head_dim=head_dim, value_dim=head_dim, span=Span(causal=False), split="heads",
    )  # fmt: skip


@dataclass(slots=True)
class Recorder:
    """Ops in the order in which they run. `stage` names what they belong to and how often it repeats."""

    dtype: str
    ops: list[Op] = field(default_factory=list)
    _path: tuple[str, ...] = ()
    _repeat: float = 1.0

    @contextmanager
    def stage(self, name: str, repeat: float = 1) -> Iterator[None]:
        """Ops recorded inside are named under `name`, run `repeat` times, and are grouped by the outermost name."""
        outer = self._path, self._repeat
        self._path, self._repeat = (*self._path, name), self._repeat * repeat
        try:
            yield
        finally:
            self._path, self._repeat = outer

    def record(self, op: Op) -> None:
        """An op counted elsewhere, under the current stage."""
        self.ops.append(replace(op, name=self._name(op.name), repeat=self._repeat, block=self._block(op.name)))

    def conv(
        self,
        name: str,
        source: FeatureMap,
        channels: int,
        kernel: int | Sequence[int] = 1,
        stride: int | Sequence[int] = 1,
        *,
        padding: int | Sequence[int] | None = None,
        groups: int = 1,
        bias: bool = True,
    ) -> FeatureMap:
        """A convolution; `padding` None keeps ceil(size / stride)."""
        size = pair(kernel)
        target = self._window(name, source.with_channels(channels), size, pair(stride), padding)
        self.record(convolution(name, source, target, size, groups=groups, bias=bias, dtype=self.dtype))
        return target

    def linear(self, name: str, rows: int, k: int, n: int, *, bias: bool = True) -> None:
        """A dense layer on `rows` vectors of each sample."""
        self.conv(name, FeatureMap(k, rows, 1), n, bias=bias)

    def attention(self, name: str, queries: int, keys: int, heads: int, head_dim: int) -> None:
        """Attention of every query to every key."""
        self.record(full_attention(name, queries, keys, heads, head_dim, dtype=self.dtype))

    def pointwise(
        self,
        name: str,
        work: str,
        elements: float,
        *,
        inputs: float | None = None,
        weights: float = 0.0,
        fused: bool = True,
    ) -> None:
        """Elementwise `work`, a key of FLOPS_PER_ELEMENT: writes `elements`, reads `inputs` (default: as many)."""
        read = elements if inputs is None else inputs
        self._elementwise(name, read, elements, elements * FLOPS_PER_ELEMENT[work], weights, fused)

    def add(self, name: str, elements: float, *, fused: bool = True) -> None:
        """A residual sum of two maps."""
        self.pointwise(name, "add", elements, inputs=2 * elements, fused=fused)

    def pool(
        self,
        name: str,
        source: FeatureMap,
        kernel: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | Sequence[int] | None = 0,
    ) -> FeatureMap:
        """Maximum or mean over windows: kh x kw FLOPs per output."""
        size = pair(kernel)
        target = self._window(name, source, size, pair(stride), padding)
        flops = float(target.elements * size[0] * size[1])
        self._elementwise(name, source.elements, target.elements, flops, 0.0, False)
        return target

    def global_pool(self, name: str, source: FeatureMap) -> FeatureMap:
        """The mean over all positions."""
        self._elementwise(name, source.elements, source.channels, float(source.elements), 0.0, False)
        return FeatureMap(source.channels)

    def upsample(self, name: str, source: FeatureMap, factor: int = 2) -> FeatureMap:
        """Nearest-neighbour repetition along both sides."""
        target = FeatureMap(source.channels, source.height * factor, source.width * factor)
        self.pointwise(name, "copy", target.elements, inputs=source.elements)
        return target

    def table(self, name: str, entries: int, width: int) -> None:
        """A table of which each sample looks one row up."""
        tensors = (
            Tensor("table", "weight", self.dtype, read=SAMPLES * width, resident=Amount(const=float(entries * width))),
            Tensor("output", "activation", self.dtype, write=SAMPLES * width),
        )
        self.record(Op(name, "gather", tensors, dtype=self.dtype, rows=SAMPLES, n=width))

    def graph(self, name: str, stage: str, *, hidden: int = 0, layers: int = 0) -> Graph:
        """What was recorded, verified."""
        return verify(Graph(name, tuple(self.ops), hidden=hidden, dtype=self.dtype, layers=layers), stage)

    def _elementwise(self, name: str, read: float, written: float, flops: float, weights: float, fused: bool) -> None:
        tensors = [
            Tensor("input", "activation", self.dtype, read=SAMPLES * read),
            Tensor("output", "activation", self.dtype, write=SAMPLES * written),
        ]
        if weights:
            tensors.append(weight(weights, self.dtype))
        op = Op(
            name, "elementwise", tuple(tensors), flops=SAMPLES * flops, dtype=self.dtype, rows=SAMPLES, n=int(written),
            fused=fused,
        )  # fmt: skip
        self.record(op)

    def _window(
        self,
        name: str,
        source: FeatureMap,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: int | Sequence[int] | None,
    ) -> FeatureMap:
        border: tuple[int | None, int | None] = (None, None) if padding is None else pair(padding)
        height = window_output(source.height, kernel[0], stride[0], border[0])
        width = window_output(source.width, kernel[1], stride[1], border[1])
        if height < 1 or width < 1:
            window, grid = f"{kernel[0]} x {kernel[1]}", f"{source.height} x {source.width}"
            raise GraphError(self._name(name), "shapes", f"a window of {window} does not fit on {grid}")
        return FeatureMap(source.channels, height, width)

    def _name(self, name: str) -> str:
        return ".".join((*self._path, name))

    def _block(self, name: str) -> str:
        return self._path[0] if self._path else name
