"""Small charts that belong to no view of their own: stacked bars of parts. Colours are Okabe and Ito's, and every part is
named on or beside the bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.units import in_engineering

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#666666")
DARK = frozenset({"#0072B2", "#D55E00", "#009E73", "#666666", "#CC79A7", "#999933"})
"""Those that white text is readable on."""
FONT = {"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"}


def bars(
    rows: Sequence[tuple[str, Mapping[str, float]]], unit: str, limit: float | None = None, limit_label: str = ""
) -> Any:
    """A stacked bar per (name, parts), first on top; a dashed line at `limit`."""
    import plotly.graph_objects as go

    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    longest = max([sum(parts.values()) for _, parts in rows] + [limit or 0.0]) or 1.0
    power = next(p for p in (1e15, 1e12, 1e9, 1e6, 1e3, 1.0, 1e-3, 1e-6, 1e-9) if longest >= p or p == 1e-9)
    figure = go.Figure()
    labels = [name for name, _ in rows]
    for name in names:
        sizes = [parts.get(name, 0.0) for _, parts in rows]
        figure.add_bar(
            y=labels, x=[size / power for size in sizes], orientation="h",
            name=f"{name} {in_engineering(sizes[0], unit)}",
            marker={"color": colours[name], "line": {"color": "#FFFFFF", "width": 1}},
            text=[in_engineering(size, unit) if size > 0.14 * longest else "" for size in sizes],
            textposition="inside", insidetextanchor="middle", textangle=0,
            textfont={"color": "#FFFFFF" if colours[name] in DARK else "#000000", "size": 12},
            hovertext=[f"{label}, {name}: {in_engineering(size, unit)}" for label, size in zip(labels, sizes, strict=True)],
            hoverinfo="text",
        )  # fmt: skip
    if limit:
        figure.add_vline(x=limit / power, line={"color": "#222222", "dash": "dash", "width": 1.5})
        figure.add_annotation(
            x=limit / power, y=1.0, yref="paper", yanchor="bottom", text=limit_label, showarrow=False, font={"size": 12},
            xanchor="right" if limit > 0.6 * longest else "left",
        )  # fmt: skip
    prefix = in_engineering(power, unit, digits=1).split(" ")[1]
    figure.update_layout(
        template="plotly_white", barmode="stack", height=110 + 44 * len(rows), font=FONT,
        margin={"l": 18, "r": 8, "t": 26 if limit else 8, "b": 30}, bargap=0.3,
        legend={"orientation": "h", "y": -0.42 if len(rows) == 1 else -0.3, "yanchor": "top", "x": 0.0,
                "traceorder": "normal"},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", showticklabels=len(rows) > 1, automargin=True)
    figure.update_xaxes(
        ticksuffix=f" {prefix}", nticks=4, tickangle=0, range=[0, 1.03 * longest / power], gridcolor="#E6E6E6"
    )
    return figure
