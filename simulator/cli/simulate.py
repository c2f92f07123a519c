"""`ridgeline simulate`: the event-driven timeline of one scenario, as tables, JSON, a trace or a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.scenario import scenario_from, scenario_options

_OUTPUT = click.Path(dir_okay=False, path_type=Path)


@click.command("simulate")
@scenario_options
@click.option(
    "--fidelity",
    multiple=True,
    metavar="KIND=HOW",
    help="unit, memory, flash, link, host or all = analytic (as the closed form) or event. Repeatable. Default: all=event.",
)
@click.option(
    "--prefetch-layers",
    type=float,
    default=1.0,
    show_default=True,
    help="Layers fetched ahead over links; 0: on demand.",
)
@click.option("--prefetch-experts", is_flag=True, help="Routed experts are known before their layer (pre-gating).")
@click.option("--stream", is_flag=True, help="Only the main part computes; what lies elsewhere is brought to it.")
@click.option(
    "--collectives",
    type=click.Choice(["after", "tiles", "blocks", "halves"]),
    help="What runs beside exchanges among ranks: nothing, tiles of their op, the next block, half of the tokens.",
)
@click.option(
    "--recompute-cache", type=float, default=0.0, show_default=True,
    help="Share of a fetched cache that is computed again from hidden states.",
)  # fmt: skip
@click.option("--units", metavar="NAME", help="Only units with this in their name compute, such as cpu.")
@click.option("--through-host", is_flag=True, help="Drives reach the main device by way of the host's memory.")
@click.option("--chunks", type=int, default=16, show_default=True, help="Most pieces that an op is cut into.")
@click.option("--trace", type=_OUTPUT, help="FILE.json in the Trace Event Format, for ui.perfetto.dev.")
@click.option("--html", type=_OUTPUT, help="FILE.html (one file, works offline) or FILE.png: the chart.")
@click.option("--json", "as_json", is_flag=True, help="Times, energy, resources and waits, in SI units.")
def command(
    fidelity: tuple[str, ...],
    prefetch_layers: float,
    prefetch_experts: bool,
    stream: bool,
    collectives: str | None,
    recompute_cache: float,
    units: str | None,
    through_host: bool,
    chunks: int,
    trace: Path | None,
    html: Path | None,
    as_json: bool,
    **named: Any,
) -> None:
    """Event-driven timeline of one scenario: who waits for what.

    \b
    ridgeline simulate --model llama-2-7b --hardware gpu-csd --place kv=flash --batch 4 --trace trace.json
    """
    from simulator.errors import ScenarioError
    from simulator.events.policy import policy_from
    from simulator.events.simulation import simulate_scenario

    if trace is not None and trace.suffix != ".json":
        raise ScenarioError(f"--trace must end in .json, not '{trace.suffix or trace.name}'")
    if html is not None and html.suffix not in (".html", ".png"):
        raise ScenarioError(f"--html must end in .html or .png, not '{html.suffix or html.name}'")
    policy = policy_from(
        fidelity,
        prefetch_layers=prefetch_layers,
        prefetch_experts=prefetch_experts,
        stream=stream,
        collectives=collectives,
        units=units,
        recompute_cache=recompute_cache,
        through_host=through_host,
        chunks=chunks,
    )
    simulation = simulate_scenario(scenario_from(named), policy)
    written = []
    if trace is not None:
        import json

        from simulator.views.trace import trace as trace_of

        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(json.dumps(trace_of(simulation), separators=(",", ":")) + "\n", encoding="utf-8")
        written.append(trace)
    if html is not None:
        from simulator.views.export import write_figure
        from simulator.views.timeline import timeline_figure

        write_figure(timeline_figure(simulation), html)
        written.append(html)
    if as_json:
        from simulator.views.records import to_json

        click.echo(to_json(simulation.to_dict()))
        return
    from simulator.views.simulation import simulation_text

    click.echo(simulation_text(simulation))
    for path in written:
        click.echo(f"\nwritten: {path}")
