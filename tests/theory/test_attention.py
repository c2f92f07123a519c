"""Fused attention against its closed forms: limits of memory, arithmetic, waves and splits."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simulator.cost.attention import decode_attention, prefill_attention
from simulator.cost.layout import ATTENTION, DecodeRow, OpRow, PrefillRow, UnitRow

PEAK = 312e12
CORES = 108.0
HEAD = 128
UNIT = UnitRow(*[0.0] * len(UnitRow._fields))._replace(cores=CORES, vector_flop_per_s=20e12)
GROUPED = OpRow(*[0.0] * len(OpRow._fields))._replace(kind=float(ATTENTION), heads=32.0, kv_heads=8.0, causal=1.0)
PREFILL = PrefillRow(
    compute=0.5, softmax=0.0, query_tile=128.0, key_tile=1.0, block_s=0.0, tail=0.0, bandwidth=1.0, sharpness=100.0,
    floor_s=0.0, store=0.0, store_row_s=0.0,
)  # fmt: skip
DECODE = DecodeRow(
    bandwidth=0.9, core_bandwidth=1.0, key_tile=1.0, block_s=0.0, least_tiles=1.0, most_splits=1000.0, reduction_s=0.0,
    group_tile=1.0, group_limit=1000.0, softmax=0.0, sharpness=100.0, floor_s=0.0,
)  # fmt: skip


def prefill_s(
    sequences: float,
    query: float,
    row: PrefillRow = PREFILL,
    op: OpRow = GROUPED,
    past: float = 0.0,
    store_s: float = 0.0,
) -> float:
    pairs = sequences * query * (past + (query + 1.0) / 2.0)
    context = sequences * (past + query)
    return prefill_attention(op, 4.0 * HEAD, sequences, query, pairs, context, UNIT, PEAK, 0.0, 0.0, store_s, row)[0]


def decode_s(
    sequences: float, context: float, row: DecodeRow = DECODE, op: OpRow = GROUPED, memory_s: float | None = None
) -> float:
    key_s = 2 * HEAD * 2 / 2e12 if memory_s is None else 0.0
    read = sequences * context * op.kv_heads * 2 * HEAD * 2 / 2e12 if memory_s is None else memory_s
    return decode_attention(op, 4.0 * HEAD, sequences, sequences * context, UNIT, PEAK, read, key_s, row)[0]


def assert_rising(times: list[float]) -> None:
    assert all(after >= before * (1.0 - 1e-12) for before, after in pairwise(times))


def test_long_prefill_reaches_its_share_of_the_peak() -> None:
    query = 131072.0
    pairs = query * (query + 1.0) / 2.0
    assert prefill_s(8, query) == pytest.approx(8 * pairs * 32 * 4 * HEAD / (0.5 * PEAK), rel=0.01)


def test_softmax_adds_vector_work_to_every_score() -> None:
    more = prefill_s(8, 8192.0, PREFILL._replace(softmax=20.0)) - prefill_s(8, 8192.0)
    scores = 8 * 32 * 8192.0 * 8193.0 / 2.0
    assert more == pytest.approx(20.0 * scores / UNIT.vector_flop_per_s, rel=0.03)


def test_copying_keys_to_the_cache_comes_on_top() -> None:
    row = PREFILL._replace(store=0.5, store_row_s=1e-6)
    more = prefill_s(4, 1000.0, row, store_s=1e-5) - prefill_s(4, 1000.0)
    assert more == pytest.approx(2e-5 + 4000 * 1e-6 / CORES)
    assert prefill_s(4, 1000.0, row) == prefill_s(4, 1000.0)


def test_one_block_takes_as_long_as_a_wave_of_them() -> None:
    one = GROUPED._replace(heads=1.0, kv_heads=1.0)
    wave = GROUPED._replace(heads=CORES, kv_heads=CORES)
    assert prefill_s(1, 128.0, op=one) == prefill_s(1, 128.0, op=wave)
    assert prefill_s(2, 128.0, op=wave) == pytest.approx(2.0 * prefill_s(1, 128.0, op=wave))


def test_a_window_bounds_the_work_of_every_query() -> None:
    windowed = GROUPED._replace(window=1024.0)

    def seconds(query: float) -> float:
        pairs = 1024.0 * 1025.0 / 2.0 + (query - 1024.0) * 1024.0
        return prefill_attention(windowed, 4.0 * HEAD, 1.0, query, pairs, query, UNIT, PEAK, 0.0, 0.0, 0.0, PREFILL)[0]

    assert seconds(65536.0) / seconds(32768.0) == pytest.approx(2.0, rel=0.05)
    assert seconds(32768.0) < 0.15 * prefill_s(1, 32768.0)


def test_decode_of_many_sequences_streams_the_cache() -> None:
    bytes_read = 256 * 8192 * 8 * 2 * HEAD * 2
    assert decode_s(256, 8192) == pytest.approx(bytes_read / (0.9 * 2e12), rel=0.06)


def test_splitting_lets_one_sequence_use_all_cores() -> None:
    whole, split = decode_s(1, 65536, DECODE._replace(most_splits=1.0)), decode_s(1, 65536)
    assert whole / split == pytest.approx(CORES / 8, rel=0.05)
    assert decode_s(1, 65536, DECODE._replace(reduction_s=5e-6)) == pytest.approx(split + 5e-6, rel=0.01)


def test_short_caches_are_not_split() -> None:
    assert decode_s(1, 64, DECODE._replace(least_tiles=65.0)) == decode_s(1, 64, DECODE._replace(most_splits=1.0))


def test_groups_beyond_the_limit_read_the_cache_again() -> None:
    wide = GROUPED._replace(heads=64.0, kv_heads=1.0)
    row = DECODE._replace(core_bandwidth=4.0)
    twice = 2 * decode_s(256, 4096, row, wide)
    assert decode_s(256, 4096, row._replace(group_limit=32.0), wide) == pytest.approx(twice)


def test_padding_a_group_costs_arithmetic_only() -> None:
    fast = DECODE._replace(group_tile=64.0)
    assert decode_s(64, 4096, fast, memory_s=0.0) == pytest.approx(16 * decode_s(64, 4096, memory_s=0.0))


@pytest.mark.parametrize("row", [DECODE, DECODE._replace(block_s=2e-6, key_tile=48.0, least_tiles=3.3, sharpness=1.2)])
def test_decode_never_shrinks(row: DecodeRow) -> None:
    assert_rising([decode_s(batch, 1000, row) for batch in range(1, 200)])
    assert_rising([decode_s(5, context, row) for context in range(1, 20000, 97)])


def test_prefill_never_shrinks() -> None:
    row = PREFILL._replace(softmax=30.0, query_tile=99.9, key_tile=18.0, block_s=1e-6, tail=1.5, sharpness=1.2)
    assert_rising([prefill_s(3, query, row) for query in range(1, 3000, 7)])
