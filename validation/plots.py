"""Predicted against measured, and the residual against size, as one Plotly figure for runs and for kernels.

Knows what is drawn and in which colour; the rows are those of a comparison. Colours are by device, symbols by engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.errors import ScenarioError
from simulator.views.chart import PALETTE
from simulator.views.export import write_figure
from validation.endtoend import ASSUMED_TOKENS

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
OTHER = "#B0B0B0"
SUFFIXES = (".html", ".png", ".svg", ".json")
POINTS = 3000
"""Most points that are drawn, of every device and engine in proportion."""
BAND = 0.25
SPREAD = 4.0
"""Ends of the axis of residuals, as a factor; what lies beyond is drawn at the end."""
WIDTH, HEIGHT = 1240, 620
ENTRY, GROUP = 19, 10
"""Height of an entry of the legend, and of the gap after a device: a legend that is too high would be cut in a picture."""
TIMES = ("ttft_s", "tpot_s", "e2el_s")


def check_suffix(path: Path | None) -> None:
    """Raises ScenarioError for a picture that cannot be written."""
    if path is not None and path.suffix not in SUFFIXES:
        raise ScenarioError(f"--plot must end in {', '.join(SUFFIXES)}, not '{path.suffix or path.name}'")


def run_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The points of end-to-end runs: times of static batches, or of steady serving where there are no others."""
    times = rows[rows["metric"].isin(TIMES)]
    chosen = times[~times["steady"].astype(bool)]
    chosen = chosen if len(chosen) else times
    tokens = sum(chosen[name].astype(float).fillna(ASSUMED_TOKENS) for name in ("input_len", "output_len"))
    size = chosen["batch"].astype(float).clip(lower=1.0).fillna(1.0) * tokens
    return _points(chosen, size, chosen["metric"].astype(str))


def kernel_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The points of kernels."""
    return _points(rows, rows["measured"].astype(float), rows["op"].astype(str))


def _points(rows: pd.DataFrame, size: Any, what: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({
        "hardware": rows["hardware"].astype(str), "framework": rows["framework"].astype(str), "what": what,
        "size": size, "measured": rows["measured"].astype(float), "predicted": rows["predicted"].astype(float),
    })  # fmt: skip


def thinned(points: pd.DataFrame, most: int = POINTS) -> pd.DataFrame:
    """At most about `most` points, at equal steps through each device and engine, and at least one of each.

    >>> frame = pd.DataFrame({"hardware": ["a"] * 90 + ["b"] * 10, "framework": "e"})
    >>> thinned(frame, 20)["hardware"].value_counts().to_dict()
    {'a': 18, 'b': 2}
    """
    if len(points) <= most:
        return points
    step = len(points) / most
    groups = points.groupby(["hardware", "framework"], sort=True, observed=True)
    return pd.concat([part.iloc[np.arange(0, len(part), step).astype(int)] for _, part in groups])


def accuracy_figure(points: pd.DataFrame, title: str, size_label: str) -> Any:
    """Left: predicted over measured seconds, with a band of 25%. Right: predicted / measured over size."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, column_widths=[0.5, 0.5], horizontal_spacing=0.09)
    drawn = thinned(points)
    inside = (points["predicted"] / points["measured"]).between(1.0 - BAND, 1.0 + BAND).mean() if len(points) else 0.0
    low, high = _span(pd.concat([drawn["measured"], drawn["predicted"]]))
    _band(figure, (low, high), 1)
    sizes = _span(drawn["size"])
    _band(figure, sizes, 2)
    devices = points["hardware"].value_counts().index.tolist()
    colours = {name: PALETTE[i] for i, name in enumerate(sorted(devices[: len(PALETTE) - 1]))}
    engines = {name: SYMBOLS[i % len(SYMBOLS)] for i, name in enumerate(sorted(points["framework"].unique()))}
    grouped = drawn.assign(group=drawn["hardware"].where(drawn["hardware"].isin(colours), "other devices"))
    for (group, engine), part in sorted(
        grouped.groupby(["group", "framework"], observed=True),
        key=lambda item: (item[0][0] == "other devices", item[0]),
    ):
        marker = {"color": colours.get(group, OTHER), "symbol": engines[engine], "size": 5, "opacity": 0.55}
        ratio = (part["predicted"] / part["measured"]).clip(1.0 / SPREAD, SPREAD)
        words = part["hardware"] + ", " + engine + ", " + part["what"]
        common = {"mode": "markers", "marker": marker, "hovertext": words, "legendgroup": group}
        settings = {**common, "name": f"{group}, {engine}"}
        figure.add_scatter(x=part["measured"], y=part["predicted"], **settings, row=1, col=1)
        figure.add_scatter(x=part["size"], y=ratio, **{**settings, "showlegend": False}, row=1, col=2)
    axis = {
        "type": "log",
        "gridcolor": "#E6E6E6",
        "linecolor": "#888888",
        "showline": True,
        "dtick": 1,
        "exponentformat": "power",
    }
    figure.update_xaxes(title="measured, s", range=_log(low, high), **axis, row=1, col=1)
    figure.update_yaxes(title="predicted, s", range=_log(low, high), **axis, row=1, col=1)
    figure.update_xaxes(title=size_label, range=_log(*sizes), **axis, row=1, col=2)
    ratios = [0.25, 0.5, 0.75, 1.0, 1.25, 2.0, 4.0]
    figure.update_yaxes(
        title="predicted / measured", type="log", range=_log(1.0 / SPREAD / 1.1, SPREAD * 1.1), tickmode="array",
        tickvals=ratios,
        ticktext=["≤ 0.25", *(f"{value:g}" for value in ratios[1:-1]), "≥ 4"], gridcolor="#E6E6E6", linecolor="#888888",
        showline=True, row=1, col=2,
    )  # fmt: skip
    shown = grouped[["group", "framework"]].drop_duplicates()
    height = max(HEIGHT, 180 + ENTRY * len(shown) + GROUP * shown["group"].nunique())
    note = f"{len(points):,} values, {inside:.0%} within 25% (grey band)"
    note += f"; {len(drawn):,} of them drawn" if len(drawn) < len(points) else ""
    figure.update_layout(
        title={"text": f"<b>{title}</b><br><span style='font-size:13px'>{note}</span>", "x": 0.01, "y": 0.96},
        template="plotly_white", width=WIDTH, height=height, margin={"l": 70, "r": 20, "t": 80, "b": 60},
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        legend={"itemsizing": "constant", "font": {"size": 12}},
    )  # fmt: skip
    return figure


def _span(values: pd.Series) -> tuple[float, float]:
    known = values[np.isfinite(values) & (values > 0.0)]
    return (float(known.min()) / 1.5, float(known.max()) * 1.5) if len(known) else (0.1, 10.0)


def _log(low: float, high: float) -> list[float]:
    return [float(np.log10(low)), float(np.log10(high))]


def _band(figure: Any, span: tuple[float, float], column: int) -> None:
    """The band of 25% and the line of equality: along the diagonal, or around 1."""
    x = [span[0], span[1], span[1], span[0]]
    diagonal = column == 1
    ends = [value if diagonal else 1.0 for value in (span[0], span[1], span[1], span[0])]
    y = [end * factor for end, factor in zip(ends, (1 + BAND, 1 + BAND, 1 - BAND, 1 - BAND), strict=True)]
    hidden = {"showlegend": False, "hoverinfo": "skip", "row": 1, "col": column}
    figure.add_scatter(
        x=x, y=y, fill="toself", fillcolor="rgba(120,120,120,0.18)", line={"width": 0}, mode="lines", **hidden
    )
    figure.add_scatter(x=x[:2], y=ends[:2], mode="lines", line={"color": "#444444", "width": 1}, **hidden)


def write_plot(kind: str, rows: pd.DataFrame, path: Path, title: str = "") -> None:
    """Write the figure of `runs` or `kernels` as the suffix says."""
    check_suffix(path)
    runs = kind == "runs"
    points = (run_points if runs else kernel_points)(rows)
    label = "batch x (input + output tokens)" if runs else "measured, s"
    names: Sequence[str] = sorted(points["what"].unique())
    default = "End-to-end times" if runs else f"Kernels: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
    write_figure(accuracy_figure(points, title or default, label), path)
