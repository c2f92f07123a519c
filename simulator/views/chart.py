"""Drawing the roofline: axes, roofs, points, and labels that keep out of each other's way.

Knows colours and what is written where; the data are `simulator.views.roofline`'s, pixels `simulator.views.labels`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from simulator.result import Prediction
from simulator.units import in_engineering
from simulator.views.labels import FULL, Axes, Labels, Size
from simulator.views.roofline import Point, Roof, points, ridge_points, roofs, undrawn
from simulator.views.text import duration, plain, scenario_line

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
"""Okabe and Ito's colours, which colour-blind people can tell apart, without the yellow that white swallows."""
_ROOF_STYLE = {
    "memory": ("#222222", "solid", 2.2),
    "cache": ("#666666", "dash", 1.8),
    "link": ("#666666", "dot", 1.8),
    "compute": ("#222222", "solid", 2.2),
}
_ALONG = (0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Places along a sloped roof where its label may begin."""
_SYMBOL = {"prefill": "circle", "decode": "diamond"}


def roofline_chart(prediction: Prediction, size: Size = FULL) -> Any:
    """The hierarchical roofline of a prediction; in any other size than FULL without title, and with its legend below."""
    limits, drawn = roofs(prediction), points(prediction)
    axes = _axes(limits, drawn, size)
    figure = go.Figure()
    labels = Labels(axes)
    slopes = _draw_roofs(figure, limits, axes, labels)
    _draw_ridges(figure, limits, axes, labels)
    _draw_points(figure, drawn, axes)
    groups = _together([point for point in drawn if math.log10(point.flop_per_s) > axes.y[0]], axes, labels)
    groups.sort(key=_weight, reverse=True)
    crowded = len(drawn) > 30
    heavy = [group for group in groups if _weight(group) >= 0.05][:6]
    _label_points(figure, heavy, axes, labels, crowded=crowded)
    for roof, start, end in slopes:
        _label_sloped(figure, roof, start, end, axes, labels)
    _label_points(figure, [group for group in groups if group not in heavy], axes, labels, crowded=crowded)
    figure.update_layout(
        template="plotly_white",
        width=size.width,
        height=size.height,
        margin=size.margin,
        font={"family": "Helvetica, Arial, sans-serif", "size": 13 if size.width > 600 else 11, "color": "#222222"},
        hoverlabel={"align": "left"},
    )
    if size == FULL:
        _title(figure, prediction)
        figure.update_layout(
            legend={"x": 1.01, "y": 1.0, "title": {"text": "step and block"}, "itemsizing": "constant"}
        )
        _footnote(figure, prediction)
    else:
        below = -66.0 / axes.high
        figure.update_layout(
            legend={"orientation": "h", "x": 0.0, "y": below, "yanchor": "top", "itemsizing": "constant"}
        )
    figure.update_xaxes(
        title="arithmetic intensity at the level that binds, FLOP/byte"
        if size.width > 600
        else "FLOP/byte at the level that binds",
        **_axis(axes.x, ""),
    )
    figure.update_yaxes(
        title="attained rate per device, FLOP/s" if size.width > 600 else None, **_axis(axes.y, "FLOP/s")
    )
    return figure


def _title(figure: Any, prediction: Prediction) -> None:
    names = prediction.provenance
    head = f"<b>Roofline: {names['model']} on {names['hardware']}, engine {names['engine']}</b>"
    figure.update_layout(
        title={
            "text": f"{head}<br><span style='font-size:13px'>{scenario_line(prediction)}; per device, "
            f"roofs at datasheet rates, area of a point ~ its share of the step</span>",
            "x": 0.01,
            "y": 0.97,
            "yanchor": "top",
        }
    )


def _axes(limits: Sequence[Roof], drawn: Sequence[Point], size: Size) -> Axes:
    peak = max((roof.per_s for roof in limits if roof.kind == "compute"), default=1e12)
    rates = [point.flop_per_s for point in drawn] or [peak / 100]
    intensities = [point.flop_per_byte for point in drawn] or [1.0]
    ridges = [ridge for _, _, ridge in ridge_points(limits)]
    low_y = max(min(rates), peak * 1e-7)
    x = (math.log10(min(*intensities, *ridges) / 7), math.log10(max(*intensities, *ridges) * 5))
    return Axes((max(x[0], x[1] - 9), x[1]), (math.log10(low_y / 4), math.log10(peak * 3)), size)


def _axis(span: tuple[float, float], unit: str) -> dict[str, Any]:
    decades = range(math.ceil(span[0]), math.floor(span[1]) + 1)
    texts = [in_engineering(10.0**d, unit, digits=1).strip() if unit else f"{10.0**d:g}" for d in decades]
    return {
        "type": "log",
        "range": list(span),
        "tickmode": "array",
        "tickvals": [10.0**d for d in decades],
        "ticktext": texts,
        "gridcolor": "#E6E6E6",
        "linecolor": "#888888",
        "showline": True,
        "zeroline": False,
    }


def _draw_roofs(figure: Any, limits: Sequence[Roof], axes: Axes, labels: Labels) -> list[tuple[Roof, float, float]]:
    """The roofs with the labels of the flat ones; returns the sloped ones with their ends, to be labelled later."""
    slopes = []
    left, right = 10 ** axes.x[0], 10 ** axes.x[1]
    flat = [roof for roof in limits if roof.kind == "compute"]
    sloped = [roof for roof in limits if roof.kind != "compute"]
    fastest = max((roof.per_s for roof in sloped), default=0.0)
    for roof in limits:
        color, dash, width = _ROOF_STYLE[roof.kind]
        if roof.kind == "compute":
            x = [max(left, roof.per_s / fastest) if fastest else left, right]
            y = [roof.per_s, roof.per_s]
        else:
            own = [top.per_s for top in flat if top.units[0] in roof.units] or [top.per_s for top in flat]
            top = max(own, default=10 ** axes.y[1])
            start = max(left, 10 ** axes.y[0] / roof.per_s)
            x = [start, max(start, top / roof.per_s)]
            y = [x[0] * roof.per_s, x[1] * roof.per_s]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": color, "dash": dash, "width": width},
            name=roof.label,
            showlegend=False,
            hovertemplate=f"{roof.kind} roof: {roof.label}<extra></extra>",
        )
        labels.cross(*axes.at(x[0], y[0]), *axes.at(x[1], y[1]))
        if roof.kind == "compute":
            _label_flat(figure, roof, axes, labels)
        else:
            slopes.append((roof, x[0], x[1]))
    return slopes


def _label_flat(figure: Any, roof: Roof, axes: Axes, labels: Labels) -> None:
    _, height = axes.at(10 ** axes.x[1], roof.per_s)
    width = 7.2 * len(roof.label)
    for right in (axes.wide - 6, axes.wide - width - 30):
        for below in (2.0, -19.0):
            if labels.claim(right - width, height + below, width, 17):
                _write(figure, roof.label, right, height + below + 8.5, axes, xanchor="right")
                return


def _label_sloped(figure: Any, roof: Roof, start: float, end: float, axes: Axes, labels: Labels) -> None:
    """Along the line, above or below it, at the first free place from its lower end upwards; else level beside it."""
    angle = math.radians(axes.slope_degrees)
    length = 7.0 * len(roof.label)
    wide, high = length * math.cos(angle), length * math.sin(angle)
    x0, y0 = axes.at(start, start * roof.per_s)
    x1, _ = axes.at(end, end * roof.per_s)
    corners = [(x0 + share * (x1 - x0), y0 + share * (x1 - x0) * math.tan(angle)) for share in _ALONG]
    for side in (10.0, -11.0):
        for left, bottom in corners:
            steps = [(wide * i / 6, high * i / 6) for i in range(6)]
            low = bottom if side > 0 else bottom - 20
            boxes = [(left + right, low + up, wide / 6 - 0.1, high / 6 + 20) for right, up in steps]
            if left + wide <= x1 + 12 and labels.claim_all(boxes):
                x, y = left + wide / 2 - side * math.sin(angle), bottom + high / 2 + side * math.cos(angle)
                _write(figure, roof.label, x, y, axes, textangle=-axes.slope_degrees)
                return
    width = 6.6 * len(roof.label)
    for left, bottom in corners:
        for x, y in ((left - width - 6, bottom + 4), (left + 8, bottom - 18)):
            if labels.claim(x, y, width, 16, over_lines=False):
                _write(figure, roof.label, x, y + 8, axes, xanchor="left")
                return


def _draw_ridges(figure: Any, limits: Sequence[Roof], axes: Axes, labels: Labels) -> None:
    ridges = [item for item in ridge_points(limits) if axes.x[0] < math.log10(item[2]) < axes.x[1]]
    if not ridges:
        return
    figure.add_scatter(
        x=[ridge for _, _, ridge in ridges],
        y=[top.per_s for _, top, _ in ridges],
        mode="markers",
        marker={"symbol": "circle-open", "size": 9, "color": "#222222", "line": {"width": 2}},
        name="ridge points",
        hovertext=[f"ridge point of {roof.name} and {top.name}: {ridge:.3g} FLOP/B" for roof, top, ridge in ridges],
        hoverinfo="text",
    )
    for roof, top, ridge in sorted(ridges, key=lambda item: item[0].kind != "memory"):
        x, _ = axes.at(ridge, top.per_s)
        figure.add_shape(
            type="line",
            x0=ridge,
            x1=ridge,
            y0=10 ** axes.y[0],
            y1=top.per_s,
            line={"color": "#BBBBBB", "width": 1, "dash": "dot"},
            layer="below",
        )
        text = f"{roof.name}: {plain(ridge)}"
        width = 6.2 * len(text)
        for left in (x + 4, x - 4 - width):
            if labels.claim(left, 2, width, 15):
                _write(figure, text, left, 9.5, axes, xanchor="left", size=11)
                break


def _draw_points(figure: Any, drawn: Sequence[Point], axes: Axes) -> None:
    ordered = sorted(drawn, key=lambda point: (point.block == "exchange", -point.share))
    blocks = list(dict.fromkeys(point.block for point in ordered))
    named = blocks if len(blocks) <= len(PALETTE) else [*blocks[: len(PALETTE) - 1], "others"]
    colors = dict(zip(named, PALETTE, strict=False)) | {"exchange": "#555555", "others": "#999999"}
    for phase in ("prefill", "decode"):
        for block in named:
            chosen = [
                point
                for point in drawn
                if point.phase == phase
                and (point.block if point.block in named else "others") == block
                and math.log10(point.flop_per_s) > axes.y[0]
            ]
            if not chosen:
                continue
            figure.add_scatter(
                x=[point.flop_per_byte for point in chosen],
                y=[point.flop_per_s for point in chosen],
                mode="markers",
                name=f"{phase}: {block}",
                marker={
                    "size": [_size(point) for point in chosen],
                    "symbol": _SYMBOL[phase] if block != "exchange" else "x",
                    "color": colors[block],
                    "opacity": 0.8,
                    "line": {"width": 1, "color": "white"},
                },
                hovertext=[_hover(point) for point in chosen],
                hoverinfo="text",
            )


def _together(drawn: Sequence[Point], axes: Axes, labels: Labels) -> list[list[Point]]:
    """Points of one step that lie together and share a label, the largest first; their places are taken."""
    groups: list[list[Point]] = []
    for point in sorted(drawn, key=lambda point: -point.share):
        x, y = axes.at(point.flop_per_byte, point.flop_per_s)
        half = 0.4 * _size(point)
        labels.taken.append((x - half, y - half, x + half, y + half))
        near = (
            group for group in groups
            if group[0].phase == point.phase
            and (group[0].block == "exchange") == (point.block == "exchange")
            and math.dist((x, y), axes.at(group[0].flop_per_byte, group[0].flop_per_s)) < 26
        )  # fmt: skip
        group = next(near, None)
        if group is None:
            groups.append([point])
        else:
            group.append(point)
    return groups


def _weight(group: Sequence[Point]) -> float:
    return sum(point.share for point in group)


def _label_points(figure: Any, groups: Sequence[Sequence[Point]], axes: Axes, labels: Labels, *, crowded: bool) -> None:
    """Names (of blocks, if `crowded`) beside groups of points, where there is room: off the roofs if it can be."""
    for group in groups:
        parts = list(dict.fromkeys(point.block if crowded else point.op for point in group))
        names = ", ".join(parts[:3]) + (f" +{len(parts) - 3}" if len(parts) > 3 else "")
        share = f"{_weight(group):.0%}" if _weight(group) >= 0.005 else "<1%"
        text = f"{names} ({share})" if group[0].block != "exchange" else f"{names} (links {share})"
        x, y = axes.at(group[0].flop_per_byte, group[0].flop_per_s)
        reach = max(_size(point) for point in group) / 2 + 4
        width = 6.4 * len(text)
        beside = [(x + reach, y + up) for up in (-8, 8, -24)] + [(x - reach - width, y + up) for up in (-8, 8, -24)]
        around = [
            (x + side, y + up)
            for up in (reach, -reach - 16, reach + 18, -reach - 34)
            for side in (4, -width / 2, -width)
        ]
        places = [(left, bottom, over) for over in (False, True) for left, bottom in (*beside, *around)]
        for left, bottom, over in places:
            if labels.claim(left, bottom, width, 16, over_lines=over):
                _write(figure, text, left, bottom + 8, axes, xanchor="left", size=12)
                break


def _write(figure: Any, text: str, x: float, y: float, axes: Axes, size: int = 12, **settings: Any) -> None:
    """Text at pixels from the plot's lower left corner; annotations on a log axis take decades."""
    figure.add_annotation(
        x=axes.x[0] + x / axes.wide * (axes.x[1] - axes.x[0]),
        y=axes.y[0] + y / axes.high * (axes.y[1] - axes.y[0]),
        text=text,
        showarrow=False,
        font={"size": size, "color": "#222222"},
        bgcolor="rgba(255,255,255,0.7)" if "textangle" not in settings else None,
        **settings,
    )


def _size(point: Point) -> float:
    return 8.0 + 38.0 * math.sqrt(min(1.0, point.share))


def _hover(point: Point) -> str:
    lines = [
        f"<b>{point.op}</b> ({point.phase}, {point.block}) on {point.unit}",
        point.terms,
        f"{point.share:.1%} of the step, {duration(point.time_s)}",
        f"{point.flop_per_byte:.3g} FLOP/B at {point.level}, {in_engineering(point.flop_per_s, 'FLOP/s')}",
    ]
    return "<br>".join(lines)


def undrawn_text(prediction: Prediction) -> str:
    """What of the step has no point, in words; empty if everything has one."""
    missing = undrawn(prediction)
    if not missing:
        return ""
    exchanged = sum(op.share for op in missing if op.kind == "collective" and op.phase == missing[0].phase)
    others = list(dict.fromkeys(op.op for op in missing if op.kind != "collective"))
    words = []
    if others:
        shown = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
        words.append(f"not drawn, as they compute nothing or touch no memory: {shown}")
    if exchanged:
        words.append("collectives appear as one point per step at the link")
    return "; ".join(words)


def _footnote(figure: Any, prediction: Prediction) -> None:
    figure.add_annotation(
        x=0, y=0, xref="paper", yref="paper", yshift=-88, xanchor="left", yanchor="bottom", showarrow=False,
        text=undrawn_text(prediction), font={"size": 11, "color": "#666666"},
    )  # fmt: skip
