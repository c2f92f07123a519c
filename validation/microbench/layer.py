"""A decoder layer written with torch's plain operators, its reference in float64, and what the model predicts for it.

RMS norm, grouped-query attention with rotary embedding over a cache, gated feed-forward: random weights, several copies so
that they come from memory. The prediction uses the product's own graph of such a layer; nothing here is fitted to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.cost.efficiency import efficiency, find_calibration, load_engine
from simulator.cost.layout import HostRow
from simulator.cost.runner import Runner
from simulator.cost.steps import step_seconds
from simulator.cost.table import build_table
from simulator.graph.architecture import Attention, Block, FeedForward
from simulator.graph.op import Graph
from simulator.graph.transformer import block_ops
from simulator.mapping.machine import Machine
from simulator.mapping.place import Need, Placer, Policy
from validation.microbench.cases import TOLERANCE, reference_attention
from validation.microbench.device import TorchDevice, to_numpy
from validation.microbench.processor import check

EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a layer."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int

    @property
    def widths(self) -> tuple[int, int]:
        """Elements of the queries, and of the keys, of one token."""
        return self.heads * self.head_dim, self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a layer: `tokens` new ones of each sequence after `past` cached ones."""

    batch: int
    tokens: int
    past: int

    @property
    def label(self) -> str:
        """For tables."""
        if self.tokens == 1:
            return f"decode {self.batch} x 1 over {self.past}"
        return f"prefill {self.batch} x {self.tokens}"


TINY = Shape(64, 4, 2, 16, 96)
PROCESSOR = Shape(2048, 16, 4, 128, 5632)
ACCELERATOR = Shape(4096, 32, 8, 128, 14336)
TINY_STEPS = (Step(1, 8, 0), Step(2, 1, 8))
PROCESSOR_STEPS = (
    Step(1, 1, 128), Step(1, 1, 1024), Step(2, 1, 512), Step(4, 1, 512), Step(16, 1, 256), Step(1, 32, 0), Step(1, 128, 0),
    Step(4, 64, 0), Step(1, 512, 0), Step(2, 512, 0),
)  # fmt: skip
ACCELERATOR_STEPS = (
    Step(1, 1, 128), Step(1, 1, 4096), Step(8, 1, 1024), Step(32, 1, 1024), Step(64, 1, 2048), Step(1, 128, 0),
    Step(1, 512, 0), Step(1, 2048, 0), Step(4, 1024, 0), Step(1, 8192, 0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weights:
    """One copy of a layer's weights."""

    attention_norm: Any
    qkv: Any
    output: Any
    ffn_norm: Any
    gate_up: Any
    down: Any


def weights(device: TorchDevice, shape: Shape, dtype: str, copy: int) -> Weights:
    """Random weights, scaled so that activations keep their size."""
    query, keys = shape.widths

    def drawn(n: int, k: int, salt: int) -> Any:
        return device.random((n, k), dtype, 5 * copy + salt).clone().mul_(k**-0.5)

    def ones(salt: int) -> Any:
        return 1.0 + 0.1 * device.random((shape.hidden,), dtype, salt)

    return Weights(
        ones(1), drawn(query + 2 * keys, shape.hidden, 0), drawn(shape.hidden, query, 1), ones(2),
        drawn(2 * shape.intermediate, shape.hidden, 2), drawn(shape.hidden, shape.intermediate, 3),
    )  # fmt: skip


class Layer:
    """The layer with its cache and inputs for one step, run with the i-th copy of its weights."""

    def __init__(self, device: TorchDevice, shape: Shape, step: Step, dtype: str, copies: list[Weights]) -> None:
        torch = device.torch
        torch.set_grad_enabled(False)
        self.torch, self.shape, self.step, self.copies = torch, shape, step, copies
        total = step.past + step.tokens
        cache = (step.batch, shape.kv_heads, total, shape.head_dim)
        self.caches = [
            (device.random(cache, dtype, 2 * i).clone(), device.random(cache, dtype, 2 * i + 1).clone())
            for i in range(len(copies))
        ]
        self.x = device.random((step.batch, step.tokens, shape.hidden), dtype, 3)
        angles = np.outer(np.arange(step.past, total), 10000.0 ** (-np.arange(0, shape.head_dim, 2) / shape.head_dim))
        both = np.concatenate([angles, angles], axis=-1)
        kind = device.dtype(dtype)
        self.cos = torch.tensor(np.cos(both), device=device.name, dtype=kind)
        self.sin = torch.tensor(np.sin(both), device=device.name, dtype=kind)

    def run(self, i: int) -> Any:
        """The layer's output, (batch, tokens, hidden)."""
        torch, shape, step = self.torch, self.shape, self.step
        linear = torch.nn.functional.linear
        w = self.copies[i % len(self.copies)]
        key_cache, value_cache = self.caches[i % len(self.copies)]
        query, keys = shape.widths
        x = self.x
        batch, tokens = step.batch, step.tokens
        q, k, v = linear(self._norm(x, w.attention_norm), w.qkv).split((query, keys, keys), -1)
        q = q.view(batch, tokens, shape.heads, shape.head_dim).transpose(1, 2)
        k = k.view(batch, tokens, shape.kv_heads, shape.head_dim).transpose(1, 2)
        v = v.view(batch, tokens, shape.kv_heads, shape.head_dim).transpose(1, 2)
        key_cache[:, :, step.past :] = self._rotate(k)
        value_cache[:, :, step.past :] = v
        grouped = {"enable_gqa": True} if shape.heads != shape.kv_heads else {}
        mixed = torch.nn.functional.scaled_dot_product_attention(
            self._rotate(q), key_cache, value_cache, is_causal=tokens > 1, **grouped
        )
        x = x + linear(mixed.transpose(1, 2).reshape(batch, tokens, query), w.output)
        gate, up = linear(self._norm(x, w.ffn_norm), w.gate_up).chunk(2, -1)
        return x + linear(torch.nn.functional.silu(gate) * up, w.down)

    def _norm(self, x: Any, scale: Any) -> Any:
        wide = x.to(self.torch.float32)
        wide = wide * self.torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)
        return wide.to(x.dtype) * scale

    def _rotate(self, x: Any) -> Any:
        first, second = x.chunk(2, -1)
        return x * self.cos + self.torch.cat((-second, first), -1) * self.sin

    def reference(self, i: int) -> Any:
        """The same in float64 with NumPy, written from the formulas; the cache is as `run` leaves it before the step."""
        shape, step = self.shape, self.step
        w = self.copies[i % len(self.copies)]
        query, keys = shape.widths
        cos, sin = to_numpy(self.cos), to_numpy(self.sin)
        key_cache, value_cache = (to_numpy(cache).copy() for cache in self.caches[i % len(self.copies)])

        def norm(x: Any, scale: Any) -> Any:
            return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON) * to_numpy(scale)

        def rotate(x: Any) -> Any:
            half = shape.head_dim // 2
            return x * cos + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * sin

        def heads(x: Any, count: int) -> Any:
            return x.reshape(step.batch, step.tokens, count, shape.head_dim).transpose(0, 2, 1, 3)

        x = to_numpy(self.x)
        projected = norm(x, w.attention_norm) @ to_numpy(w.qkv).T
        q, k, v = np.split(projected, [query, query + keys], axis=-1)
        q = rotate(heads(q, shape.heads))
        key_cache[:, :, step.past :] = rotate(heads(k, shape.kv_heads))
        value_cache[:, :, step.past :] = heads(v, shape.kv_heads)
        group = shape.heads // shape.kv_heads
        mixed = np.stack([
            np.stack([
                reference_attention(q[b, h], key_cache[b, h // group], value_cache[b, h // group])
                for h in range(shape.heads)
            ])
            for b in range(step.batch)
        ])  # fmt: skip
        x = x + mixed.transpose(0, 2, 1, 3).reshape(step.batch, step.tokens, query) @ to_numpy(w.output).T
        gate, up = np.split(norm(x, w.ffn_norm) @ to_numpy(w.gate_up).T, 2, axis=-1)
        return x + (gate / (1.0 + np.exp(-gate)) * up) @ to_numpy(w.down).T


def verify(device: TorchDevice, dtype: str) -> None:
    """Raises MeasurementError where a small layer differs from its reference."""
    for step in TINY_STEPS:
        layer = Layer(device, TINY, step, dtype, [weights(device, TINY, dtype, 0)])
        wanted = layer.reference(0)
        check(f"{dtype} layer, {step.label}", to_numpy(layer.run(0)), wanted, 4 * TOLERANCE[dtype])


def predictor(machine: Machine, engine_name: str, shape: Shape, dtype: str) -> Callable[[Step], dict[str, float]]:
    """What predicts the seconds of a step of the layer: of each op, and `all` with the host's part."""
    engine, calibration = load_engine(engine_name), find_calibration(machine)
    block = Block(Attention(shape.heads, shape.kv_heads, shape.head_dim), FeedForward(shape.intermediate))
    ops = [op for op in block_ops(block, shape.hidden, dtype) if op.kind != "collective"]
    table = build_table(
        Graph("layer", tuple(ops), shape.hidden, dtype),
        machine,
        engine,
        efficiency(machine, engine, calibration),
        calibration,
    )
    host = HostRow(*[0.0] * len(HostRow._fields))._replace(
        kernel_s=max(unit.host_launch_s for unit in machine.units) * engine.kernel_host_factor,
        gap_s=engine.kernel_gap_s,
        max_tokens=engine.max_batched_tokens,
    )
    runner = Runner(table, host)
    placer = Placer(machine, Policy(engine.memory_fraction, engine.workspace_bytes, engine.spills))
    shares = placer.place(Need(1.0, 1.0, 1.0), placer.preferences[0]).shares

    def seconds(step: Step) -> dict[str, float]:
        runner.step(((step.batch, step.tokens, step.past, 0.0, 1.0),), shares)
        found = {op.name: float(record[0]) for op, record in zip(table.ops, runner.scratch.records, strict=True)}
        found["all"] = step_seconds(runner.scratch.totals, host, step.batch, step.tokens == 1)
        return found

    return seconds
