"""Predictions as points in two of their quantities, with intervals, and the front of those that no other one beats in both.

Works on records of `simulator.views.records`; knows which quantities are better when larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.plan.pareto import mark
from simulator.units import in_engineering
from simulator.views.labels import Axes, Labels, Size

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")
COLUMN = Size(900, 520, 76, 16, 12, 48)
PHONE = Size(358, 420, 62, 8, 12, 48)

Record = Mapping[str, Any]


def front(records: Sequence[Record], across: str, up: str) -> list[int]:
    """Positions of the records that none beats in one quantity without being worse in the other, from left to right.

    >>> rows = [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}, {"a": 3.0, "b": 2.0}]
    >>> front(rows, "a", "b")
    [0, 1]
    """
    known = [i for i, record in enumerate(records) if record.get(across) is not None and record.get(up) is not None]
    if not known:
        return []
    on = mark([records[i] for i in known], [across, up])
    return sorted((i for i, best in zip(known, on, strict=True) if best), key=lambda i: records[i][across])


def pareto_figure(
    records: Sequence[Record],
    across: str,
    up: str,
    names: Sequence[str],
    labels: tuple[str, str],
    *,
    narrow: bool = False,
) -> Any:
    """A point per record with whiskers of its 90% intervals, named where there is room, and the front as a line.

    Axes are logarithmic; names of the front are bold and come first.
    """
    import plotly.graph_objects as go

    best = front(records, across, up)
    size = PHONE if narrow else COLUMN
    ticks = _ticks(records, across, most=5 if narrow else 9), _ticks(records, up, most=9)
    figure = go.Figure()
    figure.add_scatter(
        x=[records[i][across] for i in best], y=[records[i][up] for i in best], mode="lines", hoverinfo="skip",
        line={"color": "#8C959F", "width": 2, "dash": "dot"}, name="front",
    )  # fmt: skip
    drawn = [i for i, record in enumerate(records) if record.get(across) is not None and record.get(up) is not None]
    for position in drawn:
        record, colour = records[position], PALETTE[position % len(PALETTE)]
        fits = bool(record.get("fits", True))
        figure.add_scatter(
            x=[record[across]], y=[record[up]], mode="markers", name=names[position],
            marker={"color": colour, "size": 13 if position in best else 11, "symbol": SYMBOLS[position % len(SYMBOLS)]
                    + ("" if fits else "-open"), "line": {"width": 1.5, "color": "#FFFFFF" if fits else colour}},
            error_x=_whisker(record, across, colour), error_y=_whisker(record, up, colour),
            hovertext=f"{names[position]}<br>{labels[0]}: {record[across]:.4g}<br>{labels[1]}: {record[up]:.4g}"
            + ("" if fits else "<br>does not fit"), hoverinfo="text",
        )  # fmt: skip
    axes = Axes((ticks[0]["range"][0], ticks[0]["range"][1]), (ticks[1]["range"][0], ticks[1]["range"][1]), size)
    axis = {"type": "log", "gridcolor": "#E6E6E6", "linecolor": "#888888", "showline": True, "tickmode": "array"}
    figure.update_xaxes(title=labels[0], **axis, **ticks[0])
    figure.update_yaxes(title=labels[1], **axis, **ticks[1])
    figure.update_layout(
        template="plotly_white", height=size.height, showlegend=False, hoverlabel={"align": "left"}, margin=size.margin,
        annotations=_named(records, drawn, best, across, up, names, axes),
        font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 12 if narrow else 13, "color": "#222222"},
    )  # fmt: skip
    return figure


def _named(
    records: Sequence[Record],
    drawn: Sequence[int],
    best: Sequence[int],
    across: str,
    up: str,
    names: Sequence[str],
    axes: Axes,
) -> list[dict[str, Any]]:
    """Names beside their points, off other points and names; left out where there is no room."""
    taken = Labels(axes)
    at = {i: axes.at(records[i][across], records[i][up]) for i in drawn}
    for x, y in at.values():
        taken.taken.append((x - 7, y - 7, x + 7, y + 7))
    found = []
    for position in sorted(drawn, key=lambda i: i not in best):
        x, y = at[position]
        width = (8.4 if position in best else 7.4) * len(names[position])
        places = [(x + 9, y + 3), (x - 9 - width, y + 3), (x + 9, y - 19), (x - 9 - width, y - 19)]
        places += [(x - width / 2, y + 10), (x - width / 2, y - 26)]
        for left, bottom in places:
            if taken.claim(left, bottom, width, 16):
                text = f"<b>{names[position]}</b>" if position in best else names[position]
                found.append({
                    "x": math.log10(records[position][across]), "y": math.log10(records[position][up]), "text": text,
                    "showarrow": False, "xanchor": "left", "yanchor": "bottom", "xshift": left - x, "yshift": bottom - y - 2,
                    "font": {"size": 12}, "bgcolor": "rgba(255,255,255,0.75)", "borderpad": 0,
                })  # fmt: skip
                break
    return found


def _ticks(records: Sequence[Record], key: str, most: int) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 of each decade, in units that people read."""
    known = [
        record[name]
        for record in records
        for name in (key, f"{key}_low", f"{key}_high")
        if record.get(name) is not None
    ]
    low, high = math.log10(min(known)), math.log10(max(known))
    digits: tuple[float, ...] = (1.0, 2.0, 5.0)
    ticks = [d * 10.0**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for d in digits]
    inside = [tick for tick in ticks if low - 0.1 <= math.log10(tick) <= high + 0.1]
    if len(inside) > most:
        inside = [tick for tick in inside if math.isclose(tick, 10.0 ** round(math.log10(tick)))] or inside[
            :: len(inside) // most
        ]
    unit = next((unit for suffix, unit in _UNITS.items() if key.endswith(suffix)), "")
    texts = [in_engineering(tick, unit, digits=1) if unit else f"{tick:g}" for tick in inside]
    pad = 0.04 * (high - low) + 0.02
    return {"tickvals": inside, "ticktext": texts, "range": [low - pad, high + pad]}


_UNITS = {"per_s": "", "_s": "s", "_bytes": "B", "_w": "W", "_j": "J", "j_per_output_token": "J"}


def _whisker(record: Record, key: str, colour: str) -> dict[str, Any] | None:
    low, high = record.get(f"{key}_low"), record.get(f"{key}_high")
    if low is None or high is None:
        return None
    return {
        "type": "data", "symmetric": False, "array": [high - record[key]], "arrayminus": [record[key] - low],
        "color": colour, "thickness": 1, "width": 0,
    }  # fmt: skip
