"""`ridgeline plan`: the cheapest mix of hardware for a load, as tables, JSON or a chart."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("plan")
@click.argument("file")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests/s in all, in place of the file's.")
@click.option("--ttft-ms", type=click.FloatRange(0, min_open=True), help="In place of the file's limit on TTFT.")
@click.option("--tpot-ms", type=click.FloatRange(0, min_open=True), help="In place of the file's limit on TPOT.")
@click.option("--json", "as_json", is_flag=True, help="The fleet, each type alone and what would lower the cost.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="FILE.html (one file, works offline) or FILE.png: the chart.",
)
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="FILE.csv: which requests go where.")
def command(
    file: str,
    rate: float | None,
    ttft_ms: float | None,
    tpot_ms: float | None,
    as_json: bool,
    html: Path | None,
    csv: Path | None,
) -> None:
    """The cheapest mix of hardware that serves a load within its SLO.

    FILE is a plan file, the name of a shipped deployment, or a configuration of Melange in JSON.

    \b
    ridgeline plan chat-8b --html plan.html
    """
    from simulator.errors import ScenarioError
    from simulator.plan.fleet import plan

    if html is not None and html.suffix not in (".html", ".png"):
        raise ScenarioError(f"--html must end in .html or .png, not '{html.suffix or html.name}'")
    answer = plan(
        file,
        rate=rate,
        ttft_s=None if ttft_ms is None else ttft_ms / 1e3,
        tpot_s=None if tpot_ms is None else tpot_ms / 1e3,
    )
    written = []
    if html is not None:
        from simulator.views.export import write_figure
        from simulator.views.plan import plan_figure

        write_figure(plan_figure(answer), html)
        written.append(html)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        answer.to_frame().to_csv(csv, index=False)
        written.append(csv)
    if as_json:
        from simulator.views.records import to_json

        click.echo(to_json(answer.to_dict()))
        return
    click.echo(str(answer))
    for path in written:
        click.echo(f"\nwritten: {path}")
