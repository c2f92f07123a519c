"""Latent-diffusion networks made of residual convolution blocks: the denoising UNet and the image auto-encoder.

Counts are per sample and per evaluation: one denoising step of one latent (guidance runs two samples), or one image.
Knows no model by name. The text is an input: its encoder is a network of its own.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from simulator.errors import GraphError
from simulator.graph.convolution import FeatureMap, Recorder
from simulator.graph.op import Graph
from simulator.spec.loader import Spec


class UNet(Spec):
    """Arguments of the builder `unet`."""

    latent: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels, height, width of the noisy input."""
    output_channels: PositiveInt | None = None
    """Default: those of the input."""
    channels: list[PositiveInt] = Field(min_length=1)
    """Width of each level, from the finest; the grid halves between levels."""
    res_blocks: PositiveInt = 2
    """Per level on the way down; one more on the way up."""
    transformer_depth: list[NonNegativeInt]
    """Transformer blocks after each residual block of a level; 0: none."""
    middle_depth: PositiveInt = 1
    """Transformer blocks in the middle."""
    heads: PositiveInt | None = None
    """Attention heads at every level. Either this or `head_dim`."""
    head_dim: PositiveInt | None = None
    context_width: PositiveInt
    """Width of the text embedding that cross-attention reads."""
    context_tokens: PositiveInt = 77
    time_width: PositiveInt
    """Width of the time embedding after its MLP."""
    added_width: NonNegativeInt = 0
    """Width of a further conditioning vector (pooled text, sizes) with an MLP of its own; 0: none."""
    dtype: str = "fp16"

    @model_validator(mode="after")
    def _levels_agree(self) -> UNet:
        if len(self.transformer_depth) != len(self.channels):
            depths = len(self.transformer_depth)
            raise ValueError(f"transformer_depth has {depths} levels, channels {len(self.channels)}")
        if (self.heads is None) == (self.head_dim is None):
            raise ValueError("exactly one of `heads` and `head_dim` is needed")
        return self


class AutoEncoder(Spec):
    """Arguments of the builder `image_autoencoder`: the decoder or the encoder of a latent-diffusion VAE."""

    part: Literal["decoder", "encoder"]
    latent: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels, height, width of the latent."""
    image_channels: PositiveInt = 3
    channels: list[PositiveInt] = Field(min_length=1)
    """Width of each level, from the image's resolution to the latent's; the grid halves between levels."""
    res_blocks: PositiveInt = 2
    """Per level of the encoder; the decoder has one more."""
    quant_conv: bool = True
    """A 1x1 convolution on the latent."""
    dtype: str = "fp16"


def unet(shape: UNet, name: str) -> Graph:
    """The graph of one denoising evaluation.

    Residual block: norm, 3x3 conv (in -> out), time projection, norm, 3x3 conv, 1x1 shortcut where the width changes.
    Transformer: norm, projection in, d x [self-attention, cross-attention to the text, gated MLP 4x], projection out;
    attention over p positions takes 4 p^2 c (+ 5 p^2 heads) FLOPs, cross-attention 4 p t c. On the way up each residual
    block reads the map that the way down left at the same place, concatenated.
    """
    tape = Recorder(shape.dtype)
    first, width = shape.channels[0], shape.time_width
    channels, height, columns = shape.latent
    _embedding_mlp(tape, "time_embedding", first, width)
    if shape.added_width:
        _embedding_mlp(tape, "added_embedding", shape.added_width, width)
    current = tape.conv("conv_in", FeatureMap(channels, height, columns), first, 3)
    skips = [current]
    last = len(shape.channels) - 1
    for level, (wide, depth) in enumerate(zip(shape.channels, shape.transformer_depth, strict=True)):
        with tape.stage(f"down{level}"):
            for index in range(shape.res_blocks):
                current = _residual(tape, f"res{index}", current, wide, width)
                _transformer(tape, f"transformer{index}", current, depth, shape)
                skips.append(current)
            if level < last:
                current = tape.conv("downsample", current, wide, 3, 2, padding=1)
                skips.append(current)
    with tape.stage("middle"):
        current = _residual(tape, "res0", current, current.channels, width)
        _transformer(tape, "transformer", current, shape.middle_depth, shape)
        current = _residual(tape, "res1", current, current.channels, width)
    for level in reversed(range(last + 1)):
        with tape.stage(f"up{level}"):
            for index in range(shape.res_blocks + 1):
                skip = skips.pop()
                joined = current.with_channels(current.channels + skip.channels)
                tape.pointwise(f"concat{index}", "copy", joined.elements)
                current = _residual(tape, f"res{index}", joined, shape.channels[level], width)
                _transformer(tape, f"transformer{index}", current, shape.transformer_depth[level], shape)
            if level > 0:
                current = _upsample(tape, current)
                if (current.height, current.width) != (skips[-1].height, skips[-1].width):
                    grid = f"{height} x {columns}"
                    raise GraphError(f"up{level}.upsample", "unet", f"a latent of {grid} cannot be halved {last} times")
    _head(tape, current, shape.output_channels or channels)
    return tape.graph(name, "unet", hidden=first)


def image_autoencoder(shape: AutoEncoder, name: str) -> Graph:
    """The graph that turns one latent into an image, or an image into the mean and variance of a latent.

    Residual blocks as in `unet`, without time; in the middle, one attention of a single head over the positions of the
    latent.
    """
    tape = Recorder(shape.dtype)
    channels, height, width = shape.latent
    widest, levels = shape.channels[-1], len(shape.channels)
    if shape.part == "decoder":
        current = FeatureMap(channels, height, width)
        if shape.quant_conv:
            current = tape.conv("quant_conv", current, channels)
        current = _middle(tape, tape.conv("conv_in", current, widest, 3))
        for level in reversed(range(levels)):
            with tape.stage(f"up{level}"):
                for index in range(shape.res_blocks + 1):
                    current = _residual(tape, f"res{index}", current, shape.channels[level], 0)
                if level > 0:
                    current = _upsample(tape, current)
        _head(tape, current, shape.image_channels)
        return tape.graph(name, "image_autoencoder")
    scale = 2 ** (levels - 1)
    current = FeatureMap(shape.image_channels, height * scale, width * scale)
    current = tape.conv("conv_in", current, shape.channels[0], 3)
    for level, wide in enumerate(shape.channels):
        with tape.stage(f"down{level}"):
            for index in range(shape.res_blocks):
                current = _residual(tape, f"res{index}", current, wide, 0)
            if level < levels - 1:
                current = tape.conv("downsample", current, wide, 3, 2)
    current = _head(tape, _middle(tape, current), 2 * channels)
    if shape.quant_conv:
        tape.conv("quant_conv", current, 2 * channels)
    return tape.graph(name, "image_autoencoder")


def _embedding_mlp(tape: Recorder, name: str, inputs: int, width: int) -> None:
    with tape.stage(name):
        tape.linear("linear1", 1, inputs, width)
        tape.pointwise("silu", "silu", width)
        tape.linear("linear2", 1, width, width)


def _residual(tape: Recorder, name: str, source: FeatureMap, channels: int, time_width: int) -> FeatureMap:
    with tape.stage(name):
        target = source.with_channels(channels)
        tape.pointwise("norm1", "group_norm", source.elements, weights=2 * source.channels, fused=False)
        tape.pointwise("silu1", "silu", source.elements)
        tape.conv("conv1", source, channels, 3)
        if time_width:
            tape.linear("time", 1, time_width, channels)
            tape.pointwise("time_sum", "add", target.elements, inputs=target.elements + channels)
        tape.pointwise("norm2", "group_norm", target.elements, weights=2 * channels, fused=False)
        tape.pointwise("silu2", "silu", target.elements)
        tape.conv("conv2", target, channels, 3)
        if source.channels != channels:
            tape.conv("shortcut", source, channels)
        tape.add("residual", target.elements)
    return target


def _transformer(tape: Recorder, name: str, source: FeatureMap, depth: int, shape: UNet) -> None:
    if depth == 0:
        return
    c, p = source.channels, source.positions
    heads = shape.heads or c // (shape.head_dim or c)
    if c % heads:
        raise GraphError(name, "unet", f"{heads} heads do not divide {c} channels")
    with tape.stage(name):
        tape.pointwise("norm", "group_norm", source.elements, weights=2 * c, fused=False)
        tape.linear("project_in", p, c, c)
        with tape.stage("block", depth):
            tape.pointwise("norm1", "layer_norm", p * c, weights=2 * c, fused=False)
            tape.linear("self.qkv", p, c, 3 * c, bias=False)
            tape.attention("self.attention", p, p, heads, c // heads)
            tape.linear("self.out", p, c, c)
            tape.add("self.residual", p * c)
            tape.pointwise("norm2", "layer_norm", p * c, weights=2 * c, fused=False)
            tape.linear("cross.q", p, c, c, bias=False)
            tape.linear("cross.kv", shape.context_tokens, shape.context_width, 2 * c, bias=False)
            tape.attention("cross.attention", p, shape.context_tokens, heads, c // heads)
            tape.linear("cross.out", p, c, c)
            tape.add("cross.residual", p * c)
            tape.pointwise("norm3", "layer_norm", p * c, weights=2 * c, fused=False)
            tape.linear("mlp.up", p, c, 8 * c)
            tape.pointwise("mlp.geglu", "geglu", 4 * p * c, inputs=8 * p * c)
            tape.linear("mlp.down", p, 4 * c, c)
            tape.add("mlp.residual", p * c)
        tape.linear("project_out", p, c, c)
        tape.add("residual", p * c)


def _middle(tape: Recorder, source: FeatureMap) -> FeatureMap:
    c, p = source.channels, source.positions
    with tape.stage("middle"):
        _residual(tape, "res0", source, c, 0)
        tape.pointwise("norm", "group_norm", source.elements, weights=2 * c, fused=False)
        tape.linear("qkv", p, c, 3 * c)
        tape.attention("attention", p, p, 1, c)
        tape.linear("out", p, c, c)
        tape.add("residual", p * c)
        return _residual(tape, "res1", source, c, 0)


def _upsample(tape: Recorder, source: FeatureMap) -> FeatureMap:
    return tape.conv("upsample_conv", tape.upsample("upsample", source), source.channels, 3)


def _head(tape: Recorder, source: FeatureMap, channels: int) -> FeatureMap:
    tape.pointwise("norm_out", "group_norm", source.elements, weights=2 * source.channels, fused=False)
    tape.pointwise("silu_out", "silu", source.elements)
    return tape.conv("conv_out", source, channels, 3)
