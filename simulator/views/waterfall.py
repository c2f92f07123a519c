"""Where the time of a prediction goes: one row per term, adding up to the time to first token and per further token.

`waterfall` is the data; `waterfall_figure` draws it. Terms of an op overlap, so its time is given to the longest of them;
what it takes beyond that one, at full rates, is a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.cost.layout import R_COPY, R_TIME
from simulator.cost.steps import device_seconds
from simulator.result import OpCost, Prediction
from simulator.run import BatchRun
from simulator.views.text import duration

COLOURS = {
    "compute": "#0072B2", "memory": "#D55E00", "cache": "#E69F00", "link": "#009E73", "copy": "#CC79A7",
    "launch": "#56B4E9", "losses": "#8A8A8A", "host": "#444444", "beside": "#999933", "waiting": "#BBBBBB",
}  # fmt: skip
"""Okabe and Ito's colours by kind of term; each bar also carries its name."""
TITLES = {"ttft_s": "Time to first token", "tpot_s": "Time per further token"}
_NAMES = {
    "losses": "losses against full rates",
    "launch": "kernel launches",
    "copy": "copies over links",
    "link": "exchange over links",
}
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
    first["beside", "beside the network"] = turn.first_s - static.ttft_s
    first["waiting", "wait for a turn"] = prediction.ttft_s - turn.first_s
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
    return [
        {"metric": p.metric, "kind": p.kind, "term": p.name, "seconds": p.seconds, "share": p.share} for p in parts
    ]


def waterfall_figure(parts: Sequence[Part], baseline: Sequence[Part] = (), *, stacked: bool = False) -> Any:
    """A panel per metric, terms from top to bottom; a dashed line where the baseline ends. `stacked`: one below the other."""
    from plotly.subplots import make_subplots

    metrics = list(dict.fromkeys(part.metric for part in parts))
    shown = {metric: _shown([p for p in parts if p.metric == metric]) for metric in metrics}
    before = {metric: [p for p in baseline if p.metric == metric] for metric in metrics}
    titles = [_title(metric, parts, before[metric]) for metric in metrics]
    rows = [len(shown[metric]) for metric in metrics] or [1]
    down = stacked and len(metrics) > 1
    figure = make_subplots(
        rows=len(metrics) if down else 1, cols=1 if down else max(1, len(metrics)), subplot_titles=titles,
        row_heights=[float(n) for n in rows] if down else None, horizontal_spacing=0.2,
        vertical_spacing=0.2 if down else None,
    )  # fmt: skip
    for position, metric in enumerate(metrics, start=1):
        place = {"row": position, "col": 1} if down else {"row": 1, "col": position}
        _draw(figure, shown[metric], before[metric], place)
    height = sum(30 * n + 70 for n in rows) + 40 if down else 30 * max(rows) + 110
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 4, "r": 8, "t": 46, "b": 34}, showlegend=False, bargap=0.28,
        font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        hoverlabel={"align": "left"},
    )  # fmt: skip
    figure.update_annotations(font_size=14, xanchor="left")
    for number, annotation in enumerate(figure.layout.annotations[: len(metrics)]):
        annotation.x = figure.layout[f"xaxis{number + 1 if number else ''}"].domain[0]
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
    return "waiting for the host" if plain else "host, drafts and schedule"


def _parts(metric: str, terms: dict[tuple[str, str], float]) -> list[Part]:
    whole = sum(terms.values())
    order = list(COLOURS)
    kept = [(kind, name, seconds) for (kind, name), seconds in terms.items() if abs(seconds) > 1e-9 * whole]
    kept.sort(key=lambda item: (order.index(item[0]), -item[2]))
    return [Part(metric, kind, name, seconds, seconds / whole) for kind, name, seconds in kept]


def _shown(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if abs(part.share) >= _LEAST]


def _title(metric: str, parts: Sequence[Part], before: Sequence[Part]) -> str:
    text = f"<b>{TITLES[metric]}</b>  {duration(sum(p.seconds for p in parts if p.metric == metric))}"
    return text + (f"  <span style='color:#555555'>baseline {duration(_sum(before))}</span>" if before else "")


def _sum(parts: Sequence[Part]) -> float:
    return sum(part.seconds for part in parts)


def _draw(figure: Any, parts: Sequence[Part], before: Sequence[Part], place: dict[str, int]) -> None:
    whole = _sum(parts)
    factor, unit = _unit(max(whole, _sum(before)))
    earlier = {(p.kind, p.name): p.seconds for p in before}
    bases, at = [], 0.0
    for part in parts:
        bases.append(at * factor)
        at += part.seconds
    texts = []
    for part in parts:
        text = f" {duration(part.seconds)}, {part.share:.0%}"
        old = earlier.get((part.kind, part.name), 0.0)
        texts.append(text + (f"  (was {duration(old)})" if before and old else " (new)" if before else ""))
    figure.add_bar(
        y=[part.name for part in parts], x=[part.seconds * factor for part in parts], base=bases, orientation="h",
        marker={"color": [COLOURS[part.kind] for part in parts]},
        hovertext=[f"{part.name}: {duration(part.seconds)}, {part.share:.1%} of {TITLES[part.metric].lower()}" for part in parts],
        hoverinfo="text", cliponaxis=False, **place,
    )  # fmt: skip
    limit = max(whole, _sum(before)) * factor
    for part, base, text in zip(parts, bases, texts, strict=True):
        end = base + part.seconds * factor
        # Where a label would run over the end of the panel, it stands before its bar.
        left = end > 0.52 * limit and base > 0.42 * limit
        inside = end - base > 0.8 * limit
        figure.add_annotation(
            x=end if not (left or inside) else (base if left else end), y=part.name, text=text + (" " if left or inside else ""),
            showarrow=False, xanchor="right" if left or inside else "left",
            font={"size": 12, "color": "#FFFFFF" if inside else "#222222"}, **place,
        )  # fmt: skip
    if before:
        figure.add_vline(x=_sum(before) * factor, line={"color": "#222222", "dash": "dash", "width": 1.5}, **place)
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", automargin=True, **place)
    figure.update_xaxes(
        range=[0, limit * 1.04 or 1.0], ticksuffix=f" {unit}", nticks=5, gridcolor="#E6E6E6", zerolinecolor="#888888", **place
    )  # fmt: skip


def _unit(seconds: float) -> tuple[float, str]:
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1.0:
            return factor, unit
    return 1e9, "ns"
