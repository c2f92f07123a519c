"""Accuracy: how far predictions are from the shipped measurements, by group, and which interval follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboards import measured
from dashboards.answer import Answer, Block, Page, Screen
from dashboards.pictures import FONT
from dashboards.state import State
from simulator.errors import ScenarioError
from simulator.spec.interval import TAGS
from simulator.views.document import Table
from validation.plots import accuracy_figure
from validation.summary import group_table, interval_records, summary_tables

SHOWN = 24
"""Groups in the chart; the table has all."""
ASKED = ("ridgeline", "validate", "summary")


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    found = measured.stored()
    if state.device != "all" and state.device not in measured.devices():
        raise ScenarioError(
            f"nothing was measured on '{state.device[:40]}'; measured are {', '.join(measured.devices())}"
        )
    chosen = [row for row in found[state.measured] if state.device in ("all", row["hardware"])]
    only = () if state.device == "all" else ("--hardware", state.device)
    asked = (*ASKED, *only, "--json")
    blocks = [_groups(chosen, asked, screen), _table(chosen, asked)]
    if state.measured == "runs":
        blocks.insert(1, _points(state))
    blocks += [_goals(found["goals"]), _intervals()]
    values = sum(row["n"] for row in chosen)
    what = "whole runs" if state.measured == "runs" else "kernels"
    return Answer(f"{values:,} measured values of {what}", "Every group has eight values or more.", tuple(blocks))


def _groups(rows: Sequence[dict[str, Any]], asked: tuple[str, ...], screen: Screen) -> Block:
    most = sorted(rows, key=lambda row: -row["n"])[:SHOWN]
    worst = max(most, key=lambda row: row["median"], default=None)
    describes = "" if worst is None else f"The worst is {_name(worst)}: {worst['median']:.0%}"
    note = "Median of |predicted / measured - 1|: filled, the prediction; open, the speed of light for the same rows. "
    note += f"The {len(most)} groups with the most values." if len(rows) > len(most) else ""
    return Block(
        "groups", "Median error by group", asked, {"groups": list(rows)}, rows, note,
        figure=_dumbbells(most, screen) if most else None, describes=describes,
        empty="" if most else "There is no group of eight values for this choice.",
    )  # fmt: skip


def _name(row: dict[str, Any]) -> str:
    parts = [
        row["hardware"],
        row["engine"],
        row["what"],
        row.get("dtype") or ("" if row["regime"] == "static" else row["regime"]),
    ]
    return " · ".join(part for part in parts if part)


def _dumbbells(rows: Sequence[dict[str, Any]], screen: Screen) -> Any:
    import plotly.graph_objects as go

    ordered = sorted(rows, key=lambda row: -row["median"])
    names = [_name(row) for row in ordered]
    figure = go.Figure()
    xs: list[float | None] = []
    ys: list[str | None] = []
    for name, row in zip(names, ordered, strict=True):
        if row["roofline_median"] is not None:
            xs += [row["median"], row["roofline_median"], None]
            ys += [name, name, None]
    figure.add_scatter(
        x=xs, y=ys, mode="lines", line={"color": "#C3C9D0", "width": 2}, hoverinfo="skip", showlegend=False
    )
    for key, label, fill in (("roofline_median", "speed of light", "#FFFFFF"), ("median", "prediction", "#0072B2")):
        figure.add_scatter(
            x=[row[key] for row in ordered], y=names, mode="markers", name=label,
            marker={"size": 10, "color": fill, "line": {"color": "#0072B2" if key == "median" else "#D55E00", "width": 2}},
            hovertext=[f"{name}<br>{label}: {row[key]:.1%}, {row['n']:,} values" if row[key] is not None else name
                       for name, row in zip(names, ordered, strict=True)], hoverinfo="text",
        )  # fmt: skip
    if screen.narrow:
        # Names above their line: there is no room beside it.
        figure.update_yaxes(showticklabels=False)
        figure.update_layout(annotations=[
            {"x": 0.0, "xref": "paper", "xanchor": "left", "y": name, "yshift": 11, "text": name, "showarrow": False,
             "font": {"size": 11}} for name in names
        ])  # fmt: skip
    figure.update_layout(
        template="plotly_white", height=(38 if screen.narrow else 24) * len(ordered) + 90, font=FONT,
        margin={"l": 4, "r": 14, "t": 34, "b": 34}, hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0.0, "y": 1.0, "yanchor": "bottom", "traceorder": "reversed"},
    )  # fmt: skip
    figure.update_yaxes(
        autorange="reversed", automargin=True, ticksuffix="  ", gridcolor="#F0F2F4", tickfont={"size": 12}
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero", gridcolor="#E6E6E6", nticks=6)
    return figure


def _points(state: State) -> Block:
    title, asked = "Every run", ("ridgeline", "validate", "e2e", "--out", "rows.csv")
    points = measured.run_points()
    if points is None:
        return Block(
            "points", title, empty="The measured runs do not ship with the package. In a checkout of the repository this "
            "page draws each of them, and `ridgeline validate e2e --plot runs.html` does too.",
        )  # fmt: skip
    chosen = points if state.device == "all" else points[points["hardware"] == state.device]
    if not len(chosen):
        return Block("points", title, empty=f"No time of a whole run was measured on {state.device}; see the kernels.")
    figure = accuracy_figure(chosen, "", "batch x (input + output tokens)")
    entries = len({trace.name for trace in figure.data if trace.name})
    figure.update_layout(
        width=None, title=None, height=560 + 20 * (entries // 4), margin={"l": 60, "r": 10, "t": 10, "b": 60},
        legend={"orientation": "h", "y": -0.16, "x": 0.0, "yanchor": "top", "font": {"size": 11}},
    )  # fmt: skip
    inside = (chosen["predicted"] / chosen["measured"]).between(0.75, 1.25).mean()
    records = chosen.to_dict("records") if len(chosen) else []
    return Block(
        "points", title, asked, {"points": records}, records,
        note=f"{len(chosen):,} times of runs; {inside:.0%} within 25% (the grey band). Left: predicted over measured. "
        "Right: their ratio over size.",
        figure=figure, describes=f"{inside:.0%} of {len(chosen):,} values within 25%", least_width=760,
    )  # fmt: skip


def _table(rows: Sequence[dict[str, Any]], asked: tuple[str, ...]) -> Block:
    ordered = sorted(rows, key=lambda row: (row["hardware"], row["engine"], row["what"]))
    note = (
        "`in 90%`: share of measurements inside 90% intervals that have not seen them. Bias below zero: predicted too "
    )
    note += "fast, or too little energy."
    return Block("table", "All groups", asked, {"groups": ordered}, ordered, note.replace("`", ""),
                 report=(group_table(list(ordered)),), folded=len(ordered) > SHOWN)  # fmt: skip


def _goals(goals: list[dict[str, Any]]) -> Block:
    table = summary_tables({"goals": goals, "runs": [], "kernels": []})[0]
    return Block("goals", "What the project aims at", (*ASKED, "--json"), {"goals": goals}, goals, report=(table,))


def _intervals() -> Block:
    records = interval_records()
    shown = [r for r in records if r["engine"] == "measured" and r["regime"] == "static"]
    shown.sort(key=lambda record: (str(record["metric"]), TAGS.index(record["tag"])))
    rows = tuple((str(r["metric"]), str(r["tag"]), f"{r['low']:.2f}", f"{r['high']:.2f}") for r in shown)
    table = Table(("metric", "how founded", "low", "high"), rows, frozenset({"metric", "how founded"}))
    note = "Measured over predicted: nine in ten measurements lie between these ratios, for engines with measured constants "
    note += (
        "and batches that start together. in-grid: device and engine measured at such sizes; extrapolated: the device "
    )
    note += "measured, but not so; transferred: constants of other devices; datasheet: assumed ones."
    return Block(
        "intervals",
        "90% intervals",
        (*ASKED, "--json"),
        {"intervals": records},
        records,
        note,
        report=(table,),
        folded=True,
    )


PAGE = Page(
    path="/accuracy",
    name="Accuracy",
    title="Accuracy",
    lead="How far predictions are from the shipped measurements, beside the plain speed of light.",
    controls=(("Choose", ("data", "device")),),
    answer=answer,
)
