"""What is known of accuracy on the shipped measurements: the summary that ships, and single runs where there are any."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from simulator.errors import SimulatorError
from validation import summary


@lru_cache(maxsize=1)
def _stored(stamp: int) -> dict[str, list[dict[str, Any]]]:
    return summary.stored()


def stored() -> dict[str, list[dict[str, Any]]]:
    """`goals`, `runs` and `kernels` of the summary."""
    return _stored(summary.STORED.stat().st_mtime_ns if summary.STORED.exists() else 0)


def devices() -> list[str]:
    """Hardware with any measurement."""
    try:
        found = stored()
    except SimulatorError:
        return []
    return sorted({row["hardware"] for name in ("runs", "kernels") for row in found[name]})


@lru_cache(maxsize=1)
def run_points() -> Any:
    """The points of single runs as a frame, or None where only the package is installed."""
    from validation import residuals
    from validation.plots import run_points as points_of

    if not residuals.STORED.exists():
        return None
    rows = residuals.stored()
    return points_of(rows[rows["parameters"] == residuals.SHIPPED])
