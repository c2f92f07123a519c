"""The machine's operating point: a lower clock, a power limit, the units and cores that work at all.

Energy of an operation goes with the square of the voltage, taken as proportional to the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.techniques.recipe import Operating
from simulator.techniques.registry import Count, Positive, Share, primitive


@primitive("power.clock", once="the clock")
def clock(operating: Operating, *, share: Share) -> Operating:
    """Compute units run at a share of their nominal clock; memories keep theirs."""
    return replace(operating, clock=share)


@primitive("power.cap", once="the power limit")
def cap(operating: Operating, *, watts: Positive) -> Operating:
    """Each device draws at most so much; an op that would draw more takes longer."""
    return replace(operating, power_w=watts)


@primitive("power.units", once="the units that work")
def units(
    operating: Operating, *, names: Sequence[str], cores: Count | None = None, core_bytes_per_s: Positive = 25e9
) -> Operating:
    """Only the units whose names match work, as one pool of threads: all their cores, or the first `cores` in file order.

    A pool divides each op evenly and waits for its slowest core, so that n cores reach n times the slowest one's rate.
    Together they draw `core_bytes_per_s` each from memory at most: by Little's law some forty lines of 64 bytes under way
    over 100 ns are 25 GB/s.

    >>> units(Operating(), names=["cpu*"], cores=8).cores
    8
    """
    return replace(operating, units=tuple(names), cores=cores, core_bytes_per_s=core_bytes_per_s)
