"""Small and large fleets to plan, drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.plan.milp import Program


def program(price: Any, rates: Any, per_instance: Any, **changes: Any) -> Program:
    """A program of whole instances: `rates` (B,) requests/s against `per_instance` (O, B), 0 where not served."""
    price, rates, per_instance = (np.asarray(values, dtype=float) for values in (price, rates, per_instance))
    count = len(price)
    with np.errstate(divide="ignore"):
        need = np.where(per_instance > 0, rates / per_instance, np.inf)
    parts: dict[str, Any] = {
        "need": need,
        "cost": price,
        "usage": np.zeros_like(need),
        "role": np.zeros(count, dtype=int),
        "available": np.ones(count),
        "spare": np.zeros(count),
        "replicas": np.zeros(count),
        "at_least": np.zeros(count),
        "at_most": np.full(count, np.inf),
    }
    return Program(**parts | changes)


def drawn(seed: int, options: int, buckets: int, rate: float) -> Program:
    """A load of many sizes on hardware that is better the dearer it is at large ones, and the cheaper at small ones."""
    random = np.random.default_rng(seed)
    price = np.sort(random.uniform(0.4, 12.0, options))
    size = random.permutation(np.geomspace(1.0, 200.0, buckets))
    taste = 1.0 + 0.5 * np.tanh((np.log(size) - np.log(14.0)) * (price[:, None] - 4.0) / 6.0)
    work = 40.0 * price[:, None] * taste * (1.0 + 0.3 * random.standard_normal((options, buckets)))
    return program(price, rate * random.dirichlet(np.full(buckets, 0.5)), np.maximum(work, 1.0) / size)
