"""One training step of any graph: forward, loss, backward, recomputation, gradient exchange, update.

A pure function from graph to graph. Knows the order of the passes and what stays allocated between them; the
gradients of single ops are in `backward`, weights and ranks in `optimizer`.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from simulator.errors import ScenarioError
from simulator.graph.backward import SCORES, backward_ops, is_norm, saved_tensors, with_scores
from simulator.graph.counts import TOKENS, all_reduce, elementwise, linear
from simulator.graph.op import Graph, Op, Tensor, verify
from simulator.graph.optimizer import Group, TrainingPlan, When, gather_ops, gradient_ops, groups, update_ops
from simulator.graph.step import ZERO, Amount

__all__ = ["TrainingPlan", "training_graph"]

_PREFIX = re.compile(r"(?:.*\.)?b\d+(?=\.)")
_PARTS_OF_BLOCKS = frozenset({"attention", "ffn", "mixer", "norm", "other"})
_OUTSIDE_BLOCKS = frozenset({"embedding", "head"})


@dataclass(frozen=True, slots=True)
class _Forward:
    """An op as training runs it, and what is kept of it for the backward pass."""

    op: Op
    trained: bool
    borrows: bool = False
    """An attention over the cache of an earlier layer, which keeps it."""
    saved: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class _Block:
    """Neighbouring ops that repeat together: what is recomputed, gathered and exchanged as one."""

    name: str
    repeat: float
    ops: tuple[_Forward, ...]
    groups: tuple[Group, ...]
    recomputed: bool


def training_graph(graph: Graph, plan: TrainingPlan, tokens_per_sequence: int | None = None) -> Graph:
    """One optimizer step of `graph` on one data-parallel rank, to be evaluated at the step of one micro-batch.

    Per token a dense decoder takes 6 N FLOPs, N the weights in GEMMs (forward 2, gradients of inputs 2 and of weights
    2), 8 N with full recomputation and about 4 N with adapters (Kaplan et al., arXiv 2001.08361, 2.1). Forward and
    backward ops repeat `plan.gradient_accumulation` times; updates, and exchanges where ZeRO allows it, once.

    `Graph.resident_bytes(sequences, tokens)` of the result is the memory of one rank with one micro-batch: weights,
    gradients, optimizer state, and the activations kept for the backward pass (see `saved_tensors`), plus the working
    set of the largest recomputed block. Gathered weights of ZeRO-3 and temporary buffers are not in it.
    `tokens_per_sequence` is only needed to keep scores without flash attention: they grow with its square.

    >>> from simulator.graph.architecture import Architecture, Attention, Block, FeedForward
    >>> from simulator.graph.step import Slice
    >>> from simulator.graph.transformer import transformer_graph
    >>> block = Block(Attention(32, 32, 128), FeedForward(11008), repeat=32)
    >>> dense = transformer_graph(Architecture("example", "llama", 32000, 4096, (block,), 4096))
    >>> step = training_graph(dense, TrainingPlan(zero_stage=1, data_parallel=8))
    >>> weights_in_gemms = dense.parameters() - 32000 * 4096
    >>> round(step.flops_at((Slice.prefill(1, 4096),)) / (6 * weights_in_gemms * 4096), 2)  # attention: 7 L h s of 6 N
    1.1
    >>> kept = step.resident_bytes(1, 4096)
    >>> state = kept["weight"] + kept["gradient"] + kept["optimizer"]
    >>> state == (4 + 12 / 8) * dense.parameters()
    True
    """
    forward = _adapted([_trainable(op, plan) for op in graph.ops if not _left_out(op)], plan)
    kept = _with_saved(forward, plan, tokens_per_sequence)
    blocks = _limited(_blocks(kept, plan), plan, tokens_per_sequence or 1)
    learning = next((position for position, block in enumerate(blocks) if _trains(block)), None)
    if learning is None:
        raise ScenarioError(f"nothing in {graph.name} can be trained: it has no weights")
    passes: list[Op] = []
    for block in blocks:
        passes += _gathers(block, plan, "forward")
        passes += _micro((_sharded(with_scores(f.op, plan), plan) for f in block.ops), plan)
    passes += _micro(_loss_ops(blocks), plan)
    for position in range(len(blocks) - 1, learning - 1, -1):
        passes += _backward(blocks[position], plan, start=position == learning)
    for block in blocks:
        for group in block.groups:
            passes += update_ops(group, plan)
    for block in blocks:
        passes += _gathers(block, plan, "update")
    return verify(replace(graph, name=f"{graph.name}.training", ops=tuple(passes)), "training_graph")


def _left_out(op: Op) -> bool:
    """What only inference runs: decode forms, and the gathering of logits that the loss takes in shares."""
    return op.phase == "decode" or (op.kind == "collective" and op.block == "head" and op.collective == "all_gather")


def _trainable(op: Op, plan: TrainingPlan) -> _Forward:
    """The forward op of training: every token has logits, nothing is cached, trained weights are in their format."""
    every_token = plan.loss_positions == "all"
    tensors = []
    for t in op.tensors:
        if every_token:
            t = replace(t, read=_per_token(t.read), write=_per_token(t.write))
        if t.role == "kv":
            written = ZERO if op.kind == "attention" else t.write
            t = replace(t, role="activation", write=written, resident=ZERO)
        elif t.role == "state":
            t = replace(t, resident=ZERO)
        elif t.role == "weight" and not plan.freezes:
            t = replace(t, dtype=plan.parameter_dtype, overhead_bits=0.0)
        tensors.append(t)
    changed = replace(op, tensors=tuple(tensors), phase="any")
    if every_token:
        changed = replace(changed, flops=_per_token(op.flops), rows=_per_token(op.rows))
    weighted = any(t.role == "weight" for t in op.tensors)
    borrows = op.kind == "attention" and any(t.role == "kv" and not any(t.resident) for t in op.tensors)
    return _Forward(changed, trained=weighted and not plan.freezes, borrows=borrows)


def _per_token(amount: Amount) -> Amount:
    return amount._replace(tokens=amount.tokens + amount.sampled, sampled=0.0)


def _adapted(forward: Sequence[_Forward], plan: TrainingPlan) -> list[_Forward]:
    """With adapters: Y = X W + (X A) B with A: k x r and B: r x n on every target, one per op and expert.

    A projection of several outputs (q, k and v) is one op and gets one A.
    """
    if plan.part_share is not None:
        return [made for item in forward for made in _parts(item, plan, plan.part_share)]
    if plan.lora_rank is None:
        return list(forward)
    found: list[_Forward] = []
    for item in forward:
        found.append(item)
        op = item.op
        if _is_target(op, plan):
            found += [_Forward(added, trained=added.kind == "gemm") for added in _adapters(op, plan.lora_rank, plan)]
    if not any(item.trained for item in found):
        raise ScenarioError(
            f"lora_targets {', '.join(plan.lora_targets)} match no projection; name some of the graph's GEMMs"
        )
    return found


def _parts(item: _Forward, plan: TrainingPlan, share: float) -> list[_Forward]:
    """A projection that ends a block in its frozen inputs and the trained ones, whose products are summed in one kernel."""
    op = item.op
    if not _is_target(op, plan) or op.split != "row":
        return [item]
    chosen = max(1, round(op.k * share))
    whole = {"output", "bias"}

    def of(count: int, kept: bool) -> Op:
        tensors = tuple(
            t if t.name in whole else t.scaled(count / op.k) for t in op.tensors if kept or t.name != "bias"
        )
        return replace(op, k=count, tensors=tensors, flops=op.flops * (count / op.k))

    frozen, part = of(op.k - chosen, True), of(chosen, False)
    return [replace(item, op=frozen), _Forward(replace(part, name=f"{op.name}.part"), trained=True)]


def _is_target(op: Op, plan: TrainingPlan) -> bool:
    if op.kind != "gemm" or not any(t.role == "weight" for t in op.tensors):
        return False
    names = (op.name, op.name.rpartition(".")[2])
    return any(fnmatchcase(name, pattern) for name in names for pattern in plan.lora_targets)


def _adapters(op: Op, rank: int, plan: TrainingPlan) -> list[Op]:
    dtype, routing, groups_ = plan.parameter_dtype, op.routing, op.groups
    down = linear(
        f"{op.name}.lora_a", op.rows, rank, op.k, dtype=dtype, split="row" if op.split == "row" else "none",
        repeat=op.repeat, block=op.block, groups=groups_, routing=routing,
    )  # fmt: skip
    up = linear(
        f"{op.name}.lora_b", op.rows, op.n, rank, dtype=dtype, split="column" if op.split == "column" else "none",
        repeat=op.repeat, block=op.block, groups=groups_, routing=routing,
    )  # fmt: skip
    total = elementwise(
        f"{op.name}.lora_sum", op.rows, reads=2.0 * op.n, writes=op.n, flops=op.n, dtype=dtype,
        split=op.split == "column", repeat=op.repeat, block=op.block, fused=True,
    )  # fmt: skip
    return [down, up, total]


def _with_saved(forward: Sequence[_Forward], plan: TrainingPlan, tokens_per_sequence: int | None) -> list[_Forward]:
    """Adds what the backward pass needs. GEMMs that read one norm's output (router and experts, the down-projections of
    latent attention, gates) keep it once: the first one whose k is the norm's width."""
    found: list[_Forward] = []
    width, held = 0, False
    for item in forward:
        op, shared = item.op, False
        if is_norm(op):
            width, held = op.n // 2, False
        elif op.kind == "gemm" and item.trained and op.rows == TOKENS and op.k == width and op.split != "row":
            shared, held = held, True
        elif op.kind == "attention":
            shared = item.borrows
        saved = saved_tensors(op, plan, trained=item.trained, shared=shared, tokens_per_sequence=tokens_per_sequence)
        found.append(replace(item, saved=saved))
    return found


def _blocks(forward: Sequence[_Forward], plan: TrainingPlan) -> list[_Block]:
    """Runs of ops of the same kind of block; in networks that are not made of such, runs of one stage and repeat."""
    blocks: list[_Block] = []
    for (name, _), run in itertools.groupby(forward, key=_key):
        ops = tuple(run)
        repeat = statistics.mode(item.op.repeat for item in ops)  # norms may be more or fewer than layers
        label = name or "block"
        taken = sum(block.name.partition("~")[0] == label for block in blocks)
        unique = f"{label}~{taken}" if taken else label
        weights = groups(unique, repeat, ((item.op, item.trained) for item in ops))
        recomputed = plan.recompute == "full" and name not in _OUTSIDE_BLOCKS
        blocks.append(_Block(unique, repeat, ops, tuple(weights), recomputed))
    return blocks


def _key(item: _Forward) -> tuple[str, float]:
    op = item.op
    prefix = _PREFIX.match(op.name)
    if prefix:
        return prefix.group(), 0.0
    if op.block in _OUTSIDE_BLOCKS or op.name.startswith("embedding."):
        return ("head" if op.block == "head" else "embedding"), 0.0
    return ("", 0.0) if op.block in _PARTS_OF_BLOCKS else (op.block, op.repeat)


def _limited(blocks: Sequence[_Block], plan: TrainingPlan, tokens: int) -> list[_Block]:
    """Drops what is recomputed: of all layers only the largest one's share stays, while its backward pass runs.

    Full: a recomputed block keeps the input of its first op (2 s b h bytes per layer, arXiv 2205.05198, section 5).
    Selective: attention keeps its inputs, but nothing that is as large as its pairs.
    """
    if plan.recompute == "none":
        return list(blocks)
    selective = plan.recompute == "selective"
    sizes = {(block.name, index if selective else 0): 0.0 for block in blocks for index in range(len(block.ops))}
    for block in blocks:
        for index, item in enumerate(block.ops):
            share = 1.0 if selective else item.op.repeat / block.repeat
            sizes[block.name, index if selective else 0] += share * sum(
                (t.resident.context * tokens + t.resident.sequences) * t.bytes_per_element
                for t in item.saved
                if (t.name in SCORES if selective else block.recomputed)
            )
    largest = max(sizes, key=lambda key: sizes[key])
    found = []
    for block in blocks:
        ops = []
        for index, item in enumerate(block.ops):
            here = (block.name, index if selective else 0) == largest
            repeat = item.op.repeat if selective else block.repeat
            factor = 1.0 / repeat if here and repeat else 0.0
            dropped = [t.name in SCORES if selective else block.recomputed for t in item.saved]
            saved = tuple(
                replace(t, resident=t.resident * factor) if drop else t
                for t, drop in zip(item.saved, dropped, strict=True)
            )
            ops.append(replace(item, saved=saved))
        found.append(replace(block, ops=tuple(ops)))
    return found


def _loss_ops(blocks: Sequence[_Block]) -> list[Op]:
    """Cross-entropy over the outputs of the head's last GEMM, forward and backward, 5 FLOPs per logit each.

    The logits are kept in fp32 (4 s b v bytes, arXiv 2205.05198, 4.3). Ranks that divide the vocabulary exchange a
    maximum, a sum and the target's logit per token. A graph without a head has no loss of its own.
    """
    heads = [item.op for block in blocks for item in block.ops if item.op.kind == "gemm" and item.op.block == "head"]
    if not heads:
        return []
    head = heads[-1]
    split = head.split == "column"
    loss = elementwise(
        "loss", head.rows, reads=head.n, writes=1, flops=5.0 * head.n, dtype=head.dtype, split=split, block="head"
    )
    logits = head.rows * head.n
    saved = Tensor("logits", "activation", "fp32", write=logits, split=split)
    resident = Amount(sequences=logits.sequences + logits.sampled, context=logits.tokens)
    backward = (
        replace(saved, read=logits, write=ZERO, resident=resident),
        Tensor("d_logits", "activation", head.dtype, write=logits, split=split),
    )
    exchange = [all_reduce("loss.all_reduce", 3, dtype="fp32", block="head", rows=head.rows)] if split else []
    return [
        replace(loss, tensors=(*loss.tensors, saved), repeat=head.repeat),
        *exchange,
        replace(loss, name="loss.backward", tensors=backward, n=head.n, repeat=head.repeat),
    ]


def _backward(block: _Block, plan: TrainingPlan, *, start: bool) -> list[Op]:
    """A block's gathers, recomputation, gradients in reverse order, and the exchange of its weights' gradients.

    `start`: the first block that learns. Where it runs once, nothing before its first trained op needs a gradient.
    """
    gradients: list[Op] = []
    once = start and block.repeat == 1
    first = next((index for index, item in enumerate(block.ops) if item.trained), 0) if once else -1
    for index in range(len(block.ops) - 1, max(first, 0) - 1, -1):
        item = block.ops[index]
        gradients += backward_ops(item.op, item.saved, plan, trained=item.trained, first=index == first)
    passes = _gathers(block, plan, "backward") + _micro([*_recomputed(block, plan), *gradients], plan)
    for group in block.groups:
        passes += gradient_ops(group, plan)
    return passes


def _recomputed(block: _Block, plan: TrainingPlan) -> Iterator[Op]:
    """The forward ops that run once more; the first one of a recomputed block reads the kept input of the block."""
    checkpointed = False
    for item in block.ops:
        op = with_scores(item.op, plan)
        if not (block.recomputed or (plan.recompute == "selective" and op.kind == "attention")):
            continue
        tensors = tuple(replace(t, resident=ZERO) for t in op.tensors)
        inputs = [t for t in tensors if t.role == "activation" and any(t.read)]
        if block.recomputed and inputs and op.kind != "collective" and not checkpointed:
            checkpointed = True
            share = (0.5 if is_norm(op) else 1.0) * block.repeat / op.repeat
            kept = Amount(sequences=inputs[0].read.sequences, context=inputs[0].read.tokens) * share
            tensors = (*tensors, replace(inputs[0], name="checkpoint", read=ZERO, resident=kept))
        yield replace(op, name=f"{op.name}.recompute", tensors=tensors)


def _sharded(op: Op, plan: TrainingPlan) -> Op:
    share = plan.share(3)
    tensors = tuple(replace(t, resident=t.resident * share) if t.role == "weight" else t for t in op.tensors)
    return replace(op, tensors=tensors)


def _micro(ops: Iterable[Op], plan: TrainingPlan) -> list[Op]:
    """What every micro-batch runs; what it keeps is kept once."""
    times = plan.gradient_accumulation
    return [
        replace(
            op,
            repeat=op.repeat * times,
            tensors=tuple(replace(t, resident=t.resident * (1.0 / times)) for t in op.tensors),
        )
        for op in ops
    ]


def _gathers(block: _Block, plan: TrainingPlan, when: When) -> list[Op]:
    return [op for group in block.groups for op in gather_ops(group, plan, when)]


def _trains(block: _Block) -> bool:
    return any(item.trained for item in block.ops)
