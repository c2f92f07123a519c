"""The loop over measured kernels: each row's ops timed in its own step by the product's arithmetic.

In the subset of Python that Numba compiles, as `simulator.cost.steps`.
"""

from __future__ import annotations

from typing import Any

from simulator.cost.layout import R_TIME, Scratch, Tables
from simulator.cost.steps import time_step


def time_rows(order: Any, first: Any, last: Any, steps: Any, t: Tables, s: Scratch, seconds: Any) -> None:
    """Seconds of the ops `order[first:last]` of every row in its step (sequences, new tokens, tokens before them).

    -1 where no unit can run an op.
    """
    for row in range(len(seconds)):
        part = (steps[row][0], steps[row][1], steps[row][2], 0.0, 1.0)
        failed = time_step(order[first[row] : last[row]], (part,), t, s)
        seconds[row] = s.totals[R_TIME] if failed < 0 else -1.0
