"""What a person is told of a plan: the fleet, each type alone, what is in the way, and charts of who serves what.

Knows words, tables and colours; the numbers are those of `simulator.plan.answer`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulator.plan.answer import Part, Plan, Single
from simulator.plan.pareto import MORE_IS_BETTER, OBJECTIVES, keys_of
from simulator.units import in_engineering
from simulator.views.document import Block, Section, Table, as_html, as_text
from simulator.views.text import plain

UNITS = {"money": "USD/h", "power": "W", "carbon": "g CO2/h"}
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#999933", "#AA4499", "#666666",
)  # fmt: skip
"""Okabe and Ito's colours and some of Tol's, which colour-blind people can tell apart."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")
WIDTH = 1180


def plan_text(plan: Plan) -> str:
    """The plan for a terminal."""
    return as_text(plan_heading(plan), plan_blocks(plan))


def plan_html(plan: Plan) -> str:
    """The plan for a notebook."""
    return as_html(plan_heading(plan), plan_blocks(plan))


def plan_blocks(plan: Plan) -> list[Block]:
    """The answer, the fleet, each type alone, what is in the way, and notes."""
    blocks: list[Block] = [_result(plan), mix_table(plan)]
    if len(plan.singles) > 1:
        blocks.append(singles_table(plan))
    blocks.append(binding_section(plan))
    if plan.notes:
        blocks.append(Section("Notes", tuple((note, "", "") for note in plan.notes)))
    return blocks


def amount(value: float | None, objective: str) -> str:
    """A value of an objective with its unit.

    >>> amount(4.68, "money"), amount(1234.0, "power")
    ('4.68 USD/h', '1.23 kW')
    """
    if value is None:
        return "unknown"
    return f"{value:,.2f} USD/h" if objective == "money" else in_engineering(value, UNITS[objective]).strip()


def status_words(plan: Plan) -> str:
    """How good the fleet is proven to be."""
    if plan.status == "optimal":
        return f"proven within {plan.gap:.2%} of the best possible" if plan.gap > 5e-7 else "proven best"
    return f"time was up: not proven best, at most {plan.gap:.2%} above it"


def mix_table(plan: Plan) -> Table:
    """A row per option of the fleet."""
    rows = [
        (
            part.option.name,
            str(part.instances),
            str(part.devices),
            f"{part.usd_per_hour:,.2f}",
            f"{part.utilization:.0%}",
            f"{part.load_share:.0%}",
            "unknown" if part.power_w != part.power_w else in_engineering(part.power_w, "W"),
            limits_words(part),
        )
        for part in plan.parts
    ]
    columns = ("fleet", "instances", "devices", "USD/h", "used", "of requests", "power", "an instance is held back by")
    return Table(columns, tuple(rows), frozenset({columns[0], columns[-1]}))


def limits_words(part: Part) -> str:
    """What keeps an instance from serving more, by its share of the work.

    >>> from simulator.plan.option import Option
    >>> limits_words(Part(Option("a", "load", "a", 1.0), 1, 1, 1.0, 1.0, 1.0, 1.0, {"TPOT": 0.7, "KV capacity": 0.3}))
    'TPOT 70%, KV capacity 30%'
    """
    shown = {name: share for name, share in part.limits.items() if share >= 0.005}
    if len(shown) == 1:
        return next(iter(shown))
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shown.items())[:3])


def singles_table(plan: Plan) -> Table:
    """The same load on each type alone, cheapest first."""
    unit = UNITS[plan.objective_name]
    able = sorted((one for one in plan.singles if one.objective is not None), key=lambda one: one.objective or 0.0)
    unable = [one for one in plan.singles if one.objective is None]
    rows = [(one.hardware, str(one.instances), f"{one.objective:,.2f}", _more(plan, one), "") for one in able]
    rows += [(one.hardware, "", "", "", one.reason) for one in unable]
    columns = ("one type alone", "instances", unit, "mix saves", "")
    return Table(columns, tuple(rows), frozenset({"one type alone", ""}))


def _more(plan: Plan, single: Single) -> str:
    return f"{1.0 - plan.objective / single.objective:.1%}" if single.objective else ""


def _result(plan: Plan) -> Section:
    rows = []
    if plan.objective_name != "money":
        rows.append((plan.objective_name, amount(plan.objective, plan.objective_name), status_words(plan)))
    rows.append(("money", amount(plan.usd_per_hour, "money"), status_words(plan) if not rows else ""))
    if plan.switching_usd_per_hour:
        rows.append(("switching", amount(plan.switching_usd_per_hour, "money"), "from today's fleet, written off"))
        rows.append(("in all", amount(plan.usd_per_hour + plan.switching_usd_per_hour, "money"), ""))
    requests = sum(float(load.rate_per_s.sum()) for load in plan.loads)
    rows.append(("per 1000 requests", f"{plan.usd_per_hour / 3.6 / requests:.3g} USD", ""))
    if plan.power_w is not None and plan.objective_name != "power":
        rows.append(("power", amount(plan.power_w, "power"), ""))
    if plan.carbon_g_per_hour is not None and plan.objective_name != "carbon":
        rows.append(("carbon", amount(plan.carbon_g_per_hour, "carbon"), ""))
    best = plan.best_single
    if best is not None and plan.saving is not None and len(plan.singles) > 1:
        rows.append(
            (
                "best single type",
                amount(best.objective, plan.objective_name),
                f"{best.hardware}; the mix saves {plan.saving:.1%}",
            )
        )
    rows.append(("solver", f"{plan.seconds:.2f} s", plan.solver))
    return Section("Answer", tuple(rows))


def binding_section(plan: Plan) -> Section:
    """Limits and SLOs without which the fleet would be better."""
    rows = [
        (f"without {relief.constraint}", amount(relief.objective, plan.objective_name), _saves(relief.saving, plan))
        for relief in plan.binding
    ]
    if not rows:
        rows = [("no limit of the file", "", "would lower it; what holds each instance back stands in the table")]
    rows += [
        (relief.constraint, amount(relief.objective, plan.objective_name), _saves(relief.saving, plan))
        for relief in plan.would_save
    ]
    return Section("What would lower it", tuple(rows))


def _saves(saving: float, plan: Plan) -> str:
    if saving <= 1e-9:
        return "saves nothing"
    return f"saves {amount(saving, plan.objective_name)} ({saving / plan.objective:.1%})"


def plan_heading(plan: Plan) -> list[str]:
    """The plan's name, and a line per load."""
    lines = [f"Plan {plan.name}"]
    for load in plan.loads:
        sizes = f"{len(load)} sizes" if len(load) > 1 else load.labels[0]
        words = f"{plain(float(load.rate_per_s.sum()))} requests/s in {sizes}"
        words += f" to {load.model}" if load.model else ""
        words += f", {load.slo.words}" if load.slo else ""
        lines.append(f"{load.name}: {words}" if len(plan.loads) > 1 else words)
    return lines


def allocation_frame(plan: Plan) -> Any:
    """A row per option and bucket that it serves."""
    import pandas as pd

    rows = []
    start = 0
    for load in plan.loads:
        for b in range(len(load)):
            for o in np.flatnonzero(plan.share[:, start + b] > 0):
                option = plan.options[int(o)]
                share = float(plan.share[o, start + b])
                rows.append(
                    {
                        "load": load.name,
                        "input_tokens": float(load.input_tokens[b]),
                        "output_tokens": float(load.output_tokens[b]),
                        "option": option.name,
                        "share": share,
                        "requests_per_s": share * float(load.rate_per_s[b]),
                        "instance_requests_per_s": float(plan.requests_per_s[o, start + b]),
                    }
                )
        start += len(load)
    return pd.DataFrame(rows)


def plan_figure(plan: Plan, *, column: bool = False) -> Any:
    """Each type alone beside the mix, and which option serves which sizes, as a Plotly figure.

    `column`: one below the other, without title and as wide as its page.
    """
    from plotly.subplots import make_subplots

    layout: dict[str, Any] = {"cols": 2, "column_widths": [0.42, 0.58], "horizontal_spacing": 0.12}
    rows = sum(one.objective is not None for one in plan.singles) + 1
    if column:
        layout = {"cols": 1, "row_heights": [34.0 * rows, 380.0], "vertical_spacing": 90.0 / (34.0 * rows + 470.0)}
    figure = make_subplots(
        rows=2 if column else 1, **layout,
        subplot_titles=(f"{UNITS[plan.objective_name]} of the mix and of each type alone", "Which requests go where"),
    )  # fmt: skip
    colors = {part.option.name: PALETTE[i % len(PALETTE)] for i, part in enumerate(plan.parts)}
    _draw_costs(figure, plan, colors)
    _draw_allocation(figure, plan, colors, {"row": 2, "col": 1} if column else {"row": 1, "col": 2})
    if column:
        high = 34.0 * rows + 470.0
        figure.update_layout(
            template="plotly_white", height=int(high + 110), barmode="stack", margin={"l": 8, "r": 16, "t": 34, "b": 76},
            font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
            legend={"orientation": "h", "x": 0.0, "y": -58.0 / high, "yanchor": "top"}, bargap=0.25,
        )  # fmt: skip
        figure.update_annotations(font_size=14, xanchor="left", x=0.0)
        figure.layout.annotations[0].text = UNITS[plan.objective_name]
        figure.update_xaxes(title=None, row=1, col=1)
        figure.update_yaxes(automargin=True, ticksuffix=" ")
        return figure
    figure.update_layout(
        template="plotly_white",
        width=WIDTH,
        height=540,
        title={
            "text": f"<b>Plan {plan.name}</b>: {amount(plan.objective, plan.objective_name)}, {status_words(plan)}",
            "x": 0.01,
        },
        barmode="stack",
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        legend={"orientation": "h", "x": 0.0, "y": -0.2},
        margin={"l": 150, "r": 30, "t": 90, "b": 110},
    )
    return figure


def _draw_costs(figure: Any, plan: Plan, colors: Mapping[str, str]) -> None:
    able = [one for one in plan.singles if one.objective is not None]
    able.sort(key=lambda one: -(one.objective or 0.0))
    figure.add_bar(
        y=[one.hardware for one in able], x=[one.objective for one in able], orientation="h", marker={"color": "#BBBBBB"},
        text=[f"{one.objective:,.2f}" for one in able], textposition="outside", cliponaxis=False, showlegend=False,
        hovertemplate="%{y} alone: %{x:,.2f}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    money = plan.objective_name == "money"
    total = sum(part.usd_per_hour for part in plan.parts)
    longest = max([plan.objective, *(one.objective or 0.0 for one in able)])
    for part in plan.parts:
        value = part.usd_per_hour if money else plan.objective * part.usd_per_hour / total
        figure.add_bar(
            y=["<b>mix</b>"], x=[value], orientation="h", name=f"{part.instances} x {part.option.name}",
            marker={"color": colors[part.option.name]}, textposition="inside", textangle=0, legendgroup=part.option.name,
            text=[f"{value:,.2f}" if len(plan.parts) > 1 and value > 0.08 * longest else ""],
            hovertemplate=f"{part.option.name}: %{{x:,.2f}}, used {part.utilization:.0%}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    figure.add_scatter(
        y=["<b>mix</b>"], x=[plan.objective], mode="text", text=[f" <b>{plan.objective:,.2f}</b>"], hoverinfo="skip",
        textposition="middle right", cliponaxis=False, showlegend=False, row=1, col=1,
    )  # fmt: skip
    figure.update_xaxes(title=UNITS[plan.objective_name], range=[0.0, 1.12 * longest], row=1, col=1)
    figure.update_yaxes(ticksuffix=" ", row=1, col=1)


def _draw_allocation(figure: Any, plan: Plan, colors: Mapping[str, str], place: Mapping[str, int]) -> None:
    frame = allocation_frame(plan)
    frame = frame[frame["option"].isin(list(colors))]
    most = float(frame["requests_per_s"].max()) if len(frame) else 1.0
    for name, part in frame.groupby("option", sort=False):
        figure.add_scatter(
            x=part["input_tokens"],
            y=part["output_tokens"],
            mode="markers",
            name=str(name),
            showlegend=False,
            legendgroup=str(name),
            marker={
                "size": 6.0 + 30.0 * np.sqrt(part["requests_per_s"] / most),
                "color": colors[str(name)],
                "symbol": SYMBOLS[list(colors).index(str(name)) % len(SYMBOLS)],
                "opacity": 0.75,
                "line": {"width": 1, "color": "white"},
            },
            customdata=part[["requests_per_s", "share", "instance_requests_per_s"]].to_numpy(),
            hovertemplate=f"<b>{name}</b><br>%{{x:.0f}} in, %{{y:.0f}} out<br>%{{customdata[0]:.3g}} requests/s "
            "(%{customdata[1]:.0%} of the bucket)<br>an instance serves %{customdata[2]:.3g}/s<extra></extra>",
            **place,
        )
    for axis, title in ((figure.update_xaxes, "input tokens"), (figure.update_yaxes, "output tokens")):
        axis(title=title, type="log", dtick=1, **place)


def pareto_figure(records: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> Any:
    """Records of `compare` with their `pareto` mark: the first two objectives as axes, the third as colour."""
    import plotly.graph_objects as go

    keys = keys_of(objectives, sorted({key for record in records for key in record}))
    titles = [next((short for short, long in OBJECTIVES.items() if long == key), key) for key in keys]
    shown = [
        record for record in records if all(record.get(key) is not None for key in keys) and not record.get("problem")
    ]
    figure = go.Figure()
    second = keys[1] if len(keys) > 1 else keys[0]
    third = keys[2] if len(keys) > 2 else None
    spread = [float(record[third]) for record in shown] if third else []
    for on in (False, True):
        part = [record for record in shown if bool(record.get("pareto")) is on]
        if not part:
            continue
        marker: dict[str, Any] = {
            "size": 15 if on else 9,
            "symbol": "circle" if on else "diamond",
            "line": {"width": 2 if on else 0.5, "color": "#222222"},
            "color": "#0072B2" if on else "#BBBBBB",
        }
        if third:
            marker |= {
                "color": np.log10([float(record[third]) for record in part]),
                "colorscale": "Cividis", "cmin": float(np.log10(min(spread))), "cmax": float(np.log10(max(spread))),
                "colorbar": _log_bar(spread, f"{titles[2]}, {_unit(third)}"),
            }  # fmt: skip
        figure.add_scatter(
            x=[record[keys[0]] for record in part],
            y=[record[second] for record in part],
            mode="markers+text" if on else "markers",
            text=[_named(record) for record in part],
            textposition="middle right",
            textfont={"size": 11},
            cliponaxis=False,
            name="on the front" if on else "beaten by another",
            marker=marker,
            hovertemplate="<b>%{text}</b><br>" + f"{titles[0]} %{{x:.4g}}<br>{second} %{{y:.4g}}<extra></extra>",
        )
    for axis, key, title in (
        (figure.update_xaxes, keys[0], titles[0]),
        (figure.update_yaxes, second, titles[min(1, len(titles) - 1)]),
    ):
        ticks = _ticks([float(record[key]) for record in shown])
        axis(
            title=f"{title}, {_unit(key)}{_better(key)}", type="log", showline=True, linecolor="#888888",
            gridcolor="#E6E6E6", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks],
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white",
        width=WIDTH,
        height=680,
        title={"text": f"<b>Pareto front of {', '.join(titles)}</b>", "x": 0.01},
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        legend={"orientation": "h", "x": 0.0, "y": 1.06},
        margin={"l": 90, "r": 40, "t": 100, "b": 70},
    )
    return figure


def _named(record: Mapping[str, Any]) -> str:
    words = [str(record["hardware"])]
    if (record.get("devices") or 1) > 1:
        words[0] += f" x{record['devices']}"
    return " + ".join([*words, *([str(record["techniques"])] if record.get("techniques") else [])])


def _unit(key: str) -> str:
    if key == "usd_per_million_output_tokens":
        return "USD per million output tokens"
    if key == "energy_j_per_output_token":
        return "J per output token"
    if key.endswith("_per_s"):
        return "1/s"
    return {"_s": "s", "_w": "W", "_bytes": "B"}.get("_" + key.rpartition("_")[2], "")


def _better(key: str) -> str:
    return " (more is better)" if key in MORE_IS_BETTER else ""


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 of every decade that values lie in."""
    positive = [value for value in values if value > 0] or [1.0]
    decades = range(math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive))) + 1)
    return [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]


def _log_bar(values: Sequence[float], title: str) -> dict[str, Any]:
    ticks = np.linspace(np.log10(min(values)), np.log10(max(values)), 5)
    return {
        "title": {"text": title, "side": "right"},
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.3g}" for tick in ticks],
    }
