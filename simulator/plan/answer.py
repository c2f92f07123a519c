"""What a plan answers: the fleet, what it costs, how good it is proven to be, and what stands in the way of a better one.

Numbers only; words and charts are those of `simulator.views.plan`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from simulator.plan.load import Load
    from simulator.plan.option import Option


@dataclass(frozen=True, slots=True)
class Part:
    """One option of the fleet."""

    option: Option
    instances: int
    devices: int
    usd_per_hour: float
    """Rent, and electricity where it is paid on top."""
    power_w: float
    """Average; nan where it is not known."""
    utilization: float
    """Work over what the instances could do within the SLO."""
    load_share: float
    """Of the requests of its load (of its phase, for pools)."""
    limits: dict[str, float]
    """What keeps an instance from serving more, by the share of its work for which that is so."""


@dataclass(frozen=True, slots=True)
class Single:
    """The same load on one type of hardware alone."""

    hardware: str
    objective: float | None
    """None: it cannot serve the load within the limits."""
    instances: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Relief:
    """What another limit would bring, by solving again."""

    constraint: str
    objective: float
    saving: float
    """Of the objective, at least 0."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. Money is in USD per hour."""

    name: str
    status: str
    """optimal: proven within the gap asked for. feasible: time was up; `gap` says how good it is."""
    objective_name: str
    """money (USD/h), power (W) or carbon (g/h)."""
    objective: float
    bound: float
    """No fleet is better than this."""
    gap: float
    usd_per_hour: float
    switching_usd_per_hour: float
    power_w: float | None
    carbon_g_per_hour: float | None
    parts: tuple[Part, ...]
    singles: tuple[Single, ...]
    binding: tuple[Relief, ...]
    """Limits of the file without which the fleet would be better, most first."""
    would_save: tuple[Relief, ...]
    """Looser SLOs."""
    loads: tuple[Load, ...]
    options: tuple[Option, ...]
    share: NDArray[np.float64]
    """(O, B) of each bucket sent to each option."""
    requests_per_s: NDArray[np.float64]
    """(O, B) of an instance within the SLO."""
    notes: tuple[str, ...]
    seconds: float
    """Of the solver, for the fleet itself."""
    solver: str

    @property
    def best_single(self) -> Single | None:
        """The best of the types alone; None where none can serve the load."""
        able = [single for single in self.singles if single.objective is not None]
        return min(able, key=lambda single: single.objective or 0.0) if able else None

    @property
    def saving(self) -> float | None:
        """Of the mix against the best single type, as a share of the latter."""
        best = self.best_single
        return None if best is None or not best.objective else 1.0 - self.objective / best.objective

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, in SI units but for hours."""
        return {
            "name": self.name,
            "status": self.status,
            "objective_name": self.objective_name,
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "usd_per_hour": self.usd_per_hour,
            "switching_usd_per_hour": self.switching_usd_per_hour,
            "power_w": self.power_w,
            "carbon_g_per_hour": self.carbon_g_per_hour,
            "requests_per_s": sum(float(load.rate_per_s.sum()) for load in self.loads),
            "mix": [_part(part) for part in self.parts],
            "single_types": [asdict(single) for single in self.singles],
            "saving": self.saving,
            "binding": [asdict(relief) for relief in self.binding],
            "would_save": [asdict(relief) for relief in self.would_save],
            "notes": list(self.notes),
            "solver": self.solver,
            "seconds": self.seconds,
        }

    def to_frame(self) -> pd.DataFrame:
        """A row per option and bucket that it serves: sizes, requests/s sent to it, and what an instance could serve."""
        from simulator.views.plan import allocation_frame

        frame: pd.DataFrame = allocation_frame(self)
        return frame

    def __str__(self) -> str:
        from simulator.views.plan import plan_text

        return plan_text(self)

    def _repr_html_(self) -> str:
        from simulator.views.plan import plan_html

        return plan_html(self)


def _part(part: Part) -> dict[str, Any]:
    option = part.option
    found: dict[str, Any] = {"option": option.name, "load": option.load, "hardware": option.hardware}
    found |= {"tp": option.tp, "engine": option.engine, "techniques": list(option.techniques), "role": option.role}
    found |= {"purchase": option.purchase, "region": option.region, "price": option.price}
    numbers = ("instances", "devices", "usd_per_hour", "power_w", "utilization", "load_share", "limits")
    return found | {name: getattr(part, name) for name in numbers}
