"""The controls: what each is called, what it offers, and the component that shows a state's value.

A control's key is that of the address (`dashboards.state.FIELDS`); what it returns is turned into text and read as an
address is, so that one place checks both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dash import dcc, html

from dashboards import uploads
from dashboards.components import attributes
from dashboards.numbers import LABELS
from dashboards.state import DTYPES, State, value_of
from simulator import catalog

Option = dict[str, str]


@dataclass(frozen=True, slots=True)
class Control:
    """One control."""

    label: str
    kind: str
    """choice, several, count (a number with a slider of powers of two), number or radio."""
    options: Callable[[], list[Option]] = list
    empty: str = ""
    """What an empty one means."""
    most: int = 0
    """Of a count: the slider's end."""
    step: float | str = "any"


def _named(kind: catalog.Kind, uploaded: str = "") -> list[Option]:
    found = [{"label": f"{upload.path.name} (uploaded)", "value": upload.name} for upload in uploads.held(uploaded)]
    return found + [{"label": name, "value": name} for name in catalog.names(kind)]


@lru_cache(maxsize=1)
def _techniques() -> list[Option]:
    from simulator.cli.list import techniques

    found = [{"label": f"{item['name']}: {item['title']}", "value": item["name"]} for item in techniques()]
    general = ("weight-", "kv-", "fp8", "w8a8", "sparsity", "offload", "cache-on", "experts-on", "layers-on")
    return sorted(found, key=lambda option: (not option["value"].startswith(general), option["value"]))


@lru_cache(maxsize=1)
def _papers() -> list[Option]:
    from validation.papers import papers

    known = [paper for paper in papers() if paper.techniques or paper.claims]
    return [{"label": f"{paper.title} ({paper.id})", "value": paper.id} for paper in known]


def _devices() -> list[Option]:
    from dashboards.measured import devices

    return [{"label": "all devices", "value": "all"}, *({"label": name, "value": name} for name in devices())]


def _listed(*names: str) -> list[Option]:
    return [{"label": name, "value": name} for name in names]


def _keys() -> list[Option]:
    return [{"label": label, "value": key} for key, (label, _) in LABELS.items()]


CONTROLS: dict[str, Control] = {
    "model": Control("Model", "choice", lambda: _named("model", "model")),
    "hw": Control("Hardware", "choice", lambda: _named("hardware", "hardware")),
    "engine": Control("Engine", "choice", lambda: _named("engine"), "the hardware's own"),
    "tp": Control("Devices (tensor parallel)", "count", most=64, empty="auto"),
    "batch": Control("Batch", "count", most=1024),
    "in": Control("Prompt tokens", "count", most=131072),
    "out": Control("Output tokens", "count", most=16384),
    "tech": Control("Techniques", "several", _techniques, "none"),
    "wdtype": Control("Weights in", "choice", lambda: _listed(*DTYPES), "the model's own format"),
    "kvdtype": Control("KV cache in", "choice", lambda: _listed(*DTYPES), "the model's own format"),
    "adtype": Control("Arithmetic in", "choice", lambda: _listed("fp8", "int8", "fp4", "int4"), "the model's own format"),
    "cap": Control("Power cap per device, W", "number", empty="none"),
    "with": Control("Devices to compare", "several", lambda: _named("hardware")),
    "variants": Control("Techniques to compare", "several", _techniques, "none"),
    "sort": Control("Sort by", "choice", _keys),
    "x": Control("Across", "choice", _keys),
    "y": Control("Up", "choice", _keys),
    "step": Control("Step", "radio", lambda: _listed("prefill", "decode")),
    "fidelity": Control(
        "Resources", "radio",
        lambda: [{"label": "event by event", "value": "event"}, {"label": "as the closed form", "value": "analytic"}],
    ),
    "prefetch": Control("Layers fetched ahead over links", "number"),
    "paper": Control("Paper", "choice", _papers),
    "data": Control(
        "Measurements", "radio",
        lambda: [{"label": "whole runs", "value": "runs"}, {"label": "kernels", "value": "kernels"}],
    ),
    "device": Control("Hardware", "choice", _devices),
    "plan": Control("Deployment", "choice", lambda: _named("deployment", "plan")),
    "rate": Control("Requests per second", "number", empty="as the plan says"),
    "tpot": Control("Time per further token at most, ms", "number", empty="as the plan says"),
    "ttft": Control("Time to first token at most, ms", "number", empty="as the plan says"),
}  # fmt: skip


def control(key: str, state: State) -> Any:
    """The control of a key with its label, showing a state's value."""
    known, value = CONTROLS[key], value_of(state, key)
    name = {"control": key, "count": "yes" if known.kind == "count" else "no"}
    label_id = f"label-{key}"
    inner = _component(known, key, name, value)
    role = "radiogroup" if known.kind == "radio" else "group"
    return html.Div(
        [html.Div(known.label, id=label_id, className="control-label"), inner],
        className=f"control control-{known.kind}", role=role, **attributes(aria_labelledby=label_id),
    )  # fmt: skip


def _component(known: Control, key: str, name: dict[str, str], value: Any) -> Any:
    if known.kind == "choice":
        return dcc.Dropdown(
            id=name, options=known.options(), value=value, clearable=bool(known.empty), placeholder=known.empty or "",
            maxHeight=340, optionHeight="auto",
        )  # fmt: skip
    if known.kind == "several":
        return dcc.Dropdown(
            id=name, options=known.options(), value=list(value), multi=True, placeholder=known.empty or "none",
            maxHeight=340, optionHeight="auto", closeOnSelect=False,
        )  # fmt: skip
    if known.kind == "radio":
        return dcc.RadioItems(id=name, options=known.options(), value=value, className="radio", inline=True)
    box = dcc.Input(
        id=name, type="number", value=value, min=0, step=known.step, debounce=0.4, placeholder=known.empty or None,
        className="number", inputMode="numeric",
    )  # fmt: skip
    if known.kind == "number":
        return box
    end = round(math.log2(known.most))
    slider = dcc.Slider(
        id={"control": key, "slider": "yes"}, min=0, max=end, step=1, value=_exponent(value, end), updatemode="drag",
        dots=False, marks=None, allow_direct_input=False, included=True,
    )  # fmt: skip
    return html.Div([slider, box], className="count")


def _exponent(value: int | None, end: int) -> int:
    return 0 if not value else min(end, max(0, round(math.log2(value))))


def text_of(value: Any) -> str:
    """What a control returned, as it would stand in an address."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)
