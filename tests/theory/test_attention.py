"""Fused attention against its closed forms: limits of memory, arithmetic, waves and splits."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simulator.cost.attention import decode_attention, prefill_attention
from simulator.cost.layout import ATTENTION, OpRow, UnitRow
from simulator.cost.reached import DecodeRow, PrefillRow

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
    sequences: float,
    context: float,
    row: DecodeRow = DECODE,
    op: OpRow = GROUPED,
    memory_s: float | None = None,
    history: float = 0.0,
    single: DecodeRow | None = None,
    flops: float = 4.0 * HEAD,
) -> float:
    key_s = 2 * HEAD * 2 / 2e12 if memory_s is None else 0.0
    read = sequences * context * op.kv_heads * 2 * HEAD * 2 / 2e12 if memory_s is None else memory_s
    held = max(history, context)
    kernels = (row, single or row, row, row, row)
    return decode_attention(
        op, flops, sequences, sequences * context, held, UNIT, PEAK, read, key_s, 4.0 * HEAD, kernels
    )[0]


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


def test_groups_beyond_the_limit_take_further_blocks_that_share_what_they_read() -> None:
    wide = GROUPED._replace(heads=64.0, kv_heads=1.0)
    row = DECODE._replace(most_splits=1.0)
    limited = row._replace(group_limit=32.0)
    assert decode_s(CORES, 4096, limited, wide) == pytest.approx(2 * decode_s(CORES, 4096, row, wide))
    fast = {"core_bandwidth": 1000.0}
    assert decode_s(4 * CORES, 4096, limited._replace(**fast), wide) == pytest.approx(
        decode_s(4 * CORES, 4096, row._replace(**fast), wide), rel=1e-6
    )


def test_padding_a_group_costs_arithmetic_only() -> None:
    fast = DECODE._replace(group_tile=64.0)
    assert decode_s(64, 4096, fast, memory_s=0.0) == pytest.approx(16 * decode_s(64, 4096, memory_s=0.0))


RULE = DECODE._replace(split_keys=128.0, split_waves=8.0, key_tile=128.0, block_s=3e-6, reduction_s=3e-6, sharpness=8.0)
SINGLE = DECODE._replace(key_tile=16.0, block_s=1e-6, reduction_s=7e-6, sharpness=3.0, compute=0.4, lanes=1.0)
BOTH = RULE._replace(least_blocks=0.25, group_limit=32.0)


@pytest.mark.parametrize(
    "row", [DECODE, DECODE._replace(block_s=2e-6, key_tile=48.0, least_tiles=3.3, sharpness=1.2), RULE, BOTH]
)
def test_decode_never_shrinks(row: DecodeRow) -> None:
    assert_rising([decode_s(batch, 1000, row, single=SINGLE) for batch in range(1, 200)])
    assert_rising([decode_s(5, context, row, single=SINGLE) for context in range(1, 20000, 97)])
    assert_rising([decode_s(1, context, row, single=SINGLE) for context in range(1, 20000, 97)])


def test_a_rule_splits_into_parts_of_a_length_until_the_waves_are_full() -> None:
    one = GROUPED._replace(heads=8.0, kv_heads=1.0)
    times = [
        decode_s(CORES, 128.0 * parts, RULE._replace(sharpness=100.0), one, memory_s=0.0) for parts in (1, 2, 4, 8)
    ]
    assert times[1] - times[0] == pytest.approx(times[0] + RULE.reduction_s)
    assert times[3] == pytest.approx(8 * times[0] + RULE.reduction_s)
    assert decode_s(CORES, 4096, RULE, one, memory_s=0.0) < times[3] + 4096 * times[0]


def test_parts_beyond_a_window_cost_their_blocks_only() -> None:
    windowed = GROUPED._replace(window=128.0)
    times = [decode_s(64, 128.0, RULE, windowed, history=history) for history in range(128, 20000, 61)]
    assert_rising(times)
    waves = RULE.split_waves * RULE.block_s
    assert waves < times[-1] < waves + decode_s(64, 256.0, RULE)


def test_large_groups_and_few_blocks_take_the_kernel_of_single_heads() -> None:
    wide, plain = GROUPED._replace(heads=64.0, kv_heads=1.0), GROUPED._replace(heads=64.0, kv_heads=64.0)
    assert decode_s(64, 1024, BOTH, wide, 0.0, single=SINGLE) == decode_s(64, 1024, SINGLE, plain, 0.0)
    short = decode_s(1, 64, BOTH, single=SINGLE)
    assert short == min(decode_s(1, 64, RULE), decode_s(1, 64, BOTH, single=SINGLE))
    assert decode_s(64, 64, BOTH, single=SINGLE) == decode_s(64, 64, RULE)


def test_vector_lanes_multiply_where_a_kernel_says_so() -> None:
    scores = 256 * 4096 * GROUPED.heads
    lanes = DECODE._replace(lanes=1.0, compute=0.5)
    assert decode_s(256, 4096, lanes, memory_s=0.0) == pytest.approx(
        scores * 4 * HEAD / (0.5 * UNIT.vector_flop_per_s), rel=0.06
    )


def test_uneven_heads_and_an_expanded_cache_come_on_top() -> None:
    padded = DECODE._replace(uneven_s=5e-6)
    odd = GROUPED._replace(uneven=1.0)
    assert decode_s(8, 100, padded, odd) == pytest.approx(decode_s(8, 100, op=odd) + 5e-6)
    assert decode_s(8, 100, padded) == decode_s(8, 100)
    elements = 256 * 4096 * GROUPED.kv_heads * 2 * HEAD
    expanded = decode_s(256, 4096, DECODE._replace(convert=50.0))
    assert expanded == pytest.approx(2.0 * decode_s(256, 4096) + 50.0 * elements / UNIT.vector_flop_per_s, rel=0.01)


def test_prefill_never_shrinks() -> None:
    row = PREFILL._replace(softmax=30.0, query_tile=99.9, key_tile=18.0, block_s=1e-6, tail=1.5, sharpness=1.2)
    assert_rising([prefill_s(3, query, row) for query in range(1, 3000, 7)])


def test_queries_of_several_sequences_and_heads_are_sorted_first() -> None:
    row = DECODE._replace(regroup_s=5e-6)
    lone = GROUPED._replace(heads=8.0, kv_heads=1.0)
    assert decode_s(2, 100, row) == pytest.approx(decode_s(2, 100) + 5e-6)
    assert decode_s(1, 100, row) == decode_s(1, 100)
    assert decode_s(2, 100, row, lone) == decode_s(2, 100, op=lone)
