"""The processor's own rates: streams through memory, latency and bandwidth by working set, multiply-adds per second.

Every loop runs once before it is timed and its result is compared with NumPy's. Arrays for main memory are several
times the last cache. Rates are those of the fastest repeat, as STREAM's are; latencies are medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.errors import SimulatorError
from validation.microbench.sampling import Clock, Effort, Sample, ThreadClock, WallClock, sample
from validation.microbench.system import Cpu

KIB = 1024.0
STREAMS: dict[str, float] = {"copy": 2.0, "scale": 2.0, "add": 3.0, "triad": 3.0}
"""Arrays that each stream moves, as STREAM (McCalpin) counts them: without the read before a write."""
LINE_BYTES = 64


class MeasurementError(SimulatorError):
    """A measurement that cannot be trusted: a wrong result, or too much else going on."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One measured rate or latency of the processor."""

    name: str
    threads: int
    value: float
    """Bytes/s, FLOP/s or seconds, as `unit` says."""
    unit: str
    working_set_bytes: float
    sample: Sample


def processor_rates(cpu: Cpu, threads: Sequence[int], small: bool) -> Iterator[tuple[str, list[Rate]]]:
    """All rates, group by group, so that progress can be shown. `small`: little work, for a first look and for tests."""
    effort = Effort(5, 0.05, 0.3, 1) if small else Effort(7, 0.4, 4.0, 1)
    sizes = working_sets(cpu, small)
    for count in threads:
        yield f"multiply-add, {count} threads", [peak(dtype, count, small, effort) for dtype in ("fp32", "fp64")]
    for count in threads:
        yield f"stream, {count} threads", streams(cpu, count, small, effort)
    for count in threads:
        yield f"read, {count} threads", [read(size, count, small, effort) for size in sizes if size / count >= 4096]
    yield "pointer chase", [latency(size, small, effort) for size in sizes]


def working_sets(cpu: Cpu, small: bool) -> list[float]:
    """Bytes: powers of two and half-way between, from inside the first cache to well beyond the last."""
    top = 1024 * KIB if small else min(max(4.0 * cpu.last_cache_bytes, 64 * KIB * KIB), cpu.memory_bytes / 8)
    found, size = [], 8 * KIB
    while size <= top:
        found.append(size)
        if not small and 1.5 * size <= top:
            found.append(1.5 * size)
        size *= 2
    return found


def clock(threads: int) -> Clock:
    """One thread's own time; elapsed time of several."""
    return ThreadClock() if threads == 1 else WallClock()


def together(work: Sequence[Callable[[], Any]], pool: ThreadPoolExecutor | None) -> list[Any]:
    """The results of all pieces of work, in threads of the pool or, without one, here."""
    if pool is None:
        return [piece() for piece in work]
    return [future.result() for future in [pool.submit(piece) for piece in work]]


def peak(dtype: str, threads: int, small: bool, effort: Effort) -> Rate:
    """FLOP/s of independent multiply-adds on data in the first cache."""
    from validation.microbench import loops

    kind = {"fp32": np.float32, "fp64": np.float64}[dtype]
    size, rounds = 1024, 100 if small else 20_000
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(0.5, 1.0, size).astype(kind) for _ in range(threads)]
    outputs = [np.zeros(size, kind) for _ in range(threads)]
    factor = kind(0.5)
    loops.multiply_add(inputs[0], factor, outputs[0], 1)
    expected = inputs[0].astype(np.float64) * float(sum(0.5**power for power in range(loops.CHAIN + 1)))
    check("multiply-add", outputs[0], expected, 1e-4 if dtype == "fp32" else 1e-10)
    work = [
        lambda a=a, out=out: loops.multiply_add(a, factor, out, rounds)
        for a, out in zip(inputs, outputs, strict=True)
    ]  # fmt: skip
    with ThreadPoolExecutor(threads) as pool:
        taken = sample(lambda _: together(work, pool if threads > 1 else None), clock(threads), effort)
    flops = 2.0 * loops.CHAIN * size * rounds * threads
    return Rate(f"fma_{dtype}", threads, flops / taken.fastest_s, "FLOP/s", size * inputs[0].itemsize, taken)


def streams(cpu: Cpu, threads: int, small: bool, effort: Effort) -> list[Rate]:
    """STREAM's four loops over arrays of which each is as large as the last cache or more."""
    from validation.microbench import loops

    total = 3 * 512 * KIB if small else max(4.0 * cpu.last_cache_bytes, 96 * KIB * KIB)
    total = min(total, cpu.memory_bytes / 4)
    length = int(total / 3 / 8 / threads)
    rng = np.random.default_rng(1)
    arrays = [tuple(rng.random(length) for _ in range(3)) for _ in range(threads)]
    found = []
    with ThreadPoolExecutor(threads) as pool:
        for name, moved in STREAMS.items():
            loop = getattr(loops, f"stream_{name}")
            _check_stream(name, loop)
            work = [lambda part=part, loop=loop: loop(*part, 3.0) for part in arrays]
            run = _runner(work, pool if threads > 1 else None)
            taken = sample(run, clock(threads), effort)
            bandwidth = moved * 8.0 * length * threads / taken.fastest_s
            found.append(Rate(f"stream_{name}", threads, bandwidth, "B/s", 3.0 * 8 * length * threads, taken))
    return found


def read(size: float, threads: int, small: bool, effort: Effort) -> Rate:
    """Bytes/s of all threads together, each reading its share of a working set of `size` again and again."""
    from validation.microbench import loops

    length = int(size / threads / 8) // 4 * 4
    rounds = max(1, int((2e6 if small else 4e8 / threads) / (8.0 * length) / (10 if size > 4e6 else 1)))
    rng = np.random.default_rng(2)
    arrays = [rng.random(length) for _ in range(threads)]
    check("read", loops.read_sum(arrays[0], 2), 2 * arrays[0].sum(), 1e-9)
    work = [lambda part=part: loops.read_sum(part, rounds) for part in arrays]
    with ThreadPoolExecutor(threads) as pool:
        taken = sample(_runner(work, pool if threads > 1 else None), clock(threads), effort)
    return Rate("read", threads, 8.0 * length * threads * rounds / taken.fastest_s, "B/s", size, taken)


def latency(size: float, small: bool, effort: Effort) -> Rate:
    """Seconds of one load whose address the load before has brought: one line after another in random order."""
    from validation.microbench import loops

    lines = max(4, int(size) // LINE_BYTES)
    following = chain(lines, np.random.default_rng(3))
    check("pointer chase", loops.chase(following, lines), 0.0, 0.0)
    steps = 20_000 if small else 200_000
    taken = sample(lambda _: loops.chase(following, steps), clock(1), effort)
    return Rate("latency", 1, taken.seconds / steps, "s", size, taken)


def chain(lines: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """One cycle through all lines in random order: at the start of each, the position of the next line's."""
    step = LINE_BYTES // 8
    order = np.concatenate([[0], 1 + rng.permutation(lines - 1)]) * step
    following = np.zeros(lines * step, np.uint64)
    following[order] = np.roll(order, -1)
    return following


def check(what: str, found: Any, expected: Any, tolerance: float) -> None:
    """Raises MeasurementError where a loop's result is not the one that it has to be."""
    difference = np.max(np.abs(np.asarray(found, np.float64) - expected))
    allowed = tolerance * np.max(np.abs(np.asarray(expected, np.float64)))
    if not difference <= allowed:
        raise MeasurementError(
            f"{what}: the result differs from the reference by {difference:.3g}, more than {allowed:.3g}"
        )


def at_level(rates: Sequence[Rate], name: str, threads: int, capacity: float) -> Rate | None:
    """The rate of that name at the working set nearest to half of a cache's capacity."""
    near = [rate for rate in rates if rate.name == name and rate.threads == threads]
    return min(near, key=lambda rate: abs(np.log(rate.working_set_bytes / (0.5 * capacity))), default=None)


def _runner(work: Sequence[Callable[[], Any]], pool: ThreadPoolExecutor | None) -> Callable[[int], Any]:
    return lambda _: together(work, pool)


def _check_stream(name: str, loop: Callable[..., None]) -> None:
    rng = np.random.default_rng(4)
    a, b, c = (rng.random(1000) for _ in range(3))
    expected = {"copy": a, "scale": 3.0 * c, "add": a + b, "triad": b + 3.0 * c}[name].copy()
    loop(a, b, c, 3.0)
    check(f"stream {name}", {"copy": c, "scale": b, "add": c, "triad": a}[name], expected, 1e-12)
