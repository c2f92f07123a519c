"""The planner from a file to its answer. Data flow and nouns:

PlanSpec (file) -> Load: buckets of request sizes with a rate each (`load`); Option: a deployment of hardware, tp, engine and
techniques with a price, a region and limits (`option`); Capacity: requests/s of one instance per option and bucket within
the SLO, from the performance model (`capacity`) or from the user's tables (`tables`); Program -> Solution: instances and
shares (`milp`); Plan: the answer, with each type alone and what other limits would bring (`answer`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulator import catalog
from simulator.errors import Problem, ScenarioError, SimulatorError, SpecError, UnknownNameError, shorten
from simulator.plan.answer import Part, Plan, Relief, Single
from simulator.plan.capacity import Capacity, modelled
from simulator.plan.limits import Accounts, accounts, program_of, stocked, why_infeasible
from simulator.plan.load import Load, traffic_rows
from simulator.plan.milp import Program, Settings, Solution, rounded, solve
from simulator.plan.option import Option, expanded
from simulator.plan.queueing import Slo
from simulator.plan.tables import Throughput, is_melange, melange, read_tables, tabled
from simulator.scenario import load_model
from simulator.spec.loader import check, place, read_mapping
from simulator.spec.plan import LoadSpec, PlanSpec

LOOSER_TPOT_S = 0.010
LOOSER_SHARE = 0.10
"""How much looser SLOs are tried: TPOT by 10 ms, TTFT and E2EL by a tenth."""


def plan(file: Path | str | Mapping[str, Any], **changes: float | None) -> Plan:
    """The best fleet for a plan file, with `changes` of its loads (`PlanSpec.asked`).

    Raises SpecError, ScenarioError or InfeasiblePlanError.

    >>> answer = plan({
    ...     "loads": [{"traffic": [[512, 128, 1.0]], "rate": 30}],
    ...     "options": [{"hardware": "a", "price": "1 USD/h"}, {"hardware": "b", "price": "3 USD/h"}],
    ...     "throughput": [{"option": "a", "rows": [[512, 128, 5]]}, {"option": "b", "rows": [[512, 128, 20]]}],
    ... })
    >>> [(part.option.name, part.instances) for part in answer.parts], answer.usd_per_hour
    ([('a', 2), ('b', 1)], 5.0)
    """
    spec, path = _read(file)
    spec = spec.asked(**changes)
    loads = [_load(given, position, path) for position, given in enumerate(spec.loads)]
    _check_names(spec, path)
    options, notes = expanded(spec, path, tables=bool(spec.throughput))
    _check_options(spec, options, path)
    tables = read_tables(spec.throughput, path) if spec.throughput else None
    capacity = _capacity(spec, loads, options, tables, path)
    if tables is not None:
        notes += tables.notes
    for option, rates, limits in zip(options, capacity.requests_per_s, capacity.limit, strict=True):
        if not rates.any():
            reasons = sorted({str(reason) for reason in limits} - {"another load"})
            notes.append(f"{option.name} is left out: {reasons[0]}")
    return _answer(spec, path, loads, options, capacity, notes, can_loosen=tables is None)


def _read(file: Path | str | Mapping[str, Any]) -> tuple[PlanSpec, Path]:
    if isinstance(file, Mapping):
        return check(dict(file), PlanSpec, Path("plan")), Path("plan")
    path = Path(file)
    if not path.is_file() and path.suffix not in (".yaml", ".yml", ".json"):
        path = catalog.find("deployment", str(file))
    data = read_mapping(path)
    if is_melange(data):
        return check(melange(data, path), PlanSpec, path), path
    return check(data, PlanSpec, path), path


def _load(given: LoadSpec, position: int, path: Path) -> Load:
    try:
        rows = np.array(traffic_rows(given.traffic, path))
    except (ScenarioError, UnknownNameError) as error:
        line, column = place(path, "loads", position, "traffic")
        problem = Problem(
            shorten(path), line, column, f"loads.{position}.traffic", str(error).removeprefix("traffic: ")
        )
        raise SpecError([problem]) from None
    if given.model is not None:
        try:
            load_model(given.model)
        except UnknownNameError as error:
            line, column = place(path, "loads", position, "model")
            raise SpecError([Problem(shorten(path), line, column, f"loads.{position}.model", str(error))]) from None
    asked = given.slo
    slo = None if asked is None else Slo(asked.ttft, asked.tpot, asked.e2el, asked.percentile, asked.exempt)
    return Load(
        given.name,
        rows[:, 0],
        rows[:, 1],
        rows[:, 2] * given.rate,
        given.model,
        slo,
        given.max_context,
        given.arrival_cv,
    )


def _check_names(spec: PlanSpec, path: Path) -> None:
    names = [load.name for load in spec.loads]
    for position, name in enumerate(names):
        if name in names[:position]:
            line, column = place(path, "loads", position)
            raise SpecError(
                [Problem(shorten(path), line, column, f"loads.{position}.name", f"'{name}' stands there twice")]
            )


def _check_options(spec: PlanSpec, options: Sequence[Option], path: Path) -> None:
    """Stock of hardware that no option uses, pools without a link, regions without carbon."""
    problems = []

    def problem(message: str, *keys: str | int) -> None:
        line, column = place(path, *keys)
        problems.append(Problem(shorten(path), line, column, ".".join(map(str, keys)), message))

    for position, stock in enumerate(spec.stock):
        try:
            stocked(stock.hardware, options)
        except UnknownNameError as error:
            problem(str(error) + "; no option uses it", "stock", position, "hardware")
    if any(option.role != "whole" for option in options) and spec.link is None:
        problem("prefill and decode pools need `link`, the way of the cache between them", "options")
    carbon = spec.objective == "carbon" or spec.budgets.carbon_g_per_hour is not None
    missing = sorted({option.region or "(none)" for option in options if option.carbon_g_per_kwh is None})
    if carbon and missing:
        problem(f"carbon_g_per_kwh is not known of region {', '.join(missing)}", "regions")
    if problems:
        raise SpecError(problems)


def _capacity(
    spec: PlanSpec,
    loads: Sequence[Load],
    options: Sequence[Option],
    tables: Throughput | None,
    path: Path,
    slos: Mapping[str, Slo] | None = None,
) -> Capacity:
    if tables is not None:
        return tabled(options, loads, tables, path)
    link = None if spec.link is None else (spec.link.bandwidth, spec.link.latency)
    return modelled(options, loads, max_utilization=spec.headroom.max_utilization, link=link, slos=slos)


def _answer(
    spec: PlanSpec,
    path: Path,
    loads: Sequence[Load],
    options: Sequence[Option],
    capacity: Capacity,
    notes: list[str],
    *,
    can_loosen: bool,
) -> Plan:
    settings = Settings(spec.solver.gap, spec.solver.time_limit, spec.solver.name)
    sums = accounts(spec, options, loads, capacity)
    program = program_of(spec, options, loads, capacity, sums)
    solution = best_fleet(program, settings)
    if solution.status == "infeasible":
        raise why_infeasible(program, options, loads, capacity, settings)
    # Further solves are asides: they may not take much longer than the answer itself.
    settings = replace(settings, time_limit_s=min(settings.time_limit_s, max(1.0, 3.0 * solution.seconds)))
    singles, solution = _each_alone(program, options, solution, settings)
    money = float(sums.money.cost @ solution.instances) + float((sums.money.usage * solution.share).sum())
    moved = solution.instances - np.array([option.current for option in options])
    switching = spec.switching.start * np.maximum(moved, 0).sum() + spec.switching.stop * np.maximum(-moved, 0).sum()
    power = _total(sums.power, solution)
    carbon = None if sums.carbon is None else _total(sums.carbon, solution)
    return Plan(
        name=spec.name or path.stem,
        status=solution.status,
        objective_name=spec.objective,
        objective=solution.objective,
        bound=solution.bound,
        gap=solution.gap,
        usd_per_hour=money,
        switching_usd_per_hour=float(switching) * 3600.0 / spec.switching.horizon,
        power_w=power,
        carbon_g_per_hour=carbon,
        parts=tuple(_parts(options, loads, capacity, program, sums, solution)),
        singles=tuple(singles),
        binding=tuple(_binding(program, options, solution, settings)),
        would_save=tuple(_looser(spec, path, loads, options, solution, settings)) if can_loosen else (),
        loads=tuple(loads),
        options=tuple(options),
        share=solution.share,
        requests_per_s=capacity.requests_per_s,
        notes=tuple(notes),
        seconds=solution.seconds,
        solver=solution.solver,
    )


def _total(account: Any, solution: Solution) -> float | None:
    found = float(account.cost @ solution.instances) + float((account.usage * solution.share).sum())
    return found if math.isfinite(found) and found > 0 else None


def best_fleet(program: Program, settings: Settings) -> Solution:
    """The program's solution; where time was up before the solver had one, its relaxation rounded up."""
    solution = solve(program, settings)
    if solution.status in ("optimal", "infeasible"):
        return solution
    relaxed = solve(program, replace(settings, time_limit_s=max(5.0, settings.time_limit_s)), relaxed=True)
    if relaxed.status == "infeasible":
        return relaxed
    bound = max(solution.bound, relaxed.bound) if relaxed.status == "optimal" else solution.bound
    instances = rounded(program, relaxed.share) if relaxed.status == "optimal" else None
    if instances is not None:
        objective = program.objective(instances, relaxed.share)
        if objective < solution.objective:
            solution = replace(
                solution, status="feasible", instances=instances, share=relaxed.share, objective=objective
            )
    if solution.status == "unsolved":
        raise SimulatorError(
            f"no fleet was found within {settings.time_limit_s:g} s, and none is proven impossible; "
            f"raise solver.time_limit"
        )
    return replace(solution, bound=min(bound, solution.objective))


def _each_alone(
    program: Program, options: Sequence[Option], solution: Solution, settings: Settings
) -> tuple[list[Single], Solution]:
    """Every type alone; one that beats the incumbent, which is only proven within the gap, takes its place."""
    found = []
    for hardware in dict.fromkeys(option.hardware for option in options):
        mine = np.array([option.hardware == hardware for option in options])
        try:
            alone = best_fleet(program.only(mine), settings)
        except SimulatorError as error:
            found.append(Single(hardware, None, 0, str(error)))
            continue
        if alone.status == "infeasible":
            served = np.isfinite(program.need[mine]).any(axis=0)
            missing = int((~served).sum())
            reason = f"cannot serve {missing} of {len(served)} buckets" if missing else "not within the limits"
            found.append(Single(hardware, None, 0, reason))
            continue
        found.append(Single(hardware, alone.objective, int(alone.instances.sum())))
        if alone.objective < solution.objective * (1.0 - 1e-9):
            solution = replace(
                solution, instances=alone.instances, share=alone.share, objective=alone.objective,
                bound=min(solution.bound, alone.objective),
            )  # fmt: skip
    return found, solution


def _parts(
    options: Sequence[Option],
    loads: Sequence[Load],
    capacity: Capacity,
    program: Program,
    sums: Accounts,
    solution: Solution,
) -> list[Part]:
    rates = np.concatenate([load.rate_per_s for load in loads])
    total = {load.name: float(load.rate_per_s.sum()) for load in loads}
    found = []
    for o, option in enumerate(options):
        count = round(float(solution.instances[o]))
        if not count:
            continue
        share = solution.share[o]
        work = np.where(share > 0, np.where(np.isfinite(program.need[o]), program.need[o], 0.0) * share, 0.0)
        busy = float(work.sum())
        limits: dict[str, float] = {}
        for b in np.flatnonzero(work):
            name = str(capacity.limit[o, b])
            limits[name] = limits.get(name, 0.0) + float(work[b]) / busy
        money = float(sums.money.cost[o] * count + sums.money.usage[o] @ share)
        power = float(sums.power.cost[o] * count + sums.power.usage[o] @ share)
        utilization = busy / (count * option.available)
        part = Part(
            option, count, count * option.devices, money, power if power > 0 else math.nan, utilization,
            float(rates @ share) / total[option.load], dict(sorted(limits.items(), key=lambda item: -item[1])),
        )  # fmt: skip
        found.append(part)
    return found


def _binding(program: Program, options: Sequence[Option], solution: Solution, settings: Settings) -> list[Relief]:
    """What the fleet would cost without each limit that is more than half used."""
    trials: list[tuple[str, Program]] = []
    for limit in program.limits:
        used = float(limit.per_instance @ solution.instances)
        used += 0.0 if limit.per_share is None else float((limit.per_share * solution.share).sum())
        if used > 0.5 * limit.bound:
            trials.append((limit.name, program.without(limit.name)))
    for o in np.flatnonzero(np.isfinite(program.at_most)):
        if solution.instances[o] >= program.at_most[o]:
            at_most = program.at_most.copy()
            at_most[o] = np.inf
            trials.append((f"max_replicas of {options[int(o)].name}", replace(program, at_most=at_most)))
    nothing = np.zeros(len(options))
    if program.at_least.any():
        trials.append(("keep", replace(program, at_least=nothing)))
    if program.replicas.any():
        trials.append(("min_replicas", replace(program, replicas=nothing)))
    if program.spare.any():
        trials.append(("spare instances", replace(program, spare=nothing)))
    if (program.available < 1.0 - 1e-12).any():
        free = replace(program, available=np.ones(len(options)))
        trials.append(("headroom and interruptions", free))
    found = [_relief(name, trial, solution, settings) for name, trial in trials]
    return sorted((one for one in found if one and one.saving > 1e-9), key=lambda one: -one.saving)


def _relief(name: str, trial: Program, solution: Solution, settings: Settings) -> Relief | None:
    try:
        found = best_fleet(trial, settings)
    except SimulatorError:
        return None
    objective = min(found.objective, solution.objective)
    return Relief(name, objective, solution.objective - objective)


def _looser(
    spec: PlanSpec, path: Path, loads: Sequence[Load], options: Sequence[Option], solution: Solution, settings: Settings
) -> list[Relief]:
    """What looser SLOs would save."""
    steps = (
        ("tpot_s", f"{1e3 * LOOSER_TPOT_S:g} ms more TPOT", 1.0, LOOSER_TPOT_S),
        ("ttft_s", f"{LOOSER_SHARE:.0%} more TTFT", 1.0 + LOOSER_SHARE, 0.0),
        ("e2el_s", f"{LOOSER_SHARE:.0%} more E2EL", 1.0 + LOOSER_SHARE, 0.0),
    )
    found = []
    for term, words, factor, more in steps:
        slos = {}
        for load in loads:
            if load.slo is not None and (value := getattr(load.slo, term)) is not None:
                slos[load.name] = replace(load.slo, **{term: value * factor + more})
        if slos:
            capacity = _capacity(spec, loads, options, None, path, slos)
            sums = accounts(spec, options, loads, capacity)
            relief = _relief(words, program_of(spec, options, loads, capacity, sums), solution, settings)
            found += [relief] if relief is not None else []
    return found
