"""`ridgeline paper`: what a paper's technique does, its scenarios with every metric, and its claims with verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("paper")
@click.argument("paper")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: techniques, scenarios with metrics, claims.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The gain against batch, context and bandwidth, with the region where the first claim holds, to FILE.html.",
)
@click.option("--curves", is_flag=True, help="With --json: the gain behind --html, point by point.")
def command(paper: str, as_json: bool, html: Path | None, curves: bool) -> None:
    """A paper's mechanism, scenarios, metrics and claims.

    \b
    ridgeline paper duo-attention
    ridgeline paper duo-attention --html gain.html
    """
    from validation.papers import find

    known = find(paper)
    found = report(known.id)
    if html is not None:
        _draw(known.id, known.title, html)
    if as_json:
        from simulator.views.records import to_json

        if curves:
            found["curves"] = curve_records(known.id)
        click.echo(to_json({"id": known.id, "title": known.title, "family": known.family, **found}))
        return
    from simulator.views.document import as_text

    click.echo(as_text([known.title, f"{known.id}, {known.family.replace('-', ' ')}"], _blocks(found)))
    if html is not None:
        click.echo(f"\nchart in {html}")


def report(paper: str) -> dict[str, Any]:
    """Techniques with their primitives, scenarios with every metric, and a row per claim."""
    from simulator.cli.list import techniques
    from simulator.techniques.registry import primitives
    from validation.verdicts import FOLDER, judge, load_claims

    known = primitives()
    own = [
        {**item, "does": [known[name].summary for name in item["primitives"] if name in known]}
        for item in techniques()
        if item["paper"] == paper
    ]
    if not (FOLDER / f"{paper}.yaml").exists():
        return {"techniques": own, "scenarios": [], "claims": []}
    file = load_claims(paper)
    scenarios = {scenario.name: scenario for scenario in file.scenarios}
    rows = [judge(paper, claim, scenarios.get(claim.scenario or "")) for claim in file.claims]
    return {
        "techniques": own,
        "scenarios": [
            {
                "name": scenario.name, "reason": scenario.reason, "baseline": scenario.baseline,
                "technique": scenario.technique, "metrics": metrics(scenario),
            }
            for scenario in file.scenarios
        ],
        "claims": [row.to_dict() for row in rows],
    }  # fmt: skip


def metrics(scenario: Any) -> dict[str, dict[str, float | None]]:
    """Every quantity of both sides at the scenario's own point, and baseline over technique."""
    import math

    from simulator.errors import SimulatorError
    from validation.comparison import comparisons
    from validation.outcomes import QUANTITIES, TIMED
    from validation.training_step import TRAINING

    first = next(iter(comparisons(scenario)))
    names = TRAINING if scenario.baseline.get("train") else tuple(QUANTITIES)
    if "timeline" in {**scenario.baseline, **scenario.technique}:
        names = (*names, *TIMED)
    found: dict[str, dict[str, float | None]] = {}
    for name in names:
        try:
            before, after = first.baseline.value(name), first.technique.value(name)
        except (SimulatorError, ZeroDivisionError):
            continue
        ratio = before / after if after else None
        numbers = {"baseline": before, "technique": after, "ratio": ratio}
        found[name] = {key: value if value is None or math.isfinite(value) else None for key, value in numbers.items()}
    return found


def _blocks(found: dict[str, Any]) -> list[Any]:
    from simulator.views.document import Paragraph, Section, Table

    blocks: list[Any] = []
    for technique in found["techniques"]:
        rows = tuple((name, "", does) for name, does in zip(technique["primitives"], technique["does"], strict=True))
        blocks.append(Section(f"{technique['name']}: {technique['title']}", rows))
        if technique["parameters"]:
            named = ", ".join(f"{key} = {value}" for key, value in technique["parameters"].items())
            blocks.append(Paragraph(f"parameters: {named}"))
    for scenario in found["scenarios"]:
        blocks.append(Paragraph(f"Scenario '{scenario['name']}': {scenario['reason']}"))
        cells = tuple(
            (name, *(number_text(values[key]) for key in ("baseline", "technique", "ratio")))
            for name, values in scenario["metrics"].items()
        )
        blocks.append(Table(("metric", "baseline", "technique", "ratio"), cells, frozenset({"metric"})))
    if found["claims"]:
        blocks.append(claims_table(found["claims"]))
        notes = [f"{row['claim']}: {row['note']}" for row in found["claims"] if row["note"]]
        if notes:
            blocks.append(Paragraph("\n".join(notes)))
    return blocks


def claims_table(rows: list[dict[str, Any]]) -> Any:
    """Claims and verdicts as a table of text."""
    from simulator.views.document import Table

    cells = tuple(
        (
            row["claim"], row["metric"], row["bound"], number_text(row["claimed"]), number_text(row["predicted"]),
            f"{number_text(row['low'])} to {number_text(row['high'])}" if row["low"] is not None else "", row["verdict"],
        )
        for row in rows
    )  # fmt: skip
    columns = ("claim", "metric", "bound", "claimed", "predicted", "range", "verdict")
    return Table(columns, cells, frozenset({"claim", "metric", "bound", "verdict"}), title="claims")


def number_text(value: float | None) -> str:
    """Four digits, all of them from ten thousand on, or nothing."""
    return "" if value is None else f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def first_curves(paper: str) -> tuple[Any, list[Any]]:
    """The first claim that a scenario checks, and its gain along each axis; (None, []) without one."""
    from validation.verdicts import FOLDER, load_claims
    from validation.whatif import curves

    file = load_claims(paper) if (FOLDER / f"{paper}.yaml").exists() else None
    scenarios = {scenario.name: scenario for scenario in file.scenarios} if file else {}
    claim = next((claim for claim in file.claims if claim.scenario), None) if file else None
    if claim is None or claim.scenario is None:
        return None, []
    return claim, curves(claim, scenarios[claim.scenario])


def curve_records(paper: str) -> list[dict[str, Any]]:
    """A record per point of `first_curves`."""
    claim, found = first_curves(paper)
    return [
        {
            "claim": claim.claim, "metric": claim.metric, "axis": curve.axis, "value": value, "gain": gain,
            "claimed": curve.claimed, "holds": value in curve.holds,
        }
        for curve in found
        for value, gain in curve.points
    ]  # fmt: skip


def _draw(paper: str, title: str, path: Path) -> None:
    from simulator.errors import ScenarioError
    from simulator.views.export import write_figure
    from simulator.views.gain import gain_figure

    if path.suffix != ".html":
        raise ScenarioError(f"--html must end in .html, not '{path.suffix or path.name}'")
    claim, found = first_curves(paper)
    if claim is None:
        raise ScenarioError(f"{paper} has no claim that a scenario checks, so there is nothing to draw")
    drawn = [(c.axis, c.points, c.claimed, c.holds) for c in found]
    write_figure(gain_figure(f"{title}: {claim.claim}, {claim.metric}", drawn, claim.metric), path)
