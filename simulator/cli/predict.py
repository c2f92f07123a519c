"""`ridgeline predict`: one scenario, for people or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from simulator.cli.scenario import scenario_from, scenario_options
from simulator.errors import ScenarioError

if TYPE_CHECKING:
    from simulator.result import Prediction
    from simulator.scenario import Scenario

OWN = (
    "concurrency", "running", "requests_per_s", "step_s", "decode_step_s", "prompt_step_s", "prefill_share",
)  # fmt: skip
"""What steady serving has beside the keys of a prediction; `steady` of the JSON form."""


@click.command("predict")
@scenario_options
@click.option(
    "--concurrency",
    type=int,
    help="Steady serving with so many requests in flight, in place of a batch that starts together.",
)
@click.option("--explain", is_flag=True, help="Every op with the terms of its time, and what would help most.")
@click.option(
    "--json", "as_json", is_flag=True, help="The contract's keys; with --explain also `ops`, `waterfall`, energy."
)
def command(concurrency: int | None, explain: bool, as_json: bool, **named: Any) -> None:
    """Latency, memory, energy and cost of one scenario.

    \b
    ridgeline predict --model llama-3.1-8b --hardware H100 --batch 8 --input 1024 --output 256
    ridgeline predict --model llama-3.1-8b --hardware H100 --concurrency 64 --input 1024 --output 256
    """
    from simulator.predict import predict

    scenario = scenario_from(named)
    if concurrency is None:
        prediction, served = predict(scenario), None
    else:
        prediction, served = _serve(scenario, concurrency)
    if as_json:
        from simulator.views.records import op_record, to_json

        found = prediction.to_dict()
        if served is not None:
            found["steady"] = served
        if explain:
            found["ops"] = [op_record(op) for op in prediction.ops()]
            if served is None:
                from simulator.views.waterfall import waterfall, waterfall_records

                found["waterfall"] = waterfall_records(waterfall(prediction))
            found["energy_by_component_j"] = dict(prediction.energy_by_component_j)
        click.echo(to_json(found))
        return
    from simulator.views.text import explain_text, prediction_text

    click.echo(prediction_text(prediction))
    if served is not None:
        from simulator.views.steady import steady_text

        click.echo()
        click.echo(steady_text(served))
    if explain:
        click.echo()
        click.echo(explain_text(prediction))


def _serve(scenario: Scenario, concurrency: int) -> tuple[Prediction, dict[str, Any]]:
    """Steady serving: under the keys of a prediction, and what it has beside them."""
    from dataclasses import asdict

    from simulator.predict import predictor
    from simulator.steady import max_concurrency, predict_steady, steady

    if scenario.batch != 1:
        raise ScenarioError("--concurrency takes the place of --batch; give one of them")
    built = predictor(scenario)
    lengths = {"input_tokens": scenario.input_tokens, "output_tokens": scenario.output_tokens}
    state = asdict(steady(built, concurrency=concurrency, **lengths))
    prediction = predict_steady(built, concurrency=concurrency, **lengths)
    most = max_concurrency(built, scenario.input_tokens, scenario.output_tokens)
    return prediction, {key: state[key] for key in OWN} | {"max_concurrency": most}
