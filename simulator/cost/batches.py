"""Static batches: equal sequences prefilled and then decoded together, at one point or at many.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`.
"""

from __future__ import annotations

import math

from simulator.cost.layout import (
    ALL,
    ATTENDING,
    R_ENERGY,
    R_TIME,
    S_FAILED,
    S_PREFILL_DEVICE,
    S_PREFILL_J,
    S_STEP_DEVICE,
    S_STEP_J,
    S_TPOT,
    S_TTFT,
)
from simulator.cost.steps import step_seconds, time_step

# Nodes and weights of the 3-point Gauss-Legendre rule on [0, 1]: exact where a step's time is a quintic of the context.
NODES = ((0.1127016653792583, 5.0 / 18.0), (0.5, 8.0 / 18.0), (0.8872983346207417, 5.0 / 18.0))


def prefill_seconds(  # type: ignore[no-untyped-def]
    batch,
    prompt,
    source,
    stages,
    host,
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
    prefill_totals,
    result,
):
    """Prefills a batch of equal sequences on one rank of a pipeline of `stages`; returns the op that failed, or -1.

    Runs in steps of at most `host.max_tokens` tokens: several sequences, or chunks of one, whose mean cost is that of the
    middle chunk. n steps through p stages take (n + p - 1) / p step times. `prefill_totals` sums all steps.
    """
    for c in range(len(totals)):
        prefill_totals[c] = 0.0
    micro = math.ceil(batch / min(stages, batch))
    remaining = 0.0
    if prompt >= host.max_tokens:
        chunks = prompt / host.max_tokens
        part = (1.0, host.max_tokens, 0.5 * (prompt - host.max_tokens), source, 1.0 / chunks)
        steps = batch * chunks
        sequences = 1.0
    else:
        sequences = min(float(micro), math.floor(host.max_tokens / prompt))
        steps = float(math.floor(batch / sequences))
        remaining = batch - steps * sequences
        part = (sequences, prompt, 0.0, source, 1.0)
    seconds = 0.0
    for turn in range(2):
        repeats = steps
        if turn == 1:
            if remaining <= 0.0:
                continue
            repeats = 1.0
            sequences = remaining
            part = (remaining, prompt, 0.0, source, 1.0)
        failed = time_step(
            ALL,
            (part,),
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
        )
        if failed >= 0:
            return failed
        seconds += repeats * step_seconds(totals, host, sequences, False)
        for c in range(len(totals)):
            prefill_totals[c] += repeats * totals[c]
    count = steps + (1.0 if remaining > 0.0 else 0.0)
    result[S_PREFILL_DEVICE] = prefill_totals[R_TIME]
    result[S_TTFT] = seconds * (count + stages - 1.0) / (count * stages)
    result[S_PREFILL_J] = prefill_totals[R_ENERGY] + power.static_w * result[S_TTFT] * stages
    return -1


def decode_seconds(  # type: ignore[no-untyped-def]
    dense_known,
    batch,
    prompt,
    output,
    source,
    stages,
    host,
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
    decode_totals,
    result,
):
    """The mean decode step of a batch over its growing context; returns the op that failed, or -1.

    `dense_known`: the records hold the other ops of a decode step of the same batch, and only attention is timed anew.
    p micro-batches decode side by side in p stages. `decode_totals` is the mean step of one micro-batch.
    """
    for c in range(len(totals)):
        decode_totals[c] = 0.0
    result[S_TPOT] = 0.0
    result[S_STEP_J] = 0.0
    result[S_STEP_DEVICE] = 0.0
    if output <= 1.0:
        return -1
    micro = float(math.ceil(batch / min(stages, batch)))
    which = ATTENDING if dense_known else ALL
    for node, weight in NODES:
        failed = time_step(
            which,
            ((micro, 1.0, prompt - 0.5 + node * (output - 1.0), source, 1.0),),
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
        )
        if failed >= 0:
            return failed
        which = ATTENDING
        step = step_seconds(totals, host, micro, True)
        result[S_TPOT] += weight * step
        result[S_STEP_J] += weight * (min(stages, batch) * totals[R_ENERGY] + power.static_w * step * stages)
        result[S_STEP_DEVICE] += weight * totals[R_TIME]
        for c in range(len(totals)):
            decode_totals[c] += weight * totals[c]
    return -1


def static_batch(  # type: ignore[no-untyped-def]
    batch,
    prompt,
    output,
    source,
    stages,
    host,
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
    prefill_totals,
    decode_totals,
    result,
):
    """A batch of equal sequences, prefilled and then decoded together. `result` gets the S_ columns."""
    failed = prefill_seconds(
        batch,
        prompt,
        source,
        stages,
        host,
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
        prefill_totals,
        result,
    )
    if failed < 0:
        failed = decode_seconds(
            False,
            batch,
            prompt,
            output,
            source,
            stages,
            host,
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
            decode_totals,
            result,
        )
    result[S_FAILED] = float(failed)


def static_grid(  # type: ignore[no-untyped-def]
    points,
    stages,
    host,
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
    prefill_totals,
    decode_totals,
    result,
    answers,
):
    """`static_batch` at many points: rows of (batch, prompt, output, source), best in order of batch, then prompt.

    What a point shares with the one before it is not computed again: the prefill of the same batch and prompt, and all
    of a decode step but attention for the same batch. `answers` gets a row of S_ columns per point.
    """
    decoded = -1.0
    for p in range(len(points)):
        point = points[p]
        same = p > 0 and points[p - 1][0] == point[0] and points[p - 1][3] == point[3]
        failed = -1
        if not (same and points[p - 1][1] == point[1]):
            failed = prefill_seconds(
                point[0],
                point[1],
                point[3],
                stages,
                host,
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
                records[0],
                totals,
                prefill_totals,
                result,
            )
        if failed < 0:
            failed = decode_seconds(
                same and decoded == point[0],
                point[0],
                point[1],
                point[2],
                point[3],
                stages,
                host,
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
                records[1],
                totals,
                decode_totals,
                result,
            )
            if point[2] > 1.0:
                decoded = point[0]
        result[S_FAILED] = float(failed)
        for c in range(len(result)):
            answers[p][c] = result[c]
