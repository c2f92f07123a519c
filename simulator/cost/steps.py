"""The time and energy of one batch step: every op on the unit that finishes it first, then the host.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`.
"""

from __future__ import annotations

from simulator.cost.kernels import attended_pairs, collective_time, op_on_unit, quantity, read_context
from simulator.cost.layout import (
    ACTIVATION_BYTES,
    ALL,
    ALL_REDUCE,
    ANY,
    ATTENDING,
    ATTENTION,
    CACHE_BYTES,
    COLLECTIVE,
    DECODE,
    DENSE,
    FLOPS,
    ROWS,
    R_CACHE,
    R_CACHE_J,
    R_COMPUTE,
    R_COMPUTE_J,
    R_ENERGY,
    R_KERNELS,
    R_LAUNCH,
    R_LINK,
    R_LINK_J,
    R_MEMORY,
    R_TIME,
    R_UNIT,
    WEIGHT_BYTES,
)


def time_op(  # type: ignore[no-untyped-def]
    i,
    ops,
    amounts,
    tokens,
    seqs,
    sampled,
    pairs,
    context,
    units,
    rates,
    joules,
    bandwidth,
    byte_joules,
    place,
    eff,
    link,
    power,
    times,
    trial,
    best,
    record,
):
    """Adds one op (all its repeats) to `record` on the unit that finishes it first; returns False if none can run it."""
    op = ops[i]
    amount = amounts[i]
    activation = quantity(amount[ACTIVATION_BYTES], tokens, seqs, sampled, pairs, context)
    if op.kind == COLLECTIVE:
        time = collective_time(op, link, activation, eff.ideal)
        moved = activation * (2.0 if op.collective == ALL_REDUCE else 1.0) * (op.groups - 1.0) / max(1.0, op.groups)
        record[R_TIME] += op.repeat * time
        record[R_LINK] += op.repeat * time
        record[R_LINK_J] += op.repeat * moved * link.joules_per_byte
        record[R_ENERGY] += op.repeat * moved * link.joules_per_byte
        record[R_KERNELS] += op.repeat
        return True
    rows = quantity(amount[ROWS], tokens, seqs, sampled, pairs, context)
    flops = quantity(amount[FLOPS], tokens, seqs, sampled, pairs, context)
    weight = quantity(amount[WEIGHT_BYTES], tokens, seqs, sampled, pairs, context)
    cache = quantity(amount[CACHE_BYTES], tokens, seqs, sampled, pairs, context)
    if rows <= 0.0:
        return True
    if op.experts > 0.0:
        weight *= 1.0 - (1.0 - min(1.0, op.top_k / op.experts)) ** (rows / op.top_k)
    query = rows / seqs if seqs > 0.0 else rows
    best[R_TIME] = -1.0
    for u in range(len(units)):
        if rates[i][u] <= 0.0:
            continue
        unit = units[u]
        trial[R_COMPUTE] = 0.0
        trial[R_CACHE] = 0.0
        time = op_on_unit(
            op,
            rows,
            flops,
            weight,
            cache,
            activation,
            seqs,
            query,
            context,
            unit,
            rates[i][u],
            bandwidth[u],
            place,
            eff,
            times,
            trial,
        )
        if time < 0.0:
            continue
        launch = unit.launch_s * op.kernels
        time += launch
        compute_j = flops * joules[i][u]
        cache_j = min(activation, 0.5 * unit.cache_bytes) * unit.cache_joules_per_byte
        dynamic = compute_j + cache_j
        for m in range(len(times)):
            dynamic += times[m] * bandwidth[u][m] * byte_joules[u][m]
        if power.tdp_w > 0.0 and eff.ideal <= 0.0:
            time = max(time, dynamic / (power.tdp_w - power.static_w))
        if best[R_TIME] < 0.0 or time < best[R_TIME]:
            best[R_TIME] = time
            best[R_COMPUTE] = trial[R_COMPUTE]
            best[R_CACHE] = trial[R_CACHE]
            best[R_LAUNCH] = launch
            best[R_ENERGY] = dynamic
            best[R_COMPUTE_J] = compute_j
            best[R_CACHE_J] = cache_j
            best[R_UNIT] = float(u)
            for m in range(len(times)):
                best[R_MEMORY + m] = times[m]
    if best[R_TIME] < 0.0:
        return False
    for column in (R_TIME, R_COMPUTE, R_CACHE, R_LAUNCH, R_ENERGY, R_COMPUTE_J, R_CACHE_J):
        record[column] += op.repeat * best[column]
    record[R_UNIT] = best[R_UNIT]
    record[R_KERNELS] += op.repeat * op.kernels
    for m in range(len(times)):
        record[R_MEMORY + m] += op.repeat * best[R_MEMORY + m]
    return True


def time_step(  # type: ignore[no-untyped-def]
    which,
    slices,
    ops,
    amounts,
    units,
    rates,
    joules,
    bandwidth,
    byte_joules,
    place,
    eff,
    links,
    power,
    times,
    trial,
    best,
    records,
    totals,
):
    """Times the ops of one step into `records` (a row per op, cleared first); returns the first op no unit can run, or -1.

    `slices`: rows of (sequences, query, past, source, sampled). Attention is timed slice by slice, everything else on
    the step as a whole. `which`: ALL, DENSE (all but attention) or ATTENDING (attention only); rows of the other ops
    keep what they held. `totals` gets the sum of all rows.
    """
    failed = -1
    for i in range(len(ops)):
        op = ops[i]
        record = records[i]
        attends = op.kind == ATTENTION
        if (which == DENSE and attends) or (which == ATTENDING and not attends):
            continue
        for c in range(len(record)):
            record[c] = 0.0
        link = links[i]
        tokens = 0.0
        seqs = 0.0
        sampled = 0.0
        for s in range(len(slices)):
            part = slices[s]
            decoding = part[1] == 1.0
            if op.phase != ANY and (op.phase == DECODE) != decoding:
                continue
            if attends:
                pairs = part[0] * attended_pairs(op, part[1], part[2], part[3])
                context = part[0] * read_context(op, part[1], part[2], part[3])
                if not time_op(
                    i,
                    ops,
                    amounts,
                    part[0] * part[1],
                    part[0],
                    part[0] * part[4],
                    pairs,
                    context,
                    units,
                    rates,
                    joules,
                    bandwidth,
                    byte_joules,
                    place,
                    eff,
                    link,
                    power,
                    times,
                    trial,
                    best,
                    record,
                ):
                    failed = i
            else:
                tokens += part[0] * part[1]
                seqs += part[0]
                sampled += part[0] * part[4]
        if (
            not attends
            and seqs > 0.0
            and not time_op(
                i,
                ops,
                amounts,
                tokens,
                seqs,
                sampled,
                0.0,
                0.0,
                units,
                rates,
                joules,
                bandwidth,
                byte_joules,
                place,
                eff,
                link,
                power,
                times,
                trial,
                best,
                record,
            )
        ):
            failed = i
    for c in range(len(totals)):
        totals[c] = 0.0
    for i in range(len(ops)):
        record = records[i]
        for c in range(len(totals)):
            totals[c] += record[c]
    return failed


def step_seconds(totals, host, sequences: float, decoding: bool) -> float:  # type: ignore[no-untyped-def]
    """Seconds of a step: the device or the host's launches, whichever is slower, then what the device waits for."""
    device = totals[R_TIME]
    graph = host.graph_decode if decoding else host.graph_prefill
    issue = 0.0 if graph > 0.0 else totals[R_KERNELS] * host.kernel_s
    waited = host.step_s if decoding else host.prefill_s
    return max(device, issue) + waited + host.per_sequence_s * sequences
