"""`ridgeline compare`: one piece of work on several devices, engines or techniques."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.scenario import DIVISION, FORMATS, WORK, options, scenario_from


@click.command("compare")
@options(WORK[:1])
@click.option("--hardware", multiple=True, required=True, help="Repeatable, or separated by commas.")
@click.option("--engine", "engines", multiple=True, help="Repeatable, or separated by commas. Default: each one's own.")
@click.option(
    "--technique",
    "variants",
    multiple=True,
    metavar="NAME[+NAME]",
    help="One variant: techniques joined by +, or none. Repeatable, or separated by commas.",
)
@options(WORK[1:], DIVISION, FORMATS)
@click.option("--sort", default="e2el_s", show_default=True, help="A key of predict's JSON form; best first.")
@click.option(
    "--pareto",
    metavar="KEY,KEY[,KEY]",
    help="Only what nothing beats on all of: latency, ttft, tpot, cost, energy, throughput, memory, power, or keys.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --pareto, FILE.html or FILE.png: all points and the front.",
)
@click.option("--json", "form", flag_value="json", help="A list of records.")
@click.option("--csv", "form", flag_value="csv", help="Comma-separated values.")
def command(
    hardware: tuple[str, ...],
    engines: tuple[str, ...],
    variants: tuple[str, ...],
    sort: str,
    pareto: str | None,
    html: Path | None,
    form: str | None,
    **named: Any,
) -> None:
    """One scenario on several devices, engines or techniques, as a table.

    \b
    ridgeline compare --model llama-3.1-8b --hardware A100,H100,H200 --sort usd_per_million_output_tokens
    ridgeline compare --model llama-3.1-8b --hardware H100 --technique none,fp8,weight-int4+kv-fp8
    ridgeline compare --model llama-3.1-8b --hardware L4,A100,H100 --technique none,fp8 --pareto latency,cost,energy
    """
    from simulator.errors import ScenarioError
    from simulator.views import compare

    if html is not None and (pareto is None or html.suffix not in (".html", ".png")):
        raise ScenarioError("--html goes with --pareto, and must end in .html or .png")

    devices = _listed(hardware)
    if not devices:
        raise ScenarioError("--hardware names nothing; give at least one name, such as --hardware A100,H100")
    base = scenario_from({**named, "hardware": ""})
    scenarios = compare.variants(base, devices, _listed(engines), _listed(variants))
    found = compare.records(scenarios, sort)
    if pareto is not None:
        found = _front(found, _listed((pareto,)), html)
    if form == "json":
        from simulator.views.records import to_json

        click.echo(to_json(found))
    elif form == "csv":
        click.echo(_csv(found), nl=False)
    else:
        from simulator.views.text import compare_table

        if pareto is not None:
            click.echo(f"{len(found)} of {len(scenarios)} are beaten by none on all of {pareto}")
            shared = {str(record.get("techniques") or "none") for record in found}
            click.echo(f"all with technique {shared.pop()}\n" if len(shared) == 1 else "")
        click.echo(compare_table(found))


def _front(found: list[dict[str, Any]], objectives: list[str], html: Path | None) -> list[dict[str, Any]]:
    """The records on the front; all of them drawn, if asked for."""
    from simulator.plan.pareto import mark

    for record, on in zip(found, mark(found, objectives), strict=True):
        record["pareto"] = on
    if html is not None:
        from simulator.views.export import write_figure
        from simulator.views.plan import pareto_figure

        write_figure(pareto_figure(found, objectives), html)
        click.echo(f"written: {html}", err=True)
    return [record for record in found if record["pareto"]]


def _listed(values: tuple[str, ...]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _csv(records: list[dict[str, Any]]) -> str:
    import csv
    import io

    columns = max((list(record) for record in records), key=len, default=[])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
