"""Sequences that are admitted as their prompts fit, grow past the memory, and are preempted: who runs when.

Of one batch that starts together, on an engine that preempts. Knows room in tokens of cache; times are the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from simulator.predict import Predictor
from simulator.run import BatchRun, Turn


@dataclass(frozen=True, slots=True)
class Growth:
    """One batch in two phases: all that has room, then those that had to wait, from where they stopped."""

    batch: float
    """Sequences that start."""
    running: float
    """Of them, the mean number in the first phase, over its decode steps."""
    waited: float
    """Sequences that are preempted, and run again when the others are done."""
    known: float
    """Their mean context when they were, which is computed again."""
    resumed: float
    """The mean number of them in the second phase, over its decode steps."""
    steps: float
    """Decode steps of the second phase: what the first to be preempted still had to make."""


def growth(batch: float, fit: float, prompt: float, output: float) -> Growth | None:
    """Of `batch` sequences, `fit` of which have room with their whole answers; None where rounds of other kinds are needed.

    Room K = fit (p + o) tokens is full at the context c = K / batch; from there on K / x sequences run at context x. The
    others, batch - fit, are preempted on the way with p + o - x tokens left, (K (1 / c - 1 / (p + o)) (p + o) -
    K ln((p + o) / c)) / (batch - fit) on average, and resume together. Admission holds no sequence back, and those that
    resume fit: batch p <= K, batch <= 2 fit.

    >>> found = growth(128, 119, 512, 3584)
    >>> round(found.running, 1), round(found.known), round(found.steps)
    (127.6, 3949, 288)
    >>> made = found.running * 3584 + found.resumed * found.steps  # every token is made once
    >>> round(made / (128 * 3584), 9)
    1.0
    """
    whole = prompt + output
    room = fit * whole
    if not fit < batch <= 2.0 * fit or batch * prompt > room:
        return None
    full = room / batch
    shrinking = room * math.log(whole / full)
    left = room * (whole / full - 1.0) - shrinking
    steps = whole - full
    return Growth(
        batch,
        (batch * (full - prompt) + shrinking) / output,
        batch - fit,
        whole - left / (batch - fit),
        left / steps,
        steps,
    )


def grown(built: Predictor, run: BatchRun) -> Growth | None:
    """The growth of a run that the closed form makes in two turns; None where nothing is preempted."""
    first = run.turns[0]
    if not built.resolved.engine.preempts or not built.plain or len(run.turns) != 2 or first.repeats != 1:
        return None
    if built.resolved.parallelism.pp > 1 or run.source > 0.0 or run.generated <= 1:
        return None
    return growth(sum(turn.sequences for turn in run.turns), first.sequences, run.prompt, float(run.generated))


def phases(run: BatchRun, found: Growth) -> tuple[Turn, Turn, BatchRun, Turn, Turn]:
    """Turns to prefill and to decode in the first phase; the run of the second, and its turns.

    Their sequences are means, not whole numbers.
    """
    turn = run.turns[0]

    def of(sequences: float) -> Turn:
        return replace(turn, sequences=sequences)  # type: ignore[arg-type]

    again = replace(run, prompt=found.known, generated=max(2, round(found.steps) + 1))
    return of(found.batch), of(found.running), again, of(found.waited), of(found.resumed)
