"""Loops whose speed is a property of the processor: streams, reads, a chain of loads, multiply-adds. Compiled by Numba.

Plain arrays in, a value out that depends on all the work, so that none of it can be left out. Knows nothing of time.
"""

from __future__ import annotations

from typing import Any

import numba

CHAIN = 32
"""Multiply-adds per element of `multiply_add`."""


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def stream_copy(a: Any, b: Any, c: Any, scalar: Any) -> None:
    """c = a: 2 arrays moved (3 with the read before the write)."""
    for i in range(len(a)):
        c[i] = a[i]


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def stream_scale(a: Any, b: Any, c: Any, scalar: Any) -> None:
    """b = s c."""
    for i in range(len(a)):
        b[i] = scalar * c[i]


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def stream_add(a: Any, b: Any, c: Any, scalar: Any) -> None:
    """c = a + b."""
    for i in range(len(a)):
        c[i] = a[i] + b[i]


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def stream_triad(a: Any, b: Any, c: Any, scalar: Any) -> None:
    """a = b + s c."""
    for i in range(len(a)):
        a[i] = b[i] + scalar * c[i]


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def read_sum(a: Any, rounds: int) -> Any:
    """Sum of the array, read `rounds` times in four streams; the length has to be a multiple of four."""
    quarter = len(a) // 4
    first, second, third, fourth = a[:quarter], a[quarter : 2 * quarter], a[2 * quarter : 3 * quarter], a[3 * quarter :]
    total = a[0] - a[0]
    for _ in range(rounds):
        s = a[0] - a[0]
        t = a[0] - a[0]
        u = a[0] - a[0]
        v = a[0] - a[0]
        for i in range(quarter):
            s += first[i]
            t += second[i]
            u += third[i]
            v += fourth[i]
        total += s + t + u + v
    return total


@numba.njit(nogil=True)
def chase(following: Any, steps: int) -> Any:
    """Where `steps` loads end, each at the address that the one before has read."""
    at = following[0]
    for _ in range(steps - 1):
        at = following[at]
    return at


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def multiply_add(a: Any, factor: Any, out: Any, rounds: int) -> None:
    """out[i] += the value at `factor` of a polynomial whose CHAIN + 1 coefficients all are a[i], `rounds` times.

    2 CHAIN FLOPs per element and round; elements are independent, so that vectors of them hide the latency.
    """
    for _ in range(rounds):
        for i in range(len(a)):
            x = a[i]
            y = x
            for _ in range(CHAIN):  # unrolled, as the bound is a constant; then vectors of i
                y = y * factor + x
            out[i] += y
