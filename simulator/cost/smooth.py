"""Times that overlap, but not fully: between their maximum and their sum.

In the subset of Python that Numba compiles, as `simulator.cost.kernels`.
"""

from __future__ import annotations


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
