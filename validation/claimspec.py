"""What a claims file may hold: scenarios with the reason for every assumed value, and the paper's claims.

Knows the form only; outcomes are computed in `outcomes`, verdicts in `verdicts`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from simulator.spec.loader import Spec

Bound = Literal["exact", "up_to", "at_least", "average", "about"]
Form = Literal["ratio", "saving", "share", "gain", "absolute"]
"""How a value is meant: a factor (3 x), a saving (40% less), what is left (60% of it), a gain (30% more), a number."""


class ScenarioSpec(Spec):
    """One comparison: what the paper compares with, and the same with its technique."""

    name: str
    reason: str = Field(min_length=1)
    """Why this model, hardware, batch and context, and each parameter that the abstract leaves open."""
    baseline: dict[str, Any]
    """Fields of a scenario; with `train: true`, of a training scenario; with `fleet`, of a deployment (`fleets.FIELDS`).
    `batch: max` is the largest that fits.

    With `timeline: true`, or `timeline: {FIELD: VALUE}` with fields of `simulator.events.policy.Policy`, times, rates and
    energy are those of the event-driven simulation.
    """
    technique: dict[str, Any] = Field(default_factory=dict)
    """What differs from the baseline."""
    measures: dict[str, str] = Field(default_factory=dict)
    """The quantity that the paper means by a metric, where that is not the usual one: throughput of decode alone."""
    range: dict[str, list[Any]] = Field(default_factory=dict)
    """Values that the stated conditions leave open, for both sides: every combination is evaluated."""
    vary: dict[str, list[Any]] = Field(default_factory=dict)
    """The same for the technique's side only."""
    vary_baseline: dict[str, list[Any]] = Field(default_factory=dict)
    """The same for the baseline's side only: what the abstract leaves open of what it compares with."""


class ClaimSpec(Spec):
    """One claim, as the abstract states it."""

    claim: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*#\d+$")
    metric: str
    value: float | None = None
    between: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """The range that the paper gives, if any."""
    unit: str = ""
    bound: Bound = "exact"
    form: Form | None = None
    """None: read from the unit."""
    stated: list[Literal["model", "hardware", "conditions"]] = Field(default_factory=list)
    """What the abstract says about the conditions."""
    scenario: str | None = None
    """None: no scenario can tell; the claim is silent."""
    quantity: str | None = None
    """What is compared, where the metric's usual quantity is not meant: see `outcomes.QUANTITIES`."""
    scale: float = 1.0
    """Times the value, for absolute numbers in other units."""
    fitted: str | None = None
    """The parameter that was chosen so that the claim comes out. Counts for nothing."""
    note: str | None = None
    """Why it is missed or silent: what the abstract or the model lacks."""


class ClaimsFile(Spec):
    """Scenarios and claims of one paper."""

    paper: str
    scenarios: list[ScenarioSpec] = Field(default_factory=list)
    claims: list[ClaimSpec] = Field(default_factory=list)
