"""`ridgeline roofline`: the hierarchical roofline of a scenario, as HTML, JSON or PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.scenario import scenario_from, scenario_options


@click.command("roofline")
@scenario_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("roofline.html"),
    show_default=True,
    help="FILE.html (one file, works offline), FILE.json (data) or FILE.png (needs Chromium or Chrome).",
)
def command(out: Path, **named: Any) -> None:
    """Hierarchical roofline chart of a scenario's ops.

    \b
    ridgeline roofline --model llama-3.1-8b --hardware H100 --batch 16 --out roofline.html
    """
    from simulator.errors import ScenarioError
    from simulator.predict import predict

    if out.suffix not in (".html", ".json", ".png"):
        raise ScenarioError(f"--out must end in .html, .json or .png, not '{out.suffix or out.name}'")
    prediction = predict(scenario_from(named))
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".json":
        from simulator.views.records import to_json
        from simulator.views.roofline import roofline_json

        out.write_text(to_json(roofline_json(prediction)) + "\n", encoding="utf-8")
    else:
        from simulator.views.export import write_figure

        write_figure(prediction.roofline(), out)
    click.echo(str(out))
