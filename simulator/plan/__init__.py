"""The fleet planner: which hardware, how much of it and with which techniques serves a load at the least cost.

`simulator.plan` is called like the function it is named after; `fleet` says how the data flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.plan.answer import Plan


def plan(file: Path | str | Mapping[str, Any]) -> Plan:
    """The best fleet for a plan file, for the name of a shipped deployment, or for a mapping of the same form.

    Raises SpecError, UnknownNameError, ScenarioError or InfeasiblePlanError.
    """
    from simulator.plan.fleet import plan as planned

    return planned(file)
