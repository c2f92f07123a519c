"""Compare hardware: one piece of work on several devices and with several techniques, as a table and as a Pareto chart."""

from __future__ import annotations

from typing import Any

from dashboards import uploads
from dashboards.answer import Answer, Block, Page, Screen
from dashboards.numbers import LABELS, between_text
from dashboards.scenarios import words
from dashboards.state import State
from simulator.views import compare
from simulator.views.document import Table
from simulator.views.pareto import front, pareto_figure
from simulator.views.text import comparison

COLUMNS = ("ttft_s", "tpot_s", "output_tokens_per_s", "energy_j_per_output_token", "usd_per_million_output_tokens")


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    base = uploads.located(state.work)
    devices = list(dict.fromkeys((base.hardware, *state.hardware)))
    variants = _variants(state)
    records = compare.records(compare.variants(base, devices, (), variants), state.sort)
    command = _command(state, variants)
    found = _front(state, records, command, screen)
    work = f"batch {base.batch}, {base.input_tokens} tokens in, {base.output_tokens} out"
    heading = f"{uploads.told(state.work.model)} on {len(devices)} devices"
    return Answer(heading, work, (found, _table(state, records, command), _intervals(records, command)))


def _variants(state: State) -> list[str]:
    own = "+".join(state.work.techniques) or "none"
    return list(dict.fromkeys((own, *state.variants)))


def _command(state: State, variants: list[str]) -> tuple[str, ...]:
    options = list(words(state.work.with_(techniques=(), engine=None)))
    at = options.index("--hardware")
    shown_devices = list(dict.fromkeys((options[at + 1], *state.hardware)))
    options[at + 1] = ",".join(shown_devices)
    if variants != ["none"]:
        options += ["--technique", ",".join(variants)]
    if state.work.engine:
        options += ["--engine", state.work.engine]
    return ("ridgeline", "compare", *options, "--sort", state.sort, "--json")


def _names(records: list[dict[str, Any]]) -> list[str]:
    several = len({record["techniques"] for record in records}) > 1
    return [
        str(record["hardware"]) + (f", {record['techniques'] or 'as it is'}" if several else "") for record in records
    ]


def _front(state: State, records: list[dict[str, Any]], command: tuple[str, ...], screen: Screen) -> Block:
    across, up = state.across, state.up
    drawn = [r for r in records if r.get(across) is not None and r.get(up) is not None]
    labels = (_axis(across), _axis(up))
    names = _names(records)
    kept = [names[i] for i, r in enumerate(records) if r.get(across) is not None and r.get(up) is not None]
    best = [kept[i] for i in front(drawn, across, up)]
    missing = [name for name in names if name not in kept]
    note = (
        "Whiskers: 90% intervals. Dotted line and bold names: no other choice is better in both. Open signs do not fit."
    )
    if missing:
        note += f" Not drawn, as a number is unknown: {', '.join(missing)}."
    return Block(
        "pareto", f"{LABELS[up][0]} against {LABELS[across][0]}", command, records, records, note,
        figure=pareto_figure(drawn, across, up, kept, labels, narrow=screen.narrow) if drawn else None,
        describes=f"On the front: {', '.join(best)}",
        empty="" if drawn else "None of these has both numbers. Choose other axes, or devices with a known price.",
    )  # fmt: skip


def _axis(key: str) -> str:
    return LABELS[key][0]


def _table(state: State, records: list[dict[str, Any]], command: tuple[str, ...]) -> Block:
    note = f"Sorted by {LABELS[state.sort][0].lower()}; best first."
    return Block("table", "All numbers", command, records, records, note, report=(comparison(records),))


def _intervals(records: list[dict[str, Any]], command: tuple[str, ...]) -> Block:
    rows = []
    for name, record in zip(_names(records), records, strict=True):
        if record.get("problem"):
            continue
        cells = []
        for key in COLUMNS:
            low, high = record.get(f"{key}_low"), record.get(f"{key}_high")
            cells.append("" if low is None or high is None else between_text(key, (low, high)))
        rows.append((name, str(record["tag"]), *cells))
    columns = ("hardware", "founded", *(LABELS[key][0] for key in COLUMNS))
    table = Table(columns, tuple(rows), frozenset({"hardware", "founded"}))
    return Block("intervals", "90% intervals", command, records, records, report=(table,), folded=True)


PAGE = Page(
    path="/compare",
    name="Compare hardware",
    title="Compare hardware",
    lead="The same work on several devices and with several techniques: what each costs, and which no other one beats.",
    controls=(
        ("Work", ("model", "hw", "batch", "in", "out")),
        ("Choices", ("with", "variants", "tp")),
        ("Chart and table", ("x", "y", "sort")),
    ),
    answer=answer,
    uploads=("model", "hardware"),
)
