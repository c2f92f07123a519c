"""Timeline: one step as an event-driven simulation, which resource was busy when, and what waited for what."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from dashboards import uploads
from dashboards.answer import Answer, Block, Page, Screen
from dashboards.scenarios import words
from dashboards.state import State
from simulator.errors import TimelineError
from simulator.events.policy import KINDS, Policy, policy_from
from simulator.events.simulation import Simulation, simulate_scenario, step_record
from simulator.events.timeline import Timeline
from simulator.scenario import Scenario
from simulator.views.document import Section, Table
from simulator.views.simulation import resources_table, simulation_blocks, waits_table
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
    return Answer(heading, line, (_run(found, asked), _chart(found, step, asked), _resources(step, asked), _waits(step, asked)))


def _run(found: Simulation, asked: tuple[str, ...]) -> Block:
    data = found.to_dict()
    records = [
        {"quantity": key, "timeline": data[key], "closed_form": closed} for key, closed in data["closed_form"].items()
    ]
    run = simulation_blocks(found)[0]
    assert isinstance(run, Section)
    note = "By the event loop, beside the closed form that the other pages show."
    return Block("run", "The run", asked, data, records, note, report=(replace(run, title=""),))


def _chart(found: Simulation, step: Timeline, asked: tuple[str, ...]) -> Block:
    if not len(step.schedule):
        raise TimelineError(step.label, "nothing ran")
    return Block(
        "timeline", f"One {step.label} step", asked, {step.label: step_record(step)}, (),
        note="Top: one repetition of the longest part; black edges are the critical path. Middle: busy shares over the step. "
        "Bottom: power. `ridgeline simulate --trace FILE` writes every task for ui.perfetto.dev.",
        figure=timeline_figure(found, only=step.label),
        describes=f"{len(step.schedule):,} tasks on {len(step.uses())} resources",
        least_width=560,
    )  # fmt: skip


def _resources(step: Timeline, asked: tuple[str, ...]) -> Block:
    record = step_record(step)
    records = [{"resource": name, **values} for name, values in record["resources"].items()]
    table = resources_table(step)
    return Block("resources", f"Resources in the {step.label} step", asked, record["resources"], records,
                 report=(_untitled(table),))  # fmt: skip


def _waits(step: Timeline, asked: tuple[str, ...]) -> Block:
    record = step_record(step)
    records = [
        {"on": one["on"], "seconds": one["seconds"], "share": one["share"], **one["busy"]} for one in record["waited"]
    ]
    table = waits_table(step)
    note = "While the critical path was on one resource, how busy the others were."
    return Block("waits", "Who waits for whom", asked, record["waited"], records, note, report=(_untitled(table),))


def _untitled(table: Table) -> Table:
    return replace(table, title="")


PAGE = Page(
    path="/timeline",
    name="Timeline",
    title="Timeline",
    lead="A step event by event: which resource is busy when, what waits for what, and where the critical path runs.",
    controls=(
        ("Step", ("step", "fidelity", "prefetch")),
        ("Scenario", ("model", "hw", "engine", "tp")),
        ("Work", ("batch", "in", "out")),
        ("Techniques", ("tech", "wdtype", "kvdtype")),
    ),
    answer=answer,
    uploads=("model", "hardware"),
)
