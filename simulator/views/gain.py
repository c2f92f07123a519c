"""Curves of a gain along an axis, with the region where it reaches a claimed one. Knows no papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LABELS = {"batch": "batch", "input_tokens": "prompt tokens", "bandwidth": "memory bandwidth over the datasheet's"}


def gain_figure(
    title: str, curves: Sequence[tuple[str, Sequence[tuple[float, float]], float, Sequence[float]]], label: str
) -> Any:
    """A Plotly figure with a panel per (axis, points, claimed gain, values where it is reached)."""
    from plotly.subplots import make_subplots

    shown = [curve for curve in curves if curve[1]]
    names = [LABELS.get(axis, axis) for axis, _, _, _ in shown]
    figure = make_subplots(rows=1, cols=max(1, len(shown)), subplot_titles=names)
    for column, (axis, points, claimed, reached) in enumerate(shown, start=1):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        figure.add_scatter(x=xs, y=ys, mode="lines+markers", name=axis, row=1, col=column, showlegend=False)
        figure.add_hline(y=claimed, line_dash="dash", row=1, col=column, annotation_text="claimed")
        if reached:
            figure.add_vrect(
                x0=min(reached) * 0.9, x1=max(reached) * 1.1, row=1, col=column, fillcolor="green", opacity=0.08,
                line_width=0,
            )  # fmt: skip
        figure.update_xaxes(type="log", row=1, col=column)
    figure.update_yaxes(title_text=label, row=1, col=1)
    figure.update_layout(title=title, width=1200, height=460, template="plotly_white")
    return figure
