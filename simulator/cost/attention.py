"""The time of one fused attention kernel on one unit: prefill in tiles of queries and keys, decode in splits of the cache.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`. Monotone: more queries, keys or sequences never
take less.
"""

from __future__ import annotations

import math

from simulator.cost.layout import DecodeRow, OpRow, PrefillRow, UnitRow
from simulator.cost.smooth import soft_maximum

MOST_WAVES = 4
"""Plans of decode that are tried: the cache split so that its blocks fill 1, 2, ... waves of the cores."""


def prefill_attention(
    op: OpRow,
    pair_flops: float,
    sequences: float,
    query: float,
    pairs: float,
    context: float,
    unit: UnitRow,
    rate: float,
    memory_s: float,
    cache_s: float,
    store_s: float,
    row: PrefillRow,
) -> tuple[float, float]:
    """Seconds of prefill and of its arithmetic alone.

    A block is `query_tile` queries of one head; it multiplies whole tiles of `key_tile` keys that its queries see, and
    takes `softmax` vector operations per score computed: block_s + 4 Tq keys d / core rate + Tq keys softmax / vector rate.
    Blocks share the cores; at the end some cores stand idle for `tail` of a block, and none ends before its longest
    block. That, the memories and the cache overlap by `sharpness`; `floor_s` is what even one query takes.
    Before it, a pass of its own may copy the new keys and values to the cache: `store_s` at full bandwidth, at `store` of
    it, and `store_row_s` of one core for each token.

    `pair_flops` is of one query, key and head; `pairs` and `context` are of all sequences together.
    """
    heads = op.heads
    tiles = math.ceil(query / row.query_tile)
    seen = pairs / (sequences * query)
    reach = context / sequences
    whole = math.ceil(reach / row.key_tile) * row.key_tile
    keys = whole
    longest = whole
    reaching = op.window > 0.0 or op.chunk > 0.0 or op.limit > 0.0
    if op.causal > 0.0 and (tiles > 1.0 or reaching):
        ragged = row.query_tile + row.key_tile
        keys = min(whole, seen + (ragged if reaching else 0.5 * ragged))
        if reaching:
            longest = min(whole, 2.0 * seen + ragged)
    per_key = (
        row.query_tile
        * unit.cores
        * (pair_flops / (rate * row.compute) + (1.0 - op.skipped) * row.softmax / unit.vector_flop_per_s)
    )
    blocks = sequences * heads * tiles
    last = longest * per_key + row.block_s
    block = keys * per_key + row.block_s
    busy = last
    if blocks > unit.cores:
        busy = max(last, blocks * block / unit.cores + row.tail * block * (1.0 - unit.cores / blocks))
    time = soft_maximum(busy, memory_s / row.bandwidth, cache_s, row.sharpness)
    if row.store > 0.0 and store_s > 0.0:
        time += store_s / row.store + sequences * query * row.store_row_s / unit.cores
    return row.floor_s + time, busy


def decode_attention(
    op: OpRow,
    pair_flops: float,
    sequences: float,
    context: float,
    unit: UnitRow,
    rate: float,
    memory_s: float,
    key_s: float,
    row: DecodeRow,
) -> tuple[float, float]:
    """Seconds of decode and of its arithmetic alone: the best plan of splitting the cache.

    A block is one sequence, KV head and split: it reads whole tiles of `key_tile` keys, at no more than `core_bandwidth`
    times a core's even share of the memory's bandwidth, and multiplies them with its group of query heads, padded to
    `group_tile` rows. A plan fills 1 to 4 waves of the cores with splits that take as long as `least_tiles` tiles at
    least, and `block_s` each, and sums them in a further pass of `reduction_s`; or it does not split. Groups beyond
    `group_limit` read the cache again.

    `memory_s` is the time of all operands at full bandwidth, `key_s` that of one key and value of one head; `pair_flops`
    is of one query, key and head.
    """
    group = max(1.0, op.heads / max(1.0, op.kv_heads))
    passes = math.ceil(group / row.group_limit)
    rows = math.ceil(min(group, row.group_limit) / row.group_tile) * row.group_tile
    length = context / sequences
    blocks = sequences * max(1.0, op.kv_heads) * passes
    arithmetic = rows * unit.cores * (pair_flops / rate + row.softmax / unit.vector_flop_per_s)
    per_key = max(unit.cores * key_s / (row.bandwidth * row.core_bandwidth), arithmetic)
    tiles = length / row.key_tile
    whole = math.ceil(tiles) * row.key_tile
    padding = blocks * whole - context * max(1.0, op.kv_heads)
    streamed = (memory_s + padding * key_s) / row.bandwidth
    waves = math.ceil(blocks / unit.cores)
    busy = waves * (whole * per_key + row.block_s)
    compute = waves * whole * arithmetic
    best = soft_maximum(busy, streamed, 0.0, row.sharpness)
    # All plans stream the same, so that of those that split the least busy one is the fastest.
    least = busy
    least_compute = compute
    for plan in range(1, MOST_WAVES + 1):
        splits = min(row.most_splits, math.floor(plan * unit.cores / blocks))
        if splits > 1.0:
            keys = max(row.least_tiles, math.ceil(tiles / splits)) * row.key_tile
            busy = plan * (keys * per_key + row.block_s)
            if busy < least:
                least = busy
                least_compute = plan * keys * arithmetic
    if max(least, streamed) + row.reduction_s < best:
        time = soft_maximum(least, streamed, 0.0, row.sharpness) + row.reduction_s
        if time < best:
            best = time
            compute = least_compute
    return row.floor_s + best, compute
