"""The time of one fused attention kernel on one unit: prefill in tiles of queries and keys, decode in splits of the cache.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`. Monotone: more queries, keys or sequences never
take less.
"""

from __future__ import annotations

import math
from typing import Any

from simulator.cost.layout import OpRow, UnitRow
from simulator.cost.reached import LATENT, NARROW_DECODE, NARROW_LATENT, SINGLE, USUAL, DecodeRow, PrefillRow
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
    it, and `store_row_s` of one core for each token. Heads whose size is no power of two take `uneven_s` more.

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
    return row.floor_s + op.uneven * row.uneven_s + time, busy


def decode_attention(
    op: OpRow,
    pair_flops: float,
    sequences: float,
    context: float,
    history: float,
    unit: UnitRow,
    rate: float,
    memory_s: float,
    key_s: float,
    key_bytes: float,
    kernels: Any,
) -> tuple[float, float, float]:
    """Seconds of decode, of its arithmetic alone and at least, by the kernel that the engine takes.

    Of `kernels`, the rows of `Efficiency.decode`, one has blocks that serve all query heads of a KV head, `single` has a
    block for each query head. Engines with both (`least_blocks` of 0 and more) take `single` where every query head has a
    KV head of its own, and for groups beyond `group_limit`; and may where splits of `split_keys` would give each core
    fewer than `least_blocks`. There the faster of both counts, so that a longer cache never takes less. Others know one
    kernel for each case.

    `memory_s` is the time of all operands at full bandwidth, `key_s` that of one key and value of one head, which has
    `key_bytes`; `pair_flops` is of one query, key and head. `context` are the positions that all sequences read,
    `history` those that one holds.
    """
    heads = max(1.0, op.kv_heads)
    group = max(1.0, op.heads / heads)
    which = NARROW_DECODE if op.narrow > 0.0 else USUAL
    if op.latent > 0.0:
        which = NARROW_LATENT if op.narrow > 0.0 else LATENT
    several = kernels[which]
    both = several.least_blocks >= 0.0
    best = math.inf
    compute = 0.0
    least_s = 0.0
    # `_decode` is called in one place, since it is inlined.
    for each in range(2):
        row = several
        if each == 0:
            if both and not 1.0 < group <= row.group_limit:
                continue
            if not both and group <= 1.0 and op.narrow <= 0.0 and op.latent <= 0.0:
                row = kernels[SINGLE]
        else:
            parts = max(1.0, history / row.split_keys) if row.split_keys > 0.0 else 1.0
            if not both or (best < math.inf and sequences * heads * parts >= row.least_blocks * unit.cores):
                continue
            row = kernels[SINGLE]
            heads = max(1.0, op.heads)
            group = 1.0
        time, busy, floor_s = _decode(
            heads,
            group,
            op.uneven,
            pair_flops,
            sequences,
            context,
            history,
            unit,
            rate,
            memory_s,
            key_s,
            key_bytes,
            row,
        )
        if time < best:
            best = time
            compute = busy
            least_s = floor_s
    return best, compute, least_s


def _decode(
    heads: float,
    group: float,
    uneven: float,
    pair_flops: float,
    sequences: float,
    context: float,
    history: float,
    unit: UnitRow,
    rate: float,
    memory_s: float,
    key_s: float,
    key_bytes: float,
    row: DecodeRow,
) -> tuple[float, float, float]:
    """Seconds of one kernel with `heads` blocks per sequence, each of `group` query heads, of its arithmetic, and at least.

    A block is one sequence, KV head and split: it reads whole tiles of `key_tile` keys (one more where a window ends
    within two of them), at no more than `core_bandwidth` times a core's even share of the memory's bandwidth and than
    `core_bytes_per_s`, and multiplies them with its group of query heads, padded to
    `group_tile` rows, at a share `compute` of the unit's rate or, with `lanes`, of its vector lanes' rate. Groups beyond
    `group_limit` take further blocks at the same time, which find what they read in the last cache. It takes `block_s`
    besides.

    The cache is split by a rule, into parts of `split_keys` of all positions that a sequence holds as long as they give
    `split_waves` waves of blocks at most, and no more than `split_root` allows (parts beyond the window cost `block_s`
    only); or, without a rule, by the best plan, whose splits fill 1 to 4 waves and take as long as `least_tiles` tiles
    at least; or `even`ly, so that all cores have as many tiles as the others. Splits are summed in a further pass of
    `reduction_s`. Heads of uneven size take `uneven_s` more; queries that have to be sorted by KV head first (all but
    those of one head or one sequence) `regroup_s`; a cache in 8 bits may first be expanded to 16, which takes `convert`
    vector operations per element of a key and a value.
    """
    floor_s = row.floor_s + uneven * row.uneven_s
    if group > 1.0 and heads > 1.0 and sequences > 1.0:
        floor_s += row.regroup_s
    if row.convert > 0.0:
        cache_s = key_s * context * heads
        floor_s += context * heads * 0.5 * pair_flops * row.convert / unit.vector_flop_per_s
        memory_s += cache_s
        key_s *= 2.0
        key_bytes *= 2.0
    passes = math.ceil(group / row.group_limit)
    rows = math.ceil(min(group, row.group_limit) / row.group_tile) * row.group_tile
    length = context / sequences
    blocks = sequences * heads * passes
    multiplied_s = pair_flops / (row.compute * (unit.vector_flop_per_s if row.lanes > 0.0 else rate))
    arithmetic = rows * unit.cores * (multiplied_s + row.softmax / unit.vector_flop_per_s)
    per_key = max(unit.cores * key_s / (row.bandwidth * row.core_bandwidth), arithmetic)
    if row.core_bytes_per_s > 0.0:
        per_key = max(per_key, key_bytes / row.core_bytes_per_s)
    tiles = length / row.key_tile
    whole = math.ceil(tiles) * row.key_tile
    if history > length:
        tiles += 1.0
        whole = tiles * row.key_tile
    padding = sequences * heads * (whole - length)
    streamed = (memory_s + padding * key_s) / row.bandwidth
    if row.split_keys > 0.0:
        splits = max(1.0, math.ceil(history / row.split_keys))
        if row.split_root > 0.0:
            splits = min(splits, max(1.0, math.sqrt(row.split_root * history / row.split_keys)))
        parts = min(blocks * splits, max(blocks, row.split_waves * unit.cores))
        keys = min(history, max(row.split_keys, history * blocks / parts))
        keys = math.ceil(min(keys, length) / row.key_tile) * row.key_tile
        # A window lies across two parts; without one all parts are at work.
        working = min(parts, blocks * (length / keys + 1.0)) if history > length else parts
        at_work = max(1.0, working / unit.cores) if history > length else math.ceil(parts / unit.cores)
        busy = math.ceil(parts / unit.cores) * row.block_s + at_work * keys * per_key
        time = soft_maximum(busy, streamed, 0.0, row.sharpness)
        if history > row.split_keys:
            time += row.reduction_s
        return floor_s + time, at_work * keys * arithmetic, floor_s
    waves = math.ceil(blocks / unit.cores)
    busy = waves * (whole * per_key + row.block_s)
    compute = waves * whole * arithmetic
    best = soft_maximum(busy, streamed, 0.0, row.sharpness)
    # All plans stream the same, so that of those that split the least busy one is the fastest.
    least = busy
    least_compute = compute
    if row.even > 0.0:
        keys = math.ceil(math.ceil(tiles) * blocks / unit.cores) * row.key_tile
        least = min(least, keys * per_key + row.block_s)
        least_compute = keys * arithmetic
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
    return floor_s + best, compute, floor_s
