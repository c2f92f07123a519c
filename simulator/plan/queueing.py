"""How long requests wait before an instance that serves up to c of them at once, and what an SLO asks.

Closed forms for many servers; what a request costs once it is admitted is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Slo:
    """Times that every request has to meet, at the mean or at a percentile. None: no such term."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2el_s: float | None = None
    percentile: float | None = None
    """None: the mean."""
    exempt: float = 0.0
    """Share of the requests, the longest, that need not meet them."""

    @property
    def words(self) -> str:
        """For people."""
        terms = [
            f"{name} {1e3 * value:g} ms" if value < 1 else f"{name} {value:g} s"
            for name, value in (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2EL", self.e2el_s))
            if value is not None
        ]
        kind = "mean" if self.percentile is None else f"P{self.percentile:g}"
        words = f"{kind} " + ", ".join(terms)
        return f"{words}, but for the longest {self.exempt:.2g} of requests" if self.exempt else words


def waits(servers: Any, utilization: Any, cv2: float) -> tuple[Any, Any]:
    """Chance that a request has to wait, and its mean wait over the mean service time, of a G/G/c queue.

    chance = rho ** (sqrt(2 (c + 1)) - 1), and wait = cv2 * chance / (c (1 - rho)), where cv2 is the mean of the squared
    coefficients of variation of the times between arrivals and of service (Sakasegawa, "An approximation formula
    L_q = a rho^b / (1 - rho)", 1977, with the factor of Allen and Cunneen). Exact for M/M/1 and M/G/1.

    >>> chance, wait = waits(1.0, 0.5, 1.0)
    >>> float(chance), float(wait)
    (0.5, 1.0)
    """
    chance = np.power(utilization, np.sqrt(2.0 * (servers + 1.0)) - 1.0)
    with np.errstate(divide="ignore"):
        return chance, cv2 * chance / (servers * (1.0 - utilization))


def wait_at(servers: Any, utilization: Any, cv2: float, percentile: float | None) -> Any:
    """Mean or percentile of the wait over the mean service time.

    Of those who wait, the wait is taken as exponential, which is exact for M/M/c and right in heavy traffic for G/G/c
    (Whitt, "Approximations for the GI/G/m queue", 1993): P(W > t) = chance * exp(-t * chance / wait).

    >>> round(float(wait_at(1.0, 0.5, 1.0, 90.0)), 4)  # M/M/1: ln(rho / (1 - p)) / (1 - rho)
    3.2189
    """
    chance, mean = waits(servers, utilization, cv2)
    if percentile is None:
        return mean
    tail = 1.0 - percentile / 100.0
    with np.errstate(divide="ignore", invalid="ignore"):
        exceeded = np.where(chance > 0.0, mean / chance * np.log(np.maximum(chance, tail) / tail), 0.0)
    return np.where(chance > tail, exceeded, 0.0)


def deviations(percentile: float | None) -> float:
    """Standard deviations above the mean below which a normal variable stays so often; 0 for the mean.

    >>> round(deviations(99.0), 2), deviations(None)
    (2.33, 0.0)
    """
    return 0.0 if percentile is None else NormalDist().inv_cdf(percentile / 100.0)
