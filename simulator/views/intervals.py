"""Predictions of several scenarios in one chart: a point and its 90% interval per row of a frame.

Takes frames of `simulator.views.frames`; which rows and in which order is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from simulator.errors import ScenarioError, close_matches
from simulator.views.chart import PALETTE

if TYPE_CHECKING:
    import pandas as pd

_UNITS = (
    ("_s", (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))),
    ("_bytes", (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))),
    ("_w", (("W", 1.0), ("mW", 1e-3))),
)
"""Ending of a key -> its units, the largest first."""
_LOGARITHMIC = 30.0
"""From this ratio of the largest to the smallest value on the axis is logarithmic."""


def interval_chart(
    frame: pd.DataFrame,
    key: str,
    *,
    label: str | Sequence[str] = "hardware",
    limit: float | None = None,
    title: str = "",
) -> Any:
    """A Plotly figure: per row, in order from the top, the value of `key` and its 90% interval.

    `label`: the column, or columns, that name a row. `limit`: a line to compare with, in SI units. Raises ScenarioError for
    a column that is not there.

    >>> import simulator as sim
    >>> frame = sim.compare(["A100", "H100"], model="gpt2", engines=["vllm"])
    >>> sorted(name for trace in interval_chart(frame, "tpot_s").data for name in trace.y)
    ['a100-sxm4-80gb', 'h100-sxm5-80gb']
    """
    labels = [label] if isinstance(label, str) else list(label)
    for column in (key, *labels):
        if column not in frame.columns:
            near = close_matches(column, frame.columns)
            raise ScenarioError(f"no column '{column}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    known = frame[frame[key].notna()]
    names = known[labels].astype(str).agg(", ".join, axis=1)
    values = known[key].astype(float)
    low, high = (known.get(f"{key}_{end}", values).astype(float).fillna(values) for end in ("low", "high"))
    unit, factor = _unit(key, float(values.median()) if len(values) else 1.0)
    figure = go.Figure()
    tags = known["tag"].astype(str) if "tag" in known.columns else names.map(lambda _: "prediction")
    for position, tag in enumerate(sorted(tags.unique())):
        own = tags == tag
        figure.add_scatter(
            x=values[own] / factor,
            y=names[own],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (high - values)[own] / factor,
                "arrayminus": (values - low)[own] / factor,
                "thickness": 1.5,
            },
            mode="markers",
            marker={"size": 11, "color": PALETTE[position % len(PALETTE)]},
            name=tag,
        )
    ends = [high.max(), limit or 0.0], [low[low > 0].min(), limit or math.inf]
    wide = len(known) > 0 and max(ends[0]) > _LOGARITHMIC * min(ends[1])
    if limit is not None:
        figure.add_vline(x=limit / factor, line_dash="dash", line_color="#666666")
        # Text on a logarithmic axis stands at the logarithm, a line at the value.
        at = math.log10(limit / factor) if wide else limit / factor
        figure.add_annotation(x=at, y=1.0, yref="paper", yanchor="bottom", text="limit", showarrow=False)
    figure.update_layout(
        title=title,
        template="plotly_white",
        height=180 + 34 * max(1, len(known)),
        width=900,
        margin={"t": 60, "b": 60, "l": 20, "r": 20},
        legend_title_text="founded on",
        showlegend=len(figure.data) > 1 or "tag" in known.columns,
    )
    named = key.removesuffix("_s") if unit else key.replace("per_s", "per_second")
    figure.update_xaxes(
        title=f"{named.replace('_', ' ')}{f', {unit}' if unit else ''}, with its 90% interval",
        type="log" if wide else "linear",
        rangemode="tozero" if not wide else None,
    )
    figure.update_yaxes(categoryorder="array", categoryarray=list(names)[::-1], automargin=True, ticksuffix="  ")
    return figure


def _unit(key: str, typical: float) -> tuple[str, float]:
    """The unit in which a typical value is at least 1, and what one of it is in SI units."""
    if key.endswith("tokens_per_s"):
        return "", 1.0
    for ending, units in _UNITS:
        if key.endswith(ending):
            return next(((name, size) for name, size in units if typical >= size), units[-1])
    return ("J" if "_j" in key else "USD" if key.startswith("usd") else ""), 1.0
