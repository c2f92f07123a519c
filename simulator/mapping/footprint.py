"""How much memory one rank's tensors take: weights, cache by span, and the working set of activations.

Traffic is elsewhere: this counts unique bytes that are resident.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.graph.op import Graph, Op
from simulator.graph.step import ZERO, Amount


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Bytes that one sequence keeps, as a function of its length."""

    by_reach: tuple[tuple[float, float], ...]
    """(reach in positions, bytes per position): a cache keeps at most its reach."""
    source_bytes: float
    """Per position of the encoder's output."""
    state_bytes: float
    """Per sequence, whatever its length."""

    def bytes_of(self, tokens: float, source_tokens: float = 0.0) -> float:
        """Of one sequence of `tokens`.

        >>> CacheSize(((float("inf"), 100.0), (512.0, 100.0)), 0.0, 8.0).bytes_of(1000)
        151208.0
        """
        kept = sum(min(tokens, reach) * size for reach, size in self.by_reach)
        return kept + self.source_bytes * source_tokens + self.state_bytes


def cache_size(graph: Graph, stage_share: float = 1.0) -> CacheSize:
    """The cache of one rank; a pipeline stage keeps `stage_share` of the layers' caches."""
    by_reach: dict[float, float] = {}
    source = state = 0.0
    for op in graph.ops:
        for tensor in op.tensors:
            if tensor.role not in ("kv", "state"):
                continue
            size = op.repeat * tensor.bytes_per_element * stage_share
            if op.span.source:
                source += size * tensor.resident.context
            elif tensor.resident.context:
                reach = float(op.span.window or op.span.chunk or float("inf"))
                by_reach[reach] = by_reach.get(reach, 0.0) + size * tensor.resident.context
            state += size * tensor.resident.sequences
    return CacheSize(tuple(sorted(by_reach.items())), source, state)


def weight_bytes(graph: Graph, stage_share: float = 1.0) -> float:
    """Weights (and gradients and optimizer state, in training) of one rank; embedding and head lie on one stage each."""
    layers = 0.0
    ends = {"embedding": 0.0, "head": 0.0}
    for op in graph.ops:
        size = sum(
            op.repeat * tensor.resident.const * tensor.bytes_per_element
            for tensor in op.tensors
            if tensor.role in ("weight", "gradient", "optimizer")
        )
        if op.block in ends:
            ends[op.block] += size
        else:
            layers += size
    return layers * stage_share + (max(ends.values()) if stage_share < 1.0 else sum(ends.values()))


def workspace_rows(graph: Graph) -> list[Amount]:
    """Bytes of activations that each op needs at once: its inputs and outputs, and the residual stream beside them."""
    residual = Amount(tokens=graph.hidden * 2.0)
    return _undominated([residual + _live(op) for op in graph.ops if op.kind != "collective"])


def score_bytes(graph: Graph) -> float:
    """Bytes per (query, key) pair of one layer's scores, where attention writes them out; 0 for fused attention."""
    written = [
        tensor.write.pairs * tensor.bytes_per_element
        for op in graph.ops
        for tensor in op.tensors
        if tensor.role == "activation" and tensor.name == "scores"
    ]
    return max(written, default=0.0)


def _live(op: Op) -> Amount:
    total = ZERO
    for tensor in op.tensors:
        if tensor.role == "activation":
            moved = tensor.read + tensor.write
            total = total + moved._replace(pairs=0.0, context=0.0, const=0.0) * tensor.bytes_per_element
    return total


def _undominated(rows: list[Amount]) -> list[Amount]:
    unique = list(dict.fromkeys(rows))
    return [
        row
        for row in unique
        if not any(other != row and all(a >= b for a, b in zip(other, row, strict=True)) for other in unique)
    ]
