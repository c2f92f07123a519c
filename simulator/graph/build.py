"""From an architecture to the graphs that a prediction runs: decoder, encoder, vision tower.

A `Model` is what the rest of the program calls a network. Knows how its graphs follow one another, not what they cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from simulator.graph.architecture import Architecture, Attention, VisionTower
from simulator.graph.counts import elementwise, linear
from simulator.graph.op import Graph, Op, Tensor, verify
from simulator.graph.step import Amount
from simulator.graph.transformer import block_ops, cross_key_value_ops, transformer_graph


@dataclass(frozen=True, slots=True)
class Model:
    """A network ready to be predicted."""

    name: str
    graph: Graph
    """What runs at every step."""
    encoder: Graph | None = None
    """Runs once over the source tokens of each sequence."""
    vision: Graph | None = None
    """Runs once per image; counts are per `sequences`."""
    image_tokens: int = 0
    """Context that one image takes."""
    image_source_tokens: int = 0
    """Tokens of one image that cross-attention layers read in place of the context (Llama 3.2 Vision)."""
    source_tokens: int | None = None
    """Source length where the encoder's input has a fixed size (audio frames)."""
    max_context: int | None = None
    decode: bool = True
    """Generates token by token; otherwise one forward pass is the whole job."""
    architecture: Architecture | None = None
    title: str = ""

    def graphs(self) -> Iterator[Graph]:
        """All graphs of the model."""
        yield self.graph
        if self.encoder is not None:
            yield self.encoder
        if self.vision is not None:
            yield self.vision

    def parameters(self) -> float:
        """Weights of all graphs."""
        return sum(graph.parameters() for graph in self.graphs())


def model_from_architecture(architecture: Architecture) -> Model:
    """The graphs of an architecture.

    >>> from simulator.graph.architecture import Attention, Block, FeedForward
    >>> block = Block(Attention(32, 8, 128), FeedForward(14336), repeat=32)
    >>> shape = Architecture("example", "llama", 128256, 4096, (block,), 8192)
    >>> int(model_from_architecture(shape).parameters())
    8030261248
    """
    graph = transformer_graph(architecture)
    if architecture.fixed_tokens is not None:
        graph = per_sample(graph, architecture.fixed_tokens)
    encoder = None
    if architecture.encoder is not None:
        encoder = transformer_graph(architecture.encoder)
        encoder = encoder.with_ops([*encoder.ops, *cross_key_value_ops(architecture, architecture.encoder.hidden)])
    vision = _vision_graph(architecture.vision, architecture) if architecture.vision else None
    crossed = any(isinstance(block.mixer, Attention) and block.mixer.cross for block in architecture.blocks)
    image_tokens = architecture.vision.tokens if architecture.vision else 0
    return Model(
        architecture.name,
        graph,
        encoder,
        vision,
        image_tokens=0 if crossed else image_tokens,
        image_source_tokens=image_tokens if crossed else 0,
        source_tokens=architecture.encoder.fixed_tokens if architecture.encoder else None,
        max_context=architecture.max_context,
        decode=architecture.decode,
        architecture=architecture,
        title=architecture.name,
    )


def per_sample(graph: Graph, tokens: int) -> Graph:
    """`graph` for samples of a fixed number of tokens: every count becomes one per sequence.

    A full non-causal span of t tokens has t^2 pairs and a context of t.
    """

    def fixed(amount: Amount) -> Amount:
        per_sequence = (
            amount.sequences
            + amount.sampled
            + amount.tokens * tokens
            + amount.pairs * tokens**2
            + amount.context * tokens
        )
        return Amount(const=amount.const, sequences=per_sequence)

    ops = []
    for op in graph.ops:
        tensors = tuple(
            replace(t, read=fixed(t.read), write=fixed(t.write), resident=Amount(const=t.resident.const))
            for t in op.tensors
        )
        n, k = (tokens, tokens) if op.kind == "attention" else (op.n, op.k)
        ops.append(replace(op, flops=fixed(op.flops), rows=fixed(op.rows), tensors=tensors, phase="any", n=n, k=k))
    return graph.with_ops(ops)


def _vision_graph(tower: VisionTower, architecture: Architecture) -> Graph:
    dtype, rows = architecture.dtype, Amount(tokens=1.0)
    patch_inputs = tower.channels * tower.patch**2 * tower.temporal_patch
    ops: list[Op] = [
        linear(
            "vision.patch_embedding",
            rows,
            tower.hidden,
            patch_inputs,
            dtype=dtype,
            bias=tower.patch_bias,
            block="vision",
        )
    ]
    extra = tower.extra_parameters + tower.position_embeddings * tower.hidden
    if extra:
        ops.append(
            elementwise(
                "vision.positions",
                rows,
                reads=tower.hidden,
                writes=tower.hidden,
                flops=tower.hidden,
                dtype=dtype,
                weights=extra,
                block="vision",
                fused=True,
            )
        )
    for position, block in enumerate(tower.blocks):
        ops.extend(block_ops(block, tower.hidden, dtype, prefix=f"vision.b{position}."))
    share = tower.tokens / tower.patches
    for position, (inputs, outputs) in enumerate(tower.projector):
        ops.append(
            linear(
                f"vision.projector.{position}",
                Amount(tokens=share),
                outputs,
                inputs,
                dtype=dtype,
                bias=tower.projector_bias,
                block="vision",
            )
        )
    if tower.projector:  # Layers that attend to the image instead of holding it in the context.
        ops.extend(cross_key_value_ops(architecture, tower.projector[-1][1], Amount(tokens=share)))
    graph = Graph(f"{architecture.name}.vision", tuple(_vision_op(op) for op in ops), tower.hidden, dtype)
    return verify(per_sample(graph, tower.patches), "vision")


def _vision_op(op: Op) -> Op:
    cached = tuple(_plain(tensor) for tensor in op.tensors)
    return replace(op, tensors=cached, block="vision")


def _plain(tensor: Tensor) -> Tensor:
    return replace(tensor, role="activation", resident=Amount()) if tensor.role == "kv" else tensor
