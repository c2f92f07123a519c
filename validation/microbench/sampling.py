"""How one thing is timed: warm-up, repeats until enough of them were undisturbed, the median, and how far they scatter.

A repeat during which a thread waited for a processor that the system had taken away is disturbed; on a machine that is
shared, medians of the others are what a quiet machine shows. Knows nothing of what it times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NOISY = 0.25
"""Dispersion from which on a sample does not count."""
DISTURBED = 0.5
"""Dispersion of a sample without three undisturbed repeats, at least: all of them may be late by as much."""
MOST_WAITING = 0.01
"""Share of a repeat that threads may have waited for a processor without its being disturbed."""
MIN_REPEAT_S = 100e-6
"""A repeat is made of as many executions as last so long, so that the clock's own time does not count."""


class Clock(Protocol):
    """Times executions of `run(i)`, i counting up so that a run may choose among copies of its operands."""

    def time(self, run: Callable[[int], object], first: int, count: int) -> tuple[float, bool]:
        """Seconds of one execution, the mean of `count`, and whether the system disturbed them."""


class WallClock:
    """Elapsed time of work that is done when the call returns."""

    def __init__(self, synchronize: Callable[[], object] | None = None) -> None:
        self.synchronize = synchronize

    def time(self, run: Callable[[int], object], first: int, count: int) -> tuple[float, bool]:
        """See Clock."""
        if self.synchronize:
            self.synchronize()
        waited, switches = waiting_s(), involuntary_switches()
        start = time.perf_counter()
        for position in range(first, first + count):
            run(position)
        if self.synchronize:
            self.synchronize()
        elapsed = time.perf_counter() - start
        if involuntary_switches() == switches:
            return elapsed / count, False
        after = waiting_s()
        if waited is None or after is None:
            return elapsed / count, True
        return elapsed / count, after - waited > MOST_WAITING * elapsed


class ThreadClock:
    """Processor time of this thread, for work that it does alone: what others take meanwhile does not count.

    A repeat during which it lost the processor is not disturbed by that; it may find emptier caches.
    """

    def time(self, run: Callable[[int], object], first: int, count: int) -> tuple[float, bool]:
        """See Clock."""
        start = time.thread_time()
        for position in range(first, first + count):
            run(position)
        return (time.thread_time() - start) / count, False


def waiting_s(root: Path = Path("/proc/self/task")) -> float | None:
    """Seconds that all threads of this process have been ready to run without a processor; None if it is not told."""
    total = 0.0
    try:
        for task in root.iterdir():
            total += float((task / "schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return None
    return total


def involuntary_switches() -> int:
    """Times that the system has taken a processor away from a thread of this process; 0 where it does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True, slots=True)
class Sample:
    """The time of one thing."""

    seconds: float
    """Median of the repeats that count."""
    dispersion: float
    """Interquartile range of those over the median."""
    repeats: int
    disturbed: int
    """Repeats left out because the system interrupted them."""
    fastest_s: float
    """Shortest of all repeats: what counts for a peak."""

    @property
    def noisy(self) -> bool:
        """Too scattered, or never undisturbed: not to be fitted to."""
        return self.dispersion > NOISY


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to try."""

    repeats: int = 7
    """Undisturbed repeats that are enough."""
    seconds: float = 0.25
    """Time after which what there is has to do, once there are three repeats."""
    patience_s: float = 2.0
    """Time after which to stop waiting for undisturbed repeats."""
    warmup: int = 2


def sample(run: Callable[[int], object], clock: Clock, effort: Effort | None = None) -> Sample:
    """Time `run`. Disturbed repeats are used only where fewer than three undisturbed ones came before patience ended."""
    effort = effort or Effort()
    start = time.perf_counter()
    single = 0.0
    for position in range(max(1, effort.warmup)):
        single, _ = clock.time(run, position, 1)
    count = max(1, min(1000, round(MIN_REPEAT_S / single))) if single > 0.0 else 1
    clean: list[float] = []
    dirty: list[float] = []
    done = effort.warmup
    while len(clean) < effort.repeats:
        seconds, disturbed = clock.time(run, done, count)
        done += count
        (dirty if disturbed else clean).append(seconds)
        elapsed = time.perf_counter() - start
        if elapsed > effort.seconds and len(clean) >= 3:
            break
        if elapsed > effort.patience_s and len(clean) + len(dirty) >= 3:
            break
    return summary(clean, dirty)


def summary(clean: Sequence[float], dirty: Sequence[float]) -> Sample:
    """The sample of undisturbed and disturbed repeats. Of disturbed ones the lower half counts, as disturbance only adds.

    >>> summary([1.0, 1.1, 1.2], [9.0]).seconds
    1.1
    >>> summary([], [1.0, 1.2, 9.0, 8.0]).noisy
    True
    """
    used = sorted(clean) if len(clean) >= 3 else sorted([*clean, *dirty])[: max(1, (len(clean) + len(dirty) + 1) // 2)]
    median = statistics.median(used)
    low, high = used[len(used) // 4], used[(3 * len(used)) // 4]
    dispersion = (high - low) / median if median > 0.0 else 0.0
    if len(clean) < 3 and dirty:
        everything = sorted([*clean, *dirty])
        dispersion = max(dispersion, everything[len(everything) // 2] / everything[0] - 1.0, DISTURBED)
    return Sample(median, dispersion, len(used), len(dirty), min([*clean, *dirty]))
