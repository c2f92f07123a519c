"""Curves of a gain along an axis, with the region where it reaches a claimed one. Knows no papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LABELS = {"batch": "batch", "input_tokens": "prompt tokens", "bandwidth": "bandwidth over the datasheet's"}


def gain_figure(
    title: str,
    curves: Sequence[tuple[str, Sequence[tuple[float, float]], float, Sequence[float]]],
    label: str,
    columns: int | None = None,
) -> Any:
    """A Plotly figure with a panel per (axis, points, claimed gain, values where it is reached).

    With `columns` panels side by side it has no title and is as wide as its page.
    """
    from plotly.subplots import make_subplots

    shown = [curve for curve in curves if curve[1]]
    names = [LABELS.get(axis, axis) for axis, _, _, _ in shown]
    across = columns or max(1, len(shown))
    down = max(1, -(-len(shown) // across))
    figure = make_subplots(
        rows=down, cols=across, subplot_titles=names, horizontal_spacing=0.08, vertical_spacing=0.22 / max(1, down - 1)
    )
    for number, (_, points, claimed, reached) in enumerate(shown):
        place = {"row": number // across + 1, "col": number % across + 1}
        xs, ys = [x for x, _ in points], [y for _, y in points]
        held = [x in set(reached) for x in xs]
        figure.add_scatter(
            x=xs, y=ys, mode="lines+markers", showlegend=False, line={"color": "#0072B2", "width": 2},
            marker={"size": 9, "color": ["#0072B2" if one else "#FFFFFF" for one in held],
                    "line": {"color": "#0072B2", "width": 2}},
            hovertext=[f"{x:g}: {y:.3g}{', claim holds' if one else ''}" for x, y, one in zip(xs, ys, held, strict=True)],
            hoverinfo="text", **place,
        )  # fmt: skip
        figure.add_hline(
            y=claimed, line={"dash": "dash", "color": "#D55E00", "width": 1.5}, annotation_text=f"claimed {claimed:.3g}",
            annotation_position="top left", annotation_font={"size": 12, "color": "#A83B00"}, **place,
        )  # fmt: skip
        ticks = xs if len(xs) <= 5 else xs[::2]
        figure.update_xaxes(
            type="log",
            tickmode="array",
            tickvals=ticks,
            ticktext=[_tick(x) for x in ticks],
            gridcolor="#E6E6E6",
            **place,
        )
        low, high = min([*ys, claimed, 1.0]), max([*ys, claimed])
        figure.update_yaxes(range=[low - 0.08 * (high - low), high + 0.15 * (high - low)], gridcolor="#E6E6E6", **place)
    if columns is None:
        figure.update_yaxes(title_text=label, row=1, col=1)
        figure.update_layout(title=title, width=1200, height=460, template="plotly_white")
    else:
        figure.update_layout(
            height=270 * down + 40, template="plotly_white", margin={"l": 8, "r": 12, "t": 34, "b": 30},
            font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        )  # fmt: skip
        figure.update_yaxes(automargin=True)
        figure.update_annotations(font_size=13)
    return figure


def _tick(value: float) -> str:
    return f"{value / 1024:g}k" if value >= 1024 and value % 1024 == 0 else f"{value:g}"
