"""One batch step: how many tokens of how many sequences, and what an op counts of them.

A step is a mixed batch of prefill chunks and decode tokens. Every count of every op is linear in six features of the
step, so a graph is built once and evaluated at any step. Knows nothing of hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Features(NamedTuple):
    """What a step holds, as one op sees it; the fields are those of Amount."""

    const: float = 1.0
    tokens: float = 0.0
    sequences: float = 0.0
    sampled: float = 0.0
    pairs: float = 0.0
    context: float = 0.0


class Amount(NamedTuple):
    """A count that is linear in the features of a step.

    >>> ffn = Amount(tokens=2.0 * 4096 * 11008)
    >>> ffn.at(Features(tokens=3)) == 3 * 2 * 4096 * 11008
    True
    """

    const: float = 0.0
    """Once per step, whatever is in it (weights)."""
    tokens: float = 0.0
    """Per query token."""
    sequences: float = 0.0
    """Per sequence (recurrent state, images)."""
    sampled: float = 0.0
    """Per sequence whose logits are needed."""
    pairs: float = 0.0
    """Per attended (query, key) pair, as the op's span admits them."""
    context: float = 0.0
    """Per cached position that the op's span reads."""

    def at(self, features: Features) -> float:
        """The count at one step."""
        return sum(a * b for a, b in zip(self, features, strict=True))

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]
        return Amount(*(a + b for a, b in zip(self, other, strict=True)))

    def __mul__(self, factor: float) -> Amount:  # type: ignore[override]
        return Amount(*(a * factor for a in self))

    def __rmul__(self, factor: float) -> Amount:  # type: ignore[override]
        return self * factor


ZERO = Amount()


class Slice(NamedTuple):
    """Sequences of a step that are alike.

    >>> Slice.decode(sequences=8, past_tokens=1023)
    Slice(sequences=8, query_tokens=1, past_tokens=1023, source_tokens=0, sampled=1.0)
    """

    sequences: float
    query_tokens: float
    """New tokens of each sequence in this step."""
    past_tokens: float = 0
    """Tokens of each sequence that are already in its cache."""
    source_tokens: float = 0
    """Tokens of the encoder's output that cross-attention reads."""
    sampled: float = 1.0
    """Positions of each sequence whose logits are computed."""

    @classmethod
    def prefill(cls, sequences: float, tokens: float, past_tokens: float = 0, source_tokens: float = 0) -> Slice:
        """`tokens` of the prompt of each sequence."""
        return cls(sequences, tokens, past_tokens, source_tokens)

    @classmethod
    def decode(cls, sequences: float, past_tokens: float, source_tokens: float = 0) -> Slice:
        """One generated token of each sequence."""
        return cls(sequences, 1, past_tokens, source_tokens)


Step = tuple[Slice, ...]
"""A mixed batch: any number of slices."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which keys a query may attend to.

    `window`: only the last so many; `chunk`: only those of the same aligned chunk; `limit`: at most so many chosen
    ones (top-k); `source`: the encoder's output in place of the sequence itself.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None
    limit: int | None = None
    source: bool = False

    def pairs(self, part: Slice) -> float:
        """Attended (query, key) pairs of one sequence of the slice.

        The query at position p (from 1) sees min(p, window) keys if causal, so with past s and q new tokens a full
        causal span has q s + q (q + 1) / 2 pairs.

        >>> Span().pairs(Slice.prefill(1, 4))
        10.0
        >>> Span(window=2).pairs(Slice.prefill(1, 4))
        7.0
        """
        q, past = float(part.query_tokens), float(part.past_tokens)
        if self.source:
            return q * part.source_tokens
        if not self.causal:
            return q * _capped(past + q, self.window, self.limit)
        if self.chunk is not None:
            return _pairs_in_chunks(past + q, self.chunk) - _pairs_in_chunks(past, self.chunk)
        reach = min(self.window or float("inf"), self.limit or float("inf"))
        return _pairs_up_to(past + q, reach) - _pairs_up_to(past, reach)

    def context(self, part: Slice) -> float:
        """Cached positions that one sequence of the slice reads, its own new ones included."""
        q, past = float(part.query_tokens), float(part.past_tokens)
        if self.source:
            return float(part.source_tokens)
        total = past + q
        if self.chunk is not None:
            return min(total, self.chunk + q - 1)
        if self.window is not None:
            return min(total, self.window + q - 1)
        if self.limit is not None:
            return min(total, self.limit * q)
        return total

    def kept(self, total_tokens: float, source_tokens: float = 0) -> float:
        """Positions of a sequence of `total_tokens` that stay in the cache."""
        if self.source:
            return source_tokens
        reach = self.window or self.chunk
        return min(total_tokens, reach) if reach else total_tokens


FULL = Span()


def features(step: Step, span: Span = FULL) -> Features:
    """The features of a step, as an op of that span sees them.

    >>> features((Slice.prefill(2, 100), Slice.decode(3, 49)))
    Features(const=1.0, tokens=203, sequences=5, sampled=5.0, pairs=10250.0, context=350.0)
    """
    if not step:
        return Features(const=0.0)
    return Features(
        1.0,
        sum(part.sequences * part.query_tokens for part in step),
        sum(part.sequences for part in step),
        sum(part.sequences * part.sampled for part in step),
        sum(part.sequences * span.pairs(part) for part in step),
        sum(part.sequences * span.context(part) for part in step),
    )


def _capped(total: float, *limits: int | None) -> float:
    return min(total, *(limit for limit in limits if limit is not None)) if any(limits) else total


def _pairs_up_to(position: float, reach: float) -> float:
    if position <= reach:
        return position * (position + 1) / 2
    return reach * (reach + 1) / 2 + (position - reach) * reach


def _pairs_in_chunks(position: float, chunk: int) -> float:
    full, rest = divmod(position, chunk)
    return full * chunk * (chunk + 1) / 2 + rest * (rest + 1) / 2
