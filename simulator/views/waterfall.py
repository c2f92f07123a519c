"""Where the time of a prediction goes: one row per term, adding up to the time to first token and per further token.

`waterfall` is the data; `waterfall_figure` draws it. Terms of an op overlap, so its time is given to the longest of them;
what it takes beyond that one, at full rates, is a loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.cost.layout import R_COPY, R_TIME
from simulator.cost.steps import device_seconds
from simulator.result import OpCost, Prediction
from simulator.run import BatchRun
from simulator.views.text import axis_unit, duration

COLOURS = {
    "compute": "#0072B2", "memory": "#D55E00", "cache": "#E69F00", "link": "#009E73", "copy": "#CC79A7",
    "launch": "#56B4E9", "losses": "#8A8A8A", "host": "#444444", "beside": "#999933", "waiting": "#BBBBBB",
}  # fmt: skip
"""Okabe and Ito's colours by kind of term; each bar also carries its name."""
TITLES = {"ttft_s": "Time to first token", "tpot_s": "Time per further token"}
_NAMES = {
    "losses": "losses",
    "launch": "launches",
    "copy": "copies",
    "link": "links",
}
MEANS = {
    "compute": "ops whose arithmetic takes longest, at full rate",
    "memory": "ops whose bytes from this memory take longest, at full bandwidth",
    "cache": "ops whose traffic through the last cache takes longest",
    "link": "exchange among devices",
    "copy": "what is brought from further memories and nothing hides",
    "launch": "starting kernels",
    "losses": "what ops take beyond their longest term at full rates",
    "host": "what the device waits for: the engine's own work per step",
    "beside": "an encoder, a draft model, or a prompt that is loaded",
    "waiting": "for a turn, as not all caches fit at once",
}
_COLUMNS = (76, 116, 196)
_NARROW = (72, 72, 142)
"""Pixels from the plot's right edge to the right end of the columns: seconds, share, the baseline's seconds."""
_LEAST = 5e-4
"""Terms below this share of the whole are left out of a drawing."""


@dataclass(frozen=True, slots=True)
class Part:
    """One term of a time."""

    metric: str
    """ttft_s or tpot_s."""
    kind: str
    """compute, memory, cache, link, copy, launch, losses, host, beside or waiting."""
    name: str
    seconds: float
    share: float
    """Of the metric."""


def waterfall(prediction: Prediction) -> list[Part]:
    """The terms of TTFT, then those of TPOT; each metric's add up to it.

    Ops are those of one whole prefill step and of the decode step in the middle, scaled to what all steps take. `host` is
    what the device waits for, `beside` an encoder, drafts or a prompt that is loaded, `waiting` the wait for a turn.
    """
    run = prediction.run
    assert isinstance(run, BatchRun)
    turn, predictor = run.turns[0], run.predictor
    static, host = turn.static, predictor.host
    ops = prediction.ops()
    found = []
    first = _device_terms([op for op in ops if op.phase == "prefill"])
    busy = min(static.prefill_device_s, static.ttft_s)
    first = _scaled(first, busy, _copied(turn.prefill_totals, host))
    first["host", _host(predictor.plain)] = static.ttft_s - busy
    first["beside", "beside"] = turn.first_s - static.ttft_s
    first["waiting", "waiting"] = prediction.ttft_s - turn.first_s
    found += _parts("ttft_s", first)
    if prediction.tpot_s > 0.0:
        each = _device_terms([op for op in ops if op.phase == "decode"])
        busy = min(static.step_device_s, static.tpot_s)
        each = _scaled(each, busy, _copied(turn.decode_totals, host))
        each["host", _host(predictor.plain)] = static.tpot_s - busy
        other = prediction.tpot_s / static.tpot_s if static.tpot_s else 1.0
        found += _parts("tpot_s", {name: seconds * other for name, seconds in each.items()})
    return found


def waterfall_records(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """A record per term, for JSON and tables."""
    return [{"metric": p.metric, "kind": p.kind, "term": p.name, "seconds": p.seconds, "share": p.share} for p in parts]


def waterfall_figure(parts: Sequence[Part], baseline: Sequence[Part] = (), *, narrow: bool = False) -> Any:
    """A panel per metric, one below the other: a floating bar per term, its numbers in columns at the right.

    A dashed line stands where the baseline ends. `narrow`: with a baseline, its seconds stand in place of the shares.
    """
    from plotly.subplots import make_subplots

    metrics = list(dict.fromkeys(part.metric for part in parts))
    shown = {metric: _shown([p for p in parts if p.metric == metric]) for metric in metrics}
    before = {metric: [p for p in baseline if p.metric == metric] for metric in metrics}
    rows = [float(len(shown[metric])) for metric in metrics] or [1.0]
    height = sum(26 * n for n in rows) + 74 * len(rows)
    figure = make_subplots(
        rows=len(rows), cols=1, row_heights=rows, vertical_spacing=74 / height if len(rows) > 1 else 0.0
    )
    notes: list[dict[str, Any]] = []
    for number, metric in enumerate(metrics, start=1):
        notes += _draw(figure, shown[metric], before[metric], number, narrow)
    figure.update_layout(
        template="plotly_white", height=height + 24, showlegend=False, bargap=0.28, annotations=notes,
        margin={"l": 96, "r": 6 + (_COLUMNS[1] if not baseline else _NARROW[2] if narrow else _COLUMNS[2]), "t": 42,
                "b": 34},
        font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        hoverlabel={"align": "left"},
    )  # fmt: skip
    return figure


def _device_terms(ops: Sequence[OpCost]) -> dict[tuple[str, str], float]:
    """Seconds by (kind, name) of ops one after the other."""
    found: dict[tuple[str, str], float] = {}
    for op in ops:
        terms = {("compute", "compute"): op.compute_s, ("cache", "cache"): op.cache_s}
        terms |= {("memory", f"memory {name}"): seconds for name, seconds in op.memory_s.items()}
        terms["link", _NAMES["link"]] = op.link_s
        key = max(terms, key=lambda name: terms[name])
        launch = min(op.launch_s, op.time_s)
        longest = min(terms[key], op.time_s - launch)
        for name, seconds in (
            (key, longest),
            (("launch", _NAMES["launch"]), launch),
            (("losses", _NAMES["losses"]), op.time_s - longest - launch),
        ):
            found[name] = found.get(name, 0.0) + seconds
    return found


def _copied(totals: Sequence[float], host: Any) -> float:
    """Share of a step's device time that is spent in copies nothing hides."""
    whole = device_seconds(totals, host)
    if whole <= 0.0 or totals[R_COPY] <= 0.0:
        return 0.0
    hidden = host.hidden_copy * min(totals[R_COPY], totals[R_TIME])
    return float(min(1.0, max(0.0, (totals[R_COPY] - hidden) / whole)))


def _scaled(terms: dict[tuple[str, str], float], seconds: float, copied: float) -> dict[tuple[str, str], float]:
    """The terms so that, with copies, they add up to `seconds`."""
    whole = sum(terms.values())
    factor = seconds * (1.0 - copied) / whole if whole > 0.0 else 0.0
    found = {name: value * factor for name, value in terms.items()}
    if copied > 0.0:
        found["copy", _NAMES["copy"]] = seconds * copied
    return found


def _host(plain: bool) -> str:
    return "host" if plain else "host, drafts"


def _parts(metric: str, terms: dict[tuple[str, str], float]) -> list[Part]:
    whole = sum(terms.values())
    order = list(COLOURS)
    kept = [(kind, name, seconds) for (kind, name), seconds in terms.items() if abs(seconds) > 1e-9 * whole]
    kept.sort(key=lambda item: (order.index(item[0]), -item[2]))
    return [Part(metric, kind, name, seconds, seconds / whole) for kind, name, seconds in kept]


def _shown(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if abs(part.share) >= _LEAST]


def _sum(parts: Sequence[Part]) -> float:
    return sum(part.seconds for part in parts)


def _draw(
    figure: Any, parts: Sequence[Part], before: Sequence[Part], number: int, narrow: bool
) -> list[dict[str, Any]]:
    """Draws a panel; returns its title and its numbers, as annotations."""
    limit = max(_sum(parts), _sum(before)) or 1.0
    factor, unit = axis_unit(limit)
    _draw_bars(figure, parts, number, factor)
    if before:
        figure.add_vline(
            x=_sum(before) * factor, line={"color": "#222222", "dash": "dash", "width": 1.5}, row=number, col=1
        )
    ticks = _ticks(limit * factor, 1 if narrow else 2)
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", row=number, col=1)
    figure.update_xaxes(
        range=[0, limit * factor * 1.01], tickvals=ticks, ticktext=[f"{tick:g} {unit}" for tick in ticks], tickangle=0,
        gridcolor="#E6E6E6", zerolinecolor="#888888", row=number, col=1,
    )  # fmt: skip
    return _numbers(parts, before, f"y{number if number > 1 else ''}", _NARROW if narrow and before else _COLUMNS)


def _draw_bars(figure: Any, parts: Sequence[Part], number: int, factor: float) -> None:
    """A bar per term, each from where the one before it ends; `factor` turns seconds into the axis's unit."""
    bases, at = [], 0.0
    for part in parts:
        bases.append(at * factor)
        at += part.seconds
    figure.add_bar(
        y=[part.name for part in parts], x=[part.seconds * factor for part in parts], base=bases, orientation="h",
        marker={"color": [COLOURS[part.kind] for part in parts]},
        hovertext=[
            f"{TITLES[part.metric]}, {part.name}: {duration(part.seconds)}, {part.share:.1%}<br>{MEANS[part.kind]}"
            for part in parts
        ],
        hoverinfo="text", row=number, col=1,
    )  # fmt: skip


def _numbers(parts: Sequence[Part], before: Sequence[Part], axis: str, shifts: tuple[int, ...]) -> list[dict[str, Any]]:
    """A panel's title, its sums above and each term's numbers beside its bar, in columns `shifts` pixels to the right."""
    row = {"xref": "paper", "x": 1.0, "showarrow": False, "xanchor": "right", "font": {"size": 12.5}}
    head = {**row, "yref": f"{axis} domain", "y": 1.0, "yanchor": "bottom", "yshift": 4}
    sums = [duration(_sum(parts)), "", duration(_sum(before)) if before else ""]
    found: list[dict[str, Any]] = [
        {**head, "text": f"<b>{text}</b>", "xshift": shift} for text, shift in zip(sums, shifts, strict=True) if text
    ]
    title = f"<b>{TITLES[parts[0].metric]}</b>" if parts else ""
    found.append({**head, "xanchor": "left", "x": 0.0, "xshift": -90, "text": title, "font": {"size": 14}})
    if before:
        found.append({**head, "text": "<span style='color:#57606a'>baseline</span>", "xshift": shifts[2], "yshift": 20})
    earlier = {(part.kind, part.name): part.seconds for part in before}
    for part in parts:
        old = earlier.get((part.kind, part.name), 0.0)
        texts = [
            duration(part.seconds),
            "" if shifts is _NARROW else f"{part.share:.0%}",
            (duration(old) if old else "none") if before else "",
        ]
        found += [
            {**row, "yref": axis, "y": part.name, "text": text, "xshift": shift}
            for text, shift in zip(texts, shifts, strict=True)
            if text
        ]
    return found


def _ticks(end: float, least: int) -> list[float]:
    """Zero and `least` round numbers up to `end`, or one or two more."""
    power = 10.0 ** math.floor(math.log10(end / least))
    step = next(digit * power for digit in (5.0, 2.0, 1.0) if least * digit * power <= end)
    return [step * i for i in range(int(end / step) + 1)]
