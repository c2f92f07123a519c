"""Predictions as points in two of their quantities, with intervals, and the front of those that no other one beats in both.

Works on records of `simulator.views.records`; knows which quantities are better when larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")
LARGER_IS_BETTER = frozenset({"output_tokens_per_s", "total_tokens_per_s", "capacity_bytes"})

Record = Mapping[str, Any]


def front(records: Sequence[Record], across: str, up: str) -> list[int]:
    """Positions of the records that none beats in one quantity without being worse in the other, from left to right.

    >>> rows = [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}, {"a": 3.0, "b": 2.0}]
    >>> front(rows, "a", "b")
    [0, 1]
    """
    known = [i for i, record in enumerate(records) if record.get(across) is not None and record.get(up) is not None]

    def cost(position: int) -> tuple[float, float]:
        record = records[position]
        signs = [-1.0 if key in LARGER_IS_BETTER else 1.0 for key in (across, up)]
        return signs[0] * record[across], signs[1] * record[up]

    found: list[int] = []
    lowest = float("inf")
    for position in sorted(known, key=cost):
        if cost(position)[1] < lowest:
            found.append(position)
            lowest = cost(position)[1]
    return sorted(found, key=lambda position: records[position][across])


def pareto_figure(
    records: Sequence[Record], across: str, up: str, names: Sequence[str], labels: tuple[str, str], *, narrow: bool = False
) -> Any:
    """A point per record with whiskers of its 90% intervals, named beside it, and the front as a line. Axes are logarithmic."""
    import plotly.graph_objects as go

    best = front(records, across, up)
    figure = go.Figure()
    figure.add_scatter(
        x=[records[i][across] for i in best], y=[records[i][up] for i in best], mode="lines", hoverinfo="skip",
        line={"color": "#8C959F", "width": 2, "dash": "dot"}, name="front",
    )  # fmt: skip
    for position, record in enumerate(records):
        if record.get(across) is None or record.get(up) is None:
            continue
        colour = PALETTE[position % len(PALETTE)]
        on_front, holds = position in best, bool(record.get("fits", True))
        figure.add_scatter(
            x=[record[across]], y=[record[up]], mode="markers+text", name=names[position],
            marker={"color": colour, "size": 12 if on_front else 10, "symbol": SYMBOLS[position % len(SYMBOLS)]
                    + ("" if holds else "-open"), "line": {"width": 1.5, "color": colour if not holds else "#FFFFFF"}},
            error_x=_whisker(record, across, colour), error_y=_whisker(record, up, colour),
            text=[f"<b>{names[position]}</b>" if on_front else names[position]], textposition=_side(records, position, across, up),
            textfont={"size": 11 if narrow else 12, "color": "#222222"},
            hovertext=f"{names[position]}<br>{labels[0]}: {record[across]:.4g}<br>{labels[1]}: {record[up]:.4g}"
            + ("" if holds else "<br>does not fit"), hoverinfo="text",
        )  # fmt: skip
    axis = {"type": "log", "gridcolor": "#E6E6E6", "linecolor": "#888888", "showline": True, "nticks": 6}
    figure.update_xaxes(title=labels[0], **axis)
    figure.update_yaxes(title=labels[1], **axis)
    figure.update_layout(
        template="plotly_white", height=420 if narrow else 520, showlegend=False, hoverlabel={"align": "left"},
        margin={"l": 8, "r": 16, "t": 12, "b": 44},
        font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
    )  # fmt: skip
    figure.update_yaxes(automargin=True)
    return figure


def _whisker(record: Record, key: str, colour: str) -> dict[str, Any] | None:
    low, high = record.get(f"{key}_low"), record.get(f"{key}_high")
    if low is None or high is None:
        return None
    return {
        "type": "data", "symmetric": False, "array": [high - record[key]], "arrayminus": [record[key] - low],
        "color": colour, "thickness": 1, "width": 3,
    }  # fmt: skip


def _side(records: Sequence[Record], position: int, across: str, up: str) -> str:
    """Where a name is written: away from the nearest other point, to the left of points at the right end."""
    known = [r for r in records if r.get(across) is not None and r.get(up) is not None]
    xs = sorted(r[across] for r in known)
    mine = records[position]
    vertical = "top"
    for other in known:
        near = abs(other[across] - mine[across]) < 0.3 * mine[across] and abs(other[up] - mine[up]) < 0.25 * mine[up]
        if other is not mine and near and other[up] >= mine[up]:
            vertical = "bottom"
    horizontal = "left" if len(xs) > 2 and mine[across] >= xs[-max(1, len(xs) // 4)] else "right"
    return f"{vertical} {horizontal}"
