"""Timeline: one step as an event-driven simulation, which resource was busy when, and what waited for what."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from dashboards import uploads
from dashboards.answer import Answer, Block, Page, Screen
from dashboards.scenarios import words
from dashboards.state import State
from simulator.errors import TimelineError
from simulator.events.policy import KINDS, Policy, policy_from
from simulator.events.simulation import Simulation, simulate_scenario
from simulator.events.timeline import Timeline
from simulator.scenario import Scenario
from simulator.views.document import Table
from simulator.views.simulation import resources_table, run_section, waits_table
from simulator.views.text import prediction_heading
from simulator.views.timeline import timeline_figure


@lru_cache(maxsize=16)
def _simulated(scenario: Scenario, policy: Policy) -> Simulation:
    return simulate_scenario(scenario, policy)


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    switches = tuple(f"{kind}={state.fidelity}" for kind in KINDS)
    policy = policy_from(switches, prefetch_layers=state.prefetch_layers)
    found = _simulated(uploads.located(state.work), policy)
    heading, line = prediction_heading(found.prediction)
    command = ["ridgeline", "simulate", *words(state.work)]
    if state.fidelity != "event":
        command += ["--fidelity", f"all={state.fidelity}"]
    if state.prefetch_layers != 1.0:
        command += ["--prefetch-layers", f"{state.prefetch_layers:g}"]
    asked = (*command, "--json")
    step = next((t for t in found.timelines if t.label == state.step), found.timelines[0])
    data = found.to_dict()
    record = data["steps"][step.label]
    blocks = (_run(found, data, asked), _chart(found, step, record, asked), _resources(step, record, asked),
              _waits(step, record, asked))  # fmt: skip
    return Answer(heading, line, blocks)


def _run(found: Simulation, data: dict[str, Any], asked: tuple[str, ...]) -> Block:
    records = [
        {"quantity": key, "timeline": data[key], "closed_form": closed} for key, closed in data["closed_form"].items()
    ]
    note = "By the event loop, beside the closed form that the other pages show."
    return Block("run", "The run", asked, data, records, note, report=(replace(run_section(found), title=""),))


def _chart(found: Simulation, step: Timeline, record: dict[str, Any], asked: tuple[str, ...]) -> Block:
    if not len(step.schedule):
        raise TimelineError(step.label, "nothing ran")
    return Block(
        "timeline", f"One {step.label} step", asked, {step.label: record}, (),
        note="Top: one repetition of the longest part; black edges are the critical path. Middle: busy shares over the "
        "step. Bottom: power. With --trace FILE in place of --json the command writes every task for ui.perfetto.dev.",
        figure=timeline_figure(found, only=step.label),
        describes=f"{len(step.schedule):,} tasks on {len(record['resources'])} resources",
        least_width=560,
    )  # fmt: skip


def _resources(step: Timeline, record: dict[str, Any], asked: tuple[str, ...]) -> Block:
    records = [{"resource": name, **values} for name, values in record["resources"].items()]
    return Block(
        "resources", f"Resources in the {step.label} step", asked, record["resources"], records,
        report=(_untitled(resources_table(step)),),
    )  # fmt: skip


def _waits(step: Timeline, record: dict[str, Any], asked: tuple[str, ...]) -> Block:
    records = [
        {"on": one["on"], "seconds": one["seconds"], "share": one["share"], **one["busy"]} for one in record["waited"]
    ]
    note = "While the critical path was on one resource, how busy the others were."
    report = (_untitled(waits_table(step)),)
    return Block("waits", "Who waits for whom", asked, record["waited"], records, note, report=report)


def _untitled(table: Table) -> Table:
    return replace(table, title="")


PAGE = Page(
    path="/timeline",
    name="Timeline",
    title="Timeline",
    lead="A step event by event: which resource is busy when, what waits for what, and where the critical path runs.",
    controls=(
        ("View", ("step", "fidelity", "prefetch")),
        ("Scenario", ("model", "hw", "engine", "tp")),
        ("Work", ("batch", "in", "out")),
        ("Changes", ("tech", "wdtype", "kvdtype")),
    ),
    answer=answer,
    uploads=("model", "hardware"),
)
