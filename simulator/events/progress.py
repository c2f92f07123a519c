"""What the lowering of a step yields and where it stands: threads of work, stretches that repeat, halves of a step.

Bookkeeping only; which tasks there are is `lower`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from simulator.events.tasks import Net, Section
from simulator.events.terms import OpTerms
from simulator.graph.step import Step


@dataclass(slots=True)
class Lowered:
    """The net of one step, the ops that its tasks belong to, and the power that is drawn besides switching."""

    net: Net
    ops: dict[int, OpTerms]
    static_w: float
    """While ops run, on average."""
    waiting_w: float
    """While none does."""


@dataclass(slots=True)
class Progress:
    """Where each thread of work of a section stands."""

    section: Section
    stretch: float
    lane: str = ""
    """Suffix of its threads, where two halves of a step run side by side."""
    ops: list[int] = field(default_factory=list)
    """Tasks that the next op waits for; none yet: it waits for the copy before."""
    last: dict[str, int] = field(default_factory=dict)
    """Last task of the other threads."""
    waves: list[int] = field(default_factory=list)
    """Waves of the op before."""
    forked: tuple[str, list[int]] = ("", [])
    """Name of the op before, and what it waited for: a part of it on another unit waits for no more."""
    pending: list[int] = field(default_factory=list)
    """The exchange that the block after the next waits for."""


def runs_of(ops: list[OpTerms]) -> list[tuple[float, list[OpTerms]]]:
    """(repeat, ops) of stretches that repeat alike."""
    return [(repeat, list(run)) for repeat, run in groupby(ops, key=lambda terms: float(terms.op.repeat))]


def halved(step: Step) -> tuple[Step, ...]:
    """A step as two of half its tokens: half of the sequences of each part, or half of the tokens of one.

    >>> from simulator.graph.step import Slice
    >>> halved((Slice(1.0, 8.0),))[1][0].past_tokens
    4.0
    """
    if all(part.sequences >= 2.0 for part in step):
        half = tuple(part._replace(sequences=part.sequences / 2.0) for part in step)
        return half, half
    if any(part.query_tokens < 2.0 for part in step):
        return (step,)
    first = tuple(part._replace(query_tokens=part.query_tokens / 2.0) for part in step)
    second = tuple(p._replace(past_tokens=p.past_tokens + p.query_tokens) for p in first)
    return first, second
