"""Paper: what a paper's technique does, its claims with verdicts, every metric of its scenarios, and where a claim holds."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from dashboards.answer import Answer, Block, Page, Screen
from dashboards.state import State
from simulator.views.document import Block as Report
from simulator.views.document import Paragraph, Section, Table
from simulator.views.gain import LABELS, gain_figure
from validation.paper import claims_table, curve_records, first_curves, number_text, report
from validation.papers import Paper, find

_MEANS = {
    "predicted": "within 25% of the claim, with no parameter chosen by looking at it",
    "bounded": "an 'up to', or a claim without conditions, inside the predicted range",
    "fitted": "a parameter was chosen so that it matches; counts for nothing",
    "missed": "predicted, and off by more than 25%",
    "silent": "no number to check",
}


@lru_cache(maxsize=64)
def _report(paper: str) -> dict[str, Any]:
    return report(paper)


@lru_cache(maxsize=64)
def _found(paper: str) -> Paper:
    return find(paper)


@lru_cache(maxsize=64)
def _curves(paper: str) -> tuple[Any, list[Any], list[dict[str, Any]]]:
    claim, found = first_curves(paper)
    return claim, found, curve_records(paper) if claim is not None else []


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    known = _found(state.paper)
    found = _report(known.id)
    asked = ("ridgeline", "paper", known.id, "--json")
    blocks = [_claims(found, asked), _holds(known, screen), _techniques(found, asked)]
    blocks += [_scenario(scenario, asked) for scenario in found["scenarios"]]
    return Answer(known.title, f"{known.id}, {known.family.replace('-', ' ')}", tuple(blocks))


def _claims(found: dict[str, Any], asked: tuple[str, ...]) -> Block:
    claims = found["claims"]
    verdicts = list(dict.fromkeys(row["verdict"] for row in claims))
    said: list[Report] = [replace(claims_table(claims), title="")] if claims else []
    notes = [f"{row['claim']}: {row['note']}" for row in claims if row["note"]]
    if notes:
        said.append(Paragraph("\n".join(notes)))
    return Block(
        "claims", "Claims and verdicts", asked, {"claims": claims}, claims,
        note="; ".join(f"{name}: {_MEANS[name]}" for name in verdicts if name in _MEANS) + ("." if verdicts else ""),
        report=tuple(said),
        empty="" if claims else "None of this paper's claims has a number and conditions that a scenario could check.",
    )  # fmt: skip


def _holds(known: Paper, screen: Screen) -> Block:
    asked = ("ridgeline", "paper", known.id, "--json", "--curves")
    claim, found, records = _curves(known.id)
    title = "Where the claim holds"
    if not any(curve.points for curve in found):
        return Block(
            "holds",
            title,
            empty="There is no claim with a value on an inference scenario, so there is nothing to draw.",
        )
    drawn = [(c.axis, c.points, c.claimed, c.holds) for c in found]
    words = []
    for curve in found:
        axis = LABELS.get(curve.axis, curve.axis)
        held = f"{min(curve.holds):g} to {max(curve.holds):g}" if curve.holds else "nowhere"
        words.append(f"{axis}: {held}")
    note = (
        f"{claim.claim}, as {claim.metric}: the gain when one thing changes. Filled points reach the claim within 25%; "
    )
    note += "points that do not fit or cannot run are left out."
    return Block(
        "holds", title, asked, {"curves": records}, records, note,
        figure=gain_figure("", drawn, claim.metric, 1 if screen.narrow else 3), describes="; ".join(words),
    )  # fmt: skip


def _techniques(found: dict[str, Any], asked: tuple[str, ...]) -> Block:
    said: list[Report] = []
    for technique in found["techniques"]:
        rows = tuple((name, "", does) for name, does in zip(technique["primitives"], technique["does"], strict=True))
        said.append(Section(f"{technique['name']}: {technique['title']}", rows))
        if technique["parameters"]:
            named = ", ".join(f"{key} = {value}" for key, value in technique["parameters"].items())
            said.append(Paragraph(f"Parameters: {named}"))
    records = [
        {"technique": technique["name"], "primitive": name, "does": does}
        for technique in found["techniques"]
        for name, does in zip(technique["primitives"], technique["does"], strict=True)
    ]
    empty = "" if said else "No technique file models this paper's mechanism."
    return Block(
        "techniques",
        "What it does",
        asked,
        {"techniques": found["techniques"]},
        records,
        report=tuple(said),
        empty=empty,
    )


def _scenario(scenario: dict[str, Any], asked: tuple[str, ...]) -> Block:
    rows = tuple(
        (name, *(number_text(values[key]) for key in ("baseline", "technique", "ratio")))
        for name, values in scenario["metrics"].items()
    )
    records = [{"metric": name, **values} for name, values in scenario["metrics"].items()]
    table = Table(("metric", "baseline", "technique", "ratio"), rows, frozenset({"metric"}))
    settings = ", ".join(f"{key} {value}" for key, value in scenario["baseline"].items())
    changed = ", ".join(f"{key} {value}" for key, value in scenario["technique"].items())
    return Block(
        f"scenario-{scenario['name']}", f"Scenario {scenario['name']}", asked, scenario, records,
        note=f"{scenario['reason']} Baseline: {settings}. Technique: {changed}.", report=(table,), folded=True,
    )  # fmt: skip


PAGE = Page(
    path="/paper",
    name="Paper",
    title="Paper",
    lead="What a paper's technique does, what became of its claims, and at which batch, context and bandwidth they hold.",
    controls=(("Choose", ("paper",)),),
    answer=answer,
)
