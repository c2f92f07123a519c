"""What a person is told of a simulation: its times beside the closed form's, and what each resource was doing."""

from __future__ import annotations

from typing import Any

from simulator.events.schedules import PipelineTimeline
from simulator.events.simulation import Simulation
from simulator.events.timeline import Timeline
from simulator.units import in_engineering
from simulator.views.document import Block, Paragraph, Section, Table, as_html, as_text
from simulator.views.text import counts_tokens, duration, plain, scenario_line

MOST_COLUMNS = 6
"""Resources that the table of waits has a column for."""
MOST_ROWS = 8
_KINDS = {
    "unit": "weights streamed ahead into the scratchpad",
    "memory": "DRAM by the timings of its banks",
    "flash": "flash by dies, channels and pages",
    "link": "fetches ahead over links",
    "host": "kernels issued one by one",
}


def simulation_text(simulation: Simulation) -> str:
    """The simulation for a terminal."""
    return as_text(_heading(simulation), simulation_blocks(simulation))


def simulation_html(simulation: Simulation) -> str:
    """The simulation for a notebook."""
    return as_html(_heading(simulation), simulation_blocks(simulation))


def simulation_blocks(simulation: Simulation) -> list[Block]:
    """The run, whether there is room for it, then each step."""
    blocks: list[Block] = [run_section(simulation)]
    if simulation.prediction.advice:
        blocks.append(Paragraph(f"It does not fit: {simulation.prediction.advice}."))
    counted = counts_tokens(simulation.prediction)
    for timeline in simulation.steps:
        blocks += step_blocks(timeline, counted=counted)
    for timeline in simulation.further:
        blocks += _further_blocks(timeline)
    return blocks


def run_section(simulation: Simulation) -> Section:
    """The whole run, beside the closed form."""
    closed = simulation.prediction
    rows = [
        ("time to first token", duration(simulation.ttft_s), f"closed form {duration(closed.ttft_s)}"),
        ("time per output token", duration(simulation.tpot_s), f"closed form {duration(closed.tpot_s)}"),
        ("whole run", duration(simulation.e2el_s), f"closed form {duration(closed.e2el_s)}"),
        (
            "output tokens per s",
            plain(simulation.output_tokens_per_s),
            f"closed form {plain(closed.output_tokens_per_s)}",
        ),
        ("energy", in_engineering(simulation.energy_j, "J"), f"closed form {in_engineering(closed.energy_j, 'J')}"),
        ("average power", f"{plain(simulation.power_w)} W", f"closed form {plain(closed.power_w)} W"),
    ]
    if simulation.decode is None:
        del rows[1]
    if closed.turns > 1:
        rows.append(("turns", str(closed.turns), "the caches of the whole batch do not fit at once"))
    return Section("Run", tuple(rows))


def _further_blocks(timeline: Timeline) -> list[Block]:
    """What steps are part of: a stretch of it, without energy, which is the steps'."""
    row = ("simulated", duration(timeline.seconds), f"{len(timeline.schedule):,} tasks")
    return [Section(timeline.label.capitalize(), (row,)), resources_table(timeline), waits_table(timeline)]


def step_blocks(timeline: Timeline, *, counted: bool) -> list[Block]:
    """One step: its time, what differs from the closed form, its resources, and the waits. `counted`: in tokens."""
    schedule = timeline.schedule
    rows = [("step", duration(timeline.seconds), f"closed form {duration(timeline.closed_form_s)}")]
    for kind, seconds in timeline.differences.items():
        rows.append((f"  {kind}", ("+" if seconds >= 0 else "-") + duration(abs(seconds)), _KINDS[kind]))
    rows.append(("energy", in_engineering(timeline.energy_j, "J"), "of one device"))
    rows.append(("tasks", f"{len(schedule):,}", f"{schedule.events:,} events simulated"))
    title = f"{timeline.label.capitalize()} step, {plain(timeline.tokens)} tokens" if counted else "One pass"
    blocks: list[Block] = [Section(title, tuple(rows)), resources_table(timeline), waits_table(timeline)]
    return blocks


def schedule_section(found: PipelineTimeline) -> Section:
    """A training step by its schedule."""
    kept = found.in_flight
    rows = (
        ("step", duration(found.seconds), f"closed form {duration(found.timeline.closed_form_s)}"),
        ("bubble", f"{found.bubble_share:.1%}", "of the passes"),
        ("passes in flight", str(max(kept)), f"first stage {kept[0]}, last stage {kept[-1]}"),
    )
    return Section(f"Simulated, {found.schedule}", rows)


def resources_table(timeline: Timeline) -> Table:
    """Use of each resource, busiest first."""
    seconds = timeline.seconds or 1.0
    rows = tuple(
        (
            use.resource,
            use.group,
            f"{use.busy_s / seconds:.1%}",
            f"{use.critical_s / seconds:.1%}",
            in_engineering(use.energy_j, "J") if use.energy_j else "-",
            f"{use.tasks:,}",
        )
        for use in sorted(timeline.uses(), key=lambda use: -max(use.busy_s, use.critical_s))
        if use.busy_s > 0.0 or use.energy_j > 0.0
    )
    columns = ("resource", "kind", "busy", "critical path", "energy", "tasks")
    return Table(columns, rows, frozenset({"resource", "kind"}), "Resources")


def waits_table(timeline: Timeline) -> Table:
    """What the others were doing while the critical path was on one resource."""
    waited = timeline.waited()[:MOST_ROWS]
    names: dict[str, float] = {}
    for one in waited:
        for name, share in one.busy.items():
            names[name] = names.get(name, 0.0) + share * one.seconds
    chosen = sorted(names, key=lambda name: -names[name])[:MOST_COLUMNS]
    rows = tuple(
        (
            one.on,
            duration(one.seconds),
            f"{one.share:.1%}",
            *(_share(one.on, name, one.busy) for name in chosen),
        )
        for one in waited
    )
    columns = ("critical path on", "for", "of step", *chosen)
    title = "While the critical path was on one resource, the others were busy"
    return Table(columns, rows, frozenset({"critical path on"}), title)


def _share(on: str, name: str, busy: dict[str, float]) -> str:
    return "" if on == name else f"{busy[name]:.0%}" if name in busy else "idle"


def _heading(simulation: Simulation) -> list[str]:
    names: Any = simulation.prediction.provenance
    first = f"Timeline of {names['model']} on {names['hardware']}, engine {names['engine']}"
    return [first, scenario_line(simulation.prediction)]


__all__ = [
    "resources_table",
    "schedule_section",
    "simulation_blocks",
    "simulation_html",
    "simulation_text",
    "waits_table",
]
