"""Fleet planner: the cheapest mix of hardware for a load within its SLO, beside each type alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dashboards import uploads
from dashboards.answer import Answer, Block, Page, Screen, Value
from dashboards.state import State
from simulator import catalog
from simulator.plan.answer import Plan
from simulator.plan.fleet import plan as planned
from simulator.spec.loader import read_mapping
from simulator.units import in_engineering
from simulator.views.document import Block as Report
from simulator.views.document import Paragraph, Table
from simulator.views.plan import (
    allocation_frame,
    amount,
    binding_section,
    mix_table,
    plan_figure,
    plan_heading,
    singles_table,
    status_words,
)


@lru_cache(maxsize=32)
def _planned(file: str, stamp: int, trace: str, rate: float | None, ttft_s: float | None, tpot_s: float | None) -> Plan:
    if not trace:
        return planned(file, rate=rate, ttft_s=ttft_s, tpot_s=tpot_s)
    data: dict[str, Any] = read_mapping(catalog.find("deployment", file))
    loads = [{**load, "traffic": trace} for load in data["loads"]]
    return planned({**data, "loads": loads}, rate=rate, ttft_s=ttft_s, tpot_s=tpot_s)


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    uploaded = state.plan.startswith(uploads.PREFIX)
    file = str(uploads.path_of(state.plan)) if uploaded else state.plan
    trace = str(uploads.path_of(state.trace)) if state.trace else ""
    path = catalog.find("deployment", file)
    limits = (state.rate, _seconds(state.ttft_ms), _seconds(state.tpot_ms))
    found = _planned(file, path.stat().st_mtime_ns, trace, *limits)
    heading, *lines = plan_heading(found)
    asked = _command(state)
    blocks = [
        _answer(found, asked),
        _figure(found, asked),
        _mix(found, asked),
        _singles(found, asked),
        _lower(found, asked),
    ]
    return Answer(heading, "; ".join(lines), tuple(blocks))


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3


def _command(state: State) -> tuple[str, ...]:
    """The command; none for a trace that replaces the traffic of a shipped plan, which takes a file of one's own."""
    if state.trace:
        return ()
    name = f"./{uploads.told(state.plan)}" if state.plan.startswith(uploads.PREFIX) else state.plan
    words = ["ridgeline", "plan", name]
    for option, value in (("--rate", state.rate), ("--ttft-ms", state.ttft_ms), ("--tpot-ms", state.tpot_ms)):
        if value is not None:
            words += [option, f"{value:.12g}"]
    return (*words, "--json")


def _to_file(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The same command writing which requests go where."""
    return (*asked[:-1], "--csv", "allocation.csv") if asked else ()


def _answer(found: Plan, asked: tuple[str, ...]) -> Block:
    data = found.to_dict()
    requests = data["requests_per_s"]
    devices = sum(part.devices for part in found.parts)
    words = f"{devices} device{'s' * (devices > 1)}; {status_words(found)}"
    values = [
        Value("usd_per_hour", "Rent per hour", f"{found.usd_per_hour:,.2f} USD", found.usd_per_hour, note=words),
        Value("usd_per_1000_requests", "Per 1000 requests", f"{found.usd_per_hour / 3.6 / requests:.3g} USD"),
    ]
    best = found.best_single
    if best is not None and found.saving is not None and len(found.singles) > 1:
        note = f"against {best.hardware} alone, {amount(best.objective, found.objective_name)}"
        values.append(Value("saving", "The mix saves", f"{found.saving:.1%}", found.saving, note=note))
    if found.power_w is not None and math.isfinite(found.power_w):
        values.append(Value("power_w", "Average power", in_engineering(found.power_w, "W"), found.power_w))
    if found.carbon_g_per_hour is not None:
        values.append(
            Value("carbon_g_per_hour", "Carbon", amount(found.carbon_g_per_hour, "carbon"), found.carbon_g_per_hour)
        )
    said: tuple[Report, ...] = (Paragraph("\n".join(found.notes)),) if found.notes else ()
    flat = {key: value for key, value in data.items() if not isinstance(value, list | dict)}
    solver = f"Solved by {found.solver} in {found.seconds:.2f} s."
    return Block("plan", "The least-cost fleet", asked, data, [flat], solver, values=tuple(values), report=said)


def _figure(found: Plan, asked: tuple[str, ...]) -> Block:
    frame = allocation_frame(found)
    records = frame.to_dict("records")
    words = ", ".join(f"{part.instances} x {part.option.name}" for part in found.parts)
    return Block(
        "allocation", "The mix, and which requests go where", _to_file(asked), {"allocation": records}, records,
        "Top: the fleet beside each type alone. Bottom: request sizes; a point's area is its requests per second.",
        figure=plan_figure(found, column=True), describes=words,
    )  # fmt: skip


def _mix(found: Plan, asked: tuple[str, ...]) -> Block:
    data = found.to_dict()["mix"]
    records = [{**part, "techniques": "+".join(part["techniques"]), "limits": str(part["limits"])} for part in data]
    return Block("mix", "The fleet", asked, {"mix": data}, records, report=(mix_table(found),))


def _singles(found: Plan, asked: tuple[str, ...]) -> Block:
    data = found.to_dict()["single_types"]
    table = singles_table(found)
    only: tuple[Table, ...] = (replace(table, columns=(*table.columns[:-1], "why not")),) if data else ()
    only = tuple(replace(one, left=frozenset({one.columns[0], "why not"})) for one in only)
    return Block("singles", "The same load on one type alone", asked, {"single_types": data}, data, report=only)


def _lower(found: Plan, asked: tuple[str, ...]) -> Block:
    data = found.to_dict()
    records = [{"kind": kind, **relief} for kind in ("binding", "would_save") for relief in data[kind]]
    section = replace(binding_section(found), title="")
    content = {"binding": data["binding"], "would_save": data["would_save"]}
    return Block("lower", "What would lower it", asked, content, records, report=(section,))


PAGE = Page(
    path="/fleet",
    name="Fleet planner",
    title="Fleet planner",
    lead="The cheapest mix of hardware for a load within its limits, how good it is proven to be, and what is in the way.",
    controls=(("Plan", ("plan",)), ("In place of the plan's own", ("rate", "ttft", "tpot"))),
    answer=answer,
    uploads=("plan", "trace"),
)
