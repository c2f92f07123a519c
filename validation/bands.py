"""Residual against size as one Plotly figure: a panel per family of kernels and per metric of runs, a line per engine.

Knows what is drawn; the rows are those of the accuracy page. Grey: where 80% of all values lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.views.chart import PALETTE
from simulator.views.export import write_figure
from validation import remainder

BINS = 9
"""Bins of a panel, of equal numbers of values."""
FEWEST = 12
"""Values of an engine in a bin, below which its line has a gap."""
COLUMNS = 4
NARROW = 30.0
"""Ratio of the ends of an axis, up to which 2 and 5 are marked between the powers of ten."""
RANGE = (-0.6, 0.6)
"""Of the axis, as predicted / measured - 1."""
RUNS = (
    ("time to first token", "ttft_s", False, "prompt tokens of the batch"),
    ("time per output token", "tpot_s", None, "batch"),
    ("energy per output token", "energy_j_per_output_token", None, "weights, GB"),
)
"""Title, metric, steady or not (None: both), and what it is drawn over."""


def panels(kernels: pd.DataFrame, runs: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Title -> rows with `framework`, `size` and `error` (predicted / measured - 1); the column `unit` names the size.

    `kernels` and `runs` are residuals ln(measured / predicted) of the shipped parameters.
    """
    found = {}
    for kind in remainder.KINDS:
        rows = remainder.shaped(kernels, kind)
        size = rows["predicted"] * 1e6
        found[kind.title] = _panel(rows, size, "predicted, us")
    for title, metric, steady, unit in RUNS:
        rows = runs[(runs["metric"] == metric) & (True if steady is None else runs["steady"] == steady)]
        sizes = {"batch": rows["batch"], "weights, GB": rows["weight_bytes"] / 1e9}
        size = sizes.get(unit, rows["batch"] * rows["input_len"])
        found[title] = _panel(rows, size, unit)
    return found


def _panel(rows: pd.DataFrame, size: pd.Series, unit: str) -> pd.DataFrame:
    error = np.expm1(-rows["residual"].to_numpy(float))
    frame = pd.DataFrame(
        {"framework": rows["framework"].astype(str).to_numpy(), "size": size.to_numpy(float), "error": error}
    )
    return frame[(frame["size"] > 0) & np.isfinite(frame["error"])].assign(unit=unit)


def binned(panel: pd.DataFrame) -> pd.DataFrame:
    """The middle of each bin of sizes, with the 10%, 50% and 90% quantiles of the error and the number of values.

    >>> panel = pd.DataFrame({"size": np.arange(1.0, 101.0), "error": 0.1})
    >>> binned(panel)[["n", "middle"]].sum().round(3).to_dict()
    {'n': 100.0, 'middle': 0.9}
    """
    edges = np.unique(np.quantile(panel["size"], np.linspace(0.0, 1.0, BINS + 1)))
    which = np.clip(np.searchsorted(edges, panel["size"], side="right") - 1, 0, max(len(edges) - 2, 0))
    groups = panel.groupby(which)
    error = groups["error"]
    return pd.DataFrame(
        {
            "size": groups["size"].median(), "n": groups.size(), "low": error.quantile(0.1), "middle": error.median(),
            "high": error.quantile(0.9),
        }
    )  # fmt: skip


def figure(kernels: pd.DataFrame, runs: pd.DataFrame) -> Any:
    """The figure of all panels."""
    from plotly.subplots import make_subplots

    parts = {title: panel for title, panel in panels(kernels, runs).items() if len(panel) >= FEWEST}
    rows = -(-len(parts) // COLUMNS)
    drawn = make_subplots(
        rows=rows, cols=COLUMNS, subplot_titles=list(parts), horizontal_spacing=0.045, vertical_spacing=0.16
    )
    engines = sorted({name for panel in parts.values() for name in panel["framework"]})
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(engines)}
    named: set[str] = set()
    for i, panel in enumerate(parts.values()):
        place = {"row": i // COLUMNS + 1, "col": i % COLUMNS + 1}
        everything = binned(panel)
        _fill(drawn, everything, place)
        drawn.add_hline(y=0.0, line={"color": "#444444", "width": 1}, **place)
        for name in engines:
            own = panel[panel["framework"] == name]
            line = binned(own) if len(own) >= FEWEST else everything.iloc[:0]
            line = line[line["n"] >= FEWEST]
            if len(line):
                drawn.add_scatter(
                    x=line["size"], y=line["middle"].clip(*RANGE), mode="lines+markers", name=name, legendgroup=name,
                    showlegend=name not in named, line={"color": colours[name], "width": 2}, marker={"size": 5}, **place,
                )  # fmt: skip
                named.add(name)
        ends = panel["size"].quantile([0.02, 0.98])
        ticks = 1 if ends.iloc[1] > NARROW * ends.iloc[0] else "D2"
        drawn.update_xaxes(type="log", title=panel["unit"].iloc[0], dtick=ticks, exponentformat="power", **place)
    drawn.update_yaxes(range=RANGE, tickformat="+.0%", gridcolor="#E6E6E6")
    drawn.update_layout(
        title={"text": "<b>Error against size</b><br><span style='font-size:13px'>predicted / measured - 1: medians by "
               "engine, and where 80% of all values lie (grey)</span>", "x": 0.01, "y": 0.96},
        template="plotly_white", width=1240, height=330 * rows + 60, margin={"l": 60, "r": 20, "t": 110, "b": 60},
        font={"family": "Helvetica, Arial, sans-serif", "size": 12, "color": "#222222"},
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yref": "container", "yanchor": "top"},
    )  # fmt: skip
    return drawn


def _fill(drawn: Any, line: pd.DataFrame, place: Mapping[str, int]) -> None:
    x = [*line["size"], *line["size"][::-1]]
    y = [*line["high"].clip(*RANGE), *line["low"].clip(*RANGE)[::-1]]
    hidden = {"showlegend": False, "hoverinfo": "skip", "mode": "lines", "line": {"width": 0}}
    drawn.add_scatter(x=x, y=y, fill="toself", fillcolor="rgba(120,120,120,0.18)", **hidden, **place)


def write(kernels: pd.DataFrame, runs: pd.DataFrame, path: Path) -> None:
    """Write the figure as the suffix says."""
    write_figure(figure(kernels, runs), path)
