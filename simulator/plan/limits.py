"""What a fleet's program is made of: costs in money, power and carbon, the limits of a plan file, and why none is met.

Between the nouns of a plan and the matrices of `simulator.plan.milp`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simulator import catalog
from simulator.errors import InfeasiblePlanError, ScenarioError, UnknownNameError
from simulator.plan.milp import DECODE, PREFILL, WHOLE, Limit, Program, Settings, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.plan.capacity import Capacity
    from simulator.plan.load import Load
    from simulator.plan.option import Option
    from simulator.spec.plan import PlanSpec

ROLES = {"whole": WHOLE, "prefill": PREFILL, "decode": DECODE}
KILO = 1000.0


@dataclass(frozen=True, slots=True)
class Account:
    """One kind of cost: per instance (O,), and for the work of a whole bucket (O, B)."""

    cost: NDArray[np.float64]
    usage: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Accounts:
    """All kinds: USD per hour, watts at the meter, grams of CO2 per hour."""

    money: Account
    power: Account
    carbon: Account | None


def needs(loads: Sequence[Load], capacity: Capacity) -> NDArray[np.float64]:
    """(O, B) instances that a whole bucket keeps busy; inf where an option cannot serve it."""
    rates = np.concatenate([load.rate_per_s for load in loads])
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(capacity.requests_per_s > 0, rates / capacity.requests_per_s, np.inf))


def accounts(spec: PlanSpec, options: Sequence[Option], loads: Sequence[Load], capacity: Capacity) -> Accounts:
    """What each option costs. Power is that of an idle instance and, on top, the work: linear in between.

    Raises ScenarioError where the objective or a budget needs power that is not known.
    """
    need = needs(loads, capacity)
    served = np.isfinite(need)
    pue = np.array([option.pue for option in options])
    idle = capacity.idle_w * pue
    above = np.maximum(capacity.power_w - capacity.idle_w[:, None], 0.0) * pue[:, None]
    usage = np.where(served, above * np.where(served, need, 0.0), 0.0)
    power = Account(idle, usage)
    kwh = np.array([option.usd_per_kwh for option in options]) / KILO
    money = Account(np.array([option.usd_per_hour for option in options]) + idle * kwh, power.usage * kwh[:, None])
    carbon = None
    if all(option.carbon_g_per_kwh is not None for option in options):
        grams = np.array([option.carbon_g_per_kwh or 0.0 for option in options]) / KILO
        carbon = Account(power.cost * grams, power.usage * grams[:, None])
    budgets = spec.budgets
    if spec.objective != "money" or budgets.power is not None or budgets.carbon_g_per_hour is not None:
        for o, option in enumerate(options):
            if not (capacity.power_w[o][served[o]] > 0).all():
                raise ScenarioError(
                    f"the power of '{option.name}' is not known; add `power` to the option or power_w to its table"
                )
    return Accounts(money, power, carbon)


def program_of(
    spec: PlanSpec, options: Sequence[Option], loads: Sequence[Load], capacity: Capacity, sums: Accounts
) -> Program:
    """The program of a plan file."""
    objective = {"money": sums.money, "power": sums.power, "carbon": sums.carbon}[spec.objective]
    assert objective is not None
    count = len(options)
    share = 1.0 - spec.headroom.share
    # Switching is money; with another objective it is reported and not minimised.
    per_hour = 3600.0 / spec.switching.horizon if spec.objective == "money" else 0.0
    return Program(
        need=needs(loads, capacity),
        cost=objective.cost,
        usage=objective.usage,
        role=np.array([ROLES[option.role] for option in options]),
        available=np.array([option.available * share for option in options]),
        spare=np.full(count, float(spec.headroom.instances)),
        replicas=np.array([float(option.min_replicas) for option in options]),
        at_least=np.array([float(option.keep) for option in options]),
        at_most=np.array(
            [math.inf if option.max_replicas is None else float(option.max_replicas) for option in options]
        ),
        limits=tuple(_limits(spec, options, loads, sums)),
        current=np.array([float(option.current) for option in options]),
        start=spec.switching.start * per_hour,
        stop=spec.switching.stop * per_hour,
    )


def stocked(hardware: str, options: Sequence[Option]) -> str:
    """The hardware of the options that a name of stock means. Raises UnknownNameError."""
    names = {option.hardware for option in options}
    if hardware in names:
        return hardware
    try:
        found = catalog.find("hardware", hardware).stem
    except UnknownNameError:
        found = ""
    if found not in names:
        raise UnknownNameError("stock", hardware, names)
    return found


def _limits(spec: PlanSpec, options: Sequence[Option], loads: Sequence[Load], sums: Accounts) -> list[Limit]:
    found = []
    for stock in spec.stock:
        device = stocked(stock.hardware, options)
        per_instance = np.array(
            [
                float(option.devices)
                if option.hardware == device
                and stock.region in (None, option.region)
                and stock.purchase in (None, option.purchase)
                else 0.0
                for option in options
            ]
        )
        where = [stock.region, stock.purchase.replace("_", " ") if stock.purchase else None]
        words = ", ".join(word for word in where if word)
        found.append(Limit(f"stock of {device}" + (f" ({words})" if words else ""), float(stock.devices), per_instance))
    budgets = spec.budgets
    if budgets.money is not None:
        found.append(Limit("budget of money", budgets.money * 3600.0, sums.money.cost, sums.money.usage))
    if budgets.power is not None:
        found.append(Limit("budget of power", budgets.power, sums.power.cost, sums.power.usage))
    if budgets.carbon_g_per_hour is not None and sums.carbon is not None:
        found.append(Limit("budget of carbon", budgets.carbon_g_per_hour, sums.carbon.cost, sums.carbon.usage))
    if spec.spot.max_share < 1.0:
        found += _spot(spec, options, loads)
    return found


def _spot(spec: PlanSpec, options: Sequence[Option], loads: Sequence[Load]) -> list[Limit]:
    """At most a share of each load on instances that may be taken away, in either phase."""
    found = []
    start, width = 0, sum(len(load) for load in loads)
    for load in loads:
        for phase, roles in (("", ("whole", "prefill")), (" (decode)", ("decode",))):
            per_share = np.zeros((len(options), width))
            for o, option in enumerate(options):
                if option.purchase == "spot" and option.load == load.name and option.role in roles:
                    per_share[o, start : start + len(load)] = load.rate_per_s
            if per_share.any():
                bound = spec.spot.max_share * float(load.rate_per_s.sum())
                found.append(Limit(f"spot share of {load.name}{phase}", bound, np.zeros(len(options)), per_share))
        start += len(load)
    return found


def why_infeasible(
    program: Program, options: Sequence[Option], loads: Sequence[Load], capacity: Capacity, settings: Settings
) -> InfeasiblePlanError:
    """The error that names what is in the way: a bucket that nothing serves, or the limits that would have to give way."""
    unserved = _unserved(program, options, loads, capacity)
    if unserved:
        return InfeasiblePlanError(unserved)
    elastic = solve(program, replace(settings, time_limit_s=max(10.0, settings.time_limit_s)), elastic=True)
    bounds = {limit.name: limit.bound for limit in program.limits}
    found = []
    for name, slack in sorted(elastic.slack.items(), key=lambda item: -item[1]):
        kind, _, position = name.rpartition(" ")
        if kind == "replicas":
            option = options[int(position)]
            needed = slack + program.at_most[int(position)]
            found.append(f"max_replicas of {option.name}: {option.max_replicas}, and {needed:g} are needed")
        elif kind == "bucket" and name not in bounds:
            found.append(f"{slack:.0%} of the bucket {_bucket(loads, int(position))} cannot be served")
        else:
            found.append(f"{name}: {bounds[name]:g}, and {bounds[name] + slack:g} are needed")
    return InfeasiblePlanError(found or ["the limits contradict one another"])


def _unserved(program: Program, options: Sequence[Option], loads: Sequence[Load], capacity: Capacity) -> list[str]:
    found = []
    usable = np.isfinite(program.need)
    roles = program.role
    whole = usable[roles == WHOLE].any(axis=0)
    pools = usable[roles == PREFILL].any(axis=0) & usable[roles == DECODE].any(axis=0)
    for b in np.flatnonzero(~(whole | pools)):
        reasons: dict[str, list[str]] = {}
        for o, option in enumerate(options):
            if not usable[o, b] and capacity.limit[o, b] != "another load":
                named = reasons.setdefault(str(capacity.limit[o, b]), [])
                named += [option.hardware] if option.hardware not in named else []
        words = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        found.append(f"no option serves the bucket {_bucket(loads, int(b))} ({words})")
    return found[:2] + ([f"and {len(found) - 2} more buckets"] if len(found) > 2 else [])


def _bucket(loads: Sequence[Load], position: int) -> str:
    for load in loads:
        if position < len(load):
            return f"[{load.labels[position]}] of {load.name}" if len(loads) > 1 else f"[{load.labels[position]}]"
        position -= len(load)
    raise IndexError(position)
