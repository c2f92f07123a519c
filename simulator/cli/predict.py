"""`ridgeline predict`: one scenario, for people or as JSON."""

from __future__ import annotations

from typing import Any

import click

from simulator.cli.scenario import scenario_from, scenario_options


@click.command("predict")
@scenario_options
@click.option("--explain", is_flag=True, help="Every op with the terms of its time, and what would help most.")
@click.option(
    "--json", "as_json", is_flag=True, help="The contract's keys; with --explain also `ops`, `waterfall`, energy."
)
def command(explain: bool, as_json: bool, **named: Any) -> None:
    """Latency, memory, energy and cost of one scenario.

    \b
    ridgeline predict --model llama-3.1-8b --hardware H100 --batch 8 --input 1024 --output 256
    """
    from simulator.predict import predict

    prediction = predict(scenario_from(named))
    if as_json:
        from simulator.views.records import op_record, to_json

        found = prediction.to_dict()
        if explain:
            from simulator.views.waterfall import waterfall, waterfall_records

            found["ops"] = [op_record(op) for op in prediction.ops()]
            found["waterfall"] = waterfall_records(waterfall(prediction))
            found["energy_by_component_j"] = dict(prediction.energy_by_component_j)
        click.echo(to_json(found))
        return
    from simulator.views.text import explain_text, prediction_text

    click.echo(prediction_text(prediction))
    if explain:
        click.echo()
        click.echo(explain_text(prediction))
