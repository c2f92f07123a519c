"""What a page shows, as one frozen value, and its form in the address.

`parse` never fails: what cannot be read is left at its default and named in a notice. A link carries the version of this
table of keys; one of another version is not guessed at. Names are looked up among the known ones, so that no address can
make the server read a file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dashboards import uploads
from simulator import catalog
from simulator.errors import SimulatorError, UnknownNameError
from simulator.scenario import Scenario
from simulator.views.compare import SORT_KEYS

VERSION = 1
"""Of the keys below; raised when one changes its meaning."""
LONGEST = 6000
"""Characters of an address that are read."""
MOST_NAMES = 32
FRESH_S = 2.0
NOTHING = "none"
"""How an emptied list is written where the default is not empty."""
DTYPES = ("fp32", "bf16", "fp16", "fp8", "int8", "fp4", "int4", "int3", "int2")


DEFAULT = Scenario("llama-3.1-8b", "h100-sxm5-80gb", batch=16, input_tokens=1024, output_tokens=256)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a link has to reproduce."""

    work: Scenario = DEFAULT
    pinned: Scenario | None = None
    """The baseline."""
    hardware: tuple[str, ...] = (
        "a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb", "l4", "l40s", "mi300x", "rtx-4090",
    )  # fmt: skip
    """Compared devices."""
    variants: tuple[str, ...] = ()
    """Compared techniques; each of names joined by `+`."""
    sort: str = "tpot_s"
    across: str = "usd_per_million_output_tokens"
    up: str = "tpot_s"
    step: str = "decode"
    fidelity: str = "event"
    prefetch_layers: float = 1.0
    paper: str = "duo-attention"
    measured: str = "runs"
    device: str = "all"
    plan: str = "chat-8b"
    """A shipped deployment, or an uploaded plan."""
    trace: str = ""
    """An uploaded trace in place of the plan's traffic."""
    rate: float | None = None
    tpot_ms: float | None = None
    ttft_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A key of the address: the attribute it stands for, how it is read and written."""

    attribute: str
    read: Callable[[str], Any]
    of_work: bool = False
    core: bool = False
    """Always written, so that a link does not depend on a default."""


_entries: dict[str, tuple[float, dict[str, str]]] = {}


def entries(kind: catalog.Kind) -> dict[str, str]:
    """`catalog.index`, looked up at most every two seconds: it asks for the date of every file."""
    since, found = _entries.get(kind, (-FRESH_S, {}))
    if time.monotonic() - since >= FRESH_S:
        found = catalog.index(kind)
        _entries[kind] = (time.monotonic(), found)
    return found


def _known(kind: catalog.Kind, uploaded: bool = False) -> Callable[[str], str]:
    def read(text: str) -> str:
        if uploaded and text.startswith(uploads.PREFIX):
            uploads.path_of(text)
            return text
        path = entries(kind).get(catalog.normal(text))
        if path is None:
            raise UnknownNameError(kind, text, set(entries(kind)))
        return Path(path).stem

    return read


def _technique(text: str) -> str:
    name, colon, rest = text.partition(":")
    return _known("technique")(name) + colon + rest


def _variant(text: str) -> str:
    return "+".join("none" if name == "none" else _technique(name) for name in text.split("+") if name)


def _whole(most: int, least: int = 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"must be a whole number, not '{text[:40]}'") from None
        if not (math.isfinite(value) and value == int(value) and least <= value <= most):
            raise ValueError(f"must be a whole number from {least} to {most:,}, not '{text[:40]}'")
        return int(value)

    return read


def _number(most: float, least: float = 0.0) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"must be a number, not '{text[:40]}'") from None
        if not (math.isfinite(value) and least <= value <= most):
            raise ValueError(f"must be a number from {least:g} to {most:g}, not '{text[:40]}'")
        return value

    return read


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"'{text[:40]}' is not one of {', '.join(known)}")
        return text

    return read


def _listed(read: Callable[[str], str], nothing: str = "") -> Callable[[str], tuple[str, ...]]:
    def each(text: str) -> tuple[str, ...]:
        if text == nothing:
            return ()
        names = [part.strip() for part in text.split(",") if part.strip()]
        if len(names) > MOST_NAMES:
            raise ValueError(f"has {len(names)} names, and {MOST_NAMES} are the most")
        return tuple(dict.fromkeys(read(name) for name in names))

    return each


def _pins(text: str) -> tuple[tuple[str, str], ...]:
    found = tuple((role, memory) for role, _, memory in (part.partition("=") for part in text.split(",")))
    if not all(role and memory for role, memory in found):
        raise ValueError(f"takes ROLE=MEMORY, such as kv=flash, not '{text[:40]}'")
    return found


def _upload(text: str) -> str:
    uploads.path_of(text)
    return text


FIELDS: dict[str, Field] = {
    "model": Field("model", _known("model", uploaded=True), True, True),
    "hw": Field("hardware", _known("hardware", uploaded=True), True, True),
    "batch": Field("batch", _whole(1_000_000), True, True),
    "in": Field("input_tokens", _whole(100_000_000), True, True),
    "out": Field("output_tokens", _whole(100_000_000), True, True),
    "engine": Field("engine", _known("engine"), True),
    "devices": Field("devices", _whole(4096), True),
    "tp": Field("tp", _whole(1024), True),
    "pp": Field("pp", _whole(1024), True),
    "ep": Field("ep", _whole(1024), True),
    "dp": Field("dp", _whole(4096), True),
    "wdtype": Field("weight_dtype", _one_of(*DTYPES), True),
    "kvdtype": Field("kv_dtype", _one_of(*DTYPES), True),
    "adtype": Field("activation_dtype", _one_of(*DTYPES), True),
    "tech": Field("techniques", _listed(_technique), True),
    "images": Field("images", _whole(1024, 0), True),
    "context": Field("max_context", _whole(100_000_000), True),
    "place": Field("place", _pins, True),
    "cap": Field("power_cap_w", _number(1e6, 1.0), True),
    "with": Field("hardware", _listed(_known("hardware"), NOTHING)),
    "variants": Field("variants", _listed(_variant)),
    "sort": Field("sort", _one_of(*SORT_KEYS)),
    "x": Field("across", _one_of(*SORT_KEYS)),
    "y": Field("up", _one_of(*SORT_KEYS)),
    "step": Field("step", _one_of("prefill", "decode")),
    "fidelity": Field("fidelity", _one_of("event", "analytic")),
    "prefetch": Field("prefetch_layers", _number(1024.0)),
    "paper": Field("paper", str),
    "data": Field("measured", _one_of("runs", "kernels")),
    "device": Field("device", str),
    "plan": Field("plan", _known("deployment", uploaded=True)),
    "trace": Field("trace", _upload),
    "rate": Field("rate", _number(1e7, 1e-6)),
    "tpot": Field("tpot_ms", _number(1e7, 1e-3)),
    "ttft": Field("ttft_ms", _number(1e9, 1e-3)),
}
"""Key in the address -> what it stands for. Keys of the baseline are these with `b.` before them."""


def parse(query: str | Mapping[str, str], fallback: State | None = None) -> tuple[State, tuple[str, ...]]:
    """The state that an address asks for, and what of it was left at `fallback`, in sentences.

    >>> state, notices = parse("?v=1&model=gpt2&batch=many")
    >>> state.work.model, state.work.batch, notices
    ('gpt2', 16, ("batch must be a whole number, not 'many'; shown with 16.",))
    """
    start = fallback or State()
    if isinstance(query, str):
        text = query.removeprefix("?")
        if len(text) > LONGEST:
            return start, (
                f"The link has {len(text):,} characters and {LONGEST:,} are the most; the default is shown.",
            )
        pairs: Mapping[str, str] = dict(parse_qsl(text))
    else:
        pairs = query
    version = pairs.get("v")
    if pairs and version != str(VERSION):
        named = f"of version {version[:12]}" if version else "without a version (v=)"
        return start, (f"The link is {named}, and this dashboard reads version {VERSION}; the default view is shown.",)
    notices: list[str] = []
    changes: dict[str, Any] = {}
    work, pinned = dict[str, Any](), dict[str, Any]()
    for key, text in pairs.items():
        bare = key.removeprefix("b.")
        known = FIELDS.get(bare)
        if key == "v":
            continue
        if known is None or (bare != key and not known.of_work):
            notices.append(f"The link's key '{key[:40]}' is not known here, and is left out.")
            continue
        target = pinned if bare != key else work if known.of_work else changes
        try:
            target[known.attribute] = known.read(text)
        except (ValueError, SimulatorError) as error:
            holder: Any = start.work if known.of_work else start
            shown = _text(getattr(holder, known.attribute))
            left = "The baseline is left out" if target is pinned else f"shown with {shown or 'none'}"
            if target is pinned:
                pinned["problem"] = True
            notices.append(f"{key} {_sentence(error, text)}; {left}.")
    state = replace(start, work=replace(start.work, **work), **changes)
    if pinned and not pinned.get("problem"):
        try:
            state = replace(state, pinned=Scenario(**pinned))
        except TypeError:
            notices.append("The link's baseline has no model or hardware; it is left out.")
    return state, tuple(notices)


def _sentence(error: Exception, text: str) -> str:
    if isinstance(error, UnknownNameError):
        near = f" (near: {', '.join(error.close_matches)})" if error.close_matches else ""
        return f"'{text[:60]}' is not known{near}"
    return str(error)


def query(state: State, keys: tuple[str, ...] = ()) -> str:
    """The address's query, `v` first: what differs from a default, and always the work and `keys`.

    >>> query(State(work=Scenario("gpt2", "t4", 1, 8, 8)))
    'v=1&model=gpt2&hw=t4&batch=1&in=8&out=8'
    """
    plain, pairs = State(), [("v", str(VERSION))]
    blank = Scenario("", "")
    for prefix, work in (("", state.work), ("b.", state.pinned)):
        for key, known in FIELDS.items():
            if known.of_work and work is not None:
                value = getattr(work, known.attribute)
                if known.core or value != getattr(blank, known.attribute):
                    pairs.append((prefix + key, _text(value)))
    for key, known in FIELDS.items():
        if not known.of_work:
            value = getattr(state, known.attribute)
            default = getattr(plain, known.attribute)
            if value != default or (key in keys and value is not None):
                pairs.append((key, NOTHING if default and value == () else _text(value)))
    return urlencode([pair for pair in pairs if pair[1] != ""], safe=",:=")


def changed(state: State, texts: Mapping[str, str], action: str = "") -> tuple[State, tuple[str, ...]]:
    """The state after controls say `texts` and a button was pressed; what cannot be read is said, and stays as it was.

    >>> changed(State(), {"batch": "4", "in": ""})[0].work.batch, changed(State(), {"in": ""})[1]
    (4, ('in is empty; shown with 1024.',))
    """
    pairs, notices, plain = {"v": str(VERSION)}, [], State()
    for key, text in texts.items():
        known = FIELDS[key]
        if text:
            pairs[key] = text
        elif known.core:
            notices.append(f"{key} is empty; shown with {_text(value_of(state, key))}.")
        elif known.of_work:
            state = replace(
                state, work=replace(state.work, **{known.attribute: getattr(Scenario("", ""), known.attribute)})
            )
        else:
            empty: Any = () if isinstance(getattr(plain, known.attribute), tuple) else getattr(plain, known.attribute)
            state = replace(state, **{known.attribute: empty})
    found, said = parse(pairs, fallback=state)
    if action == "pin":
        found = replace(found, pinned=found.work)
    elif action == "unpin":
        found = replace(found, pinned=None)
    return found, (*notices, *said)


def value_of(state: State, key: str) -> Any:
    """What a control of that key shows."""
    known = FIELDS[key]
    return getattr(state.work if known.of_work else state, known.attribute)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
    return f"{value:.12g}" if isinstance(value, float) else str(value)


assert {known.attribute for known in FIELDS.values() if known.of_work} == {field.name for field in fields(Scenario)}
