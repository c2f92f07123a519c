"""The gradient of every kind of op, and what its forward pass has to keep for it.

Each op is looked at alone, through its tensors: which blocks exist, what is recomputed and who divides what is not
known here. 1 MAC = 2 FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from simulator.errors import GraphError
from simulator.graph.counts import norm
from simulator.graph.op import Collective, Op, Split, Tensor
from simulator.graph.optimizer import TrainingPlan
from simulator.graph.step import FULL, ZERO, Amount

SCORES = frozenset({"statistics", "probabilities", "dropped_probabilities", "score_mask"})
"""Names of what attention keeps besides its inputs: what selective recomputation does without."""

_LINEAR = frozenset({"rope", "permute"})
_PRODUCT = frozenset({"scale"})
_REVERSED: dict[Collective, Collective] = {"all_gather": "reduce_scatter", "reduce_scatter": "all_gather"}
_COLUMN_ROW: dict[Split, Split] = {"column": "row", "row": "column"}


def saved_tensors(
    op: Op, plan: TrainingPlan, *, trained: bool, shared: bool, tokens_per_sequence: int | None
) -> tuple[Tensor, ...]:
    """What the backward pass of `op` reads of its forward pass, allocated until then: inputs, never outputs.

    GEMM: the moving operand, if its weights are `trained` and no earlier GEMM keeps it already (`shared`). Attention:
    q, k, v (unless they are `shared`, another layer's) and one fp32 statistic per head and query (flash), or the
    scores of all pairs. Elementwise: its inputs unless it is linear; of a norm the residual sum, not its two terms.
    An output is an input of the op that follows, and kept there. Per-token tensors are resident per `context`, so
    that Graph.resident_bytes counts them over whole sequences.
    """
    inputs = [t for t in op.tensors if t.role == "activation" and any(t.read)]
    if op.kind in ("collective", "gather"):
        return ()
    if op.kind == "gemm":
        weighted = any(t.role == "weight" for t in op.tensors)
        if weighted and not trained:
            return ()
        found = [_saved(t, shared) for t in (inputs[:1] if weighted else inputs)]
    elif op.kind == "attention":
        found = [_saved(t, shared and t.name == "cache") for t in inputs]
        found += _score_tensors(op, plan, tokens_per_sequence)
    elif op.kind == "elementwise" and is_linear(op):
        found = []
    else:
        half = 0.5 if is_norm(op) else 1.0
        found = [_saved(t.scaled(half), False) for t in inputs]
    if plan.dropout and _named(op, "residual"):
        mask = next(t for t in op.tensors if any(t.write))
        found.append(_saved(Tensor("mask", "activation", "int8", read=mask.write, split=mask.split), False))
    return tuple(found)


def backward_ops(op: Op, saved: Sequence[Tensor], plan: TrainingPlan, *, trained: bool, first: bool) -> list[Op]:
    """The ops that turn the gradient of an op's outputs into those of its inputs and, if `trained`, of its weights.

    `first`: nothing before this op needs a gradient. FLOPs, in those of the forward op: GEMM 1 for the inputs and 1
    for the weights; attention 2.5 with flash (see `attention_gradient`), else 2; scan 3, as the states are computed
    again (arXiv 2312.00752, 3.3.2); elementwise 2, or 1 if linear. A collective meets its mirror image: an all-gather
    becomes a reduce-scatter, the others stay what they are.
    """
    if op.kind == "collective":
        kind = _REVERSED.get(op.collective, op.collective) if op.collective else None
        return [replace(op, name=f"{op.name}.backward", collective=kind)]
    if op.kind == "gemm":
        return _gemm_gradients(op, saved, plan, trained=trained, first=first)
    if op.kind == "attention":
        return attention_gradient(op, saved, plan, trained=trained)
    if op.kind == "gather":
        return [_scatter(op, plan)] if trained else []
    factor = 3.0 if op.kind == "scan" else 1.0 if is_linear(op) else 2.0
    output_share = 0.5 if is_norm(op) else 1.0
    gradients = (t.scaled(output_share) if any(t.write) else t for t in _gradients(op))
    tensors = (*saved, *gradients, *_weights(op), *(_weight_gradients(op, plan) if trained else ()))
    return [replace(op, name=f"{op.name}.backward", tensors=tensors, flops=op.flops * factor)]


def attention_gradient(op: Op, saved: Sequence[Tensor], plan: TrainingPlan, *, trained: bool) -> list[Op]:
    """Two ops: rowsum(dO * O) per query and head, then the gradients of q, k and v.

    Flash (Dao, arXiv 2307.08691, algorithm 2): five GEMMs over the pairs where the forward pass has two. Scores
    again, dQ and dK are over d_qk, dP and dV over d_v: (3 d_qk + 2 d_v) / (d_qk + d_v) of the forward FLOPs, 2.5 for
    equal widths. With kept scores 2. The first op carries the resident q, k, v and statistics: every token of a
    sequence stays, whatever the window.
    """
    output = [t for t in op.tensors if t.role == "activation" and any(t.write)]
    width = op.head_dim + op.value_dim
    factor = (3.0 * op.head_dim + 2.0 * op.value_dim) / width if plan.flash_attention else 2.0
    per_source = [t for t in saved if op.span.source and (t.read.pairs or t.read.context)]
    held = tuple(replace(t, read=ZERO) for t in saved if t not in per_source)
    sums = replace(
        op,
        name=f"{op.name}.backward_sums",
        kind="elementwise",
        tensors=(
            *held,
            *(
                Tensor(name, "activation", t.dtype, read=t.write, split=t.split)
                for t in output
                for name in ("o", "d_o")
            ),
            Tensor("sums", "activation", "fp32", write=op.rows * op.heads, split=op.split == "heads"),
        ),
        flops=_total(t.write for t in output) * 2.0,
        span=FULL,
        n=op.heads,
        heads=0,
        kv_heads=0,
        head_dim=0,
        value_dim=0,
    )
    read = tuple(t if t in per_source else replace(t, resident=ZERO) for t in saved)
    further = replace(plan, score_passes=max(0.0, plan.score_passes - 2.0))
    tensors = (
        *read,
        *(_crossings(op, further) if plan.score_passes > 2.0 else ()),
        Tensor("sums", "activation", "fp32", read=op.rows * op.heads, split=op.split == "heads"),
        *_gradients(op),
        *_weights(op),
        *(_weight_gradients(op, plan) if trained else ()),
    )
    return [sums, replace(op, name=f"{op.name}.backward", tensors=tensors, flops=op.flops * factor)]


def with_scores(op: Op, plan: TrainingPlan) -> Op:
    """An attention that writes its scores and reads them back once, unless the plan has flash attention."""
    if op.kind != "attention" or plan.flash_attention:
        return op
    return replace(op, tensors=(*op.tensors, *_crossings(op, plan)))


def _crossings(op: Op, plan: TrainingPlan) -> list[Tensor]:
    """Scores that go through memory, half of `score_passes` each way."""
    if plan.flash_attention:
        return []
    each = plan.score_passes / 2.0
    return [replace(t, read=t.read * each, write=t.read * each, resident=ZERO) for t in _score_tensors(op, plan, 1)]


def is_linear(op: Op) -> bool:
    """Whether the gradient of an elementwise op needs none of its inputs: sums, copies, rectifiers, rotations.

    That is at most one FLOP per element written (a rectifier's sign shows in its output), unless it is a product.
    """
    written = sum(sum(t.write) for t in op.tensors)
    return op.kind == "elementwise" and not _named(op, *_PRODUCT) and (sum(op.flops) <= written or _named(op, *_LINEAR))


def is_norm(op: Op) -> bool:
    """Whether an op counts what `counts.norm` does: a norm together with the residual sum before it."""
    if op.kind != "elementwise" or op.n % 2 or op.n == 0:
        return False
    model = norm(op.name, op.n // 2, dtype=op.dtype, weights=0, rows=op.rows)
    return op.flops == model.flops and [t.read for t in op.tensors[:2]] == [t.read for t in model.tensors]


def _gemm_gradients(op: Op, saved: Sequence[Tensor], plan: TrainingPlan, *, trained: bool, first: bool) -> list[Op]:
    """dX[m, k] = dY[m, n] W^T and dW[k, n] = X^T dY, 2 m n k FLOPs each.

    dX is a GEMM of m rows, k columns and n summed. dW has k rows, n columns and m summed, but m depends on the step
    and the summed dimension of an op is a number: the op `.wgrad` keeps the forward's m, n and k, of which it takes
    the same product and moves the same three matrices. A GEMM of two activations has the second one in the place of
    W.
    """
    gradients = _gradients(op)
    arriving = [t for t in gradients if any(t.read)]
    leaving = [t for t in gradients if any(t.write)]
    weights = [t for t in _weights(op) if t.name != "bias"]
    ops = []
    if not first:
        second = weights or [replace(t, resident=ZERO) for t in saved[1:]]
        split = _COLUMN_ROW.get(op.split, op.split)
        tensors = (*arriving, *second, *leaving[:1])
        ops.append(replace(op, name=f"{op.name}.dgrad", tensors=tensors, n=op.k, k=op.n, split=split))
    if trained or not weights:
        made = _weight_gradients(op, plan) if weights else leaving[1:]
        ops.append(replace(op, name=f"{op.name}.wgrad", tensors=(*saved, *arriving, *made)))
    return ops


def _scatter(op: Op, plan: TrainingPlan) -> Op:
    """Adds each row's gradient to the row of the table it was read from."""
    arriving = [t for t in _gradients(op) if any(t.read)]
    table = [
        Tensor("d_table", "gradient", plan.gradient_dtype, read=t.read, write=t.read, split=t.split)
        for t in op.tensors
        if t.role == "weight"
    ]
    flops = _total(t.read for t in table)
    return replace(op, name=f"{op.name}.backward", tensors=(*arriving, *table), flops=flops)


def _gradients(op: Op) -> list[Tensor]:
    """Of what was written the gradient is read, of what was read it is written; indices and states move as before."""
    found = []
    for t in op.tensors:
        if t.role == "activation":
            found.append(replace(t, name=f"d_{t.name}", read=t.write, write=t.read, resident=ZERO))
        elif t.role in ("state", "index"):
            found.append(t)
    return found


def _weights(op: Op) -> list[Tensor]:
    return [replace(t, resident=ZERO) for t in op.tensors if t.role == "weight"]


def _weight_gradients(op: Op, plan: TrainingPlan) -> list[Tensor]:
    """Written by the first micro-batch, read and written by all later ones."""
    later = 1.0 - 1.0 / plan.gradient_accumulation
    return [
        Tensor(f"d_{t.name}", "gradient", plan.gradient_dtype, read=t.read * later, write=t.read, split=t.split)
        for t in _weights(op)
    ]


def _score_tensors(op: Op, plan: TrainingPlan, tokens_per_sequence: int | None) -> list[Tensor]:
    """fp32 log-sum of exponentials per head and query; without flash the h s^2 probabilities, and with dropout their
    mask and what it leaves (arXiv 2205.05198, 4.1): h s (2 + 1 + 2) bytes per key in 16 bits, masked pairs
    included."""
    split = op.split == "heads"
    if plan.flash_attention:
        statistics = Tensor("statistics", "activation", "fp32", read=op.rows * op.heads, split=split)
        return [_saved(statistics, False)]
    pairs = op.flops * (1.0 / (2.0 * op.heads * (op.head_dim + op.value_dim) + 5.0 * op.heads))
    if pairs.pairs and tokens_per_sequence is None:
        raise GraphError(op.name, "training_graph", "kept scores need tokens_per_sequence; or set flash_attention")
    per_position = op.density * op.heads * (tokens_per_sequence or 0) if pairs.pairs else 0.0
    resident = Amount(sequences=pairs.sequences * op.heads, context=per_position)
    kept = [("probabilities", op.dtype)]
    if plan.dropout:
        kept += [("score_mask", "int8"), ("dropped_probabilities", op.dtype)]
    return [Tensor(n, "activation", d, read=pairs * op.heads, resident=resident, split=split) for n, d in kept]


def _saved(tensor: Tensor, elsewhere: bool) -> Tensor:
    a = tensor.read
    kept = Amount(const=a.const, sequences=a.sequences + a.sampled, context=a.tokens + a.context)
    return replace(tensor, write=ZERO, resident=ZERO if elsewhere else kept)


def _named(op: Op, *names: str) -> bool:
    return any(part in names for part in op.name.split("."))


def _total(amounts: Iterable[Amount]) -> Amount:
    total = ZERO
    for amount in amounts:
        total = total + amount
    return total
