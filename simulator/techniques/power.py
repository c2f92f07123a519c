"""The machine's operating point: a lower clock or a power limit.

Energy of an operation goes with the square of the voltage, taken as proportional to the clock.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.techniques.recipe import Operating
from simulator.techniques.registry import Positive, Share, primitive


@primitive("power.clock", once="the clock")
def clock(operating: Operating, *, share: Share) -> Operating:
    """Compute units run at a share of their nominal clock; memories keep theirs."""
    return replace(operating, clock=share)


@primitive("power.cap", once="the power limit")
def cap(operating: Operating, *, watts: Positive) -> Operating:
    """Each device draws at most so much; an op that would draw more takes longer."""
    return replace(operating, power_w=watts)
