"""The mixed-integer program of a fleet: which share of each bucket goes to each option, and how many instances of each.

Knows matrices only. PuLP states the program; HiGHS solves it, or CBC where HiGHS is not installed.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simulator.errors import SimulatorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Status = Literal["optimal", "feasible", "infeasible", "unsolved"]
"""optimal: proven within the gap asked for. feasible: time is up, with an incumbent. unsolved: time is up, without one."""
WHOLE, PREFILL, DECODE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Limit:
    """per_instance @ n + sum(per_share * x) <= bound."""

    name: str
    bound: float
    per_instance: NDArray[np.float64]
    """(O,)"""
    per_share: NDArray[np.float64] | None = None
    """(O, B)"""


@dataclass(frozen=True, slots=True)
class Program:
    """O options and B buckets. Decided are n (O,) >= 0, whole, and x (O, B) in [0, 1].

    min cost @ n + sum(usage * x) + start @ max(0, n - current) + stop @ max(0, current - n)
    sum over whole and prefill options of x[:, b] = 1; over prefill the same as over decode options
    sum over b of need[o, b] * x[o, b] <= available[o] * n[o] - spare[o] * (n[o] > 0)
    n[o] = 0 or n[o] >= replicas[o]; at_least <= n <= at_most; the limits
    """

    need: NDArray[np.float64]
    """(O, B) instances that the whole bucket keeps busy; inf where the option cannot serve it."""
    cost: NDArray[np.float64]
    usage: NDArray[np.float64]
    """(O, B) cost of the whole bucket on the option, beside its instances."""
    role: NDArray[np.int64]
    available: NDArray[np.float64]
    spare: NDArray[np.float64]
    replicas: NDArray[np.float64]
    at_least: NDArray[np.float64]
    at_most: NDArray[np.float64]
    limits: tuple[Limit, ...] = ()
    current: NDArray[np.float64] | None = None
    start: float = 0.0
    stop: float = 0.0

    def only(self, chosen: NDArray[np.bool_]) -> Program:
        """The program with the options not chosen forbidden."""
        return replace(
            self,
            need=np.where(chosen[:, None], self.need, np.inf),
            at_most=np.where(chosen, self.at_most, 0.0),
            at_least=np.where(chosen, self.at_least, 0.0),
        )

    def without(self, name: str) -> Program:
        """The program without one of its limits."""
        return replace(self, limits=tuple(limit for limit in self.limits if limit.name != name))

    def objective(self, instances: NDArray[np.float64], share: NDArray[np.float64]) -> float:
        """What a fleet costs."""
        found = float(self.cost @ instances) + float((self.usage * share).sum())
        if self.current is not None:
            moved = instances - self.current
            found += self.start * float(np.maximum(moved, 0).sum()) + self.stop * float(np.maximum(-moved, 0).sum())
        return found


@dataclass(frozen=True, slots=True)
class Solution:
    """A fleet, and what is proven about it."""

    status: Status
    instances: NDArray[np.float64]
    """(O,)"""
    share: NDArray[np.float64]
    """(O, B)"""
    objective: float
    bound: float
    """No fleet has a lower objective."""
    seconds: float
    solver: str
    slack: dict[str, float]
    """Of an elastic program: by how much each constraint had to give way."""

    @property
    def gap(self) -> float:
        """Proven distance of the objective from the best possible, as a share of the objective."""
        if not math.isfinite(self.objective) or not math.isfinite(self.bound):
            return math.inf
        return max(0.0, self.objective - self.bound) / abs(self.objective) if self.objective else 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a program is solved."""

    gap: float = 0.005
    time_limit_s: float = 10.0
    solver: str | None = None


def merged(program: Program) -> tuple[Program, NDArray[np.int64]]:
    """The program with buckets that load all options in the same proportion as one, and the (B,) group of each bucket.

    Exact: a solution of the one gives a solution of the other with the same shares. The sum over a group takes its place.
    """
    parts = [program.need, program.usage]
    parts += [limit.per_share for limit in program.limits if limit.per_share is not None]
    column = np.concatenate(parts)
    scale = np.where(np.isfinite(program.need), program.need, 0.0).max(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(column), column / np.where(scale > 0, scale, 1.0), -1.0)
    _, group = np.unique(np.round(ratio, 12), axis=1, return_inverse=True)
    group = group.ravel().astype(np.int64)
    count = int(group.max()) + 1
    if count == len(scale):
        return program, np.arange(count)

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.zeros((values.shape[0], count))
        np.add.at(found.T, group, values.T)
        return found

    limits = tuple(
        replace(limit, per_share=None if limit.per_share is None else summed(limit.per_share))
        for limit in program.limits
    )
    return replace(program, need=summed(program.need), usage=summed(program.usage), limits=limits), group


def solve(
    program: Program, settings: Settings = Settings(), *, relaxed: bool = False, elastic: bool = False
) -> Solution:
    """The cheapest fleet, as far as it can be proven within the time.

    `relaxed` lets instances be fractions: a lower bound. `elastic` lets limits, stock and load give way, and minimises by
    how much in sum, each as a share of its bound: what is in the way of a program that has no solution.
    """
    began = time.perf_counter()
    small, group = merged(program)
    stated = _Stated(small, relaxed, elastic)
    solver, status, found, bound = _run(stated.problem, settings, relaxed)
    count = len(program.cost)
    if status in ("infeasible", "unsolved"):
        empty = np.zeros((count, program.need.shape[1]))
        return Solution(status, np.zeros(count), empty, math.inf, bound, time.perf_counter() - began, solver, {})
    instances, share = stated.values(found)
    share = share[:, group]
    if not relaxed:
        instances = np.round(instances)
    objective = math.nan if elastic else program.objective(instances, share)
    bound = min(bound, objective) if not elastic else bound
    return Solution(
        status, instances, share, objective, bound, time.perf_counter() - began, solver, stated.given_way(found)
    )


def rounded(program: Program, share: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The fewest instances (O,) that carry the shares; None where that breaks a limit."""
    work = np.where(share > 0, np.where(np.isfinite(program.need), program.need, 0.0) * share, 0.0).sum(axis=1)
    used = work > 0
    needed = np.ceil((work + program.spare * used) / program.available - 1e-9)
    instances = np.maximum(np.where(used, np.maximum(needed, np.maximum(program.replicas, 1.0)), 0.0), program.at_least)
    if (instances > program.at_most + 1e-9).any():
        return None
    for limit in program.limits:
        spent = float(limit.per_instance @ instances)
        spent += 0.0 if limit.per_share is None else float((limit.per_share * share).sum())
        if spent > limit.bound * (1.0 + 1e-9):
            return None
    return instances


class _Stated:
    """A program as PuLP has it."""

    def __init__(self, program: Program, relaxed: bool, elastic: bool) -> None:
        import pulp

        self.pulp, self.program = pulp, program
        self.problem = pulp.LpProblem("fleet", pulp.LpMinimize)
        self.slacks: dict[str, Any] = {}
        self.objective: dict[Any, float] = {}
        category = "Continuous" if relaxed else "Integer"
        count, buckets = program.need.shape
        upper = [None if elastic or not math.isfinite(most) else float(most) for most in program.at_most]
        self.n = [
            self._variable(f"n{o}", float(program.at_least[o]), _above(upper[o], program.at_least[o]), category)
            for o in range(count)
        ]
        usable = np.isfinite(program.need) & ((program.at_most > 0) | elastic)[:, None]
        self.x = {
            (int(o), int(b)): self._variable(f"x{o}_{b}", 0.0, 1.0) for o, b in zip(*np.nonzero(usable), strict=True)
        }
        for o in range(count):
            self._add(self.n[o], 0.0 if elastic else float(program.cost[o]))
        if not elastic:
            for (o, b), variable in self.x.items():
                self._add(variable, float(program.usage[o, b]))
        self._balance(buckets, elastic)
        self._capacity(relaxed)
        if elastic:
            for o in np.flatnonzero(np.isfinite(program.at_most)).tolist():
                self._at_most({self.n[o]: 1.0}, float(program.at_most[o]), f"replicas {o}", elastic=True)
        for limit in program.limits:
            terms = {self.n[o]: float(limit.per_instance[o]) for o in range(count) if limit.per_instance[o]}
            if limit.per_share is not None:
                terms |= {v: float(limit.per_share[key]) for key, v in self.x.items() if limit.per_share[key]}
            self._at_most(terms, limit.bound, limit.name, elastic=elastic)
        if program.current is not None and (program.start or program.stop) and not elastic:
            self._switching(program.current)
        self.problem.setObjective(pulp.LpAffineExpression(self.objective))

    def _add(self, variable: Any, cost: float) -> None:
        if cost:
            self.objective[variable] = self.objective.get(variable, 0.0) + cost

    def _variable(self, name: str, low: float = 0.0, high: float | None = None, category: str = "Continuous") -> Any:
        """Made by the problem from PuLP 3.3 on, which warns of the older way."""
        make = getattr(self.problem, "add_variable", self.pulp.LpVariable)
        return make(name, low, high, category)

    def _row(self, terms: dict[Any, float], sense: Literal["<=", "=", ">="], bound: float) -> None:
        side = self.pulp.LpAffineExpression(terms)
        self.problem += side <= bound if sense == "<=" else side == bound if sense == "=" else side >= bound

    def _at_most(self, terms: dict[Any, float], bound: float, name: str, *, elastic: bool) -> None:
        if elastic:
            slack = self.slacks[name] = self._variable(f"s{len(self.slacks)}")
            terms = {**terms, slack: -1.0}
            self._add(slack, 1.0 / max(bound, 1.0))
        self._row(terms, "<=", bound)

    def _balance(self, buckets: int, elastic: bool) -> None:
        """Every bucket is served; what is prefilled in one pool is decoded in the other."""
        first: list[dict[Any, float]] = [{} for _ in range(buckets)]
        passed: list[dict[Any, float]] = [{} for _ in range(buckets)]
        for (o, b), variable in self.x.items():
            role = self.program.role[o]
            if role != DECODE:
                first[b][variable] = 1.0
            if role != WHOLE:
                passed[b][variable] = 1.0 if role == PREFILL else -1.0
        for b in range(buckets):
            if elastic:
                slack = self.slacks[f"bucket {b}"] = self._variable(f"u{b}")
                first[b][slack] = 1.0
                self._add(slack, 1e3)
            self._row(first[b], "=", 1.0)
            if passed[b]:
                self._row(passed[b], "=", 0.0)

    def _capacity(self, relaxed: bool) -> None:
        """Work of an option within its instances; one binary where being in use has a price of its own."""
        program = self.program
        rows: list[dict[Any, float]] = [
            {variable: -float(a)} for variable, a in zip(self.n, program.available, strict=True)
        ]
        for (o, b), variable in self.x.items():
            rows[o][variable] = float(program.need[o, b])
        for o, row in enumerate(rows):
            fewest = max(float(program.replicas[o]), 1.0 + float(program.spare[o]) if program.spare[o] else 0.0)
            if len(row) > 1 and fewest > 1.0:
                used = self._variable(f"z{o}", 0.0, 1.0, "Continuous" if relaxed else "Integer")
                row[used] = float(program.spare[o])
                need = program.need[o]
                most = float(program.at_most[o])
                if not math.isfinite(most):
                    work = need[np.isfinite(need)].sum() / program.available[o]
                    most = math.ceil(work) + fewest + float(program.at_least[o])
                self._row({self.n[o]: 1.0, used: -most}, "<=", 0.0)
                self._row({self.n[o]: 1.0, used: -fewest}, ">=", 0.0)
            self._row(row, "<=", 0.0)

    def _switching(self, current: NDArray[np.float64]) -> None:
        for o, variable in enumerate(self.n):
            up, down = self._variable(f"up{o}"), self._variable(f"down{o}")
            self._row({variable: 1.0, up: -1.0, down: 1.0}, "=", float(current[o]))
            self._add(up, self.program.start)
            self._add(down, self.program.stop)

    def values(self, found: dict[str, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """n (O,) and x (O, B) of a solution; shares are cleaned of what the solver's tolerance leaves."""
        instances = np.array([found.get(variable.name, 0.0) for variable in self.n])
        share = np.zeros(self.program.need.shape)
        for key, variable in self.x.items():
            value = found.get(variable.name, 0.0)
            share[key] = value if value > 1e-9 else 0.0
        return instances, share

    def given_way(self, found: dict[str, float]) -> dict[str, float]:
        """Slacks of an elastic program above the solver's tolerance."""
        values = {name: found.get(variable.name, 0.0) for name, variable in self.slacks.items()}
        return {name: value for name, value in values.items() if value > 1e-6}


def _above(upper: float | None, lower: float) -> float | None:
    """An upper bound that does not lie below the lower one: what must be kept may be kept."""
    return None if upper is None else max(upper, float(lower))


def _run(problem: Any, settings: Settings, relaxed: bool) -> tuple[str, Status, dict[str, float], float]:
    """Solver, status, values by name, and proven bound.

    PuLP's own status says `Optimal` for any incumbent, also when time ran out; `sol_status` and the solver's own record
    tell them apart.
    """
    name = settings.solver or ("highs" if _has_highs() else "cbc")
    if name == "highs":
        return _highs(problem, settings, relaxed)
    return _cbc(problem, settings, relaxed)


def _has_highs() -> bool:
    return find_spec("highspy") is not None


def _highs(problem: Any, settings: Settings, relaxed: bool) -> tuple[str, Status, dict[str, float], float]:
    import pulp

    solver = pulp.HiGHS(msg=False, gapRel=settings.gap, timeLimit=settings.time_limit_s, threads=1, mip=not relaxed)
    problem.solve(solver)
    model = problem.solverModel
    info = model.getInfo()
    found = {variable.name: variable.varValue or 0.0 for variable in problem.variables()}
    if problem.sol_status == pulp.LpSolutionOptimal:
        bound = info.mip_dual_bound if not relaxed and any(v.cat == "Integer" for v in problem.variables()) else None
        return "HiGHS", "optimal", found, info.objective_function_value if bound is None else float(bound)
    if problem.sol_status == pulp.LpSolutionInfeasible or problem.status == pulp.LpStatusInfeasible:
        return "HiGHS", "infeasible", {}, math.inf
    bound = float(info.mip_dual_bound) if not relaxed else -math.inf
    has = int(info.primal_solution_status) == 2 and math.isfinite(info.objective_function_value)
    return ("HiGHS", "feasible", found, bound) if has else ("HiGHS", "unsolved", {}, bound)


_CBC_BOUND = re.compile(r"^Lower bound:\s+([-+\d.eE]+)", re.MULTILINE)


def _cbc(problem: Any, settings: Settings, relaxed: bool) -> tuple[str, Status, dict[str, float], float]:
    import pulp

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "cbc.log"
        options = {"msg": False, "gapRel": settings.gap, "timeLimit": settings.time_limit_s, "threads": 1}
        solver = pulp.COIN_CMD(**options, mip=not relaxed, logPath=str(log))
        if not solver.available():  # none on PATH: the one that PuLP brings along
            path = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", None)
            solver = pulp.COIN_CMD(**options, mip=not relaxed, logPath=str(log), path=path)
        if not solver.available():
            raise SimulatorError("no solver: neither HiGHS (package highspy) nor CBC can be run")
        problem.solve(solver)
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = {variable.name: variable.varValue or 0.0 for variable in problem.variables()}
    objective = float(pulp.value(problem.objective) or 0.0)
    stated = _CBC_BOUND.findall(text)
    if problem.sol_status == pulp.LpSolutionOptimal:
        within = objective if relaxed else objective - settings.gap * abs(objective)
        return "CBC", "optimal", found, max(float(stated[-1]), within) if stated else within
    if problem.sol_status == pulp.LpSolutionIntegerFeasible:
        return "CBC", "feasible", found, float(stated[-1]) if stated else -math.inf
    if problem.status == pulp.LpStatusInfeasible and "Stopped" not in text:
        return "CBC", "infeasible", {}, math.inf
    return "CBC", "unsolved", {}, float(stated[-1]) if stated else -math.inf
