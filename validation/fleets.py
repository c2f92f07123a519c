"""A fleet as one side of a comparison: the planner's mix of devices, or the least of one type that serves the same load.

Knows deployments by name and what they cost; the model behind their capacities is the planner's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from simulator.errors import ScenarioError

if TYPE_CHECKING:
    from simulator.plan.answer import Plan

FIELDS = ("fleet", "rate", "hardware", "ttft_s", "tpot_s")
"""Of a side: a deployment, its rate and targets in place of the file's, and the one type of hardware that may be rented."""
MONEY = ("usd_per_hour", "usd_per_token", "usd_per_request")
"""Quantities of money: both sides serve the same load, so that they stand in the same ratio."""


class Fleet:
    """A deployment with the least cost, of any mix or of one type of hardware."""

    def __init__(self, values: dict[str, Any]) -> None:
        """Raises ScenarioError for a field that a fleet does not have."""
        unknown = sorted(set(values) - set(FIELDS))
        if unknown:
            raise ScenarioError(f"a fleet has no {', '.join(unknown)}; it has {', '.join(FIELDS)}")
        self.values = values

    @property
    def plan(self) -> Plan:
        """Of the load, whatever may be rented."""
        changes = {key: self.values[key] for key in ("rate", "ttft_s", "tpot_s") if self.values.get(key) is not None}
        return _plan(str(self.values["fleet"]), tuple(sorted(changes.items())))

    def value(self, quantity: str) -> float:
        """See `validation.comparison.Side.value`; nan where the one type cannot serve the load."""
        plan, hardware = self.plan, self.values.get("hardware")
        if quantity not in (*MONEY, "devices"):
            raise ScenarioError(f"a fleet has no quantity '{quantity}'; it has {', '.join((*MONEY, 'devices'))}")
        if hardware is None:
            return float(sum(part.devices for part in plan.parts)) if quantity == "devices" else plan.usd_per_hour
        for single in plan.singles:
            if single.hardware == hardware:
                found = single.instances if quantity == "devices" else single.objective
                return float("nan") if single.objective is None or found is None else float(found)
        known = ", ".join(single.hardware for single in plan.singles)
        raise ScenarioError(f"{plan.name} rents no '{hardware}'; it has {known}")


@lru_cache(maxsize=64)
def _plan(deployment: str, changes: tuple[tuple[str, float], ...]) -> Plan:
    from simulator.plan import plan

    return plan(deployment, **dict(changes))
