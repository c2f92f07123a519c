"""Diffusion transformers: patches of a latent as tokens, with the time step as modulation of every norm.

Two families: one stream with optional cross-attention to text, and joint streams of image and text. Counts are per
sample and per denoising evaluation. Knows no model by name; the text encoder is a network of its own.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from simulator.errors import GraphError
from simulator.graph.convolution import FeatureMap, Recorder
from simulator.graph.op import Graph
from simulator.spec.loader import Spec


class _Patched(Spec):
    """What both families take."""

    latent: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels, height, width of the noisy input."""
    patch: PositiveInt = 2
    """Side of the square of latent positions that makes one token."""
    hidden: PositiveInt
    heads: PositiveInt
    mlp_ratio: PositiveFloat = 4
    output_channels: PositiveInt | None = None
    """Default: those of the input; twice as many where the variance is predicted too."""
    time_features: PositiveInt = 256
    """Sines and cosines that encode the time step."""
    dtype: str = "fp16"


class DiffusionTransformer(_Patched):
    """Arguments of the builder `diffusion_transformer`."""

    depth: PositiveInt
    modulation: Literal["block", "shared"] = "block"
    """block: a linear hidden -> 6 hidden in every block; shared: one for all, and a table of 6 hidden in each block."""
    classes: NonNegativeInt = 0
    """Rows of the table of class embeddings, the empty class included; 0: none."""
    text_width: NonNegativeInt = 0
    """Width of the text embedding that a cross-attention in each block reads; 0: none."""
    text_tokens: NonNegativeInt = 0


class JointTransformer(_Patched):
    """Arguments of the builder `joint_transformer`."""

    joint_blocks: PositiveInt
    """Blocks in which image and text have weights of their own and attend to one another."""
    single_blocks: NonNegativeInt = 0
    """Blocks after them with one set of weights, attention and MLP side by side."""
    text_width: PositiveInt
    text_tokens: PositiveInt
    pooled_width: PositiveInt
    """Width of the text vector that is added to the time embedding."""
    guidance: bool = False
    """The guidance scale is embedded as the time step is."""
    qk_norm: bool = False
    """RMS norm of the queries and keys of each head."""
    drops_text: bool = Field(False)
    """The last joint block updates the image only."""


def diffusion_transformer(shape: DiffusionTransformer, name: str) -> Graph:
    """The graph of one denoising evaluation with N = height width / patch^2 tokens of width D.

    Per block 2 N (4 D^2 + 2 r D^2) FLOPs of linear layers (r the MLP ratio) and 4 N^2 D of attention; the modulation
    adds 12 D^2 once per sample; cross-attention to t text tokens 2 (2 N + 2 t) D^2 + 4 N t D.

    >>> small = DiffusionTransformer(latent=(4, 32, 32), hidden=768, depth=12, heads=12, classes=1001)
    >>> round(diffusion_transformer(small, "base").parameters() / 1e6)
    130
    """
    tape, tokens = Recorder(shape.dtype), _tokens(shape)
    d, channels = shape.hidden, shape.latent[0]
    out = shape.output_channels or channels
    tape.linear("patch_embedding", tokens, channels * shape.patch**2, d)
    tape.pointwise("positions", "add", tokens * d, inputs=2 * tokens * d)
    _mlp(tape, "time_embedding", 1, shape.time_features, d, d, "silu")
    if shape.classes:
        tape.table("class_embedding", shape.classes, d)
    if shape.text_width:
        _mlp(tape, "text_projection", shape.text_tokens, shape.text_width, d, d, "gelu")
    if shape.modulation == "shared":
        tape.linear("modulation", 1, d, 6 * d)
    with tape.stage("block", shape.depth):
        if shape.modulation == "block":
            tape.pointwise("modulation.silu", "silu", d)
            tape.linear("modulation", 1, d, 6 * d)
        else:
            tape.pointwise("modulation.table", "add", 6 * d, weights=6 * d)
        _norm(tape, "norm1", tokens * d, d)
        tape.linear("qkv", tokens, d, 3 * d)
        tape.attention("attention", tokens, tokens, shape.heads, d // shape.heads)
        tape.linear("out", tokens, d, d)
        _gate(tape, "gate1", tokens * d, d)
        if shape.text_width:
            tape.linear("cross.q", tokens, d, d)
            tape.linear("cross.kv", shape.text_tokens, d, 2 * d)
            tape.attention("cross.attention", tokens, shape.text_tokens, shape.heads, d // shape.heads)
            tape.linear("cross.out", tokens, d, d)
            tape.add("cross.residual", tokens * d)
        _norm(tape, "norm2", tokens * d, d)
        _mlp(tape, "mlp", tokens, d, round(shape.mlp_ratio * d), d, "gelu")
        _gate(tape, "gate2", tokens * d, d)
    with tape.stage("head"):
        if shape.modulation == "block":
            tape.linear("modulation", 1, d, 2 * d)
        else:
            tape.pointwise("modulation.table", "add", 2 * d, weights=2 * d)
        _norm(tape, "norm", tokens * d, d)
        tape.linear("linear", tokens, d, shape.patch**2 * out)
    return tape.graph(name, "diffusion_transformer", hidden=d, layers=shape.depth)


def joint_transformer(shape: JointTransformer, name: str) -> Graph:
    """The graph of one denoising evaluation with N image and t text tokens of width D.

    Joint block: 2 (N + t) (4 + 2 r) D^2 FLOPs of linear layers, 4 (N + t)^2 D of attention, 24 D^2 of modulation.
    Single block: the same over one sequence of N + t, with 6 D^2 of modulation, the MLP's second matrix merged with the
    output projection.
    """
    tape, tokens, text = Recorder(shape.dtype), _tokens(shape), shape.text_tokens
    d, channels = shape.hidden, shape.latent[0]
    both = tokens + text
    tape.linear("patch_embedding", tokens, channels * shape.patch**2, d)
    tape.linear("text_embedding", text, shape.text_width, d)
    _mlp(tape, "time_embedding", 1, shape.time_features, d, d, "silu")
    if shape.guidance:
        _mlp(tape, "guidance_embedding", 1, shape.time_features, d, d, "silu")
    _mlp(tape, "pooled_embedding", 1, shape.pooled_width, d, d, "silu")
    full = shape.joint_blocks - (1 if shape.drops_text else 0)
    if full:
        with tape.stage("joint", full):
            _joint_block(tape, shape, tokens, updates_text=True)
    if shape.drops_text:
        with tape.stage("joint_last"):
            _joint_block(tape, shape, tokens, updates_text=False)
    if shape.single_blocks:
        with tape.stage("single", shape.single_blocks):
            inner = round(shape.mlp_ratio * d)
            tape.linear("modulation", 1, d, 3 * d)
            _norm(tape, "norm", both * d, d)
            tape.linear("qkv", both, d, 3 * d)
            _head_norm(tape, shape, "qk_norm", both)
            tape.attention("attention", both, both, shape.heads, d // shape.heads)
            tape.linear("mlp.up", both, d, inner)
            tape.pointwise("mlp.gelu", "gelu", both * inner)
            tape.linear("out", both, d + inner, d)
            _gate(tape, "gate", both * d, d)
    with tape.stage("head"):
        tape.linear("modulation", 1, d, 2 * d)
        _norm(tape, "norm", tokens * d, d)
        tape.linear("linear", tokens, d, shape.patch**2 * (shape.output_channels or channels))
    return tape.graph(name, "joint_transformer", hidden=d, layers=shape.joint_blocks + shape.single_blocks)


def _joint_block(tape: Recorder, shape: JointTransformer, tokens: int, *, updates_text: bool) -> None:
    d, text = shape.hidden, shape.text_tokens
    streams = (("image", tokens, True), ("text", text, updates_text))
    for stream, rows, updated in streams:
        tape.linear(f"{stream}.modulation", 1, d, (6 if updated else 2) * d)
        _norm(tape, f"{stream}.norm1", rows * d, d)
        tape.linear(f"{stream}.qkv", rows, d, 3 * d)
        _head_norm(tape, shape, f"{stream}.qk_norm", rows)
    tape.attention("attention", tokens + text, tokens + text, shape.heads, d // shape.heads)
    for stream, rows, updated in streams:
        if updated:
            tape.linear(f"{stream}.out", rows, d, d)
            _gate(tape, f"{stream}.gate1", rows * d, d)
            _norm(tape, f"{stream}.norm2", rows * d, d)
            _mlp(tape, f"{stream}.mlp", rows, d, round(shape.mlp_ratio * d), d, "gelu")
            _gate(tape, f"{stream}.gate2", rows * d, d)


def _tokens(shape: _Patched) -> int:
    _, height, width = shape.latent
    if height % shape.patch or width % shape.patch:
        grid = f"{height} x {width}"
        raise GraphError("patch_embedding", "shapes", f"patches of {shape.patch} do not divide a latent of {grid}")
    if shape.hidden % shape.heads:
        raise GraphError("attention", "shapes", f"{shape.heads} heads do not divide a width of {shape.hidden}")
    return FeatureMap(1, height // shape.patch, width // shape.patch).positions


def _mlp(tape: Recorder, name: str, rows: int, k: int, inner: int, n: int, activation: str) -> None:
    tape.linear(f"{name}.up", rows, k, inner)
    tape.pointwise(f"{name}.{activation}", activation, rows * inner)
    tape.linear(f"{name}.down", rows, inner, n)


def _norm(tape: Recorder, name: str, elements: int, width: int) -> None:
    """A norm without weights of its own, then scale and shift by the modulation."""
    tape.pointwise(name, "layer_norm", elements, fused=False)
    tape.pointwise(f"{name}.modulate", "modulate", elements, inputs=elements + 2 * width)


def _gate(tape: Recorder, name: str, elements: int, width: int) -> None:
    """The branch times its gate, plus the residual."""
    tape.pointwise(name, "modulate", elements, inputs=2 * elements + width)


def _head_norm(tape: Recorder, shape: JointTransformer, name: str, rows: int) -> None:
    if shape.qk_norm:
        tape.pointwise(name, "rms_norm", 2 * rows * shape.hidden, weights=2 * shape.hidden // shape.heads)
