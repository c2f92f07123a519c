"""The time of one op on one unit, and of one collective: the arithmetic that every prediction ends in.

Plain scalar functions in the subset of Python that Numba compiles: interpreted for a single prediction, compiled for
loops and sweeps (`simulator.cost.compiled`). Times are monotone: more rows or context never makes an op faster, more
bandwidth or compute never slower.
"""

from __future__ import annotations

import math

from simulator.cost.layout import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    ATTENTION,
    GEMM,
    PLACE_ACTIVATION,
    PLACE_CACHE,
    PLACE_WEIGHT,
    R_CACHE,
    R_COMPUTE,
    R_LAUNCH,
    REDUCE_SCATTER,
    SCAN,
    Efficiency,
    Floats,
    LinkRow,
    OpRow,
    UnitRow,
)

TILES = (
    (256.0, 128.0),
    (128.0, 256.0),
    (192.0, 128.0),
    (128.0, 128.0),
    (64.0, 256.0),
    (128.0, 64.0),
    (64.0, 128.0),
    (64.0, 64.0),
    (32.0, 128.0),
    (32.0, 64.0),
    (16.0, 128.0),
    (16.0, 64.0),
)
"""Output tiles [m, n] that GEMM libraries choose from, where the unit's largest tile admits them."""
SPLITS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Parts of the summed dimension that work side by side (split-K)."""


def soft_maximum(a: float, b: float, c: float, sharpness: float) -> float:
    """(a^p + b^p + c^p)^(1/p), between the maximum (p infinite) and the sum (p = 1): work that overlaps, but not fully.

    >>> soft_maximum(3.0, 4.0, 0.0, 2.0)
    5.0
    """
    top = max(a, b, c)
    if top <= 0.0 or sharpness > 60.0:
        return top
    total = 0.0
    for term in (a, b, c):
        if term > 0.0:
            total += 1.0 if term == top else (term / top) ** sharpness
    return top * total ** (1.0 / sharpness) if total > 1.0 else top


def quantity(
    amounts: Floats, at: int, tokens: float, sequences: float, sampled: float, pairs: float, context: float
) -> float:
    """The `Amount` that starts at `at`, at the features of a step."""
    return float(
        amounts[at]
        + amounts[at + 1] * tokens
        + amounts[at + 2] * sequences
        + amounts[at + 3] * sampled
        + amounts[at + 4] * pairs
        + amounts[at + 5] * context
    )


def pairs_up_to(position: float, reach: float) -> float:
    """Causal (query, key) pairs of the first `position` tokens when each sees at most `reach` keys."""
    if reach <= 0.0 or position <= reach:
        return position * (position + 1.0) / 2.0
    return reach * (reach + 1.0) / 2.0 + (position - reach) * reach


def pairs_in_chunks(position: float, chunk: float) -> float:
    """Causal pairs of the first `position` tokens within aligned chunks."""
    full = math.floor(position / chunk)
    rest = position - full * chunk
    return full * chunk * (chunk + 1.0) / 2.0 + rest * (rest + 1.0) / 2.0


def attended_pairs(op: OpRow, query: float, past: float, source: float) -> float:
    """Pairs of one sequence: the closed forms of `simulator.graph.step.Span.pairs`."""
    if op.source > 0.0:
        return query * source
    reach = op.window if op.window > 0.0 else op.limit
    if op.window > 0.0 and op.limit > 0.0:
        reach = min(op.window, op.limit)
    if op.causal <= 0.0:
        total = past + query
        return query * (min(total, reach) if reach > 0.0 else total)
    if op.chunk > 0.0:
        return pairs_in_chunks(past + query, op.chunk) - pairs_in_chunks(past, op.chunk)
    return pairs_up_to(past + query, reach) - pairs_up_to(past, reach)


def read_context(op: OpRow, query: float, past: float, source: float) -> float:
    """Cached positions one sequence reads: the closed forms of `simulator.graph.step.Span.context`."""
    if op.source > 0.0:
        return source
    total = past + query
    if op.chunk > 0.0:
        return min(total, op.chunk + query - 1.0)
    if op.window > 0.0:
        return min(total, op.window + query - 1.0)
    if op.limit > 0.0:
        return min(total, op.limit * query)
    return total


def memory_time(
    bandwidth: Floats, at: int, place: Floats, weight: float, cache: float, activation: float, times: Floats
) -> float:
    """Seconds to read all memories, -1 if one cannot be reached. What is split over two lies in one or the other, so that
    their times add up.

    `bandwidth` from `at` on is the unit's, `place` the shares of weights, cache and activations; `times` gets each one's.
    """
    total = 0.0
    memories = len(times)
    for m in range(memories):
        load = (
            weight * place[PLACE_WEIGHT * memories + m]
            + cache * place[PLACE_CACHE * memories + m]
            + activation * place[PLACE_ACTIVATION * memories + m]
        )
        times[m] = 0.0
        if load > 0.0:
            if bandwidth[at + m] <= 0.0:
                return -1.0
            times[m] = load / bandwidth[at + m]
            total += times[m]
    return total


def uncached(unit: UnitRow, activation: float) -> float:
    """Bytes of activations that go to main memory: what the last cache cannot keep between producer and consumer."""
    return max(0.0, activation - 0.5 * unit.cache_bytes)


def tiled_gemm(
    m: float,
    op: OpRow,
    active: float,
    unit: UnitRow,
    rate: float,
    eff: Efficiency,
    memory_s: float,
    dequantize_s: float,
) -> tuple[float, float, float]:
    """The best tile and split: soft maximum of tile waves, main memory and cache; then the pass that sums a split.

    Waves: ceil(tiles split / cores), each 2 tm tn (k / split + fill) FLOPs on one core. Cache: every tile streams its
    (tm + tn) k operands, shared by `multicast` neighbours, and one core takes in `core_bandwidth` times its even share
    at most. Memory is saturated only by enough cores at work along n. Narrow weights are expanded by every row of
    tiles, or once in a pass of their own at the cost of two. `m` is the rows of one group.
    """
    best = math.inf
    best_compute = 0.0
    best_cache = 0.0
    narrow = eff.narrow_compute if op.dequantized <= 0.0 and max(op.element_bytes, op.weight_bytes) <= 1.0 else 1.0
    core_rate = rate * eff.gemm_compute * narrow / unit.cores
    fill = eff.fill_bytes / op.element_bytes if op.element_bytes > 0.0 else 0.0
    cache_rate = unit.cache_bytes_per_s * eff.cache_bandwidth
    for tile_m, tile_n in TILES:
        if (tile_m > unit.tile_m or tile_n > unit.tile_n) and not (tile_m == 16.0 and tile_n == 64.0):
            continue
        if tile_m > 16.0 and m <= 0.5 * tile_m and tile_n <= 128.0:
            continue
        tm = min(tile_m, unit.tile_m)
        tn = min(tile_n, unit.tile_n)
        columns = math.ceil(op.n / tn)
        tiles = active * math.ceil(m / tm) * columns
        for split in SPLITS:
            depth = math.ceil(op.k / split)
            if split > 1.0 and (depth < 128.0 or tiles * split > 4.0 * unit.cores):
                break
            waves = math.ceil(tiles * split / unit.cores)
            compute = waves * (2.0 * tm * tn * (depth + fill) / core_rate + eff.fill_s)
            compute += dequantize_s * min(2.0, math.ceil(m / tm))
            cache = 0.0
            if cache_rate > 0.0:
                operands = tm * op.element_bytes + tn * op.weight_bytes
                streamed = tiles * operands * op.k / eff.multicast
                if split > 1.0:
                    streamed += split * active * m * op.n * 8.0
                ingested = waves * operands * depth * unit.cores / eff.core_bandwidth
                cache = max(streamed, ingested) / cache_rate
            reach = min(1.0, active * columns * split / (eff.saturating_share * unit.cores))
            memory = memory_s / reach
            summing = eff.reduction_s if split > 1.0 else 0.0
            if max(compute, memory, cache) + summing >= best:
                continue
            time = soft_maximum(compute, memory, cache, eff.sharpness) + summing
            if time < best:
                best = time
                best_compute = compute
                best_cache = cache
    return best, best_compute, best_cache


def collective_time(op: OpRow, link: LinkRow, message: float, ideal: float) -> float:
    """Alpha-beta time of a collective over p ranks whose full message is `message` bytes per rank.

    All-reduce: a ring (2 (p - 1) hops, 2 (p - 1) / p m / b), or, where every rank writes to every other at once, the
    cheaper of one-shot (a, (p - 1) m / b) and two-shot (2 a, 2 (p - 1) / p m / b); all-gather and reduce-scatter:
    (p - 1) / p m / b; all-to-all: the (p - 1) / p of the message that leaves; send: m / b.
    """
    ranks = op.groups
    if ranks <= 1.0 or message <= 0.0:
        return 0.0
    if link.bytes_per_s <= 0.0:
        return math.inf
    latency = 0.0 if ideal > 0.0 else link.latency_s
    away = (ranks - 1.0) / ranks
    hop = latency * 0.5
    if op.collective == ALL_REDUCE:
        moved = 2.0 * away * message
        streamed = (moved + link.half_bandwidth_bytes) / link.bytes_per_s
        if link.one_shot > 0.0:
            return min(2.0 * latency + streamed, latency + (ranks - 1.0) * message / link.bytes_per_s)
        return latency + hop * 2.0 * (ranks - 2.0) + streamed
    if op.collective == ALL_GATHER or op.collective == REDUCE_SCATTER or op.collective == ALL_TO_ALL:
        hops = ranks - 2.0 if link.ring > 0.0 else 0.0
        return latency + hop * hops + (away * message + link.half_bandwidth_bytes) / link.bytes_per_s
    return latency + message / link.bytes_per_s


def op_on_unit(
    op: OpRow,
    rows: float,
    flops: float,
    weight: float,
    cache: float,
    activation: float,
    sequences: float,
    query: float,
    context: float,
    unit: UnitRow,
    rate: float,
    bandwidth: Floats,
    at: int,
    place: Floats,
    eff: Efficiency,
    times: Floats,
    record: Floats,
) -> float:
    """Seconds of one execution of an op on one unit, without launch; `record` gets its terms. -1: cannot.

    The soft maximum of compute, of the memories and of the cache. GEMM: the cheaper of the tiled and the
    matrix-vector kernel. Prefill attention: blocks of `query_tile` rows in waves over the cores, whole tiles of keys on
    the diagonal. Decode attention: the cache at its bandwidth once enough (sequence, KV head, split of `split_tokens`)
    blocks are at work, scores and values at the peak with the group of query heads padded to 16 rows, the latency of
    every further wave of blocks, and the pass that sums the splits.
    """
    spill = uncached(unit, activation)
    passes = 1.0
    if unit.reuse_rows > 0.0 and op.kind == GEMM:
        passes = math.ceil(rows / unit.reuse_rows)
    memory_s = memory_time(bandwidth, at, place, weight * passes, cache, spill, times)
    if memory_s < 0.0:
        return -1.0
    cache_s = 0.0
    cache_rate = unit.cache_bytes_per_s * eff.cache_bandwidth
    if cache_rate > 0.0:
        cache_s = activation / cache_rate
    if eff.ideal > 0.0:
        record[R_COMPUTE] = flops / rate
        record[R_CACHE] = cache_s
        return max(flops / rate, memory_s, cache_s)
    if op.kind == GEMM:
        active = op.groups
        if op.experts > 0.0:
            tokens = rows / op.top_k
            active = op.groups * (1.0 - (1.0 - min(1.0, op.top_k / op.experts)) ** tokens)
        m = rows / max(1.0, active)
        dequantize_s = 0.0
        if op.dequantized > 0.0:
            dequantize_s = eff.dequantize * op.dequantized * active / op.groups / unit.vector_flop_per_s
        if unit.reuse_rows > 0.0:
            compute = flops / (rate * eff.gemm_compute) + dequantize_s
            record[R_COMPUTE] = compute
            record[R_LAUNCH] = eff.gemm_floor_s
            return eff.gemm_floor_s + soft_maximum(compute, memory_s / eff.gemv_bandwidth, 0.0, eff.sharpness)
        stream = eff.gemm_bandwidth * (eff.wide_bandwidth if op.weight_bytes > 2.0 else 1.0)
        time, compute, feed = tiled_gemm(m, op, active, unit, rate, eff, memory_s / stream, dequantize_s)
        cache_s = feed
        repeats = math.ceil(m / eff.gemv_rows)
        if repeats <= 4.0:
            streamed = memory_time(bandwidth, at, place, weight * repeats, cache, spill, times)
            vector_compute = flops / (unit.vector_flop_per_s * eff.gemm_compute) + dequantize_s * repeats
            vector = soft_maximum(vector_compute, streamed / eff.gemv_bandwidth, 0.0, eff.sharpness)
            if vector < time:
                time = vector
                compute = vector_compute
                cache_s = 0.0
            memory_time(bandwidth, at, place, weight, cache, spill, times)
        record[R_COMPUTE] = compute
        record[R_CACHE] = cache_s
        record[R_LAUNCH] = eff.gemm_floor_s
        return eff.gemm_floor_s + time
    if op.kind == ATTENTION:
        if query > 1.0:
            blocks = sequences * op.heads * math.ceil(query / eff.query_tile)
            padded = math.ceil(query / eff.query_tile) * eff.query_tile / query
            if op.causal > 0.0 and op.window <= 0.0 and op.chunk <= 0.0 and op.limit <= 0.0 and op.source <= 0.0:
                seen = max(1.0, context / sequences - 0.5 * (query - 1.0))
                padded *= 1.0 + 0.5 * (eff.key_tile - 1.0) / seen
            waves = math.ceil(blocks / unit.cores) * unit.cores / blocks
            compute = flops * padded * waves / (rate * eff.attention_compute)
            further = 0.0
            summing = 0.0
            sharpness = eff.prefill_sharpness
            share = eff.prefill_bandwidth
        else:
            group = max(1.0, op.heads / max(1.0, op.kv_heads))
            padded = math.ceil(group / 16.0) * 16.0 / group if unit.tile_m >= 64.0 else 1.0
            compute = flops * padded / (rate * eff.attention_compute)
            read = math.ceil(context / sequences / eff.context_tile) * eff.context_tile + 1.0
            splits = max(1.0, read / (eff.split_tokens + 1.0))
            blocks = sequences * op.kv_heads
            slower = read / (context / sequences + 1.0) / min(1.0, blocks * splits / (eff.attention_share * unit.cores))
            further = max(0.0, blocks / unit.cores - 1.0) * eff.attention_block_s
            summing = eff.reduction_s * (1.0 - 1.0 / splits)
            sharpness = eff.sharpness
            share = eff.attention_bandwidth
            memory_s = memory_time(bandwidth, at, place, weight, cache * slower, spill, times)
            memory_time(bandwidth, at, place, weight, cache, spill, times)
        record[R_COMPUTE] = compute
        record[R_CACHE] = cache_s
        floor = eff.attention_floor_s + summing
        record[R_LAUNCH] = floor
        return floor + soft_maximum(compute, memory_s / share, max(cache_s, further), sharpness)
    share = eff.scan_compute if op.kind == SCAN else 1.0
    record[R_COMPUTE] = flops / (rate * share)
    record[R_CACHE] = cache_s
    return soft_maximum(flops / (rate * share), memory_s / eff.elementwise_bandwidth, cache_s, eff.sharpness)
