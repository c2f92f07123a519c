"""Tensor, expert, pipeline and data parallelism: one rank's share of a graph.

`shard` conserves work: the sum over ranks is at least the whole, and equals it where nothing is replicated. Collectives
keep their messages and learn how many ranks take part; what they cost is the cost model's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from simulator.errors import ScenarioError
from simulator.graph.build import Model
from simulator.graph.op import Graph, Op, Routing, Tensor, verify
from simulator.graph.step import Amount


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Degrees of parallelism; `devices` = tp x pp x dp. `ep` of the tp x dp ranks divide the experts."""

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        """Raises ScenarioError for a degree below 1."""
        for name in ("tp", "pp", "ep", "dp"):
            if getattr(self, name) < 1:
                raise ScenarioError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def devices(self) -> int:
        """Ranks in all."""
        return self.tp * self.pp * self.dp


def check(model: Model, parallelism: Parallelism) -> None:
    """Raises ScenarioError if the model cannot be divided that way; says which degrees it can be divided by."""
    tp = parallelism.tp
    for op in model.graph.ops:
        if op.kind == "attention" and tp > 1 and (op.heads % tp or (op.kv_heads % tp and tp % op.kv_heads)):
            raise ScenarioError(
                f"tp={tp} does not divide the {op.heads} query and {op.kv_heads} KV heads of '{op.name}' in {model.name}; "
                f"it can be {_either(_divisors(op.heads, op.kv_heads))}"
            )
    experts = [op.routing.experts for op in model.graph.ops if op.routing]
    if parallelism.ep > 1:
        if not experts:
            raise ScenarioError(f"ep={parallelism.ep}, but {model.name} has no routed experts; leave ep at 1")
        if parallelism.ep > tp * parallelism.dp or (tp * parallelism.dp) % parallelism.ep:
            raise ScenarioError(f"ep={parallelism.ep} must divide tp x dp = {tp * parallelism.dp}")
        if min(experts) % parallelism.ep:
            raise ScenarioError(f"ep={parallelism.ep} does not divide the {min(experts)} experts of {model.name}")
    if parallelism.pp > max(1, model.graph.layers):
        raise ScenarioError(f"pp={parallelism.pp} is more than the {model.graph.layers} layers of {model.name}")


def shard(graph: Graph, parallelism: Parallelism) -> Graph:
    """What one rank of a pipeline's whole length computes: tensor and expert shards of every layer; and its collectives,
    but for exchanges among ranks that hold the same tokens.

    Pipeline stages divide the layers, not the ops: a stage holds and computes 1/pp of the repeats (see `stage_share`).
    """
    if parallelism.devices == 1:
        return verify(graph.with_ops(op for op in graph.ops if op.kind != "collective"), "parallel.shard")
    ops = []
    for op in graph.ops:
        ranks = {"tp": parallelism.tp, "ep": parallelism.ep, "pp": parallelism.pp, "dp": parallelism.dp, "cp": 1}
        if op.kind == "collective":
            if ranks[op.axis or "tp"] > 1 and not _at_home(op, parallelism):
                ops.append(_shard_collective(op, ranks[op.axis or "tp"], parallelism))
        else:
            ops.append(_shard_op(op, parallelism))
    if parallelism.pp > 1:
        ops.append(_stage_boundary(graph, parallelism.pp))
    return verify(graph.with_ops(ops), "parallel.shard")


def _at_home(op: Op, parallelism: Parallelism) -> bool:
    """An exchange among experts that need not take place: attention's all-reduce leaves every tensor-parallel rank with all
    tokens, so that each computes its own experts' share of them, which the all-reduce behind the experts sums. Only tokens
    of other replicas have to be fetched.
    """
    return op.axis == "ep" and parallelism.ep <= parallelism.tp


def _shard_collective(op: Op, ranks: int, parallelism: Parallelism) -> Op:
    """A collective over `ranks`; those among data-parallel replicas exchange one rank's share of the tensors."""
    if op.axis != "dp":
        return replace(op, groups=ranks)
    experts = parallelism.ep if op.routing else 1
    inner = max(1, parallelism.tp // experts) if op.routing else parallelism.tp
    tensors = tuple(tensor.scaled((1.0 / inner if tensor.split else 1.0) / experts) for tensor in op.tensors)
    return replace(op, groups=ranks, tensors=tensors)


def _shard_op(op: Op, parallelism: Parallelism) -> Op:
    tp = parallelism.tp
    if op.routing is not None:
        return _shard_experts(op, parallelism)
    if tp == 1 or op.split == "none":
        return op
    kv_share = max(1, op.kv_heads // tp) / op.kv_heads if op.kv_heads else 1.0 / tp
    tensors = tuple(
        _shard_tensor(tensor, 1.0 / tp, kv_share if op.kind == "attention" else 1.0 / tp) for tensor in op.tensors
    )
    changed = replace(op, tensors=tensors, flops=op.flops * (1.0 / tp))
    if op.kind == "attention":
        return replace(changed, heads=op.heads // tp, kv_heads=max(1, op.kv_heads // tp))
    if op.kind == "gemm" and op.split == "heads":
        return replace(changed, groups=max(1, op.groups // tp), rows=op.rows * (1.0 / tp))
    if op.kind == "gemm" and op.split == "column":
        return replace(changed, n=math.ceil(op.n / tp))
    if op.kind == "gemm" and op.split == "row":
        return replace(changed, k=math.ceil(op.k / tp))
    if op.kind == "gather":
        return replace(op, tensors=tuple(_resident_share(tensor, 1.0 / tp) for tensor in op.tensors))
    return replace(changed, n=max(1, op.n // tp))


def _shard_experts(op: Op, parallelism: Parallelism) -> Op:
    """Experts over ep ranks; what ep leaves of tp divides each expert's matrices.

    With data parallelism below expert parallelism, the tokens of all dp replicas meet at the experts.
    """
    ep, routing = parallelism.ep, op.routing
    assert routing is not None
    inner = max(1, parallelism.tp // ep)
    replicas = max(1.0, ep / parallelism.tp)
    rows = op.rows * (replicas / ep)
    share = 1.0 / inner
    width = {"column": (math.ceil(op.n / inner), op.k), "row": (op.n, math.ceil(op.k / inner))}.get(
        op.split, (op.n, op.k)
    )
    tensors = []
    for tensor in op.tensors:
        if tensor.role in ("weight", "gradient", "optimizer"):
            tensors.append(tensor.scaled((share if tensor.split else 1.0) / ep))
        else:
            tensors.append(tensor.scaled((share if tensor.split else 1.0) * replicas / ep))
    return replace(
        op,
        tensors=tuple(tensors),
        flops=op.flops * (share * replicas / ep),
        rows=rows,
        n=width[0],
        k=width[1],
        groups=max(1, op.groups // ep),
        routing=_local(routing, ep, ep / replicas),
    )


def _local(routing: Routing, ep: int, seen: float) -> Routing:
    """The routing that one of `ep` ranks sees: its experts, each reached by a token as likely as before."""
    experts = routing.experts // ep
    return replace(routing, experts=experts, top_k=routing.top_k * experts / routing.experts, ranks=ep, seen=seen)


def _shard_tensor(tensor: Tensor, share: float, kv_share: float) -> Tensor:
    if not tensor.split:
        return tensor
    return tensor.scaled(kv_share if tensor.role == "kv" or tensor.name in ("cache", "d_cache") else share)


def _resident_share(tensor: Tensor, share: float) -> Tensor:
    return replace(tensor, resident=tensor.resident * share) if tensor.split else tensor


def _stage_boundary(graph: Graph, pp: int) -> Op:
    message = Tensor("message", "activation", graph.dtype, read=Amount(tokens=float(graph.hidden)))
    return Op(
        "stage.send",
        "collective",
        (message,),
        repeat=pp - 1,
        dtype=graph.dtype,
        rows=Amount(tokens=1.0),
        n=graph.hidden,
        groups=2,
        block="other",
        collective="send",
        axis="pp",
    )


def stage_share(graph: Graph, pp: int) -> float:
    """Largest share of the layers on one pipeline stage.

    >>> stage_share(Graph("example", (), layers=30), 4)
    0.26666666666666666
    """
    if pp == 1 or not graph.layers:
        return 1.0
    return math.ceil(graph.layers / pp) / graph.layers


def _divisors(heads: int, kv_heads: int) -> list[int]:
    return [d for d in range(1, min(heads, 64) + 1) if heads % d == 0 and (kv_heads % d == 0 or d % kv_heads == 0)]


def _either(numbers: list[int]) -> str:
    shown = [str(number) for number in numbers]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]
