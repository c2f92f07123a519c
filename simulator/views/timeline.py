"""The chart of a simulation: per step, one repetition in detail, the use of every resource, and power over time.

`spans` and `shown_window` are the data; `timeline_figure` draws them. Tasks of one op that follow each other on a
resource are drawn as one bar; pieces of one op with pauses between them as bars on a pale one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.events.layout import PICOSECONDS
from simulator.events.simulation import Simulation
from simulator.events.timeline import Timeline
from simulator.views.text import axis_unit, duration, scenario_line

WIDTH = 1360
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#88CCEE", "#999933", "#AA4499",
    "#117733", "#882255", "#666666",
)  # fmt: skip
"""Colours of blocks of ops, which colour-blind people can tell apart."""
_GROUPS = {
    "unit": "#0072B2", "memory": "#D55E00", "cache": "#E69F00", "link": "#009E73", "launch": "#999999", "host": "#666666",
    "wait": "#BBBBBB", "static": "#DDDDDD",
}  # fmt: skip
_NAMES = {
    "unit": "units", "memory": "memories", "cache": "caches", "link": "links", "launch": "launches", "host": "host",
    "wait": "latencies",
}  # fmt: skip
BINS = 240


@dataclass(frozen=True, slots=True)
class Span:
    """Work of one op on one resource without a break."""

    resource: str
    op: str
    start_s: float
    end_s: float
    tasks: int
    critical: bool


def shown_window(timeline: Timeline) -> tuple[int, int]:
    """Picoseconds between which one repetition of the section that takes longest runs, from the middle of the step."""
    schedule = timeline.schedule
    best = (0, 0, int(schedule.end.max()))
    for section, count in enumerate(schedule.repeats):
        mine = (schedule.section == section) & _in_order(timeline)
        if not mine.any():
            continue
        length = int(schedule.end[mine].max() - schedule.start[mine].min())
        ops = mine & (timeline.schedule.copy == count // 2)
        if length > best[0] and ops.any():
            begin, end = int(schedule.start[ops].min()), int(schedule.end[ops].max())
            margin = max(1, (end - begin) // 50)
            best = (length, max(0, begin - margin), end + margin)
    return best[1], best[2]


def _in_order(timeline: Timeline) -> Any:
    """(N,) tasks on units: what runs ahead of its op would stretch the window."""
    kinds = np.array([resource.group == "unit" for resource in timeline.schedule.net.resources])
    return kinds[timeline.resource]


def spans(timeline: Timeline, window: tuple[int, int]) -> list[Span]:
    """What runs within a window, by resource and op, in order of time."""
    schedule = timeline.schedule
    inside = (schedule.end > window[0]) & (schedule.start < window[1]) & (schedule.end > schedule.start)
    critical = np.zeros(len(schedule), bool)
    critical[np.asarray(timeline.critical_path, np.int64)] = True
    column = schedule.column("op")
    found: list[Span] = []
    for position, resource in enumerate(schedule.net.resources):
        mine = np.flatnonzero(inside & (timeline.resource == position))
        mine = mine[np.argsort(schedule.start[mine], kind="stable")]
        open_span: list[Any] = []
        for task in mine.tolist():
            terms = timeline.ops.get(int(column[task]))
            op = terms.op.name if terms else schedule.name(task)
            start, end = int(schedule.start[task]), int(schedule.end[task])
            near = open_span and open_span[0] == op and start <= open_span[2] + 0.002 * (window[1] - window[0])
            if near:
                open_span[2] = max(open_span[2], end)
                open_span[3] += 1
                open_span[4] = open_span[4] or bool(critical[task])
                continue
            if open_span:
                found.append(_span(resource.name, open_span))
            open_span = [op, start, end, 1, bool(critical[task])]
        if open_span:
            found.append(_span(resource.name, open_span))
    return found


def _span(resource: str, found: list[Any]) -> Span:
    op, start, end, tasks, critical = found
    return Span(resource, op, start / PICOSECONDS, end / PICOSECONDS, tasks, critical)


def timeline_figure(simulation: Simulation, only: str | None = None) -> Any:
    """The chart as a Plotly figure: a column per step, and below them what the steps are part of.

    `only`: the step of that label alone, without a title and as wide as its page.
    """
    from plotly.subplots import make_subplots

    timelines = [t for t in simulation.steps if only in (None, t.label)]
    further = simulation.further if only is None else ()
    shown = [_rows(timeline) for timeline in timelines]
    most = max(len(names) for names in shown)
    heights = [28.0 * most + 30.0, 24.0 * most + 20.0, 190.0, *(28.0 * len(_rows(one)) + 30.0 for one in further)]
    titles = [f"One repetition of the {timeline.label} step" for timeline in timelines]
    titles += [f"Busy share of each resource, whole {timeline.label} step" for timeline in timelines]
    titles += [f"Power of one device, whole {timeline.label} step" for timeline in timelines]
    titles += [f"{timeline.label.capitalize()}: its beginning" for timeline in further]
    whole: list[dict[str, Any] | None] = [{"colspan": len(timelines)}, *[None] * (len(timelines) - 1)]
    figure = make_subplots(
        rows=len(heights), cols=len(timelines), row_heights=heights, subplot_titles=titles,
        specs=[*[[{}] * len(timelines) for _ in range(3)], *[whole for _ in further]],
        vertical_spacing=80.0 / (sum(heights) + 160.0), horizontal_spacing=0.13,
    )  # fmt: skip
    width = WIDTH * 0.8 / len(timelines)
    ops = list(dict.fromkeys(terms.op.block for timeline in timelines for terms in timeline.ops.values()))
    colours = {block: PALETTE[number % len(PALETTE)] for number, block in enumerate(ops)}
    for column, (timeline, names) in enumerate(zip(timelines, shown, strict=True), start=1):
        _draw_spans(figure, timeline, names, colours, (1, column), shown_window(timeline), width)
        _draw_use(figure, timeline, names, column)
        _draw_power(figure, timeline, column)
    for row, one in enumerate(further, start=4):
        window = (0, int(np.sort(one.schedule.end)[: 16 * len(one.schedule.net.resources)].max()))
        _draw_spans(figure, one, _rows(one), {}, (row, 1), window, WIDTH * 0.8)
    if only is not None:
        _lay_out_alone(figure, sum(heights))
    else:
        _lay_out(figure, sum(heights), simulation, timelines)
    return figure


def _lay_out_alone(figure: Any, high: float) -> None:
    """One step as wide as its page, which has the title."""
    figure.update_layout(
        template="plotly_white", height=int(high + 270), barmode="overlay", bargap=0.25,
        margin={"l": 4, "r": 30, "t": 34, "b": 100}, hoverlabel={"align": "left"},
        font={"family": "Helvetica, Arial, sans-serif", "size": 12, "color": "#222222"},
        legend={"orientation": "h", "x": 0.0, "y": -55.0 / (high + 136.0), "yanchor": "top", "traceorder": "normal"},
    )  # fmt: skip
    figure.update_yaxes(automargin=True)
    figure.update_annotations(font_size=13, xanchor="left", x=0.0)


def _lay_out(figure: Any, high: float, simulation: Simulation, timelines: Sequence[Timeline]) -> None:
    """All steps side by side under a title; the heading of each panel begins where the panel does."""
    named = simulation.prediction.provenance
    steps = "; ".join(
        f"{t.label} step {duration(t.seconds)} (closed form {duration(t.closed_form_s)})" for t in timelines
    )
    figure.update_layout(
        title={
            "text": f"<b>Timeline: {named['model']} on {named['hardware']}, engine {named['engine']}</b><br>"
            f"<span style='font-size:13px'>{scenario_line(simulation.prediction)}; {steps}</span>",
            "x": 0.01, "y": 0.985, "yanchor": "top",
        },
        template="plotly_white", width=WIDTH, height=int(high + 320), barmode="overlay", bargap=0.25,
        margin={"l": 150, "r": 40, "t": 110, "b": 90}, hoverlabel={"align": "left"},
        font={"family": "Helvetica, Arial, sans-serif", "size": 12, "color": "#222222"},
        legend={"orientation": "h", "x": 0.0, "y": -0.06, "yanchor": "top", "traceorder": "normal"},
    )  # fmt: skip
    figure.update_annotations(font_size=13, xanchor="left")
    for number, annotation in enumerate(figure.layout.annotations):
        annotation.x = figure.layout[f"xaxis{number + 1 if number else ''}"].domain[0]


def _rows(timeline: Timeline) -> list[str]:
    """Resources with anything to show, units first."""
    order = list(_GROUPS)
    found = [use for use in timeline.uses() if max(use.busy_s, use.critical_s) > 1e-3 * timeline.seconds]
    return [use.resource for use in sorted(found, key=lambda use: order.index(use.group))]


def _reach(members: list[Span], begin: float, end: float) -> list[tuple[str, float, float]]:
    """(resource, first start, last end) of each op on each resource, while no other op of its block comes between."""
    found: list[tuple[str, str, float, float]] = []
    for span in members:
        first, last = max(span.start_s, begin), min(span.end_s, end)
        if found and found[-1][:2] == (span.resource, span.op):
            found[-1] = (*found[-1][:3], max(found[-1][3], last))
        else:
            found.append((span.resource, span.op, first, last))
    return [(resource, first, last) for resource, _, first, last in found]


def _draw_spans(
    figure: Any,
    timeline: Timeline,
    names: list[str],
    colours: dict[str, str],
    place: tuple[int, int],
    window: tuple[int, int],
    width: float,
) -> None:
    """Bars within a window, in a subplot (row, column) of so many pixels; names where they have room."""
    import plotly.graph_objects as go

    row, column = place
    begin, end = window[0] / PICOSECONDS, window[1] / PICOSECONDS
    factor, unit = axis_unit(end - begin)
    blocks = {terms.op.name: terms.op.block for terms in timeline.ops.values()}
    grouped: dict[str, list[Span]] = {}
    for span in spans(timeline, window):
        if span.resource in names:
            grouped.setdefault(blocks.get(span.op, "step"), []).append(span)
    known = {trace.name for trace in figure.data}
    for block, members in grouped.items():
        length = [(min(s.end_s, end) - max(s.start_s, begin)) * factor for s in members]
        reach = _reach(members, begin, end)
        figure.add_trace(
            go.Bar(
                y=[name for name, _, _ in reach], x=[(last - first) * factor for _, first, last in reach],
                base=[(first - begin) * factor for _, first, _ in reach], orientation="h", legendgroup=block,
                showlegend=False, marker={"color": colours.get(block, "#999999"), "opacity": 0.22, "line": {"width": 0}},
                hoverinfo="skip",
            ),
            row=row, col=column,
        )  # fmt: skip
        figure.add_trace(
            go.Bar(
                y=[s.resource for s in members], x=length, base=[(max(s.start_s, begin) - begin) * factor for s in members],
                orientation="h", name=block, legendgroup=block, showlegend=block not in known,
                marker={
                    "color": colours.get(block, "#999999"),
                    "line": {"color": "#000000", "width": [0.9 if s.critical else 0.0 for s in members]},
                },
                customdata=[[s.op, duration(s.end_s - s.start_s), s.tasks, "yes" if s.critical else "no"] for s in members],
                hovertemplate="%{customdata[0]} on %{y}<br>%{customdata[1]}, %{customdata[2]} tasks"
                "<br>on the critical path: %{customdata[3]}<extra></extra>",
                text=[
                    s.op if part / ((end - begin) * factor) * width > 6.5 * len(s.op) + 8.0 else ""
                    for s, part in zip(members, length, strict=True)
                ],
                textposition="inside", insidetextanchor="middle", textfont={"color": "white", "size": 11}, textangle=0,
                constraintext="none", cliponaxis=True,
            ),
            row=row, col=column,
        )  # fmt: skip
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=names[::-1],
        range=[-0.5, len(names) - 0.5],
        ticksuffix=" ",
        row=row,
        col=column,
    )
    figure.update_xaxes(
        title_text=f"{unit} from the beginning; black edge: critical path",
        title_standoff=4,
        range=[0, (end - begin) * factor],
        row=row,
        col=column,
    )


def _draw_use(figure: Any, timeline: Timeline, names: list[str], column: int) -> None:
    import plotly.graph_objects as go

    factor, unit = axis_unit(timeline.seconds)
    position = {resource.name: at for at, resource in enumerate(timeline.schedule.net.resources)}
    edges = np.linspace(0.0, timeline.seconds * factor, BINS + 1)
    figure.add_trace(
        go.Heatmap(
            z=[timeline.utilisation(position[name], BINS).tolist() for name in names[::-1]],
            x=((edges[1:] + edges[:-1]) / 2).tolist(), y=names[::-1], zmin=0.0, zmax=1.0,
            colorscale=[[0, "#F7F7F7"], [0.05, "#DCE9F5"], [1, "#08306B"]], showscale=column == 1, ygap=2,
            colorbar={"title": {"text": "busy", "side": "right"}, "tickformat": ".0%", "len": 0.22, "x": 1.005, "y": 0.45,
                      "thickness": 12},
            hovertemplate="%{y}: %{z:.0%} busy at %{x:.3g} " + unit + "<extra></extra>",
        ),
        row=2, col=column,
    )  # fmt: skip
    figure.update_yaxes(range=[-0.5, len(names) - 0.5], ticksuffix=" ", row=2, col=column)
    figure.update_xaxes(title_text=unit, title_standoff=4, range=[0, timeline.seconds * factor], row=2, col=column)


def _draw_power(figure: Any, timeline: Timeline, column: int) -> None:
    import plotly.graph_objects as go

    factor, unit = axis_unit(timeline.seconds)
    edges, watts = timeline.power(BINS)
    known = {trace.name for trace in figure.data}
    middle = ((edges[1:] + edges[:-1]) / 2 * factor).tolist()
    for group in sorted(watts, key=lambda name: name != "static"):
        name = "power: static" if group == "static" else f"power: {_NAMES[group]}"
        figure.add_trace(
            go.Scatter(
                x=middle, y=watts[group].tolist(), stackgroup=f"power{column}", name=name, legendgroup=name,
                showlegend=name not in known, line={"width": 0, "shape": "hvh"}, fillcolor=_GROUPS[group],
                hovertemplate=f"{name}: %{{y:.3g}} W<extra></extra>",
            ),
            row=3, col=column,
        )  # fmt: skip
    figure.update_yaxes(title_text="W", rangemode="tozero", row=3, col=column)
    figure.update_xaxes(title_text=unit, title_standoff=4, range=[0, timeline.seconds * factor], row=3, col=column)
