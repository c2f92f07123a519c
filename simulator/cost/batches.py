"""Static batches: equal sequences prefilled and then decoded together, at one point or at many.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`. `t` is a `Tables`, `s` a `Scratch`.
"""

from __future__ import annotations

import math
from typing import Any

from simulator.cost.layout import (
    R_ENERGY,
    R_STATIC_J,
    R_TIME,
    S_FAILED,
    S_PREFILL_DEVICE,
    S_PREFILL_J,
    S_STEP_DEVICE,
    S_STEP_J,
    S_TPOT,
    S_TTFT,
    Scratch,
    Tables,
)
from simulator.cost.steps import device_seconds, static_joules, step_seconds, time_step

NODES = ((0.1127016653792583, 5.0 / 18.0), (0.5, 8.0 / 18.0), (0.8872983346207417, 5.0 / 18.0))
"""Nodes and weights of the 3-point Gauss-Legendre rule on [0, 1]: exact where a step's time is a quintic of the context."""


def prefill_seconds(batch: float, prompt: float, source: float, stages: float, t: Tables, s: Scratch) -> int:
    """Prefills a batch of equal sequences on one rank of a pipeline of `stages`; returns the op that failed, or -1.

    Runs in steps of at most `host.max_tokens` tokens: several sequences, or chunks of one, whose mean cost is that of
    the middle chunk. Steps of times t_i through p stages take (sum t_i + (p - 1) max t_i) / p; with several stages, the
    best number of sequences per step among powers of two. `s.prefill` sums all steps. Tokens whose keys and values are
    known are attended to, but not computed.
    """
    host = t.host
    fresh = max(1.0, prompt - max(host.known_tokens, host.known_share * prompt))
    if fresh >= host.max_tokens:
        return prefill_steps(batch, 1.0, fresh / host.max_tokens, prompt, source, stages, t, s)
    most = float(math.floor(host.max_tokens / fresh))
    if stages <= 1.0:
        return prefill_steps(batch, most, 1.0, prompt, source, stages, t, s)
    best = math.inf
    chosen = 1.0
    size = 1.0
    while size <= most:
        failed = prefill_steps(batch, size, 1.0, prompt, source, stages, t, s)
        if failed >= 0:
            return failed
        if s.result[S_TTFT] < best:
            best = s.result[S_TTFT]
            chosen = size
        if size >= batch:
            break
        size *= 2.0
    return prefill_steps(batch, chosen, 1.0, prompt, source, stages, t, s)


def prefill_steps(
    batch: float, size: float, chunks: float, prompt: float, source: float, stages: float, t: Tables, s: Scratch
) -> int:
    """Prefill in steps of `size` sequences and a rest, or of 1 / `chunks` of a sequence; the op that failed, or -1."""
    for c in range(len(s.totals)):
        s.prefill[c] = 0.0
    sequences = min(size, batch)
    fresh = max(1.0, prompt - max(t.host.known_tokens, t.host.known_share * prompt))
    query = fresh / chunks
    repeats = float(math.floor(batch / sequences)) * chunks
    rest = 0.0 if chunks > 1.0 else batch - repeats * sequences
    seconds = 0.0
    longest = 0.0
    device = 0.0
    for turn in range(2):
        if turn == 1:
            if rest <= 0.0:
                continue
            repeats = 1.0
            sequences = rest
        part = (sequences, query, prompt - fresh + 0.5 * (fresh - query), source, 1.0 / chunks)
        failed = time_step(t.all, (part,), t, s)
        if failed >= 0:
            return failed
        step = step_seconds(s.totals, t.host, sequences, False)
        longest = max(longest, step)
        seconds += repeats * step
        device += repeats * device_seconds(s.totals, t.host)
        for c in range(len(s.totals)):
            s.prefill[c] += repeats * s.totals[c]
    s.result[S_PREFILL_DEVICE] = device
    s.result[S_TTFT] = (seconds + (stages - 1.0) * longest) / stages
    s.result[S_PREFILL_J] = s.prefill[R_ENERGY] + static_joules(s.prefill, s.result[S_TTFT] * stages, t.power)
    return -1


def decode_seconds(
    dense_known: bool, batch: float, prompt: float, output: float, source: float, stages: float, t: Tables, s: Scratch
) -> int:
    """The mean decode step of a batch over its growing context; returns the op that failed, or -1.

    Everything but attention is timed once; `dense_known` says that `s.dense` holds it already for this batch. p
    micro-batches decode side by side in p stages. `s.decode` is the mean step of one micro-batch.
    """
    result = s.result
    host = t.host
    for c in range(len(s.totals)):
        s.decode[c] = 0.0
    result[S_TPOT] = 0.0
    result[S_STEP_J] = 0.0
    result[S_STEP_DEVICE] = 0.0
    if output <= 1.0:
        return -1
    sequences = batch * host.samples
    together = min(stages, sequences)
    micro = float(math.ceil(sequences / together))
    if not dense_known:
        failed = time_step(
            t.dense, ((micro, host.step_tokens, min(prompt, host.past_limit), source, host.sampled_tokens),), t, s
        )
        if failed >= 0:
            return failed
        for c in range(len(s.totals)):
            s.dense[c] = s.totals[c]
    for node, weight in NODES:
        past = min(prompt - 0.5 + node * (output - 1.0), host.past_limit)
        failed = time_step(t.attending, ((micro, host.step_tokens, past, source, host.sampled_tokens),), t, s)
        if failed >= 0:
            return failed
        for c in range(len(s.totals)):
            s.totals[c] += s.dense[c]
            s.decode[c] += weight * s.totals[c]
        step = step_seconds(s.totals, host, micro, True)
        each = weight / host.gained_tokens
        busy = together * s.totals[R_TIME]
        result[S_TPOT] += each * step
        result[S_STEP_J] += each * (
            together * (s.totals[R_ENERGY] + s.totals[R_STATIC_J]) + t.power.waiting_w * max(0.0, step * stages - busy)
        )
        result[S_STEP_DEVICE] += each * device_seconds(s.totals, host)
    return -1


def static_batch(
    batch: float, prompt: float, output: float, source: float, stages: float, t: Tables, s: Scratch
) -> None:
    """A batch of equal sequences, prefilled and then decoded together. `s.result` gets the S_ columns."""
    failed = prefill_seconds(batch, prompt, source, stages, t, s)
    if failed < 0:
        failed = decode_seconds(False, batch, prompt, output, source, stages, t, s)
    s.result[S_FAILED] = float(failed)


def static_grid(points: Any, stages: float, t: Tables, s: Scratch, answers: Any) -> None:
    """`static_batch` at many points: rows of (batch, prompt, output, source), best in order of batch, then prompt.

    What a point shares with the one before it is not computed again: the prefill of the same batch and prompt, and all
    of a decode step but attention for the same batch. `answers` gets a row of S_ columns per point.
    """
    dense_batch = -1.0
    dense_source = -1.0
    for p in range(len(points)):
        batch, prompt, output, source = points[p][0], points[p][1], points[p][2], points[p][3]
        failed = -1
        if p == 0 or points[p - 1][0] != batch or points[p - 1][1] != prompt or points[p - 1][3] != source:
            failed = prefill_seconds(batch, prompt, source, stages, t, s)
        if failed < 0:
            failed = decode_seconds(
                dense_batch == batch and dense_source == source, batch, prompt, output, source, stages, t, s
            )
            if output > 1.0:
                dense_batch = batch
                dense_source = source
        s.result[S_FAILED] = float(failed)
        for c in range(len(s.result)):
            answers[p][c] = s.result[c]
