"""Counts of a step: the algebra of amounts, and the spans' closed forms against counting one query at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost import kernels
from simulator.cost.layout import OpRow
from simulator.graph.step import Amount, Features, Slice, Span, features

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
AMOUNTS = st.builds(Amount, *[NUMBERS] * len(Amount._fields))
FEATURES = st.builds(Features, *[st.floats(0, 1e6, allow_nan=False)] * len(Features._fields))
COUNTS = st.integers(1, 40)
ONCE = st.just(1.0)
SLICES = st.builds(Slice, st.integers(1, 8), st.integers(1, 30), st.integers(0, 60), st.integers(1, 20), ONCE)
SPANS = st.one_of(
    st.just(Span()),
    st.builds(Span, window=COUNTS),
    st.builds(Span, chunk=COUNTS),
    st.builds(Span, limit=COUNTS),
    st.builds(Span, window=COUNTS, limit=COUNTS),
    st.just(Span(causal=False)),
    st.just(Span(source=True)),
)


def keys_of(position: int, part: Slice, span: Span) -> set[int]:
    """The keys that the query at `position` (from 0) may attend to, before any choice of the best `limit` of them."""
    total = int(part.past_tokens + part.query_tokens)
    if span.source:
        return set(range(int(part.source_tokens)))
    if not span.causal:
        return set(range(total))
    seen = set(range(position + 1))
    if span.window is not None:
        seen = {key for key in seen if key > position - span.window}
    if span.chunk is not None:
        seen = {key for key in seen if key // span.chunk == position // span.chunk}
    return seen


def queries(part: Slice) -> range:
    return range(int(part.past_tokens), int(part.past_tokens + part.query_tokens))


def row_of(span: Span) -> OpRow:
    """The span as the cost arithmetic reads it."""
    empty = OpRow(*[0.0] * len(OpRow._fields))
    return empty._replace(
        causal=float(span.causal), window=float(span.window or 0), chunk=float(span.chunk or 0),
        limit=float(span.limit or 0), source=float(span.source),
    )  # fmt: skip


@given(AMOUNTS, AMOUNTS, FEATURES, NUMBERS)
def test_amounts_are_linear(a: Amount, b: Amount, step: Features, factor: float) -> None:
    size = sum(abs(x * f) + abs(y * f) for x, y, f in zip(a, b, step, strict=True)) + 1.0
    assert (a + b).at(step) == pytest.approx(a.at(step) + b.at(step), abs=1e-12 * size)
    assert (a * factor).at(step) == pytest.approx(factor * a.at(step), abs=1e-12 * size * (abs(factor) + 1))
    assert factor * a == a * factor
    assert a + Amount() == a
    assert a + b == b + a


@given(st.lists(SLICES, min_size=1, max_size=4), st.lists(SLICES, min_size=1, max_size=4), SPANS)
def test_features_of_a_mixed_batch_add_up(first: list[Slice], second: list[Slice], span: Span) -> None:
    both = features((*first, *second), span)
    one, other = features(tuple(first), span), features(tuple(second), span)
    assert both.const == one.const == other.const == 1.0
    assert both[1:] == pytest.approx([a + b for a, b in zip(one[1:], other[1:], strict=True)])
    assert features(()) == Features(const=0.0)


@given(SLICES, SPANS)
def test_pairs_equal_a_count_query_by_query(part: Slice, span: Span) -> None:
    counted = 0
    for position in queries(part):
        seen = len(keys_of(position, part, span))
        counted += min(seen, span.limit) if span.limit is not None else seen
    assert span.pairs(part) == counted


@given(SLICES, SPANS)
def test_context_is_the_union_of_what_the_queries_see(part: Slice, span: Span) -> None:
    union = set().union(*(keys_of(position, part, span) for position in queries(part)))
    read = span.context(part)
    if span.limit is not None and span.window is None:
        # Which keys are chosen is unknown: at most `limit` different ones per query, and never more than there are.
        assert min(len(union), span.limit) <= read <= len(union)
        assert part.query_tokens > 1 or read == min(len(union), span.limit)
    elif span.chunk is not None:
        # A chunk that is only partly filled counts as if it were whole: a bound, so that context stays monotone.
        assert len(union) <= read <= min(part.past_tokens + part.query_tokens, len(union) + span.chunk - 1)
    else:
        assert read == len(union)


@given(st.integers(0, 400), SPANS, st.integers(1, 50))
def test_kept_positions_are_all_that_the_next_query_can_see(total: int, span: Span, source: int) -> None:
    kept = span.kept(total, source)
    if span.source:
        assert kept == source
        return
    assert 0 <= kept <= total
    assert len(keys_of(total, Slice(1, 1, total, source), span)) - 1 <= kept


@given(SLICES, SPANS)
def test_cost_arithmetic_counts_as_the_graph_does(part: Slice, span: Span) -> None:
    row, arguments = row_of(span), (float(part[1]), float(part[2]), float(part[3]))
    assert kernels.attended_pairs(row, *arguments) == pytest.approx(span.pairs(part), rel=1e-12)
    assert kernels.read_context(row, *arguments) == pytest.approx(span.context(part), rel=1e-12)


@given(st.floats(1, 1000), st.floats(0, 1e5), st.integers(1, 4096), st.booleans())
def test_fractional_positions_agree_too(query: float, past: float, reach: int, chunked: bool) -> None:
    span = Span(chunk=reach) if chunked else Span(window=reach)
    part = Slice(1, query, past)
    assert kernels.attended_pairs(row_of(span), query, past, 0.0) == pytest.approx(span.pairs(part), rel=1e-9)
    assert kernels.read_context(row_of(span), query, past, 0.0) == pytest.approx(span.context(part), rel=1e-12)


@given(SLICES, SPANS, st.integers(1, 30))
def test_a_prompt_in_two_chunks_has_the_pairs_of_the_whole(part: Slice, span: Span, cut: int) -> None:
    if cut >= part.query_tokens or not span.causal:
        cut = part.query_tokens
    first = part._replace(query_tokens=cut)
    rest = part._replace(query_tokens=part.query_tokens - cut, past_tokens=part.past_tokens + cut)
    assert span.pairs(first) + span.pairs(rest) == pytest.approx(span.pairs(part))


@given(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(1, 50))
def test_soft_maximum_lies_between_maximum_and_sum(a: float, b: float, c: float, sharpness: float) -> None:
    found = kernels.soft_maximum(a, b, c, sharpness)
    assert max(a, b, c) * (1 - 1e-9) <= found <= (a + b + c) * (1 + 1e-9)
    assert kernels.soft_maximum(a * 1.5, b, c, sharpness) >= found * (1 - 1e-9)
